"""VNN-LIB queries against brute-force evaluation of what they say, at random points, in rational arithmetic."""

from __future__ import annotations

import gzip
import operator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.problems import vnnlib, vnnlib_formulas
from toolkit.problems.vnnlib import VnnlibQuestion, vnnlib_questions
from toolkit.problems.vnnlib_box import RationalBox, rounded_down, rounded_up
from toolkit.problems.vnnlib_reader import parse_vnnlib, read_vnnlib
from toolkit.problems.vnnlib_syntax import QueryText

Tree = Any  # (operator, tree, …), a variable's name, or a number's text
DECLARED = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1", "Y_2"))
BOX = "(assert (and (>= X_0 -2) (<= X_0 2) (>= X_1 -2.0) (<= X_1 2e0)))\n"
NAMES = ("X_0", "X_1", "Y_0", "Y_1", "Y_2")
COMPARE = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "=": operator.eq}

number = st.sampled_from(("0", "1", "-1", "0.1", "-.5", "2.", "1e-2", "+3E0", "0.7", "-2"))
variable = st.sampled_from(NAMES)
affine = st.recursive(
    number | variable,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("+-"), inner),
        st.tuples(st.sampled_from("+-"), inner, inner),
        st.tuples(st.just("*"), number, inner),
        st.tuples(st.just("+"), inner, inner, inner),
    ),
    max_leaves=4,
)
atom = st.one_of(
    st.tuples(st.sampled_from(tuple(COMPARE)), affine, affine),
    st.tuples(st.sampled_from(("<=", ">=", "<", ">")), variable, number),
    st.tuples(st.sampled_from(("<=", ">=")), variable, variable),
)
formula = st.recursive(
    atom,
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from(("and", "or")).map(lambda head: (head, *parts))
    ),
    max_leaves=7,
)
point = st.tuples(*[st.sampled_from([Fraction(k, 10) for k in (-20, -10, -5, 0, 1, 3, 5, 10, 20)])] * 5)


def text(tree: Tree) -> str:
    return tree if isinstance(tree, str) else f"({' '.join(map(text, tree))})"


def value(tree: Tree, at: dict[str, Fraction]) -> Any:
    """What a tree says at a point, by its definition."""
    if isinstance(tree, str):
        return at[tree] if tree in at else Fraction(tree.replace("2.", "2.0") if tree == "2." else tree)
    head, *parts = tree
    values = [value(part, at) for part in parts]
    if head == "and":
        return all(values)
    if head == "or":
        return any(values)
    if head in COMPARE:
        return COMPARE[head](*values)
    if head == "*":
        return values[0] * values[1]
    if head == "-":
        return -values[0] if len(values) == 1 else values[0] - sum(values[1:])
    return sum(values)


def unsafe(question: VnnlibQuestion, x: list[Fraction], y: list[Fraction]) -> bool:
    """Whether a question's set holds the point and some group's rows are all ≤ 0 there, in rationals."""
    box = question.box
    if not all(low <= one <= high for low, one, high in zip(box.low, x, box.high, strict=True)):
        return False
    rows = []
    for k in range(len(question.groups)):
        total = Fraction(float(question.below[k]))
        total += sum(Fraction(float(c)) * one for c, one in zip(question.output_rows[k], y, strict=True))
        if question.input_rows is not None:
            total += sum(Fraction(float(c)) * one for c, one in zip(question.input_rows[k], x, strict=True))
        rows.append(total <= 0)
    groups = [[rows[k] for k in np.flatnonzero(question.groups == g)] for g in range(int(question.groups[-1]) + 1)]
    return any(map(all, groups))


@settings(max_examples=150, deadline=None)
@given(st.lists(formula, min_size=1, max_size=3), st.lists(point, min_size=1, max_size=20))
def test_questions_say_what_the_assertions_say(trees: list[Tree], points: list[tuple[Fraction, ...]]) -> None:
    query = parse_vnnlib(DECLARED + BOX + "".join(f"(assert {text(tree)})\n" for tree in trees))
    questions = vnnlib_questions(query)
    for coordinates in points:
        at = dict(zip(NAMES, coordinates, strict=True))
        truth = all(value(tree, at) for tree in trees)
        x, y = list(coordinates[:2]), list(coordinates[2:])
        assert query.holds(x, y) == truth
        found = any(unsafe(question, x, y) for question in questions)
        assert found or not truth  # rounding never loses an unsafe point …
        rounded = any(not np.array_equal(question.below, question.above) for question in questions)
        if not rounded and not query.strict:
            assert found == truth  # … and where nothing was rounded, adds none


