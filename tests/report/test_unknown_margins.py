"""Margins of which nothing is known, or no upper side, are open: no gap, no tightness, and counted as open."""

from __future__ import annotations

import numpy as np
import pytest
from test_report import frame, row

from toolkit.report import check_order, gap_table, margin_table
from toolkit.report.tables import margin_gaps


@pytest.mark.parametrize("lower", [-np.inf, 1.0])
def test_a_margin_without_an_upper_side_is_open(lower: float) -> None:
    rows = frame(row("exact", lower, status="time_limit", clean_margin=np.nan, certified_upper=np.inf))
    (gap,) = margin_gaps(rows).to_dict("records")
    assert (gap["m_low"], gap["m_high"], gap["closed"]) == (lower, np.inf, False)
    assert np.isnan([gap["gap"], gap["gap_least"], gap["tightness"]]).all()
    (total,) = gap_table(rows).to_dict("records")
    assert (total["open"], total["failed"]) == (1, int(lower == -np.inf))
    assert np.isnan(total["gap_mean"])
    assert not margin_table(rows)["closed"].any()


def test_a_known_margin_is_closed() -> None:
    (gap,) = margin_gaps(frame(row("exact", 2.0, 2.0))).to_dict("records")
    assert (gap["closed"], gap["gap"]) == (True, 0.0)
    (gap,) = margin_gaps(frame(row("exact", -np.inf, 2.0))).to_dict("records")
    assert not gap["closed"]


@pytest.mark.parametrize("tolerance", [np.inf, np.nan, -1.0])
def test_an_order_that_anything_keeps_is_not_asked(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance must be"):
        check_order(frame(row("dual", 9.0)), tolerance)
