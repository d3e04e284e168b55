"""g is a lower bound at any dual variables, has the gradient it says, and is what certificates make of its λ."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from oracle import least
from pieces import SETS, feasible_duals, hidden_values, met_phases, piece_minimum, small_problem

from toolkit.certificates.dual_bound import certified_bounds
from toolkit.certificates.leaves import Forest, SharedCuts, forest_leaf_bounds
from toolkit.certificates.rounding import error_model_of
from toolkit.problems.problem import Problem
from toolkit.search.array_makers import in_float32, in_float64
from toolkit.search.dual_function import DualFunction, Parts
from toolkit.search.hull_planes import FirstLayer, NodePlanes
from toolkit.search.node_ascent import Pace, ascend

CASES = list(product(range(2), SETS, (False, True)))


def _nodes(problem: Problem, seed: int, count: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, phases and feasible dual variables of some nodes."""
    rng = np.random.default_rng(seed)
    rows, phases = rng.integers(problem.rows.shape[0], size=count), met_phases(problem, rng, count, 0.5)
    return rows, phases, feasible_duals(rng, phases)


@pytest.mark.parametrize(("seed", "kind", "graph"), CASES)
def test_no_point_of_a_part_is_below_g(seed: int, kind: str, graph: bool) -> None:
    problem = small_problem(seed, kind=kind, graph=graph)
    rows, phases, duals = _nodes(problem, seed)
    g = DualFunction(problem).parts(rows, phases).values(duals)
    points = np.vstack([problem.input_set.sample(3000, seed), problem.input_set.corners(100, seed)])
    hats, outcomes = hidden_values(problem, points), problem.replay(points)
    for row, own, value in zip(rows, phases.T, g, strict=True):
        inside = np.all((own < 0) | ((own == 1) & (hats >= 0)) | ((own == 0) & (hats <= 0)), axis=1)
        assert np.all(value <= outcomes[inside, row] + 1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_without_splits_g_is_below_the_true_minimum(seed: int) -> None:
    """In rational arithmetic, and of networks whose stages read several places too."""
    problem = small_problem(seed, (2, 3, 3, 2), graph=bool(seed % 2))
    rng = np.random.default_rng(seed)
    function = DualFunction(problem)
    truth = [float(value) for value, _ in least(problem.network, problem.input_set, problem.rows.tolist())]
    for _ in range(20):
        found = function.parts().values(rng.uniform(0, 1, (function.size, function.rows)))
        assert np.all(found <= np.array(truth) + 1e-9)


@pytest.mark.parametrize(("seed", "kind", "graph"), CASES)
def test_the_gradient_is_that_of_g(seed: int, kind: str, graph: bool) -> None:
    """Central differences of every variable: free, split active and split inactive neurons."""
    problem = small_problem(seed, kind=kind, graph=graph)
    rows, phases, duals = _nodes(problem, seed, 3)
    parts, h = DualFunction(problem).parts(rows, phases), 1e-6
    swept = parts.sweep(duals)
    np.testing.assert_allclose(swept.value, parts.values(duals), atol=1e-12)
    for i in range(len(duals)):
        ahead, behind = duals.copy(), duals.copy()
        ahead[i] += h
        behind[i] -= h
        slope = (parts.values(ahead) - parts.values(behind)) / (2 * h)
        np.testing.assert_allclose(swept.gradient[i], slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("seed", "kind", "graph"), CASES)
def test_certified_bounds_of_its_multipliers_are_g(seed: int, kind: str, graph: bool) -> None:
    """Up to rounding, which certificates take off."""
    problem = small_problem(seed, kind=kind, graph=graph)
    rows, phases, duals = _nodes(problem, seed)
    parts = DualFunction(problem).parts(rows, phases)
    g, multipliers = parts.values(duals), parts.multipliers(duals)
    proven = certified_bounds(error_model_of(problem), problem.rows[rows], multipliers.T, phases.T)
    scale = 1 + np.abs(g)
    assert np.all(proven <= g + 1e-13 * scale)
    assert np.all(proven >= g - 1e-9 * scale)


@pytest.mark.parametrize("seed", range(8))
def test_with_every_neuron_split_the_best_g_is_the_least_value_of_the_piece(seed: int) -> None:
    problem = small_problem(seed, (3, 4, 3, 2))
    rng = np.random.default_rng(seed)
    phases = met_phases(problem, rng, 4, 0.0)
    rows = rng.integers(3, size=4)
    truth = [piece_minimum(problem, problem.rows[row], own) for row, own in zip(rows, phases.T, strict=True)]
    parts = DualFunction(problem).parts(rows, phases)
    assert np.all(parts.values(feasible_duals(rng, phases)) <= np.array(truth) + 1e-7)
    found = ascend(parts, np.zeros(phases.shape), np.full(4, np.inf), Pace(800, 0.3, 1e-3))
    assert np.all(found.value <= np.array(truth) + 1e-7)
    np.testing.assert_allclose(found.value, truth, atol=0.05)


def _torch(dtype: str) -> Callable[[], object]:
    def made() -> object:
        pytest.importorskip("torch")
        from toolkit.search.array_makers import in_torch

        return in_torch("cpu", dtype)

    return made


@pytest.mark.parametrize(
    ("made", "tolerance"),
    [(lambda: in_float32, 1e-5), (_torch("float32"), 1e-5), (_torch("float64"), 1e-12)],
    ids=["numpy float32", "torch float32", "torch float64"],
)
@pytest.mark.parametrize("kind", SETS)
def test_every_library_and_type_gives_the_same_numbers(made: Callable[[], object], tolerance: float, kind: str) -> None:
    """Dense and sparse maps, several sources; with phases and without."""
    for seed, graph in product(range(3), (False, True)):
        problem = small_problem(seed, kind=kind, graph=graph)
        rows, phases, duals = _nodes(problem, seed)
        free = np.clip(duals, 0, 1)
        for own, at in ((phases, duals), (None, free)):
            swept = [
                _plain(DualFunction(problem, make).parts(rows, own), at)  # type: ignore[arg-type]
                for make in (in_float64, made())
            ]
            for name, one, other in zip(("g", "gradient", "λ"), *swept, strict=True):
                if name == "gradient" and tolerance > 1e-8:  # x̃ jumps where ν is 0 up to rounding
                    assert np.count_nonzero(np.abs(one - other) > 1e-4 * (1 + np.abs(one))) <= 0.1 * one.size
                else:
                    np.testing.assert_allclose(
                        other, one, rtol=tolerance, atol=tolerance * (1 + np.abs(one).max(initial=0.0))
                    )


def _plain(parts: Parts, duals: np.ndarray) -> tuple[np.ndarray, ...]:
    moved = parts.function.make(duals)
    swept = parts.sweep(moved)
    return tuple(np.asarray(one) for one in (swept.value, swept.gradient, parts.multipliers(moved)))


def test_kept_columns_are_the_same_nodes() -> None:
    problem = small_problem(3)
    rows, phases, duals = _nodes(problem, 3)
    parts, keep = DualFunction(problem).parts(rows, phases), np.array([5, 0, 7])
    np.testing.assert_allclose(parts.keep(keep).values(duals[:, keep]), parts.values(duals)[keep], rtol=1e-12)
    np.testing.assert_array_equal(np.isinf(parts.ceiling()), phases >= 0)


def test_starting_slopes_spread_over_alive_neurons_are_the_chords() -> None:
    function = DualFunction(small_problem(1))
    chords, steep = function.starting_slopes()
    assert np.all((chords > 0) & (chords < 1))
    assert set(np.unique(steep)) <= {0.0, 1.0}
    spread = function.spread(chords)
    np.testing.assert_array_equal(np.concatenate([one[0][one[0] != 0] for one in spread]), chords[:, 0])


@pytest.mark.parametrize(("seed", "sizes"), [*product(range(3), ((3, 7, 2), (3, 5, 4, 2)))])
def test_with_planes_g_has_its_gradient_and_is_what_certificates_prove(seed: int, sizes: tuple[int, ...]) -> None:
    """Of nodes of several trees, split and not; and no point of a part is below it."""
    problem = small_problem(seed, sizes)
    rows, phases, duals = _nodes(problem, seed)
    function, rng = DualFunction(problem), np.random.default_rng(seed)
    layer = FirstLayer.of(problem, in_float64)
    assert layer is not None
    shares = [rng.uniform(0, 1, layer.weight.shape) for _ in range(3)]
    nodes = NodePlanes([layer.plane(one) for one in shares], rows)
    h = 1e-6
    for own, at in ((phases, duals), (None, np.clip(duals, 0, 1))):
        parts = function.parts(rows, own, nodes)
        swept = parts.sweep(at)
        np.testing.assert_allclose(swept.value, parts.values(at), atol=1e-12)
        for i in range(len(at)):
            shift = np.zeros(at.shape)
            shift[i] = h
            slope = (parts.values(at + shift) - parts.values(at - shift)) / (2 * h)
            np.testing.assert_allclose(swept.gradient[i], slope, rtol=1e-4, atol=1e-5)
        multipliers, planed = parts.evidence(at)
        assert planed is not None
        every = np.full(at.shape, -1, dtype=np.int8) if own is None else own
        cuts = tuple(SharedCuts(np.arange(len(one)), one) for one in shares)
        empty = np.zeros(rows.size, dtype=np.bool_)
        forest = Forest(rows, every.T.astype(np.int8), multipliers.T, empty, -planed.T, rows, cuts)
        proven = forest_leaf_bounds(error_model_of(problem), problem.rows, forest)
        scale = 1 + np.abs(swept.value)
        assert np.all((proven <= swept.value + 1e-13 * scale) & (proven >= swept.value - 1e-9 * scale))
        points = problem.input_set.sample(2000, seed)
        hats, outcomes = hidden_values(problem, points), problem.replay(points)
        for row, phase, value in zip(rows, every.T, proven, strict=True):
            inside = np.all((phase < 0) | ((phase == 1) & (hats >= 0)) | ((phase == 0) & (hats <= 0)), axis=1)
            assert np.all(value <= outcomes[inside, row] + 1e-9)
        np.testing.assert_allclose(parts.keep(np.array([4, 1])).values(at[:, [4, 1]]), swept.value[[4, 1]], atol=1e-12)
