"""The experiments on growth and verdicts: their mathematics on made-up data, and both at smoke size."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _experiments_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))


def test_fits_recover_known_exponents(rng):
    from scaling_tables import fit_exponential, fit_power

    k = np.arange(2, 80)
    noise = 10 ** rng.normal(0, 0.05, k.size)
    power, exponential = fit_power(k, 3e-4 * k**1.7 * noise), fit_exponential(k, 10 ** (-2 + 0.06 * k) * noise)
    assert power.slope == pytest.approx(1.7, abs=4 * power.slope_error)
    assert power.slope_error < 0.03
    assert 10**power.intercept == pytest.approx(3e-4, rel=0.2)
    assert exponential.slope == pytest.approx(0.06, abs=4 * exponential.slope_error)
    assert exponential.intercept == pytest.approx(-2, abs=0.1)
    assert min(power.r2, exponential.r2) > 0.98
    assert fit_power(k, 10 ** (-2 + 0.06 * k)).r2 < exponential.r2
    with pytest.raises(ValueError, match="three points"):
        fit_power([2, 2, 2], [1, 2, 3])


def test_cells_stopped_by_the_clock_stay_out_of_the_fits():
    from scaling_tables import fit_table

    k = np.array([2.0, 4.0, 8.0, 16.0, 32.0])
    cells = pd.DataFrame({"rung": "exact", "unstable": k, "seconds": k**2, "censored": False})
    cells.loc[4, ["seconds", "censored"]] = [16.0**2, True]
    (fit,) = fit_table(cells).itertuples()
    assert fit.p == pytest.approx(2)
    assert (fit.cells, fit.censored, fit.k_most, fit.better) == (4, 1, 16.0, "power")


def test_cost_of_many_images_is_bracketed():
    from scaling_costs import cost_estimate, rung_shares

    rows = pd.DataFrame(
        {
            "verdict": ["YES", "YES", "MAYBE", "NO"],
            "rung": ["dual", "exact", "", "clean"],
            "seconds": [2.0, 8.0, 20.0, 0.0],
            "cpu_seconds": [1.0, 4.0, 10.0, 0.0],
            "seconds_dual": [2.0, 1.0, 1.0, math.nan],
            "seconds_exact": [math.nan, 7.0, 19.0, math.nan],
        }
    )
    cost = cost_estimate(rows, images=720)
    assert (cost["mean"], cost["slowest"], cost["maybe"]) == (3.75, 10.0, 0.25)
    assert cost["seconds_1_least"] == cost["seconds_1_most"] == pytest.approx(2700)
    assert cost["seconds_1000_least"] == 10.0  # the slowest image is longer than a core's share
    assert cost["seconds_1000_most"] == pytest.approx(2.7 + 9.99)
    assert cost["mean_low"] < cost["mean"] < cost["mean_high"]
    shares = rung_shares(rows).set_index("stage")
    assert shares["reached"].to_dict() == {"clean": 1.0, "dual": 0.75, "exact": 0.5}
    assert shares["settled"].to_dict() == {"clean": 0.25, "dual": 0.25, "exact": 0.25}
    assert shares["seconds_mean"].sum() == pytest.approx(cost["mean"])


def test_scaling_at_smoke_size(tmp_path: Path) -> None:
    import scaling

    shutil.copytree(ROOT / "results" / "scaling" / "networks", tmp_path / "networks")
    tables = scaling.main(["--smoke", "--out", str(tmp_path)])
    cells, fits = tables["table"], tables["fits"]
    assert set(cells["rung"]) == {"interval", "lipschitz", "dual", "crown", "alpha", "lp", "ideal", "exact"}
    assert len(cells) == 3 * 2 * 8
    assert cells["seconds"].gt(0).all()
    assert cells["gap"].ge(-1e-6).all()
    assert cells["tightness"].between(0, 1).all()
    gap = cells.pivot_table(index=["network", "eps"], columns="rung", values="gap")
    assert (gap["ideal"] <= gap["lp"] + 1e-6).all()
    assert (gap["lp"] <= gap[["interval", "dual", "crown", "alpha"]].min(axis=1) + 1e-6).all()
    unstable = cells.drop_duplicates(["network", "eps"]).pivot_table(index="network", columns="eps", values="unstable")
    assert (unstable.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert fits["r2_power"].between(0, 1).all()
    assert tables["cost_rungs"].groupby("network")["settled"].sum().le(1 + 1e-9).all()
    expected = {"time_unstable.png", "gap_unstable.png", "gap_shape.png", "table.csv", "table.md", "fits.csv"}
    assert expected <= {file.name for file in tmp_path.iterdir()}
    record = (tmp_path / "provenance.json").read_text(encoding="utf-8")
    (run,) = json.loads(record)["runs"]
    assert len(run["details"]["sweeps"]) == 2
    assert run["command"] == "python experiments/scaling.py --count 1 --images 10 --smoke"
    assert str(tmp_path) not in record
