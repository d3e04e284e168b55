"""The distances of many samples: kept one by one, gone on with, and the same as one at a time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import random_dense_network

from toolkit.data.datasets import Dataset
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.runs import distances
from toolkit.runs.distances import DistancePlan, distance_table, measure_distances
from toolkit.runs.tables.answers import UnansweredError
from toolkit.verify.radius import closest

RUN = "r0001-aaaaaa"
PLAN = DistancePlan(rungs=("pgd", "dual", "lp"), tolerance=1e-2)


def case() -> tuple[Network, Dataset]:
    rng = np.random.default_rng(0)
    network = random_dense_network(rng, (4, 8, 3), "net")
    images = rng.uniform(0, 1, (6, 2, 2))
    labels = np.array(network.predict(images.reshape(6, 4)))
    labels[2] = (labels[2] + 1) % 3  # one that the network gets wrong
    return network, Dataset("toy", "test", images.reshape(6, 1, 2, 2), labels, (1, 2, 2))


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = case()
    first = measure_distances(network, data, range(2), PLAN, tmp_path, RUN)
    asked = []

    def watched(*arguments: object) -> object:
        asked.append(arguments)
        return closest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(distances, "closest", watched)
    lines = measure_distances(network, data, range(5), PLAN, tmp_path, RUN)
    assert len(asked) == 3
    pd.testing.assert_frame_equal(lines.iloc[:6], first)
    assert lines["sample"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    measure_distances(network, data, range(5), DistancePlan(rungs=("pgd",), tolerance=1e-2), tmp_path, RUN)
    assert len(asked) == 8  # another question starts afresh


def test_lines_say_what_closest_says(tmp_path: Path) -> None:
    network, data = case()
    lines = measure_distances(network, data, range(3), PLAN, tmp_path, RUN, workers=2)
    for sample in range(3):
        found = closest(
            network, data.features[sample], int(data.labels[sample]), domain=(0, 1), rungs=PLAN.rungs, tolerance=1e-2
        )
        own = lines[lines["sample"] == sample]
        assert own["certified"].tolist() == [one.certified for one in found.by_rung]
        assert own["refuted"].tolist() == [one.refuted for one in found.by_rung]
    assert (lines.loc[lines["sample"] == 2, ["certified", "refuted"]] == 0).all().all()
    table = distance_table(lines).set_index("rung")
    assert table.loc["dual", "mean"] <= table.loc["lp", "mean"] <= table.loc["pgd", "mean"]
    assert table.loc["lp", "mean"] == pytest.approx(lines.loc[lines["rung"] == "lp", "certified"].mean())


def test_one_failure_leaves_the_others_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = case()

    def failing(*arguments: object) -> object:
        if np.array_equal(np.asarray(arguments[1]), data.features[1]):
            raise RuntimeError("no luck")
        return closest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(distances, "closest", failing)
    with pytest.raises(UnansweredError, match="1 of 3 images failed, first image 1: RuntimeError: no luck"):
        measure_distances(network, data, range(3), PLAN, tmp_path, RUN)
    monkeypatch.setattr(distances, "closest", lambda *given: closest(*given))
    assert len(measure_distances(network, data, range(3), PLAN, tmp_path, RUN)) == 9


def test_no_unsafe_point_is_kept_as_none(tmp_path: Path) -> None:
    _, data = case()
    safe = Network([Dense(np.eye(4), np.zeros(4)), Dense(np.zeros((3, 4)), np.array([1.0, 0.0, 0.0]))], "safe")
    same = Dataset("toy", "test", data.images, np.zeros(6, dtype=np.int64), (1, 2, 2))
    lines = measure_distances(safe, same, range(1), PLAN, tmp_path, RUN)
    assert (lines["refuted"] == math.inf).all()
    assert math.isnan(distance_table(lines).set_index("rung").loc["pgd", "mean"])


@pytest.mark.parametrize(
    ("plan", "samples", "message"),
    [
        (DistancePlan(norm="l9"), range(1), "norm must be one of"),
        (DistancePlan(bounds=("pgd",)), range(1), "bounds must be rungs with a lower side"),
        (DistancePlan(rungs=("none",)), range(1), "unknown rung 'none'"),
        (DistancePlan(), [6], "sample must be in 0 … 5 for toy, got 6"),
    ],
)
def test_what_would_fail_for_all_fails_at_once(
    tmp_path: Path, plan: DistancePlan, samples: list[int], message: str
) -> None:
    network, data = case()
    with pytest.raises(ValueError, match=message):
        measure_distances(network, data, samples, plan, tmp_path, RUN)
