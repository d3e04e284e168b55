"""The relaxation of a ReLU: its numbers at every scale, and the one walk against plain linear algebra on any graph."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from graphs import exact_values, graph_model, interval_bounds, random_graph, values
from hypothesis import given
from hypothesis import strategies as st
from rational import exact_certificate, sequential_certificate

from toolkit.certificates.dual_bound import CHORD, certified_bounds, linear_forms, value_and_error
from toolkit.networks.layers import Dense
from toolkit.networks.stages import ColumnStage, Stage, hidden_stages
from toolkit.problems.input_set import over_box
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.phases import is_active, is_inactive, is_unstable
from toolkit.relaxations.relu import DualStep, Substitution, adaptive_slope, chord, corners, evaluate, walk
from toolkit.rungs.dual import dual_ranges, dual_values

seeds = st.integers(0, 10**6)
EXTREMES = [0.0, 5e-324, 1e-310, 1e-160, 1.0, 3.0, 1e160, 1e308, 1.79e308]


class Diagonal:
    """λ = ν·d, whatever a neuron's bounds."""

    shrinks = False

    def __init__(self, slopes: list) -> None:
        self.slopes = slopes

    def relu(self, k: int, nu: np.ndarray) -> np.ndarray:
        return nu * self.slopes[k]


def affine_map(stages: tuple[Stage, ...], slopes: list, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """J and F(0) of the network in which every ReLU is y = d·x̂, column by column."""
    points = np.vstack([np.zeros(inputs), np.eye(inputs)])
    outputs = evaluate(stages, points, lambda k, x_hat: x_hat * slopes[k])[-1]
    return (outputs[1:] - outputs[0]).T, outputs[0]


@pytest.mark.parametrize("low", [-value for value in EXTREMES])
@pytest.mark.parametrize("high", EXTREMES)
def test_chord_at_every_scale(low: float, high: float) -> None:
    """u/(u − l) of exact arithmetic within a few roundings; where halves underflow, at least within [0, 1]."""
    (slope,) = chord(np.array([low]), np.array([high]))
    assert 0.0 <= slope <= 1.0
    if low < 0 < high:
        exact = Fraction(high) / (Fraction(high) - Fraction(low))
        if min(-low, high) >= 1e-300:
            assert abs(Fraction(slope) - exact) <= exact * Fraction(2) ** -50 + Fraction(2) ** -1070
    else:
        assert slope == (1.0 if low >= 0 else 0.0)


@pytest.mark.parametrize("low", [-2.0, -0.0, 0.0, 1.0])
def test_a_neuron_that_does_not_move_has_a_phase_and_a_slope(low: float) -> None:
    ends = np.array([low])
    assert not is_unstable(ends, ends)[0]
    assert is_active(ends)[0] != is_inactive(ends, ends)[0]
    assert chord(ends, ends)[0] == (1.0 if low >= 0 else 0.0)


@given(ends=st.tuples(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300)))
def test_every_neuron_has_one_phase(ends: tuple[float, float]) -> None:
    low, high = np.array([min(ends)]), np.array([max(ends)])
    assert int(is_unstable(low, high)[0]) + int(is_active(low)[0]) + int(is_inactive(low, high)[0]) == 1


@given(seed=seeds)
def test_corners_are_the_least_on_the_triangle(seed: int) -> None:
    """ν·y − λ·x̂ at points between (l,0), (0,0) and (u,u) is never below the corners, which are attained."""
    rng = np.random.default_rng(seed)
    low, high, nu, taken = -rng.uniform(0.1, 2), rng.uniform(0.1, 2), rng.normal(), rng.normal()
    active, inactive = corners(*(np.array(v) for v in (nu, taken, low, high)))
    weights = rng.dirichlet(np.ones(3), 50)
    x_hat, y = weights @ [low, 0.0, high], weights @ [0.0, 0.0, high]
    assert np.all(nu * y - taken * x_hat >= min(active, inactive) - 1e-12)
    assert min(active, inactive) == pytest.approx(min(0.0, (nu - taken) * high, -taken * low))
    assert adaptive_slope(np.array([low]), np.array([high]))[0] == float(high >= -low)


