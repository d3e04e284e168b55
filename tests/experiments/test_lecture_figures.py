"""The lecture figures show what was computed: polytopes that contain each other, bounds in order, real verdicts."""

from __future__ import annotations

import importlib
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network
from matplotlib.image import imread

from toolkit.problems.input_sets import LinfBall
from toolkit.runs.provenance import read_provenance

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "lecture-figures"
NAMES = ("relu_hull", "adversarial_polytope", "margins", "adversarial_example", "margin_against_eps")


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "experiments"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    return load("lecture_figures")


@pytest.fixture(scope="module")
def polytope() -> ModuleType:
    return load("lecture_polytope")


@pytest.fixture(scope="module")
def cases(polytope: ModuleType) -> list[Any]:
    return [polytope.measure(eps) for eps in polytope.RADII]


@pytest.fixture(scope="module")
def drawn(figures: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The quick figures, written by the command."""
    out = tmp_path_factory.mktemp("lecture")
    quick = ["relu_hull", "margins", "adversarial_example"]
    return out, figures.main(["--only", *quick, "--out", str(out)])


def area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def test_pieces_are_the_ball_and_the_network_is_affine_on_each(polytope: ModuleType, rng: np.random.Generator) -> None:
    net = random_dense_network(rng, (2, 5, 5, 2))
    ball = LinfBall([0.2, -0.1], 0.8)
    pieces = polytope.image_pieces(net, ball)
    assert len(pieces) > 3
    assert sum(area(piece) for piece in pieces) == pytest.approx(1.6**2, rel=1e-9)
    for piece in pieces:
        shares = rng.dirichlet(np.ones(len(piece)), 20)
        np.testing.assert_allclose(net.forward(shares @ piece), shares @ net.forward(piece), atol=1e-9)


def test_pieces_need_two_inputs(polytope: ModuleType, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="2 inputs, got 3"):
        polytope.image_pieces(random_dense_network(rng, (3, 4, 2)), LinfBall(np.zeros(3), 0.1))


def test_outer_polygon_of_known_half_planes(polytope: ModuleType) -> None:
    directions = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, -1.0]])
    polygon = polytope.outer_polygon(directions, np.array([0.0, -2.0, 0.0, -2.0, -3.0]))  # a square less a corner
    assert area(polygon) == pytest.approx(4 - 0.5)
    assert {tuple(np.round(corner, 9)) for corner in polygon} == {(0, 0), (2, 0), (2, 1), (1, 2), (0, 2)}


def test_image_lies_in_the_lp_polytope_and_that_in_the_dual_s(polytope: ModuleType, cases: list[Any]) -> None:
    for case in cases:
        corners = np.vstack(case.pieces)
        assert (corners @ case.directions.T >= case.lp - 1e-7).all()
        assert (case.lp >= case.dual - 1e-7).all()
        inner, outer = (polytope.outer_polygon(case.directions, side) for side in (case.lp, case.dual))
        assert area(inner) < area(outer)
        assert sum(area(piece) for piece in case.pieces) < area(inner)


def test_verdicts_are_those_of_the_picture(cases: list[Any]) -> None:
    assert [str(case.answer.verdict) for case in cases] == ["YES", "MAYBE", "NO"]
    for case in cases:
        margins = np.vstack(case.pieces) @ (np.array([1.0, -1.0]) * (1 if case.label == 0 else -1))
        assert margins.min() == pytest.approx(case.margins["exact"], abs=1e-4)  # cut exactly here, by MILP there
        assert case.margins["dual"] <= case.margins["lp"] <= case.margins["exact"] <= case.margins["lp_minimiser"]
    yes, maybe, no = (case.margins for case in cases)
    assert yes["dual"] < 0 < yes["lp"]
    assert maybe["lp"] < 0 < maybe["exact"]
    assert no["lp_minimiser"] < 0


def test_triangles_shrink_around_what_the_neuron_does(figures: ModuleType, drawn: tuple[Path, dict[str, Any]]) -> None:
    boxes = [(entry["l"], entry["u"]) for entry in drawn[1]["relu_hull"]["bounds"]]
    for outer, inner in pairwise(boxes):
        assert outer[0] < inner[0] < 0 < inner[1] < outer[1]
    problem = figures.DIGIT.problem()
    layer, neuron = figures.NEURON
    seen = problem.network.preactivations(problem.input_set.corners(500))[layer][:, neuron]
    assert boxes[-1][0] <= seen.min() < seen.max() <= boxes[-1][1]


def test_margins_are_in_order(drawn: tuple[Path, dict[str, Any]]) -> None:
    values = drawn[1]["margins"]["margins"]
    order = ["interval", "dual", "lp", "ideal", "exact", "pgd", "clean"]
    assert [values[name] for name in order] == sorted(values.values())
    assert values["lp"] < 0 < values["ideal"]  # what the figure is there to show


def test_the_lp_minimiser_fools_the_network(drawn: tuple[Path, dict[str, Any]]) -> None:
    margin = drawn[1]["adversarial_example"]["margin"]
    assert margin["lp"] <= margin["replayed"] < 0 < margin["clean"]


def test_a_certificate_gives_up_where_its_bound_crosses_zero(figures: ModuleType) -> None:
    _, values = figures.margin_against_eps(points=6, curves=("interval", "dual", "lp"))
    found = values["gives_up"]
    assert found["interval"] < found["dual"] <= found["lp"]
    step = figures.LAST_EPS / 5 / 2**figures.BISECTIONS
    for name, eps in found.items():
        assert figures._bound(name, eps) > 0 >= figures._bound(name, eps + step)
    with pytest.raises(ValueError, match="raise LAST_EPS"):
        figures._crossing("lp", np.array([0.0, 0.01]), np.array([2.0, 1.0]))


def test_committed_figures_are_complete_and_half_a_page_wide(drawn: tuple[Path, dict[str, Any]]) -> None:
    (run,) = read_provenance(RESULTS)
    assert sorted(run["details"]["figures"]) == sorted(NAMES)
    for name in NAMES:
        assert imread(RESULTS / f"{name}.png").shape[1] <= 3.75 * 300
        assert (RESULTS / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
    then = run["details"]["figures"]["margins"]["values"]["margins"]
    assert drawn[1]["margins"]["margins"] == pytest.approx(then, rel=1e-2)
    assert {path.name for path in drawn[0].iterdir()} >= {"margins.png", "margins.svg", "provenance.json"}
