"""Constants, inputs and groups of rows as outputs of a network: the same numbers, and what rungs make of them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import random_conv_network, random_dense_network
from graphs import random_network
from hypothesis import given
from hypothesis import strategies as st
from oracle import forward, least
from scipy.optimize import linprog

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.networks.replay import evaluation_errors
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.lowering import lowered, with_copies, with_input_outputs
from toolkit.problems.properties import Property
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margins
from toolkit.verify.pyomo_block import to_pyomo

GROUPS = [0, 0, 0, 1, 2, 2, 2, 2, 2]


def question(rng: np.random.Generator, outputs: int, whole: bool = False) -> Property:
    """Groups of three, one and five rows with constants; whole: of integers."""
    rows = rng.integers(-3, 4, (9, outputs)) if whole else rng.normal(size=(9, outputs))
    constants = rng.integers(-2, 3, 9) if whole else rng.normal(size=9)
    return Property.of(rows.astype(float), constants.astype(float), GROUPS)


def worst_rows(network: Network, asked: Property, point: np.ndarray) -> list[Fraction]:
    """max_j c_j·F(x) + d_j of every group, exactly."""
    outputs = forward(network, point.tolist())
    constants = asked.objective.constants
    assert constants is not None
    values = [
        sum((Fraction(c) * v for c, v in zip(row, outputs, strict=True)), Fraction(d))
        for row, d in zip(asked.objective.rows.tolist(), constants.tolist(), strict=True)
    ]
    return [max(v for v, g in zip(values, GROUPS, strict=True) if g == group) for group in range(asked.count)]


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from(["dense", "conv", "graph"]))
def test_a_lowered_row_is_the_largest_of_its_group(seed: int, whole: bool, kind: str) -> None:
    rng = np.random.default_rng(seed)
    make = {"dense": lambda: random_dense_network(rng, (3, 5, 4)), "conv": lambda: random_conv_network(rng)}
    network = make[kind]() if kind in make else random_network(rng, 2)
    asked = question(rng, network.output_size, whole)
    more, low = lowered(network, asked)
    assert low.count == len(low.objective) == asked.count
    assert low.objective.constants is None
    assert more.relu_sizes[: len(network.relu_sizes)] == network.relu_sizes
    assert more.prefix_digests[: len(network.relu_sizes)] == network.prefix_digests[:-1]
    point = rng.normal(size=network.input_size)
    found = [sum((Fraction(c) * v for c, v in zip(row, forward(more, point.tolist()), strict=True)), Fraction(0))
             for row in low.objective.rows.tolist()]  # fmt: skip
    merged = evaluation_errors(more, low.objective.rows, point)[1][0]  # what the maps say they may have rounded
    for value, right, error in zip(found, worst_rows(network, asked, point), merged.tolist(), strict=True):
        assert abs(value - right) <= Fraction(error)


def test_single_rows_without_constants_are_left_alone() -> None:
    network = random_dense_network(np.random.default_rng(0), (2, 3, 2))
    asked = Property.of(np.eye(2))
    more, low = lowered(network, asked)
    assert more is network
    assert low is asked


@pytest.mark.parametrize("kind", ["dense", "graph", "affine", "reads the input"])
def test_inputs_as_outputs(kind: str) -> None:
    rng = np.random.default_rng(3)
    network = {
        "dense": random_dense_network(rng, (3, 4, 2)),
        "graph": random_network(rng, 3),
        "affine": Network([Dense(rng.normal(size=(2, 3)))]),
        "reads the input": with_input_outputs(random_network(rng, 2)),
    }[kind]
    more, point = with_input_outputs(network), rng.normal(size=network.input_size)
    outputs = forward(more, point.tolist())
    assert outputs[: network.output_size] == forward(network, point.tolist())
    assert [float(v) for v in outputs[network.output_size :]] == point.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_the_lp_of_a_group_is_the_lp_with_its_largest_row(seed: int) -> None:
    """F affine: min t over t ≥ c_j·F(x̃) + d_j is the exact margin; a group.s relaxed ReLUs lose none of it."""
    rng = np.random.default_rng(seed)
    network, ball = random_dense_network(rng, (4, 3)), LinfBall(rng.uniform(0, 1, 4), 0.3, (0, 1))
    asked = question(rng, 3)
    weight, bias = network.layers[0].to_sparse().toarray(), np.asarray(network.layers[0].bias_vector)
    rows, shift = asked.objective.rows @ weight, asked.objective.rows @ bias + asked.objective.constants
    box = [*zip(ball.lower, ball.upper, strict=True), (None, None)]
    for name in ("lp", "exact", "bab", "alpha"):
        for group, bound in enumerate(margins(network, ball, asked, name)):
            own = np.flatnonzero(np.array(GROUPS) == group)
            above = np.column_stack([rows[own], -np.ones(own.size)])
            right = linprog([0, 0, 0, 0, 1], above, -shift[own], bounds=box).fun
            assert bound.certified_lower <= right + 1e-9
            assert bound.lower == pytest.approx(right, abs=2e-3 if name == "alpha" else 1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_exact_margins_of_groups_are_those_of_the_real_ball(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network, ball = random_network(rng, 2, inputs=2), LinfBall(rng.normal(size=2), 0.4)
    asked = question(rng, network.output_size, whole=True)
    more, low = lowered(network, asked)
    right = [float(value) for value, _ in least(more, ball, low.objective.rows.tolist())]
    given = layer_bounds(network, ball)  # of the network itself: those of the groups' ReLUs are added
    for name in ("dual", "lp", "exact", "bab", "pgd"):
        for bound, value in zip(margins(network, ball, asked, name, given), right, strict=True):
            assert bound.certified_lower <= value + 1e-12
            assert bound.upper >= value - 1e-9
            if name in ("exact", "bab"):
                assert bound.lower == pytest.approx(value, abs=2e-4 * max(1.0, abs(value)))
    answer = certify(network, ball, asked)
    assert answer.verdict is (Verdict.NO if min(right) <= 0 else Verdict.YES)
    if answer.witness is not None:
        assert min(worst_rows(network, asked, answer.witness)) <= 0


def test_a_network_without_its_last_operator_answers_about_the_order_alone() -> None:
    network = random_dense_network(np.random.default_rng(0), (2, 3, 3))
    cut = Network(network.layers, metadata={"dropped": "the final Softmax"})
    ball = LinfBall([0.2, 0.4], 0.01)
    assert margins(cut, ball, 1, "dual")[0].lower == margins(network, ball, 1, "dual")[0].lower
    assert len(margins(cut, ball, Property.of([[2.0, -2.0, 0.0]], groups=[0]), "dual")) == 1
    for rows, constants in (([[1.0, 0.0, 0.0]], [0.0]), ([[1.0, -1.0, 0.0]], [-0.5]), ([[1.0, -2.0, 1.0]], [0.0])):
        with pytest.raises(ValueError, match="was read without the final Softmax"):
            certify(cut, ball, Property.of(rows, constants))
        with pytest.raises(ValueError, match="was read without the final Softmax"):
            to_pyomo(cut, ball, question=Property.of(rows, constants))


@pytest.mark.parametrize("exponent", [-200, -53, 40, 100])
def test_a_groups_common_scale_scales_its_margin_and_nothing_else(exponent: int) -> None:
    network = Network([Dense(np.array([[1.0, 1], [1, -1], [0, 1]]), np.zeros(3)),
                       Dense(np.array([[1.0, -1, 0.5], [0, 1, 1], [0.5, 0, 1]]), np.array([0.5, 0, 0]))])  # fmt: skip
    rows, constants, ball = np.array([[1.0, -1, 0], [-1, 1, 0]]), np.array([0.0, 0.1]), LinfBall([1.0, 0.5], 0.1)
    own = certify(network, ball, Property.of(rows, constants, [0, 0]))
    scale = 2.0**exponent
    scaled = certify(network, ball, Property.of(scale * rows, scale * constants, [0, 0]))
    assert own.verdict is scaled.verdict is Verdict.YES
    assert scaled.margins[0].certified_lower / scale == pytest.approx(own.margins[0].certified_lower, rel=1e-9)


@pytest.mark.parametrize("limit", [1e12, 1e16, 2.0**60])
def test_a_row_that_never_is_the_largest_costs_its_group_nothing(limit: float) -> None:
    network = Network([Dense(np.array([[1.0], [-1.0]]), np.array([0.5, 0.5])),
                       Dense(np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([0.5, 0.25]))])  # fmt: skip
    ball = LinfBall(np.zeros(1), 1.0)
    limits = Property.of([[0, 1.0], [-1, 0], [1, 0]], [-0.2, -limit, -limit], [0, 0, 0])
    assert certify(network, ball, limits).margins[0].certified_lower == pytest.approx(0.05, abs=1e-6)
    steep = Property.of([[0, 1.0], [-limit, 0]], [0, 0], [0, 0])
    assert certify(network, ball, steep).verdict is Verdict.YES


def test_rows_that_a_power_of_two_would_round_keep_their_scale() -> None:
    rows = np.array([[1e300, 5e-324], [1.0, 0.0]])
    network = Network([Dense(np.eye(2), np.zeros(2)), Dense(np.eye(2), np.zeros(2))])
    whole, asked = lowered(network, Property.of(rows, None, [0, 0]))
    assert asked.objective.rows[0, :2].tolist() == rows[0].tolist()
    assert whole.relu_sizes == (2, 1)


@pytest.mark.parametrize("twice", [False, True])
def test_inputs_beside_outputs_of_which_the_order_is_known(twice: bool) -> None:
    """Rows of outputs that copy inputs may be any; none may mix them with outputs whose order alone is right."""
    network = random_dense_network(np.random.default_rng(0), (2, 3, 3))
    cut = with_input_outputs(Network(network.layers, metadata={"dropped": "the final Softmax"}))
    more = with_input_outputs(cut) if twice else cut
    zeros = [0.0] * (more.output_size - 5)
    ball = LinfBall([0.2, 0.4], 0.01)
    for row, constant in (([0, 0, 0, 1, 0], 0.5), ([0, 0, 0, 1, 1], 0), ([0, 0, 0, 0, 0], 1), ([0, 2, -2, 0, 0], 0)):
        certify(more, ball, Property.of([[*row, *zeros]], [constant]))
    mixed = (
        ([1, 0, 0, -1, 0], 0),
        ([1, 0, 0, 1, 0], 0),
        ([1, -1, 0, 1, 0], 0),
        ([1, -1, 0, 0, 1], 0),
        ([1, 0, 0, 0, 0], 0),
    )
    for row, constant in (*mixed, ([1, -1, 0, 0, 0], 1)):
        with pytest.raises(ValueError, match="and rows about inputs alone, and row 1 is neither"):
            certify(more, ball, Property.of([[0, 1, -1, 0, 0, *zeros], [*row, *zeros]], [0, constant]))


def test_copies_of_the_outputs_are_the_outputs_and_carry_their_errors() -> None:
    rng = np.random.default_rng(3)
    network = random_conv_network(rng)
    network = Network(
        [*network.maps[:-1], network.maps[-1].with_error(np.full(network.maps[-1].input_size, 1e-9), 1e-8)]
    )
    x = rng.normal(size=(5, network.input_size))
    whole = with_copies(network, 3)
    np.testing.assert_array_equal(whole.forward(x), np.tile(network.forward(x), 3))
    last = whole.maps[-1]
    assert last.column_error is not None
    assert np.all(last.column_error >= np.sqrt(3) * 1e-9)  # the norm of three columns of errors, one below the other
    assert last.bias_error >= np.sqrt(3) * 1e-8
    assert with_copies(network, 1) is network