@settings(max_examples=100, deadline=None)
@given(st.lists(formula, min_size=1, max_size=2), point)
def test_confirmed_points_make_the_query_true(trees: list[Tree], coordinates: tuple[Fraction, ...]) -> None:
    query = parse_vnnlib(DECLARED + BOX + "".join(f"(assert {text(tree)})\n" for tree in trees))
    x, y = list(coordinates[:2]), list(coordinates[2:])
    for question in vnnlib_questions(query):
        above = VnnlibQuestion(
            question.box, question.output_rows, question.input_rows, question.above, question.above, question.groups
        )
        assert query.strict or query.holds(x, y) or not unsafe(above, x, y)


@pytest.mark.parametrize("written", ["0.1", ".1", "1e-1", "10E-2", "0.1000", "+0.1", "0.01e+1"])
def test_numbers_are_read_exactly_and_boxes_rounded_outward(written: str) -> None:
    query = parse_vnnlib(
        f"(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 {written}))(assert (>= X_0 0))"
    )
    assert query.upper == [Fraction(1, 10)]
    box = RationalBox((Fraction(0),), (Fraction(1, 10),))
    assert Fraction(float(box.inner_upper[0])) < Fraction(1, 10) < Fraction(float(box.upper[0]))
    assert np.nextafter(box.inner_upper[0], 1.0) == box.upper[0]
    assert not box.contains(box.upper)
    assert box.contains(box.inner_upper)


def test_a_sliver_takes_the_nearest_float_and_is_bounded_around() -> None:
    tenth = Fraction(1, 10)
    box = RationalBox((tenth, Fraction(1, 2)), (tenth, Fraction(1, 2)))
    assert box.slivers.tolist() == [True, False]
    assert box.center.tolist() == [0.1, 0.5]
    assert Fraction(float(box.lower[0])) < tenth < Fraction(float(box.upper[0]))
    assert box.contains(box.center)


@given(st.fractions(max_denominator=10**30))
def test_rounding_is_outward_and_by_one_float_at_most(number: Fraction) -> None:
    low, high = rounded_down(number), rounded_up(number)
    assert Fraction(low) <= number <= Fraction(high)
    assert low == high or np.nextafter(low, np.inf) == high


def test_conjunctions_with_one_box_are_groups_of_one_property() -> None:
    query = parse_vnnlib(DECLARED + BOX + "(assert (or (and (<= Y_0 Y_1) (<= Y_0 Y_2)) (<= Y_1 0.5)))")
    (question,) = vnnlib_questions(query)
    assert question.asked.count == 2
    assert question.groups.tolist() == [0, 0, 1]
    boxes = "(assert (or (and (<= X_0 0) (<= Y_0 Y_1)) (and (>= X_0 1) (<= Y_0 Y_1)) (and (<= X_0 0) (<= Y_2 0))))"
    both = vnnlib_questions(parse_vnnlib(DECLARED + BOX + boxes))
    assert sorted(each.asked.count for each in both) == [1, 2]


def test_contradictions_ask_nothing_and_truths_ask_all() -> None:
    assert not vnnlib_questions(parse_vnnlib(DECLARED + BOX + "(assert (<= X_0 -3))"))
    assert not vnnlib_questions(parse_vnnlib(DECLARED + BOX + "(assert (or (<= X_0 -3) (>= X_1 3)))"))
    assert not vnnlib_questions(parse_vnnlib(DECLARED + BOX + "(assert (<= 1 0))"))
    (question,) = vnnlib_questions(parse_vnnlib(DECLARED + BOX + "(assert (or (<= 0 1) (<= Y_0 0)))"))
    assert unsafe(question, [Fraction(0)] * 2, [Fraction(9)] * 3)


def test_rows_are_scaled_rather_than_rounded() -> None:
    query = parse_vnnlib(DECLARED + BOX + "(assert (<= (+ (* 0.1 Y_0) (* -0.3 Y_1)) 0.7))")
    (question,) = vnnlib_questions(query)
    assert question.output_rows.tolist() == [[0.25, -0.75, 0.0]]
    assert (
        question.below.tolist() == question.above.tolist() == [-1.75]
    )  # of all numbers of a row the largest is near 1


