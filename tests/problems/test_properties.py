"""Properties: groups, constants and labels mean what they say, whatever rung answers."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_conv_network, random_dense_network
from hypothesis import given
from hypothesis import strategies as st

from toolkit import (
    Bound,
    Box,
    LinfBall,
    Network,
    Property,
    Settings,
    Verdict,
    certified_radius,
    certify,
    layer_bounds,
    margins,
    robustness,
)
from toolkit.networks.layers import Dense
from toolkit.problems.answers import RowBounds
from toolkit.problems.lowering import with_constant_output
from toolkit.problems.problem import Problem
from toolkit.problems.properties import Objective, as_property, margin_rows
from toolkit.rungs import RUNGS, get_rung
from toolkit.rungs.rung import Cost, Side
from toolkit.verify.margins import margin_problem

HIGHS = Settings(solver="highs")


def case(seed: int) -> tuple[Network, LinfBall]:
    rng = np.random.default_rng(seed)
    network = random_conv_network(rng) if seed % 2 else random_dense_network(rng, (3, 7, 6, 4))
    return network, LinfBall(rng.uniform(0, 1, network.input_size), 0.1)


@pytest.mark.parametrize("name", list(RUNGS))
@pytest.mark.parametrize("seed", [0, 1])
def test_constants_move_every_rung_by_exactly_that_much(name: str, seed: int) -> None:
    network, ball = case(seed)
    rng = np.random.default_rng(seed)
    rows, constants = rng.normal(size=(3, network.output_size)), np.array([0.0, 3.5, -40.0])
    bounds = layer_bounds(network, ball)
    bare = RUNGS[name](Problem.of(network, ball, rows, bounds, HIGHS))
    moved = RUNGS[name](Problem.of(network, ball, rows, bounds, HIGHS, constants=constants))
    for one, other, shift in zip(bare, moved, constants, strict=True):
        within = 1e-9 * (1.0 + abs(shift))
        if RUNGS[name].side is Side.EXACT:  # the promised gap is relative to the value
            within = HIGHS.mip_gap * (abs(one.upper) + abs(shift)) + 1e-5
        elif RUNGS[name].cost > Cost.CLOSED_FORM:
            within = 1e-4 * (1.0 + abs(one.lower if np.isfinite(one.lower) else one.upper))
        assert other.lower == pytest.approx(one.lower + shift, abs=within)
        assert other.upper == pytest.approx(one.upper + shift, abs=within)
        assert other.certified_lower <= one.upper + shift + 1e-9 * abs(shift)
        if RUNGS[name].certifies:
            assert other.certified_lower > -np.inf


def test_the_output_that_is_one_changes_nothing_else() -> None:
    for seed in (0, 1):
        network, ball = case(seed)
        more = with_constant_output(network)
        points = ball.sample(20)
        np.testing.assert_array_equal(more.forward(points)[:, :-1], network.forward(points))
        np.testing.assert_array_equal(more.forward(points)[:, -1], 1.0)
        assert more.prefix_digests[:-1] == network.prefix_digests[:-1]  # so l,u of the one hold for the other


def test_a_label_is_the_short_form_of_its_property() -> None:
    network, ball = case(0)
    whole, some = robustness(4, 2), robustness(4, 2, targets=[3, 0])
    assert (whole.count, some.objective.targets) == (3, (3, 0))
    np.testing.assert_array_equal(some.objective.rows, margin_rows(4, 2, [3, 0])[0])
    by_label, by_property = certify(network, ball, 2), certify(network, ball, whole)
    assert by_label.verdict is by_property.verdict
    assert [b.certified_lower for b in by_label.margins] == [b.certified_lower for b in by_property.margins]
    assert [b.lower for b in margins(network, ball, 2, "dual")] == [
        b.lower for b in margins(network, ball, whole, "dual")
    ]


@given(seed=st.integers(0, 10**6))
def test_groups_against_a_grid(seed: int) -> None:
    """Two inputs: the least over a fine grid of max over a group is an upper bound of its margin, and nearly it."""
    rng = np.random.default_rng(seed)
    network, ball = random_dense_network(rng, (2, 5, 4, 3)), LinfBall(rng.normal(size=2), 0.3)
    rows, constants = rng.normal(size=(5, 3)), rng.normal(size=5)
    question = Property.of(rows, constants, groups=[0, 0, 1, 2, 2])
    answer = certify(network, ball, question, settings=HIGHS)
    axis = np.linspace(-1, 1, 41)
    grid = ball.project(ball.center + 0.3 * np.array(list(itertools.product(axis, axis))))
    values = network.forward(grid) @ rows.T + constants
    truth = np.array([values[:, own].max(axis=1).min() for own in ([0, 1], [2], [3, 4])])
    for bound, least in zip(answer.margins, truth, strict=True):
        assert bound.certified_lower <= least + 1e-9
        assert bound.lower <= bound.upper
    if answer.verdict is Verdict.YES:
        assert truth.min() > 0
    if answer.verdict is Verdict.NO:
        at = network.forward(answer.witness) @ rows.T + constants
        assert ball.contains(answer.witness)
        assert min(at[[0, 1]].max(), at[2], at[[3, 4]].max()) <= 1e-9
    if truth.min() <= -1e-6:
        assert answer.verdict is not Verdict.YES
    assert answer.label is None
    assert answer.witness_class is None


def test_a_point_must_break_every_row_of_one_group() -> None:
    """F = (x, −x): each row alone is refuted somewhere, both together nowhere."""
    network, ball = Network([Dense([[1.0], [-1.0]], [0.5, 0.5])]), LinfBall([0.0], 1.0)
    both, each = Property.of(np.eye(2), groups=[0, 0]), Property.of(np.eye(2))
    answer = certify(network, ball, both, ("dual", "pgd"))
    assert answer.verdict is Verdict.YES  # rows by themselves prove no more than min max ≥ max min = −1/2
    assert answer.margins[0].certified_lower == pytest.approx(0.5, abs=1e-9)
    assert certify(network, ball, Property.of(np.eye(2), [-0.5, -0.5], [0, 0])).verdict is not Verdict.YES
    broken = certify(network, ball, each, ("dual", "pgd"))
    assert broken.verdict is Verdict.NO
    assert "of group" in broken.reason


@pytest.mark.parametrize("name", list(RUNGS))
@pytest.mark.parametrize("seed", [0, 1])
def test_a_box_of_the_same_ends_is_the_same_question(name: str, seed: int) -> None:
    network, _ = case(seed)
    center = np.full(network.input_size, 0.5)
    ball = LinfBall(center, 0.125, (0, 1))  # all ends are floats
    box = Box(np.full(network.input_size, 0.375), np.full(network.input_size, 0.625), (0, 1))
    for one, other in zip(margins(network, ball, 0, name), margins(network, box, 0, name), strict=True):
        assert other.lower == pytest.approx(one.lower, abs=1e-9)
        assert other.upper == pytest.approx(one.upper, abs=1e-9)
        assert other.certified_lower == pytest.approx(one.certified_lower, abs=1e-9)
    assert certify(network, box, 0).verdict is certify(network, ball, 0).verdict


def test_a_box_may_be_of_any_widths() -> None:
    rng = np.random.default_rng(3)
    network = random_dense_network(rng, (3, 7, 6, 4))
    low = rng.normal(size=3)
    box = Box(low, low + np.array([0.0, 0.3, 0.05]))
    problem = margin_problem(network, box, 1)
    least = problem.replay(np.vstack([box.sample(3000), box.corners()])).min(axis=0)
    for name, rung in RUNGS.items():
        for bound, value in zip(rung(problem), least, strict=True):
            assert bound.lower <= value + 1e-9, name
            if rung.side is Side.EXACT:
                assert bound.lower >= value - 0.2, name
            if bound.witness is not None:
                assert box.contains(bound.witness), name


def test_rungs_themselves_are_taken_wherever_their_names_are() -> None:
    network, ball = case(0)
    mine = replace(RUNGS["dual"], name="mine")
    assert get_rung(mine) is mine
    bounds = layer_bounds(network, ball, ("interval", mine))
    assert bounds.chain == ("interval", "mine")
    assert [b.lower for b in margins(network, ball, 0, mine, bounds)] == [
        b.lower for b in margins(network, ball, 0, "dual", bounds)
    ]
    answer = certify(network, ball, 0, ladder=(mine, "pgd"), bounds=("interval", mine), tighten=())
    assert set(answer.rung_seconds) >= {"mine"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Property.of(np.eye(2), groups=[0, 2]), "groups must ascend from 0 without gaps, got"),
        (lambda: Property.of(np.eye(2), groups=[1, 0]), "groups must ascend from 0 without gaps"),
        (lambda: Property.of(np.eye(2), groups=[0]), "groups must be one whole number for each of 2"),
        (lambda: Property.of(np.eye(2), constants=[np.inf, 0.0]), "constants must be 2 finite numbers"),
        (lambda: Property.of(np.eye(2), constants=[0.0]), "constants must be 2 finite numbers"),
        (lambda: Property.of(np.zeros((0, 2))), "≥ 1 rows"),
        (lambda: Objective(np.zeros(3)), r"rows must have shape \(m, outputs\)"),
        (lambda: as_property(Property.of(np.eye(2)), 3), "the property is about 2 outputs, the network has 3"),
        (lambda: as_property(Property.of(np.eye(2)), 2, [1]), "targets belong to a label"),
        (lambda: robustness(3, 3), "label must be"),
        (lambda: Box([0.0], [1.0, 2.0]), "one shape with at least one entry"),
        (lambda: Box([], []), "at least one entry"),
        (lambda: Box([2.0], [1.0]), "lower must be ≤ upper and both finite, got 2.0 and 1.0 at index 0"),
        (lambda: Box([0.0], [np.inf]), "both finite"),
        (lambda: Box([2.0], [3.0], (0, 1)), r"in the domain \[0.0, 1.0\]"),
    ],
)
def test_questions_that_are_none_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


def test_a_rung_names_the_input_sets_it_takes() -> None:
    network, ball = case(0)
    balls_only = replace(RUNGS["dual"], name="balls only", input_sets=(LinfBall,))
    assert margins(network, ball, 0, balls_only)
    with pytest.raises(TypeError, match="rung 'balls only' takes LinfBall, got Box"):
        margins(network, Box(ball.lower, ball.upper), 0, balls_only)


def test_known_bounds_of_another_question_are_refused_for_properties_as_well() -> None:
    """A rung's bounds on a point would make any ball safe."""
    network, ball = case(0)
    clean = network.forward(ball.center)
    question = Property.of(np.diag(np.sign(clean))[:2])
    known = {"dual": margins(network, LinfBall(ball.center, 0.0), question, "dual")}
    with pytest.raises(ValueError, match="bounds of another network, ball or label"):
        certify(network, LinfBall(ball.center, 5.0), question, ladder=["dual"], known=known)
    other = Property.of(-np.diag(np.sign(clean))[:2])
    with pytest.raises(ValueError, match="bounds of another network, ball or label"):
        certify(network, LinfBall(ball.center, 0.0), other, ladder=["dual"], known=known)


