"""What notebooks show: nested HTML with every text escaped, bars where the numbers are, frames that stay frames."""

from __future__ import annotations

import pickle
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from toolkit import Dense, LinfBall, Network, certify, layer_bounds
from toolkit.data.notebook import CHIPS, html_table, interval_bar, shown_as
from toolkit.data.summaries import number, span
from toolkit.runs.rows_html import rows_html

HOSTILE = '<script>alert("1")</script>\x1b[31m'


class Tags(HTMLParser):
    """Tags in order; refuses those that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(frame: pd.DataFrame) -> str:
    return f"{len(frame)} rows"


def test_texts_are_escaped() -> None:
    page = Tags(html_table([HOSTILE, "x"], [(HOSTILE, 1.5)], caption=HOSTILE))
    assert not [tag for tag, _ in page.found if tag == "script"]
    assert "\x1b" not in page.text
    assert page.text.count('<script>alert("1")</script>') == 3


def test_bars_lie_where_the_interval_does() -> None:
    [_, (_, bar), (_, zero)] = Tags(interval_bar(-1.0, 3.0, (-2.0, 8.0), "#000000", "told")).found
    assert float(bar["x"] or "") == pytest.approx(20.0)
    assert float(bar["width"] or "") == pytest.approx(80.0)
    assert zero["x1"] == zero["x2"] == "40.0"


def test_a_frame_is_read_by_its_function_and_what_follows_from_it_is_plain() -> None:
    frame = shown_as(pd.DataFrame({"a": [1, 2]}), shown)
    assert frame._repr_html_() == "2 rows"  # type: ignore[operator]
    assert type(frame) is pd.DataFrame
    pd.testing.assert_frame_equal(pd.DataFrame({"a": [1, 2]}), frame)
    again = pickle.loads(pickle.dumps(frame))
    for other in (again, frame[frame["a"] > 0], frame.copy(), frame.assign(b=1), pd.concat([frame, frame])):
        assert "<table" in other._repr_html_()


def test_a_frame_whose_columns_went_is_shown_as_any_other() -> None:
    rows = shown_as(pd.DataFrame({"a": [HOSTILE]}), rows_html)
    assert "<script>" not in rows._repr_html_()
    assert "<td>" in rows._repr_html_()


def test_a_certification_shows_every_margin() -> None:
    rng = np.random.default_rng(3)
    network = Network([Dense(rng.normal(size=(5, 4))), Dense(rng.normal(size=(3, 5)))], name=HOSTILE)
    center = rng.uniform(size=4)
    label = int(network.predict(center))
    for eps in (0.01, 2.0):
        answer = certify(network, LinfBall(center, eps), label)
        page = Tags(answer._repr_html_())
        assert len([tag for tag, _ in page.found if tag == "svg"]) == len(answer.margins)
        assert str(answer.verdict) in page.text
        assert answer.reason in page.text
    bounds = Tags(layer_bounds(network, LinfBall(center, 0.1))._repr_html_())
    assert len([tag for tag, _ in bounds.found if tag == "tr"]) == 2


def test_a_margin_below_the_tolerance_has_no_bar_of_certified_ones() -> None:
    rng = np.random.default_rng(3)
    network, center = Network([Dense(rng.normal(size=(3, 4)))]), rng.uniform(size=4)
    answer = certify(network, LinfBall(center, 1e-4), int(network.predict(center)))
    bar = f'fill="{CHIPS["YES"]}"'
    assert answer._repr_html_().count(bar) == 2
    assert bar not in replace(answer, tolerance=1e6)._repr_html_()


def test_spans_cover_all_kinds_of_arrays() -> None:
    assert span(np.array([0.5, -1.0]), np.array([3.0])) == "−1 … 3"
    assert span(np.zeros(0)) == "no numbers"
    assert span(np.ones((2, 2))) == "1"
    assert number(-np.inf) == "−∞"
    assert number(-0.0) == "0"