def test_rows_whose_coefficients_are_no_floats_are_about_copies_of_the_outputs() -> None:
    first, second = Fraction("0.12345678901234567891"), Fraction(1, 3)
    query = parse_vnnlib(DECLARED + BOX + "(assert (<= (+ (* 0.12345678901234567891 Y_0) (* (/ 1 3) X_1)) 0.7))")
    (question,) = vnnlib_questions(query)
    assert question.copies == 2
    assert question.input_rows is not None
    outputs, inputs = question.output_rows.reshape(2, 3), question.input_rows.reshape(2, 2)
    whole, other = (sum(map(Fraction, column.tolist())) for column in (outputs[:, 0], inputs[:, 1]))
    assert whole / other == first / second
    assert not outputs[:, 1:].any()
    assert not inputs[:, 0].any()
    assert Fraction(float(question.below[0])) <= -whole / first * Fraction("0.7") <= Fraction(float(question.above[0]))
    digits = "7".join("0123456789" * 14)
    refused = parse_vnnlib(DECLARED + BOX + f"(assert (<= (+ (* 0.1{digits}1 Y_0) (* 0.3 Y_1)) 0.7))")
    with pytest.raises(ValueError, match=r"the coefficient 0\.\d+, among others, cannot be scaled"):
        vnnlib_questions(refused)


@pytest.mark.parametrize("factor", ["3", "1024", "0.001", "1e-200", "(/ 1 3)"])
def test_every_rows_largest_coefficient_is_near_one(factor: str) -> None:
    text = DECLARED + BOX + f"(assert (<= (+ (* {factor} Y_0) (* -1 (* {factor} Y_1))) {factor}))"
    (question,) = vnnlib_questions(parse_vnnlib(text))
    largest = np.abs(question.output_rows).max()
    assert 1 <= largest < 2
    assert question.below[0] == pytest.approx(-largest, rel=1e-15)


def test_strict_comparisons_are_met_strictly_and_said() -> None:
    assert parse_vnnlib(DECLARED + BOX + "(assert (< Y_0 0))").strict
    assert parse_vnnlib(DECLARED + BOX + "(assert (or (> Y_0 0) (<= Y_1 0)))").strict
    assert not parse_vnnlib(DECLARED + BOX + "(assert (<= Y_0 0))").strict
    edge = parse_vnnlib(DECLARED + BOX + "(assert (< X_0 1))(assert (or (> Y_0 0) (< Y_1 0)))")
    assert not edge.holds([Fraction(1), Fraction(0)], [Fraction(1)] * 3)
    assert not edge.holds([Fraction(0), Fraction(0)], [Fraction(0)] * 3)
    assert edge.holds([Fraction(0), Fraction(0)], [Fraction(1), Fraction(0), Fraction(0)])