@given(seed=seeds, depth=st.integers(0, 5))
def test_walk_is_linear_algebra_on_any_graph(seed: int, depth: int) -> None:
    """With y = d·x̂ the network is affine, and the walk carries rows to its matrix and constant."""
    rng = np.random.default_rng(seed)
    stages = random_graph(rng, depth)
    slopes = [rng.uniform(0, 1, stage.output_size) for stage in stages]
    rows, value = rng.normal(size=(4, 2)), rng.normal(size=4)
    matrix, constant = affine_map(stages, slopes, 3)
    nu, found = walk(stages, {len(stages): rows}, Diagonal(slopes), value)
    np.testing.assert_allclose(nu, rows @ matrix, atol=1e-9, rtol=1e-9)
    np.testing.assert_allclose(found, value + rows @ constant, atol=1e-9, rtol=1e-9)


@given(seed=seeds, depth=st.integers(0, 4))
def test_columns_are_rows_laid_out_otherwise(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    stages = random_graph(rng, depth)
    columns = [
        ColumnStage(
            tuple((j, layer.to_sparse(), layer.to_sparse().T.tocsr()) for j, layer in stage.sources),
            stage.bias[:, None],
            stage.relu,
        )
        for stage in stages
    ]
    slopes = [rng.uniform(0, 1, stage.output_size) for stage in stages]
    rows, points = rng.normal(size=(4, 2)), rng.normal(size=(5, 3))
    nu, value = walk(stages, {len(stages): rows}, Diagonal(slopes), 0.0)
    tall, own = walk(columns, {len(columns): rows.T}, Diagonal([d[:, None] for d in slopes]), 0.0)
    np.testing.assert_allclose(tall.T, nu, atol=1e-10)
    np.testing.assert_allclose(own, value, atol=1e-10)
    gradient, nothing = walk(
        [stage.homogeneous() for stage in columns], {len(columns): rows.T}, Diagonal([d[:, None] for d in slopes])
    )
    np.testing.assert_array_equal(gradient, tall)
    assert nothing == 0.0
    across = evaluate(stages, points, lambda _, x_hat: np.maximum(x_hat, 0.0))[-1]
    down = evaluate(columns, points.T, lambda _, x_hat: np.maximum(x_hat, 0.0))[-1]
    np.testing.assert_allclose(down.T, across, atol=1e-10)


@given(seed=seeds, depth=st.integers(0, 4))
def test_dual_ranges_hold_on_any_graph(seed: int, depth: int) -> None:
    """Both sides at α = s and the lower one at any α, at points of the ball, for functionals of several places."""
    rng = np.random.default_rng(seed)
    stages = random_graph(rng, depth)
    ball = LinfBall(rng.normal(size=3), float(rng.uniform(0.0, 1.0)))
    bounds = interval_bounds(stages, ball)
    own = (*bounds[0], np.zeros(2)), (*bounds[1], np.zeros(2))
    rows, start = rng.normal(size=(4, 2)), {len(stages): rng.normal(size=(4, 2)), 0: rng.normal(size=(4, 3))}
    start[len(stages)] = rows
    points = np.vstack([ball.sample(200, seed), ball.corners()])
    truth = values(stages, points)[-1] @ rows.T + points @ start[0].T
    middle, half_width = dual_ranges(stages, start, np.zeros(4), own, ball.linear_range)
    assert np.all(truth.min(axis=0) >= middle - half_width - 1e-9)
    assert np.all(truth.max(axis=0) <= middle + half_width + 1e-9)
    slopes = [rng.uniform(0, 1, (4, stage.output_size)) for stage in stages]
    assert np.all(truth.min(axis=0) >= dual_values(stages, start, np.zeros(4), own, ball.linear_range, slopes) - 1e-9)


def test_dual_of_a_residual_block_by_hand() -> None:
    """F = y₂, x̂₁ = x, x̂₂ = y₁ − 2x, x ∈ [−1, 1]: ν₂ = 1, s₂ from l₂ = −2, u₂ = 3 … as written out below."""
    stages = (
        Stage(((0, Dense([[1.0]])),)),
        Stage(((1, Dense([[1.0]])), (0, Dense([[-2.0]])))),
        Stage(((2, Dense([[1.0]])),), relu=False),
    )
    lower, upper = [np.array([-1.0]), np.array([-2.0]), np.zeros(1)], [np.array([1.0]), np.array([3.0]), np.zeros(1)]
    first, second = 1 / 2, 3 / 5
    box = over_box(np.array([-1.0]), np.array([1.0]))
    down = dual_values(stages, {3: np.array([[-1.0]])}, np.zeros(1), (lower, upper), box)
    # ν₂ = −1: λ₂ = −s₂, value −s₂·2; ν₁ = −s₂: λ₁ = −s₂s₁, value −s₂·s₁·1; at the input −s₂s₁ + 2s₂, over [−1, 1]
    by_hand = -second * 2 - second * first * 1 - abs(-second * first + 2 * second)
    assert down[0] == pytest.approx(by_hand)
    up = dual_values(
        stages, {3: np.array([[1.0]])}, np.zeros(1), (lower, upper), box, [np.array([0.25]), np.array([0.5])]
    )
    assert up[0] == pytest.approx(-abs(0.5 * 0.25 - 2 * 0.5))  # λ₂ = ½, λ₁ = ⅛, no value at a ReLU


@given(seed=seeds, depth=st.integers(0, 4))
def test_substitution_keeps_unstable_neurons(seed: int, depth: int) -> None:
    """ν·y over (x̃, y of unstable neurons), inactive ones left out, equals the network at its points."""
    rng = np.random.default_rng(seed)
    stages = random_graph(rng, depth)
    ball = LinfBall(rng.normal(size=3), 0.3)
    model = graph_model(stages, ball)
    rows, points = rng.normal(size=(4, 2)), ball.sample(20, seed)
    step = Substitution(model.unstable)
    nu, constant = walk(model.stages, {len(model.stages): rows}, step, np.zeros(4))
    total = points @ nu.T + constant
    hats = values(model.stages, points)
    for k, coefficients in step.coefficients.items():
        total = total + np.maximum(hats[k][:, model.unstable[k]], 0.0) @ coefficients.T
    np.testing.assert_allclose(total, values(stages, points)[-1] @ rows.T, atol=1e-8)


def scaled(stage: Stage, factor: float) -> Stage:
    """The stage with all its weights times a factor, as dense maps."""
    maps = ((j, Dense(layer.to_sparse().toarray() * factor, layer.bias_vector)) for j, layer in stage.sources)
    return Stage(tuple(maps), stage.relu)


@given(seed=seeds, depth=st.integers(1, 3), scales=st.tuples(*(st.integers(-9, 9) for _ in range(4))))
def test_certificates_on_graphs_hold_in_rational_arithmetic(seed: int, depth: int, scales: tuple[int, ...]) -> None:
    """Any multipliers: below the exact right-hand side, which is below the graph's exact values; errors cover it."""
    rng = np.random.default_rng(seed)
    stages = tuple(scaled(one, 10.0**k) for one, k in zip(random_graph(rng, depth), scales[: depth + 1], strict=True))
    ball = LinfBall(rng.normal(size=3), float(rng.choice([0.0, 1e-9, 0.3])))
    model = graph_model(stages, ball)
    multipliers = rng.normal(size=model.count) * 10.0 ** float(rng.uniform(-6, 6))
    row = np.array([1.0, -1.0])
    value, error = value_and_error(model, row[None], multipliers[None])
    exact = exact_certificate(model, row, multipliers)
    for own in (float(value[0]), sequential_certificate(model, row, multipliers)):
        assert abs(Fraction(own) - exact) <= Fraction(float(error[0]))
    dual = np.full((1, model.count), CHORD)
    found = [certified_bounds(model, row[None], given)[0] for given in (multipliers[None], dual)]
    for point in ball.sample(3, seed):
        outputs = exact_values(stages, point)[-1]
        assert max(map(Fraction, found)) <= outputs[0] - outputs[1]


def test_sums_of_several_sources_are_charged() -> None:
    """ν of the input is 2⁵³ − ½ − … − 2⁵³ over hundreds of stages that read it: every half is lost, and charged."""
    count = 400
    weights = [2.0**53, *np.full(count, -0.5), -(2.0**53)]
    hidden = [Stage(((0, Dense([[weight]])),), relu=False) for weight in weights]
    last = Stage(tuple((k + 1, Dense([[1.0]])) for k in range(len(weights))), relu=False)
    model = graph_model((*hidden, last), LinfBall([1.0], 0.0))
    value, error = value_and_error(model, np.ones((1, 1)), np.zeros((1, 0)))
    exact = exact_certificate(model, [1.0], [])
    assert exact == -Fraction(count, 2)
    assert Fraction(float(error[0])) >= abs(Fraction(float(value[0])) - exact) >= count / 4


@given(seed=seeds, depth=st.integers(1, 3), made=st.sampled_from([0.0, 1e-3]))
def test_linear_forms_of_graphs_are_within_their_error(seed: int, depth: int, made: float) -> None:
    rng = np.random.default_rng(seed)
    stages = tuple(
        Stage(tuple((j, layer.with_error(np.full(layer.input_size, made), made)) for j, layer in one.sources), one.relu)
        for one in random_graph(rng, depth)
    )
    ball = LinfBall(rng.normal(size=3), 0.4)
    model = graph_model(stages, ball)
    weight, bias, slack = linear_forms(model, np.arange(model.count))
    assert np.all(slack >= made)
    hats = exact_values(model.stages, ball.sample(1, seed)[0])
    own = [hats[k][int(i)] for k, index in enumerate(model.unstable) for i in index]
    variables = [Fraction(float(v)) for v in ball.sample(1, seed)[0]] + [max(h, Fraction(0)) for h in own]
    for i, hat in enumerate(own):
        form = sum(
            (Fraction(float(w)) * v for w, v in zip(weight[i], variables, strict=True)), Fraction(float(bias[i]))
        )
        assert abs(form - hat) <= Fraction(float(slack[i]))


@given(seed=seeds)
def test_torch_and_batch_axes_give_the_same(seed: int) -> None:
    """Rows of two images at once in torch, and one by one in numpy: same ranges and same value at given slopes."""
    torch = pytest.importorskip("torch", reason="training needs torch: pip install relugap[train]")
    rng = np.random.default_rng(seed)
    sizes = (4, 5, 3)
    layers = [Dense(rng.normal(size=(m, n)), rng.normal(size=m)) for n, m in pairwise(sizes)]
    torch_layers = [Dense(torch.tensor(layer.weight.copy()), torch.tensor(layer.bias.copy())) for layer in layers]
    lower = [-rng.uniform(-1, 2, (2, n)) for n in sizes[1:]]
    upper = [low + rng.uniform(0, 3, low.shape) for low in lower]
    rows, value = rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6))
    slopes = [rng.uniform(0, 1, (2, 6, n)) for n in sizes[1:]]
    ball = rng.normal(size=(2, 4)) - 0.5, rng.normal(size=(2, 4)) + 3.0
    tensors = [[torch.tensor(one) for one in side] for side in (lower, upper, ball, slopes)]
    stages = hidden_stages(torch_layers)
    for given_slopes in (None, 3):
        own = None if given_slopes is None else tensors[given_slopes]
        start, reach = {2: torch.tensor(rows)}, over_box(*tensors[2])
        found = dual_ranges(stages, start, torch.tensor(value), tensors[:2], reach, own)
        for i in range(2):
            ends = [low[i] for low in lower], [high[i] for high in upper]
            part = None if given_slopes is None else [one[i] for one in slopes]
            reach = over_box(ball[0][i], ball[1][i])
            alone = dual_ranges(hidden_stages(layers), {2: rows[i]}, value[i], ends, reach, part)
            for batch, single in zip(found, alone, strict=True):
                np.testing.assert_allclose(batch[i].numpy(), single, atol=1e-10)


