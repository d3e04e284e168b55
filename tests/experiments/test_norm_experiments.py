"""The experiments `norms`, `norm-distances` and `smoothing` at smoke size: their claims hold on their own tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toolkit import certify, load_dataset, make_ball
from toolkit.networks.network import Network
from toolkit.runs.tables import ErrorsEntry, load_entry
from toolkit.runs.tables.errors import run_errors

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def _experiments_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))


def test_rows_of_errors_are_about_balls_of_their_norm(tmp_path: Path) -> None:
    """Three rows of norms.toml, one per norm: the exact column is what certify says, columns are ordered."""
    entry = load_entry(EXPERIMENTS / "norms.toml")
    assert isinstance(entry, ErrorsEntry)
    assert {row.norm for row in entry.rows} == {"linf", "l2", "l1"}
    rows = tuple(row for row in entry.rows if row.name.startswith("digits standard"))
    cells, _ = run_errors(entry.model_copy(update={"rows": rows}), tmp_path, "run", 4, 1, lambda *_: None)
    network, data = Network.load("zoo:digits-standard"), load_dataset("digits")
    for row in rows:
        found = {cell.column: cell for cell in cells if cell.row == row.name}
        bounds = [found[name].error for name in ("dual", "crown", "alpha", "LP", "exact", "PGD", "clean")]
        assert bounds == sorted(bounds, reverse=True)
        balls = [make_ball(row.norm, data.features[i], row.eps, row.domain) for i in range(4)]
        verdicts = [certify(network, ball, int(data.labels[i])).verdict for i, ball in enumerate(balls)]
        assert found["exact"].error == pytest.approx(100 * np.mean([verdict != "YES" for verdict in verdicts]))
        assert found["exact"].maybe == 0


def test_least_distances_are_ordered_by_rung_and_by_norm(tmp_path: Path) -> None:
    import norm_distances

    given = ["--networks", "zoo:digits-adversarial", "--count", "1", "--out", str(tmp_path)]
    table = norm_distances.main([*given, "--time-limit", "2"])
    assert set(table["norm"]) == {"linf", "l2", "l1"}
    radii = pd.read_csv(tmp_path / "radii.csv").set_index(["norm", "sample", "rung"])
    for norm in ("linf", "l2", "l1"):
        own = {rung: radii.loc[(norm, 0, rung)] for rung in ("pgd", "dual", "alpha", "bab")}
        assert own["dual"].certified <= own["alpha"].certified <= own["pgd"].refuted
        assert own["dual"].certified <= own["bab"].certified <= own["bab"].refuted <= own["pgd"].refuted
    exact = radii.xs("bab", level="rung")  # ‖·‖∞ ≤ ‖·‖₂ ≤ ‖·‖₁, and so are the least distances
    assert exact.loc[("linf", 0)].certified <= exact.loc[("l2", 0)].refuted
    assert exact.loc[("l2", 0)].certified <= exact.loc[("l1", 0)].refuted
    for name in ("table.csv", "table.md", "digits-adversarial.png", "provenance.json"):
        assert (tmp_path / name).is_file(), name
    with pytest.raises(ValueError, match="--networks must be among zoo:digits-adversarial"):
        norm_distances.main([*given[2:], "--networks", "zoo:digits-dual"])


def test_smoothing_stands_beside_the_network_s_own_radii(tmp_path: Path) -> None:
    import smoothing

    given = ["--network", "zoo:digits-dual", "--data", "digits", "--levels", "16", "--count", "2"]
    size = ["--draws", "500", "--sigmas", "0.1", "0.25", "--time-limit", "3", "--out", str(tmp_path)]
    table = smoothing.main([*given, *size]).set_index("method")
    means = [table.loc[name, "mean"] for name in ("lipschitz", "dual", "alpha", "lp", "bab", "pgd")]
    assert means[1:] == sorted(means[1:])
    assert means[0] <= means[-1]
    lines = pd.read_csv(tmp_path / "smoothed.csv")
    assert len(lines) == 4
    assert (lines["radius"] <= 3.8 * lines["sigma"]).all()  # no more votes than n
    assert (lines["votes"] <= 500).all()
    right = lines["predicted"] == lines["label"]
    for sigma, part in lines.assign(radius=lines["radius"].where(right, 0.0)).groupby("sigma"):
        assert table.loc[f"smoothed, σ = {sigma:g}", "mean"] == pytest.approx(part["radius"].mean(), rel=1e-4)
    assert table.loc["smoothed, σ = 0.1", "classifier"] == "smoothed"
    for name in ("table.csv", "table.md", "certified.png", "radii.csv", "provenance.json"):
        assert (tmp_path / name).is_file(), name
