"""Every error term of the kernel against rational arithmetic, on inputs made to round badly.

What is charged must cover the worst of several orders of summation, and that worst is > 0: a term that charged nothing,
or charged for the wrong size, fails here.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from rational import dot, exact_certificate, fractions, sequential_certificate, worst_error

from toolkit.certificates.dual_bound import Cuts, certified_bounds, derive_cuts, linear_forms, value_and_error
from toolkit.certificates.leaves import CutStore, Evidence, Leaves, leaf_bounds
from toolkit.certificates.rounding import ErrorModel, Ledger, float32_error, make_error_model, outward
from toolkit.networks.layers import Dense, Sparse
from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import restrict_to_alive
from toolkit.rungs import get_rung
from toolkit.verify.layer_bounds import layer_bounds

BIG = 2.0**53
CLOSED_FORMS = ("interval", "dual", "crown", "alpha")


def bad_terms(count: int) -> np.ndarray:
    """2⁵³, −½ … −½, −2⁵³: added in this order the halves are lost, upwards."""
    return np.array([BIG, *np.full(count, -0.5), -BIG])


def region_of_layers(layers: list, ball: LinfBall, lower: list, upper: list) -> ErrorModel:
    network = Network(layers)
    bounds = ReluBounds(tuple(map(np.array, lower)), tuple(map(np.array, upper)))
    return make_error_model(network, restrict_to_alive(network, bounds), ball)


def charge(ledger: Ledger, add: Callable[[], None]) -> Fraction:
    """What one call adds to a ledger of one row."""
    before = float(ledger.error[0])
    add()
    return Fraction(float(ledger.error[0])) - Fraction(before)


def error_of_product(weight: np.ndarray, bias: np.ndarray, multipliers: np.ndarray, reach: np.ndarray) -> Fraction:
    """The worst of λ·b + (λW)·y over |y| ≤ reach, and over orders of summation."""
    columns = (worst_error(multipliers, column) * Fraction(float(r)) for column, r in zip(weight.T, reach, strict=True))
    return sum(columns, worst_error(multipliers, bias))


@pytest.mark.parametrize("count", [3, 100, 3000])
def test_products_with_weights_and_bias_sums(count: int) -> None:
    column, one = bad_terms(count), np.ones((1, count + 2))
    ball = LinfBall([0.0], 3.0)
    for weight, bias in ((column[:, None], np.zeros(count + 2)), (np.zeros((count + 2, 1)), column)):
        region = region_of_layers([Dense(weight, bias)], ball, [], [])
        worst = error_of_product(weight, bias, one[0], np.array([3.0]))
        assert worst >= count / 2
        ledger = Ledger(region, 1)
        assert charge(ledger, lambda: ledger.product(0, one)) >= worst  # noqa: B023


@given(
    sizes=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    scales=st.tuples(st.integers(-12, 12), st.integers(-12, 12), st.integers(-12, 12)),
    seed=st.integers(0, 99),
)
def test_products_of_any_scale(sizes: tuple[int, int], scales: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=sizes[::-1]) * 10.0 ** scales[0], rng.normal(size=sizes[1]) * 10.0 ** scales[1]
    multipliers = rng.normal(size=(1, sizes[1])) * 10.0 ** scales[2]
    ball = LinfBall(rng.normal(size=sizes[0]), float(rng.uniform(0, 2)))
    region = region_of_layers([Dense(weight, bias)], ball, [], [])
    reach = np.maximum(np.abs(ball.lower), np.abs(ball.upper))
    worst = error_of_product(weight, bias, multipliers[0], reach)
    ledger = Ledger(region, 1)
    assert charge(ledger, lambda: ledger.product(0, multipliers)) >= worst


def test_long_products_whose_terms_point_where_the_weights_do() -> None:
    """‖λ‖‖W_:j‖ is as small as it gets next to Σ|λ_i W_ij|, so that only the number of terms covers what is lost."""
    count = 3000
    column, multipliers = np.array([2.0**26, *np.ones(count), 2.0**26]), np.full((1, count + 2), -0.25)
    multipliers[0, 0], multipliers[0, -1] = 2.0**26, -(2.0**26)
    for weight, bias in ((column[:, None], np.zeros(count + 2)), (np.zeros((count + 2, 1)), column)):
        region = region_of_layers([Dense(weight, bias)], LinfBall([0.0], 1.0), [], [])
        worst = error_of_product(weight, bias, multipliers[0], np.array([1.0]))
        ledger = Ledger(region, 1)
        assert charge(ledger, lambda: ledger.product(0, multipliers)) >= worst >= count / 8  # noqa: B023


def test_products_with_shrunk_multipliers() -> None:
    count = 1000
    column = bad_terms(count)
    ball = LinfBall([0.0], 1.0)
    low, high = -np.ones(count + 2), np.ones(count + 2)
    layers = [Dense(column[:, None]), Dense(np.ones((1, count + 2)))]
    region = region_of_layers(layers, ball, [low], [high])
    nu = np.full((1, count + 2), 2.0)
    shrunk = nu * 0.5
    ledger = Ledger(region, 1)
    ledger.terms(1, nu)
    worst = error_of_product(column[:, None], np.zeros(count + 2), shrunk[0], np.array([1.0]))
    assert charge(ledger, lambda: ledger.product_of_shrunk(0)) >= worst > 0


def box_error(nu: np.ndarray, ball: LinfBall) -> Fraction:
    """How far float middle and half-width can be above the exact minimum over the float box, at the worst."""
    middle, radius = 0.5 * (ball.lower + ball.upper), 0.5 * (ball.upper - ball.lower)
    ends = [[Fraction(float(v)) for v in side] for side in (ball.lower, ball.upper)]
    exact = sum((min(n * a, n * b) for n, a, b in zip(fractions(nu), *ends, strict=True)), Fraction(0))
    floats = dot(nu, middle) - dot(np.abs(nu), radius)
    return abs(floats - exact) + worst_error(nu, middle) + worst_error(np.abs(nu), radius)


@pytest.mark.parametrize(
    ("center", "eps", "nu"),
    [
        (np.ones(3002), 0.5, bad_terms(3000)),
        (
            np.array([2.0**26, *np.ones(3000), 2.0**26]),
            2.0**-20,
            np.array([2.0**26, *np.full(3000, -0.25), -(2.0**26)]),
        ),
        (np.array([1.0]), 2.0**-53, np.array([1.0])),  # ends that are neighbours: the middle is no float
        (np.array([1.0, 3.0]), 2.0**-60, np.array([1e12, -1e-12])),
        (np.array([0.1]), 1e-17, np.array([1e12])),
        (np.array([0.0]), 5e-324, np.array([-1e150])),  # half of the least float is 0
    ],
)
def test_sums_over_the_input_box(center: np.ndarray, eps: float, nu: np.ndarray) -> None:
    ball = LinfBall(center, eps, (0.0, np.inf))
    region = region_of_layers([Dense(np.zeros((1, center.size)))], ball, [], [])
    ledger = Ledger(region, 1)
    assert charge(ledger, lambda: ledger.terms(0, nu[None])) >= box_error(nu, ball) > 0


def test_half_of_the_least_float_is_charged() -> None:
    """The box [0, 5e-324]: middle and half-width are 0 in floats, and ν = −1e150 makes much of the difference."""
    ball = LinfBall([0.0], 5e-324, (0.0, 1.0))
    network = Network([Dense([[-1e150]])])
    (bound,) = get_rung("interval")(Problem.of(network, ball, np.eye(1), layer_bounds(network, ball)))
    assert Fraction(bound.certified_lower) <= -Fraction(1e150) * Fraction(float(ball.upper[0]))


@pytest.mark.parametrize("reverse", [False, True])
def test_sums_at_a_relu_are_charged_for_the_larger_of_u_and_minus_l(reverse: bool) -> None:
    """λ·l with −l = 2⁵³ … and u = 1e-10: u alone is no measure of these terms."""
    count = 2000
    low = -np.abs(bad_terms(count))
    high = np.full(count + 2, 1e-10)
    if reverse:
        low, high = -high, -low
    layers = [Dense(np.zeros((count + 2, 1))), Dense(np.zeros((1, count + 2)))]
    region = region_of_layers(layers, LinfBall([0.0], 1.0), [low], [high])
    ledger = Ledger(region, 1)
    multipliers = np.full((1, count + 2), -1.0)
    terms = np.minimum(0.0, -multipliers[0] * (low if not reverse else -high))
    worst = worst_error(np.ones(count + 2), terms)
    assert charge(ledger, lambda: ledger.terms(1, multipliers)) >= worst > 0


@given(
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(1, 8)),
    scales=st.tuples(st.integers(-12, 12), st.integers(-12, 12)),
    eps=st.sampled_from([0.0, 1e-12, 0.1, 1.0, 1e6]),
    lopsided=st.sampled_from([1.0, 1e-12, 1e12]),
    with_phases=st.booleans(),
    seed=st.integers(0, 99),
)
def test_certified_bounds_are_below_the_exact_value_of_their_formula(
    sizes: tuple[int, int, int],
    scales: tuple[int, int],
    eps: float,
    lopsided: float,
    with_phases: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    inputs, first, second = sizes
    shapes = ((first, inputs), (second, first), (2, second))
    layers = [Dense(rng.normal(size=s) * 10.0 ** scales[k % 2], rng.normal(size=s[0])) for k, s in enumerate(shapes)]
    low = [-rng.uniform(0.1, 1, n) for n in (first, second)]
    high = [rng.uniform(0.1, 1, n) * lopsided for n in (first, second)]
    low[0][rng.random(first) < 0.3] = 0.0  # active neurons
    region = region_of_layers(layers, LinfBall(rng.normal(size=inputs), eps), low, high)
    multipliers = rng.normal(size=region.count) * 10.0 ** float(rng.uniform(-6, 6))
    phases = rng.integers(-1, 2, region.count) if with_phases else None
    row = np.array([1.0, -1.0])
    found = certified_bounds(region, row[None], multipliers[None], None if phases is None else phases[None])[0]
    exact = exact_certificate(region, row, multipliers, phases)
    assert Fraction(found) <= exact
    assert np.isfinite(found)


def _through_one_layer(weight: np.ndarray, last: np.ndarray, low: np.ndarray, high: np.ndarray) -> ErrorModel:
    layers = [Dense(weight[:, None]), Dense(last[None])]
    return region_of_layers(layers, LinfBall([1.0], 0.0), [low], [high])


LOSSES = 3000
SIZES = np.abs(bad_terms(LOSSES))
ONES, NONE = np.ones(LOSSES + 2), np.zeros(LOSSES + 2)
BAD_REGIONS: dict[str, tuple[ErrorModel, np.ndarray]] = {
    "the input": (region_of_layers([Dense(bad_terms(LOSSES)[None])], LinfBall(ONES, 0.0), [], []), np.zeros(0)),
    "lambda times l": (_through_one_layer(NONE, NONE, -SIZES, ONES * 1e-9), -ONES),
    "nu minus lambda times u": (_through_one_layer(NONE, -ONES, -ONES * 1e-9, SIZES), NONE),
    "the product of a hidden map": (_through_one_layer(bad_terms(LOSSES), NONE, -ONES, ONES), ONES),
    "the bias of a hidden map": (
        region_of_layers(
            [Dense(NONE[:, None], bad_terms(LOSSES)), Dense(NONE[None])], LinfBall([1.0], 0.0), [-ONES], [ONES]
        ),
        ONES,
    ),
}


@pytest.mark.parametrize("where", BAD_REGIONS)
def test_certified_bounds_are_charged_for_any_order_of_their_sums(where: str) -> None:
    region, multipliers = BAD_REGIONS[where]
    value, error = value_and_error(region, np.ones((1, 1)), multipliers[None])
    values = float(value[0]), sequential_certificate(region, [1.0], multipliers)
    exact = exact_certificate(region, [1.0], multipliers)
    worst = max(abs(Fraction(value) - exact) for value in values)
    assert Fraction(float(error[0])) >= worst >= LOSSES / 4


def many_unstable(count: int, rng: np.random.Generator) -> ErrorModel:
    """One hidden layer of `count` unstable neurons in front of a layer of two."""
    layers = [Dense(rng.normal(size=(count, 2))), Dense(rng.normal(size=(2, count))), Dense(np.ones((1, 2)))]
    high = [rng.uniform(0.5, 2, count), np.array([1.0, 3.0])]
    return region_of_layers(layers, LinfBall(rng.normal(size=2), 1.0), [-high[0], -high[1]], high)


@pytest.mark.parametrize("made_error", [0.0, 1e-3])
def test_derived_cuts_hold_in_rational_arithmetic(made_error: float) -> None:
    """fixed ≤ Σ_I min w v, slope ≥ fixed + Σ_{∉I} max w v + b + δ, exactly; δ is large where weights are rounded."""
    rng = np.random.default_rng(1)
    for trial in range(12):
        layers = [Dense(rng.normal(size=(60, 2))), Dense(rng.normal(size=(4, 60)) * 10.0 ** (trial - 6))]
        last = Dense(np.ones((1, 4)))
        layers = [layer.with_error(np.full(layer.input_size, made_error), made_error) for layer in layers]
        high = [rng.uniform(0.5, 2, 60), np.full(4, 9.0)]
        region = region_of_layers([*layers, last], LinfBall(rng.normal(size=2), 1.0), [-high[0], -high[1]], high)
        neurons = np.arange(60, 64)
        members = rng.random((4, 2 + region.count)) < 0.5
        cuts = derive_cuts(region, neurons, members)
        weight, bias, slack = linear_forms(region, neurons)
        low = fractions(np.concatenate([region.input_set.lower, np.zeros(region.count)]))
        up = fractions(np.concatenate([region.input_set.upper, *high]))
        for r in range(4):
            ends = [sorted((w * a, w * b)) for w, a, b in zip(fractions(weight[r]), low, up, strict=True)]
            inside = sum((e[0] for e, own in zip(ends, members[r], strict=True) if own), Fraction(0))
            outside = sum((e[1] for e, own in zip(ends, members[r], strict=True) if not own), Fraction(0))
            fixed, slope = Fraction(float(cuts.constant[r])), Fraction(float(cuts.slope[r]))
            assert fixed <= inside
            assert slope >= fixed + outside + Fraction(float(bias[r])) + Fraction(float(slack[r]))
            assert slack[r] > made_error


def test_linear_forms_are_charged_for_what_they_lose() -> None:
    """x̂ = Σ ±2⁵³, −½ … of active neurons: the halves are lost in the product, and δ covers them."""
    count = 500
    layers = [Dense(np.ones((count + 2, 1))), Dense(bad_terms(count)[None]), Dense(np.ones((1, 1)))]
    region = region_of_layers(
        layers, LinfBall([2.0], 1.0), [np.ones(count + 2), [-1.0]], [np.full(count + 2, 3.0), [1.0]]
    )
    _, _, slack = linear_forms(region, np.array([0]))
    assert Fraction(float(slack[0])) >= 3 * Fraction(count, 2)


def handmade_cuts(constant: np.ndarray, slope: np.ndarray, neuron: np.ndarray, region: ErrorModel) -> Cuts:
    rows = sp.csr_array((constant.size, region.input_set.size + region.count))
    return Cuts(rows, constant, slope, neuron, np.abs(constant) + np.abs(slope))


def test_sums_over_cuts_are_charged() -> None:
    """Constants 2⁵³, −½ …, −2⁵³: their float sum is 0, the exact one far below."""
    region = many_unstable(3, np.random.default_rng(0))
    count = 400
    neuron = np.zeros(count + 2, dtype=np.int64)
    cuts = handmade_cuts(bad_terms(count), np.zeros(count + 2), neuron, region)
    weights = sp.csr_array(np.ones((1, count + 2)))
    zero = np.zeros(region.count)
    found = certified_bounds(region, np.zeros((1, 1)), zero[None], None, cuts, weights)[0]
    assert Fraction(found) <= exact_certificate(region, [0.0], zero, None, cuts, np.ones(count + 2))


def test_sums_of_cuts_over_neurons_are_charged() -> None:
    """Cuts of two among thousands of neurons: their indicators ±2⁵³ are summed with what all others add."""
    count = 3000
    region = many_unstable(count, np.random.default_rng(0))
    cuts = handmade_cuts(np.zeros(2), np.array([-BIG, BIG]), np.array([0, count - 1]), region)
    nothing = np.zeros((1, 1)), np.zeros((1, region.count))
    _, before = value_and_error(region, *nothing)
    _, after = value_and_error(region, *nothing, None, cuts, sp.csr_array(np.ones((1, 2))))
    worst = worst_error(np.ones(count), bad_terms(count - 2))
    assert Fraction(float(after[0])) - Fraction(float(before[0])) >= worst >= (count - 2) / 2


@given(
    center=st.floats(-1e12, 1e12),
    eps=st.sampled_from([0.0, 1e-12, 1e-3, 1.0]),
    scale=st.integers(-12, 12),
    count=st.integers(1, 40),
    shift=st.floats(-1e6, 1e6),
)
def test_closed_forms_are_exact_but_for_rounding_on_active_neurons(
    center: float, eps: float, scale: int, count: int, shift: float
) -> None:
    """All neurons active: the network is affine, its minimum over the float box is known, and sums cancel."""
    factor = 10.0**scale
    first = Dense(np.full((count + 2, 1), factor), np.full(count + 2, (abs(center) + 10 + eps) * factor))
    last = Sparse(sp.csr_array(bad_terms(count)[None]), [shift])
    network, ball = Network([first, last]), LinfBall([center], eps)
    bounds = layer_bounds(network, ball)
    assert bounds.counts()[0][1] == count + 2
    total = Fraction(-count, 2)
    hats = [Fraction(factor) * Fraction(float(x)) + Fraction(float(first.bias[0])) for x in (*ball.lower, *ball.upper)]
    exact = min(total * hat for hat in hats) + Fraction(shift)
    for name in CLOSED_FORMS:
        (bound,) = get_rung(name)(Problem.of(network, ball, np.eye(1), bounds))
        assert Fraction(bound.certified_lower) <= exact, name


@pytest.mark.parametrize("name", ["interval", "dual"])
def test_closed_forms_charge_sums_over_the_input(name: str) -> None:
    """Sparse rows are summed one term after the other, and lose every half. Box [0, 1]ⁿ, most inputs without weight."""
    count = 3000
    row = np.concatenate([bad_terms(count), np.zeros(4 * count)])[None]
    network, ball = Network([Sparse(sp.csr_array(row), [0.0])]), LinfBall(np.full(row.size, 0.5), 0.5)
    (bound,) = get_rung(name)(Problem.of(network, ball, sp.eye_array(1, format="csr"), layer_bounds(network, ball)))
    exact = -Fraction(count, 2) - Fraction(BIG)
    assert Fraction(bound.certified_lower) <= exact
    assert bound.certified_lower >= float(exact) - 1e8


@given(value=st.floats(-1e300, 1e300), error=st.floats(0, 1e300))
def test_outward_is_below_the_difference(value: float, error: float) -> None:
    (found,) = outward(np.array([value]), np.array([error]))
    assert Fraction(float(found)) < Fraction(value) - Fraction(error)
    assert found >= value - error - 2e-6 * error - 4e-16 * abs(value) - 1e-323


def test_outward_proves_nothing_where_numbers_end() -> None:
    lower = np.array([np.inf, np.nan, -np.inf, 1.0, 1.0, np.inf])
    error = np.array([1.0, 1.0, 1.0, np.inf, np.nan, np.inf])
    np.testing.assert_array_equal(outward(lower, error), -np.inf)


def test_a_sum_that_overflows_upwards_proves_nothing() -> None:
    """1.7e308 + 1.7e308 − … is +inf in floats and 0 in truth."""
    layer = Sparse(sp.csr_array(np.array([[1.0, 1.0, 1.0, 1.0]])), [0.0])
    network, ball = Network([layer]), LinfBall([1.7e308, 1.7e308, -1.7e308, -1.7e308], 0.0)
    bounds = layer_bounds(network, ball)
    for name in CLOSED_FORMS:
        (bound,) = get_rung(name)(Problem.of(network, ball, np.eye(1), bounds))
        assert bound.certified_lower <= 0.0, name


@pytest.mark.parametrize("factor", [1e8, 1.7e8])
def test_l_and_u_whose_distance_overflows(factor: float) -> None:
    """F = 1e300 − relu(x̂) with x̂ ∈ [−h, h]: u − l is no float, the bound must not forget the ReLU."""
    network = Network([Dense([[factor]]), Dense([[-1.0]], [1e300])])
    ball = LinfBall([0.0], 1e300)
    bounds = layer_bounds(network, ball)
    for name in CLOSED_FORMS:
        (bound,) = get_rung(name)(Problem.of(network, ball, np.eye(1), bounds))
        assert -np.inf < bound.certified_lower <= 1e300 - factor * 1e300, name


@pytest.mark.parametrize("side", [(-np.inf, np.inf), (-np.inf, 1.0), (-1.0, np.inf), (1.0, np.inf)])
def test_infinite_layer_bounds_prove_nothing(side: tuple[float, float]) -> None:
    network, ball = Network([Dense([[1.0]]), Dense([[-1.0]], [0.5])]), LinfBall([0.0], 1.0)
    bounds = ReluBounds((np.array([side[0]]),), (np.array([side[1]]),))
    for name in CLOSED_FORMS:
        (bound,) = get_rung(name)(Problem.of(network, ball, np.eye(1), bounds))
        assert bound.lower == -np.inf, name


def test_the_least_leaf_counts_whichever_batch_it_is_in() -> None:
    """More leaves than are evaluated at once, the worst of them among the first, then among the last."""
    region = many_unstable(5, np.random.default_rng(0))
    good = np.full(region.count, -1, dtype=np.int8), None
    nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
    bad = good[0], Evidence(np.full(region.count, 100.0), *nothing)
    worst, better = (float(leaf_bounds(region, np.ones(1), CutStore(), [leaf])[0]) for leaf in (bad, good))
    assert worst < better - 1
    for order in ([bad] + [good] * 299, [good] * 299 + [bad]):
        leaves = Leaves(region, np.ones(1), CutStore())
        for phases, evidence in order:
            leaves.add(phases, evidence)
        assert leaves.certified == worst
    assert Leaves(region, np.ones(1), CutStore()).certified == -np.inf


def test_float32_underflow_and_overflow_are_no_surprise() -> None:
    """Weights below float32's least number are flushed to 0; sums above its largest are unbounded."""
    tiny = Network([Dense([[2.0**-130]])])
    ball = LinfBall([1.0], 0.0)
    assert float32_error(tiny.layers, ball)[0] >= 2.0**-130
    assert float32_error([Dense([[1e30]]), Dense([[1e30]])], ball)[0] == np.inf
    assert np.isfinite(float32_error([Dense([[1e15]]), Dense([[1e15]])], ball)).all()
    assert float32_error([Dense([[1.0]]).with_error([0.25], 0.5)], ball)[0] >= 0.75
