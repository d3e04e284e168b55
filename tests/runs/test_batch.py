"""Verdicts over a data set: the same as one by one, on one or two processes, from Python and the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from toolkit.cli.app import app
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.runs import batch as certify_batch
from toolkit.runs.batch import BatchPlan, batch_totals, certify_samples
from toolkit.verify.ladder import certify

PLAN = BatchPlan(eps=0.06, settings=Settings(solver="highs"))


@pytest.fixture(scope="module")
def digits() -> tuple[Network, object]:
    return Network.load("zoo:digits-standard"), load_dataset("digits")


def test_a_batch_is_its_samples_one_by_one(digits: tuple) -> None:
    network, data = digits
    seen: list[dict[str, object]] = []
    rows = certify_samples(network, data, range(12), PLAN, progress=seen.append)
    assert list(rows["sample"]) == list(range(12)) == [row["sample"] for row in seen]
    assert set(rows["verdict"]) >= {"YES", "NO"}
    for row in rows.itertuples():
        ball = LinfBall(data.features[row.sample], 0.06, (0, 1))
        alone = certify(network, ball, int(data.labels[row.sample]), settings=PLAN.settings)
        assert alone.verdict.value == row.verdict
        assert (row.lower > 0) == (row.verdict == "YES")
        assert (row.upper <= 0) == (row.verdict == "NO")
    total = batch_totals(rows)
    assert sum(total.verdicts.values()) == sum(total.settled_by.values()) == 12
    assert total.slowest <= total.seconds


def test_two_processes_agree_with_one(digits: tuple) -> None:
    network, data = digits
    one = certify_samples(network, data, range(6), PLAN)
    two = certify_samples(network, data, range(6), PLAN, workers=2)
    pd.testing.assert_frame_equal(
        one[["sample", "label", "verdict", "rung"]], two[["sample", "label", "verdict", "rung"]]
    )


def test_a_failing_sample_does_not_lose_the_others(digits: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = digits
    real = certify_batch.certify

    def fail_on_label(network, ball, label, *rest):  # type: ignore[no-untyped-def]
        if label == int(data.labels[2]):
            raise FloatingPointError("no")
        return real(network, ball, label, *rest)

    monkeypatch.setattr(certify_batch, "certify", fail_on_label)
    rows = certify_samples(network, data, range(5), PLAN)
    assert len(rows) == 5
    assert rows.loc[2, "verdict"] == "MAYBE"
    assert rows.loc[2, "message"] == "FloatingPointError: no"
    assert (rows.loc[data.labels[:5] != data.labels[2], "message"] == "").all()


def test_bad_batches_are_refused_before_any_work(digits: tuple) -> None:
    network, data = digits
    with pytest.raises(ValueError, match="unknown rung 'foo'"):
        certify_samples(network, data, range(2), BatchPlan(0.1, ladder=("dual", "foo")))
    with pytest.raises(ValueError, match="sample must be in 0 …"):
        certify_samples(network, data, [len(data)], PLAN)
    with pytest.raises(ValueError, match=r"mnist5k has images of shape \(1, 28, 28\), the network takes \(1, 8, 8\)"):
        certify_samples(network, load_dataset("mnist5k"), [0], PLAN)


def test_command_line(tmp_path: Path) -> None:
    arguments = ["certify", "zoo:digits-standard", "--data", "digits", "--count", "5", "--eps", "0.03"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "rows.csv")], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert len(rows) == 5
    for verdict in ("YES", "NO", "MAYBE"):
        assert f"{verdict} {(rows['verdict'] == verdict).sum()}" in result.output


def test_a_core_is_not_part_of_an_answers_key() -> None:
    plan = BatchPlan(0.1, (0.0, 1.0), ("dual",), ("dual",), ())
    assert "device" not in plan.record["settings"]
    assert plan.record["settings"]["seed"] == 0
    moved = replace(plan, settings=Settings(device="cuda"))
    assert moved.record["settings"]["device"] == "cuda"