def test_numbers_past_the_largest_float_are_scaled_or_named() -> None:
    (question,) = vnnlib_questions(parse_vnnlib(DECLARED + BOX + "(assert (>= (* 1e400 Y_0) 1e400))"))
    assert question.output_rows.tolist() == [[-1.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="outside the range of double precision"):
        vnnlib_questions(parse_vnnlib(DECLARED + BOX + "(assert (>= Y_0 1e400))"))
    huge = DECLARED + "(assert (>= X_0 -1e400))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))"
    with pytest.raises(ValueError, match="a bound of an input lies outside the range of double precision"):
        vnnlib_questions(parse_vnnlib(huge + "(assert (<= Y_0 0))"))


def test_a_function_without_arguments_is_a_constant() -> None:
    written = (
        DECLARED.replace("declare-const", "declare-fun").replace(" Real", " ( ) Real") + BOX + "(assert (<= Y_1 0.5))"
    )
    (question,) = vnnlib_questions(parse_vnnlib(written))
    assert question.output_rows.tolist() == [[0.0, 1.0, 0.0]]
    assert question.above.tolist() == [-0.5]


def test_an_input_without_bound_is_named() -> None:
    with pytest.raises(ValueError, match="input 1 of X has no upper bound"):
        vnnlib_questions(parse_vnnlib(DECLARED + "(assert (<= X_0 1))(assert (>= X_0 0))(assert (>= X_1 0))"))


SECOND = """(vnnlib-version <2.0>)  ; the standard's
(declare-network f (declare-input A Real [2,2]) (declare-output B float32 []))
(assert (and (>= A[0,0] 0) (<= A[0,0] 1) (>= A[0,1] 0) (<= A[0,1] 1)))
(assert (>= A[1,0] 0.0)) (assert (<= A [1, 0] 1)) (assert (>= A[1,1] (- 1.0))) (assert (<= (* -1 A[1,1]) 0.5))
(assert (<= A[1,1] 1)) (assert (or (<= B 0.5) (== B 2.0)))
"""


def test_version_2_reads_tensors_in_row_major_order() -> None:
    query = parse_vnnlib(SECOND)
    assert (query.version, query.network, query.input.shape, query.output.shape) == ((2, 0), "f", (2, 2), ())
    assert query.output.kind == "float32"
    assert query.lower == [0, 0, 0, Fraction(-1, 2)]
    assert query.upper == [1, 1, 1, 1]
    (question,) = vnnlib_questions(query)
    assert question.groups.tolist() == [0, 1, 1]


HOSTILE = {
    "(assert (<= Y_0 0)": "missing",
    "(assert (<= Y_0 0)))": "closes nothing",
    "(assert (<= Y_9 0))": "'Y_9' is no variable",
    "(assert (<= Z 0))": "'Z' is no variable",
    "(assert (<= Y_0 0x10))": "is no variable",
    "(assert (<= Y_0 1e999999999))": "exponents up to",
    "(assert (<= Y_0 nan))": "is no variable",
    "(assert (=> (<= Y_0 0) (<= Y_1 0)))": "is not supported; allowed",
    "(assert (!= Y_0 0))": "is not supported; allowed",
    "(assert (* Y_0 Y_1))": "multiplies variables",
    "(assert (<= (/ 1 Y_0) 0))": "divides by zero or by a variable",
    "(assert (<= Y_0))": "compares two expressions",
    "(assert (and))": "at least one argument",
    "(assert (and Y_0 Y_1))": "takes formulas",
    "(assert (<= Y_0 (<= Y_1 0)))": "takes numbers",
    "(assert Y_0)": "takes one formula",
    "(assert)": "takes one formula",
    "(declare-const X_2 Int)": "and Real",
    "(declare-const X_2 () Real)": "stands where the name",
    "(declare-fun X_2 Real)": "takes X_i or Y_i and () Real",
    "(declare-fun X_2 () Int)": "takes X_i or Y_i and () Real",
    "(declare-fun X_2 (Real) Real)": "stands in 'declare-fun', which takes words only",
    "(declare-const X_7 Real)": "X_2 is to follow",
    "(assert (<= Y_0 0))(declare-const Y_3 Real)": "before every assertion",
    "(define-fun f () Real)": "is no command",
    "()": "stands where the name",
    "((": "stands where the name",
    "(assert (<= Y_0[0] 0))": "is no variable",
    "(assert (<= Y_0 0[1]))": "is a number and has an index",
    '(assert (<= Y_0 "0")': "is no variable",
    "loose": "outside of every command",
    "(vnnlib-version <2.0>)": "must come first",
    "(assert " + "(and " * 20000: "nested deeper",
    "(assert (<= Y_0 " + "9" * 100_000 + "))": "digits",
    "(assert (and " + "".join(f"(or (<= Y_0 {i}) (<= Y_1 {i}))" for i in range(99)) + "))": "conjunctions",
    "(assert (<= " + "(* 1e3000 " * 500 + "Y_0" + ")" * 500 + " 0))": "bits",
}


@pytest.fixture
def few_conjunctions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower limit, which takes less time to reach."""
    for module in (vnnlib, vnnlib_formulas):
        monkeypatch.setattr(module, "MOST_CONJUNCTIONS", 2**12)


@pytest.mark.usefixtures("few_conjunctions")
@pytest.mark.parametrize("written", HOSTILE)
def test_hostile_files_end_in_one_error_that_names_line_and_token(written: str) -> None:
    with pytest.raises(ValueError, match=r"line \d+: ") as caught:
        parse_vnnlib(QueryText(f"{DECLARED}{written}\n", "evil\x1b.vnnlib"))
    assert HOSTILE[written] in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\x1b" not in str(caught.value)


@pytest.mark.usefixtures("few_conjunctions")
def test_depth_costs_no_recursion_and_products_are_limited() -> None:
    deep = "(or (<= Y_0 0) " * 1500 + "(<= Y_1 0)" + ")" * 1500  # deeper than Python recurses
    (question,) = vnnlib_questions(parse_vnnlib(f"{DECLARED}{BOX}(assert {deep})"))
    assert question.asked.count in (2, 1501)
    factors = "".join(f"(assert (or (<= Y_0 {i}) (<= Y_1 {i})))" for i in range(99))
    with pytest.raises(ValueError, match="conjunctions"):
        vnnlib_questions(parse_vnnlib(DECLARED + BOX + factors))


def test_files_compressed_damaged_and_absent(tmp_path: Path) -> None:
    plain, packed = tmp_path / "q.vnnlib", tmp_path / "q.vnnlib.gz"
    plain.write_text(SECOND)
    packed.write_bytes(gzip.compress(SECOND.encode()))
    assert read_vnnlib(plain).lower == read_vnnlib(packed).lower
    packed.write_bytes(gzip.compress(SECOND.encode())[:40])
    with pytest.raises(ValueError, match="gzip"):
        read_vnnlib(packed)
    plain.write_bytes(b"(assert \xff)")
    with pytest.raises(ValueError, match="UTF-8"):
        read_vnnlib(plain)
    with pytest.raises(FileNotFoundError):
        read_vnnlib(tmp_path / "none.vnnlib")
