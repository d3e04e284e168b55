"""The experiments `toy2d` and `training` at smoke size: their claims hold on their own tables."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _experiments_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))


def test_toy_points_keep_their_boxes_apart() -> None:
    import toy2d

    points = toy2d.separated_points(10, 0.08, seed=3)
    distance = np.abs(points[:, None] - points[None]).max(-1) + np.eye(10)
    assert distance.min() > 0.16
    assert points.min() >= 0
    assert points.max() <= 1
    with pytest.raises(ValueError, match="asked 100"):
        toy2d.separated_points(100, 0.2, seed=3)


def test_toy2d_dual_training_certifies_its_boxes(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch: pip install relugap[train]")
    import toy2d

    arguments = ["--out", str(tmp_path), "--points", "4", "--hidden", "40", "40", "--epochs", "200"]
    table = toy2d.main(arguments).set_index("network")
    for name in ("boxes_certified_dual", "boxes_one_sided_on_grid"):
        assert table.loc["toy2d-dual", name] == 4
    assert (table["boxes_certified_dual"] <= table["boxes_certified_exact"]).all()
    assert (table["boxes_certified_exact"] <= table["boxes_one_sided_on_grid"]).all()
    assert (table["wrong_points"] <= table["points"] - table["boxes_one_sided_on_grid"]).all()
    assert (tmp_path / "toy2d.png").stat().st_size > 1000
    assert (tmp_path / "provenance.json").is_file()


def test_training_table_is_ordered_and_written(tmp_path: Path) -> None:
    import training

    arguments = ["--out", str(tmp_path), "--datasets", "digits", "--images", "2", "--gap-eps", "0.01", "0.02"]
    arguments += ["--curve-eps", "0.0", "0.1"]
    table = training.main(arguments)
    dense = table[table["layers"] == "64-32-32-10"]
    assert list(dense["training"]) == ["standard", "adversarial", "dual", "interval", "crown-ibp", "mtl-ibp"]
    assert {"64-64-64-64-24-10", "64-256-128-64-24-10"} < set(table["layers"])
    ordered = ["clean", "pgd", "exact_low", "exact_high", "lp", "dual"]
    for left, right in pairwise(ordered):
        assert (table[left] <= table[right] + 1e-12).all(), (left, right)
    assert (table["fgsm"] <= table["exact_low"] + 1e-12).all()
    assert (table["gap_lp_low"] >= -1e-6).all()
    assert (table["gap_lp_high"] <= table["gap_dual_high"] + 1e-6).all()
    gap = dense.set_index("training")["gap_dual_high"]
    assert 5 * gap["dual"] < gap["adversarial"]
    assert len(pd.read_csv(tmp_path / "gaps.csv")) == 2 * len(table)
    for name in ("table.csv", "table.md", "certified.png", "gap.png", "README.md", "provenance.json"):
        assert (tmp_path / name).is_file(), name
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"{100 * dense.set_index('training').loc['interval', 'dual']:.1f} % by dual" in text
    _shares_and_their_intervals_fit(table)
    answers = sorted((tmp_path / "answers").rglob("*.*"))
    again = training.main(arguments)
    assert sorted((tmp_path / "answers").rglob("*.*")) == answers  # nothing was asked a second time
    pd.testing.assert_frame_equal(again, table)


def _shares_and_their_intervals_fit(table: pd.DataFrame) -> None:
    """What a bound misses is what lies between its error and the exact one; every interval holds its share."""
    for bound in ("dual", "lp"):
        assert np.allclose(table[f"missed_{bound}_low"], table[bound] - table["exact_high"])
        assert np.allclose(table[f"missed_{bound}_high"], table[bound] - table["exact_low"])
        for name in (f"missed_{bound}", f"gap_{bound}"):
            assert (table[f"{name}_ci_low"] <= table[f"{name}_low"] + 1e-9).all()
            assert (table[f"{name}_ci_high"] >= table[f"{name}_high"] - 1e-9).all()


def test_intervals_of_the_training_tables_are_those_of_their_formulas() -> None:
    """Clopper–Pearson at the ends: 1 − 0.025^(1/n) of nothing in n; Student: two values, mean ± 12.7062·|a − b|/2."""
    from training_report import mean_interval, share_interval

    low, high = share_interval(0.0, 1.0, 20)
    assert (low, high) == (0.0, 1.0)
    assert share_interval(0.0, 0.0, 20) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))
    assert share_interval(1.0, 1.0, 20) == pytest.approx((0.025 ** (1 / 20), 1.0))
    mean, below, above = mean_interval(pd.Series([1.0, 3.0, np.nan]))
    assert (mean, mean - below) == pytest.approx((2.0, above - mean))
    assert above == pytest.approx(2.0 + 12.7062, abs=1e-3)
    assert mean_interval(pd.Series([1.5])) == (1.5, 1.5, 1.5)


def test_training_speed_measures_each_case_in_a_process_of_its_own(tmp_path: Path) -> None:
    import training_speed

    table = training_speed.main(["--networks", "784-100-100-10", "--repeats", "1", "--out", str(tmp_path)])
    assert table["method"].tolist() == ["exact", "projections"]
    assert (table["seconds_step"] > 0).all()
    assert (table["peak_mb"] > 50).all()
    exact, estimated = table["loss"]
    assert estimated == pytest.approx(exact, rel=0.2)  # a median of 11 draws, on the same weights and batch
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv", "table.md", "provenance.json"}