def test_no_ball_has_the_digest_of_a_box() -> None:
    """Bytes of a box's ends behind its tag can be read as a centre, a radius and no domain."""
    given = b"box" + bytes(13)
    text = given + b"[1.2345e+142, null]"
    ball, ends = LinfBall(struct.unpack("<2d", given), 1.2345e142), struct.unpack("<4d", text[3:])
    assert ball.digest != Box(ends[:2], ends[2:]).digest


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_rows_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="rows must be finite"):
        Property.of([[bad, 0.0]])
    with pytest.raises(ValueError, match="rows must be finite"):
        Objective(sp.csr_array([[bad, 0.0]]))


def test_questions_are_not_rounded() -> None:
    big = 2**53 + 1
    for make in (
        lambda: Box([big], [big]), lambda: LinfBall([big], 1.0), lambda: Property.of([[big, 0]]),
        lambda: Property.of(np.eye(1), [big]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must fit into float64 exactly"):
            make()


def test_sets_as_wide_as_floats_are_answered() -> None:
    network, _ = case(0)
    for wide in (LinfBall(np.zeros(3), 1.7e308), Box(np.full(3, -1.7e308), np.full(3, 1.7e308))):
        assert all(wide.contains(point) for point in wide.sample(5))
        assert certify(network, wide, 0, ("dual", "pgd")).verdict in (Verdict.NO, Verdict.MAYBE)


def test_rungs_that_cannot_be_told_apart_or_answer_wrongly_are_named() -> None:
    network, ball = case(0)
    other = replace(RUNGS["dual"], claim="another")
    with pytest.raises(ValueError, match="ladder has two different rungs called 'dual'"):
        certify(network, ball, 0, ladder=("dual", other))
    for run in (lambda problem: None, lambda problem: [0.0]):
        with pytest.raises(TypeError, match=r"must answer RowBounds, got .*each_row"):
            margins(network, ball, 0, replace(RUNGS["dual"], run=run))
    short = replace(RUNGS["dual"], run=lambda problem: RowBounds(np.zeros(3), None, (Bound(0.0),)))
    with pytest.raises(ValueError, match="must answer 3 details or none"):
        margins(network, ball, 0, short)
    assert certified_radius(network, ball.center, 0, (RUNGS["dual"],), largest=0.1).certified >= 0.0
    balls_only = replace(RUNGS["dual"], name="balls only", input_sets=(LinfBall,))
    with pytest.raises(TypeError, match="'balls only' takes LinfBall"):  # before any work
        certify(network, Box(ball.lower, ball.upper), 0, ladder=("interval", balls_only))


def test_the_radius_of_a_property_is_that_of_its_label() -> None:
    network, ball = case(0)
    label = int(network.predict(ball.center))
    one, other = (
        certified_radius(network, ball.center, asked, ("dual", "pgd"), largest=0.3, tolerance=0.01)
        for asked in (label, robustness(network.output_size, label))
    )
    assert one == other
    assert 0 < one.certified <= one.refuted