def test_chord_has_finite_gradients_and_keeps_its_type() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch: pip install relugap[train]")
    for kind in (torch.float32, torch.float64):
        lower = torch.tensor([-1.0, 0.0, -2.0, -3.0, 1.0], dtype=kind, requires_grad=True)
        upper = torch.tensor([2.0, 0.0, -1.0, 0.0, 5.0], dtype=kind, requires_grad=True)
        slope = chord(lower, upper)
        assert slope.dtype == kind
        torch.testing.assert_close(slope, torch.tensor([2 / 3, 1.0, 0.0, 0.0, 1.0], dtype=kind))
        gradients = torch.autograd.grad(slope.sum(), (lower, upper))
        assert all(bool(torch.isfinite(one).all()) for one in gradients)
    assert chord(np.float32([-1.0]), np.float32([1.0])).dtype == np.float32


def test_a_step_sees_each_relu_once_and_linear_stages_never() -> None:
    """Two stages read place 1: its ν arrives summed up, once."""
    stages = (
        Stage(((0, Dense([[1.0]])),)),
        Stage(((1, Dense([[2.0]])),), relu=False),
        Stage(((2, Dense([[1.0]])), (1, Dense([[3.0]])))),
    )
    seen: list[tuple[int, float]] = []

    class Note(DualStep):
        def relu(self, k: int, nu: np.ndarray) -> np.ndarray:
            seen.append((k, float(nu[0, 0])))
            return nu

    nu, _ = walk(stages, {3: np.ones((1, 1))}, Note([], []), np.zeros(1))
    assert seen == [(2, 1.0), (0, 5.0)]
    assert nu[0, 0] == 5.0
