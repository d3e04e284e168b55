"""The robustness distribution: shares counted by hand, curves in order, figures that can be saved."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from toolkit.report.radii import radius_boxes, radius_distribution
from toolkit.report.write import save_figure

COLUMNS = ["sample", "rung", "side", "certified", "refuted"]
LINES = pd.DataFrame(
    [
        (sample, rung, side, certified, refuted)
        for sample, (dual, low, high, attack) in enumerate(
            [(0.1, 0.2, 0.25, 0.3), (0.0, 0.0, 0.0, 0.0), (0.2, 0.3, 0.3, math.inf)]
        )
        for rung, side, certified, refuted in [
            ("pgd", "upper", 0.0, attack),
            ("dual", "lower", dual, attack),
            ("exact", "exact", low, high),
        ]
    ],
    columns=COLUMNS,
)


def test_shares_are_counted_and_curves_do_not_cross() -> None:
    (panel,) = radius_distribution(LINES, "l2", "three images").axes
    curves = {line.get_label(): line.get_xydata() for line in panel.get_lines() if line.get_label()[0] != "_"}
    assert list(curves) == ["dual", "exact", "pgd"]
    shares = {
        name: [
            float(np.asarray(data)[np.searchsorted(np.asarray(data)[:, 0], eps, side="right") - 1, 1])
            for eps in (0.0, 0.15, 0.22, 0.31)
        ]
        for name, data in curves.items()
    }
    assert shares["dual"] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert shares["exact"] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1])
    assert shares["pgd"] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3])  # the third is never reached
    assert panel.get_xlabel() == "ε in ℓ2"


def test_boxes_leave_out_what_no_attack_reached() -> None:
    (panel,) = radius_boxes(LINES).axes
    assert [text.get_text() for text in panel.get_xticklabels()] == ["dual", "exact", "pgd (1 none)"]


def test_both_figures_are_written(tmp_path: Path) -> None:
    for draw in (radius_distribution, radius_boxes):
        (path,) = save_figure(draw(LINES), tmp_path / draw.__name__)
        assert path.stat().st_size > 10_000


def test_lines_without_radii_are_refused() -> None:
    with pytest.raises(ValueError, match=r"need lines with sample, rung.*; they lack side$"):
        radius_distribution(LINES.drop(columns="side"))
    with pytest.raises(ValueError, match="got none"):
        radius_boxes(LINES.iloc[:0])
