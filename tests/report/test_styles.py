"""A colour means one thing: palettes that share none, and figures that take every colour from them."""

from __future__ import annotations

import ast
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import is_color_like, to_rgb

from toolkit.report.styles import (
    CLASS_COLOURS,
    LOOKS,
    MOST_PANELS,
    OTHER_LOOKS,
    SOLVER_COLOURS,
    TRAINING_LOOKS,
    panel_grid,
    paper_style,
    stacked_grid,
)

ROOT = Path(__file__).parents[2]
RUNG_COLOURS = [look.color for look in (*LOOKS.values(), *OTHER_LOOKS)]
PALETTES = {
    "rungs": RUNG_COLOURS,
    "trainings": [look.color for look in TRAINING_LOOKS.values()],
    "solvers": list(SOLVER_COLOURS.values()),
    "classes": list(CLASS_COLOURS),
}
COLOUR_WORDS = ("color", "colour", "cmap")
NO_COLOUR = ("none", "auto", "")
DRAWING = [
    path
    for folder in ("toolkit", "experiments")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "matplotlib" in path.read_text(encoding="utf-8") and path.name != "styles.py"
]


def test_no_colour_stands_in_two_palettes_or_twice_in_one() -> None:
    every = [to_rgb(colour) for colours in PALETTES.values() for colour in colours]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("name", ["trainings", "solvers", "classes"])
def test_colours_of_a_palette_are_far_apart(name: str) -> None:
    for one, other in combinations(PALETTES[name], 2):
        assert np.linalg.norm(np.subtract(to_rgb(one), to_rgb(other))) > 0.2, (one, other)


def raw_colours(tree: ast.AST) -> list[str]:
    """Colours written as such: hexadecimal anywhere, names and numbers where an argument or key is called a colour."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("#"):
            found += [node.value] if is_color_like(node.value) else []
        named = [(node.arg, node.value)] if isinstance(node, ast.keyword) else []
        if isinstance(node, ast.Dict):
            named += [(key.value, value) for key, value in zip(node.keys, node.values, strict=True)
                      if isinstance(key, ast.Constant)]  # fmt: skip
        for name, value in named:
            if not any(word in str(name) for word in COLOUR_WORDS):
                continue
            texts = [one.value for one in ast.walk(value) if isinstance(one, ast.Constant)]
            found += [text for text in texts if isinstance(text, str) and text not in NO_COLOUR and is_raw(text)]
    return found


def is_raw(text: str) -> bool:
    return not text.startswith("#") and (is_color_like(text) or text in colormaps)


def test_raw_colours_are_seen() -> None:
    assert raw_colours(ast.parse("plot(x, color='black'); fill(facecolor='#123456'); f({'edgecolor': '0.5'})")) == [
        "black", "0.5", "#123456",
    ]  # fmt: skip
    assert raw_colours(ast.parse("plot(x, color=INK, markerfacecolor='none', label='# black')")) == []


@pytest.mark.parametrize("path", DRAWING, ids=lambda path: str(path.relative_to(ROOT)))
def test_figures_take_their_colours_from_the_palettes(path: Path) -> None:
    assert raw_colours(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_a_figure_of_most_panels_fits_half_a_page() -> None:
    with paper_style():
        for count in range(1, MOST_PANELS + 1):
            for figure in (panel_grid(count)[0], stacked_grid(count)[0]):
                width, height = figure.get_size_inches()
                assert width <= 7.2
                assert height <= 4.6
