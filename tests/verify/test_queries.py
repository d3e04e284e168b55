"""verify: sat and unsat on networks whose values are known, in real arithmetic and by onnxruntime."""

from __future__ import annotations

import gzip
import time
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from onnx_models import write_onnx

import toolkit
from toolkit import Dense, Network
from toolkit.networks import replay
from toolkit.networks.replay import exact_margins
from toolkit.problems.vnnlib_reader import parse_vnnlib
from toolkit.verify import queries as module
from toolkit.verify.queries import QueryStatus, verify_query

ABSOLUTE = Network([Dense([[1.0], [-1.0]], [0.0, 0.0]), Dense([[1.0, 1.0]], [0.0])])  # |x|
DECLARED = "(declare-const X_0 Real)(declare-const Y_0 Real)"


def query(text: str, inputs: int = 1, outputs: int = 1) -> object:
    names = [f"X_{i}" for i in range(inputs)] + [f"Y_{i}" for i in range(outputs)]
    return parse_vnnlib("".join(f"(declare-const {name} Real)" for name in names) + text)


def box(low: str, high: str) -> str:
    return f"(assert (>= X_0 {low}))(assert (<= X_0 {high}))"


LONG = "(assert (= (+ (* 0.7720787261757455 Y_0) (* (/ 1 3) X_0) (* -1.1234567890123457 Y_0)) {}))"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (box("-1", "1") + "(assert (>= Y_0 0.9))", "sat"),
        (box("-1", "1") + "(assert (>= (+ (* 0.7720787261757455 Y_0) (* (/ 1 3) X_0)) 1.105))", "sat"),
        (box("-1", "1") + "(assert (>= (+ (* 0.7720787261757455 Y_0) (* (/ 1 3) X_0)) 1.106))", "unsat"),
        (box("-1", "1") + LONG.format("-0.69"), "unsat"),
        (box("-1", "1") + "(assert (and (<= Y_0 -0.1) (>= Y_0 -1e14) (<= Y_0 1e20) (<= (* 1e-20 Y_0) 1)))", "unsat"),
        (box("-1", "1") + "(assert (and (<= Y_0 1e20) (<= Y_0 10)))", "sat"),
        (box("-1", "1") + "(assert (<= Y_0 -1e160))", "unsat"),
        (box("-1", "1") + "(assert (>= Y_0 1))", "sat"),
        (box("-1", "1") + "(assert (>= Y_0 1.0000001))", "unsat"),
        (box("-1", "1") + "(assert (<= Y_0 -1e-9))", "unsat"),
        (box("1.06", "1.14") + "(assert (= (+ (* (/ 1 3) Y_0) (* 0.4857310867836978 X_0)) 2.4))", "unsat"),
        (box("-1", "1") + "(assert (>= Y_0 0.4))(assert (<= Y_0 0.5))", "sat"),
        (box("0.1", "0.1") + "(assert (>= Y_0 0.099))", "sat"),  # no float lies in the box
        (box("0.1", "0.1") + "(assert (>= Y_0 0.101))", "unsat"),
        (box("1", "-1") + "(assert (>= Y_0 0))", "unsat"),
        (box("-1", "1") + "(assert (or (and (>= X_0 0.5) (<= Y_0 0.4)) (and (<= X_0 -0.5) (<= Y_0 0.4))))", "unsat"),
        (box("-1", "1") + "(assert (or (and (>= X_0 0.5) (<= Y_0 0.4)) (and (<= X_0 -0.5) (<= Y_0 0.6))))", "sat"),
        (box("-1", "1") + "(assert (<= (+ Y_0 X_0) -0.5))", "unsat"),  # |x| + x ≥ 0
        (box("-1", "1") + "(assert (>= (+ Y_0 X_0) 1.5))", "sat"),
    ],
)
def test_the_absolute_value(text: str, status: str) -> None:
    found = verify_query(ABSOLUTE, query(text), timeout=30)
    assert found.status == status
    assert found.certified
    if found.witness is not None and not text.startswith(box("0.1", "0.1")):
        x = [Fraction(float(value)) for value in found.witness]
        assert found.query.holds(x, exact_margins(ABSOLUTE, np.eye(1), found.witness))


def test_a_tie_that_no_float_reaches_is_not_said_to_be_sat() -> None:
    """|x| ≥ 0.1 on [−0.1, 0.1] is true at 0.1 alone, which is no float."""
    found = verify_query(ABSOLUTE, query(box("-0.1", "0.1") + "(assert (>= Y_0 0.1))"), timeout=5)
    assert found.status == QueryStatus.UNKNOWN


def test_verdicts_against_a_grid_of_points() -> None:
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(8):
        net = Network(
            [Dense(rng.normal(size=(5, 2)), rng.normal(size=5)), Dense(rng.normal(size=(2, 5)), rng.normal(size=2))]
        )
        level = float(rng.normal())
        text = "".join(f"(assert (>= X_{i} -1))(assert (<= X_{i} 1))" for i in range(2))
        text += f"(assert (or (<= Y_0 {level!r}) (and (<= Y_1 0) (<= Y_0 Y_1))))"
        found = verify_query(net, query(text, 2, 2), timeout=30)
        grid = np.array(list(product(np.linspace(-1, 1, 41), repeat=2)))
        y = np.asarray(net.forward(grid))
        some = bool(((y[:, 0] <= level) | ((y[:, 1] <= 0) & (y[:, 0] <= y[:, 1]))).any())
        assert found.status in ("sat", "unsat")
        assert found.status == "sat" or not some
        seen.add(found.status)
    assert seen == {"sat", "unsat"}


def test_onnx_files_and_what_onnxruntime_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: onnx)")
    net = write_onnx(tmp_path / "net.onnx", [([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0])])
    asked = tmp_path / "query.vnnlib.gz"
    asked.write_bytes(gzip.compress(f"{DECLARED}{box('-1', '1')}(assert (>= Y_0 0.75))".encode()))
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress(net.read_bytes()))
    for file in (net, packed):
        found = verify_query(file, asked, timeout=30)
        assert (found.status, found.deployed) == ("sat", True)
        assert found.witness is not None
        assert found.outputs is not None
        assert found.witness.astype(np.float32) == found.witness
        assert found.outputs == abs(found.witness)
    monkeypatch.setattr(module, "deployed_outputs", lambda *_: np.array([0.0]))
    found = verify_query(net, asked, timeout=30)
    assert (found.status, found.deployed) == ("sat", False)
    assert "onnxruntime" in found.message


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="2 inputs and 1 outputs, the network has 1 and 1"):
        verify_query(ABSOLUTE, query("(assert (<= Y_0 0))", 2, 1))
    with pytest.raises(ValueError, match="timeout must be > 0"):
        verify_query(ABSOLUTE, query(box("0", "1")), timeout=0)


def test_the_clock_is_kept_over_many_boxes() -> None:
    parts = "".join(f"(and (>= X_0 {k / 1000}) (<= X_0 {(k + 1) / 1000}) (<= Y_0 -1))" for k in range(900))
    asked = query(box("0", "1") + f"(assert (or {parts}))")
    started = time.process_time()  # of this process: what other work on the machine takes does not count
    found = verify_query(ABSOLUTE, asked, timeout=0.5)
    assert time.process_time() - started < 2
    assert found.questions == 900
    assert found.status in ("timed-out", "unsat")


def test_the_public_name_takes_files_and_objects_alike(tmp_path: Path) -> None:
    text = DECLARED + box("-1", "1") + "(assert (>= Y_0 0.75))"
    net, asked = tmp_path / "net.npz", tmp_path / "query.vnnlib"
    ABSOLUTE.save(net)
    asked.write_text(text)
    for network in (ABSOLUTE, net, str(net)):
        for one in (toolkit.read_vnnlib(asked), asked, str(asked)):
            found = toolkit.verify_query(network, one, timeout=30)
            assert isinstance(found, toolkit.QueryResult)
            assert found.status == toolkit.QueryStatus.SAT
            assert found.witness is not None
            assert abs(float(found.witness[0])) >= 0.75


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (box("-1", "1") + "(assert (< Y_0 0))", "unknown"),  # the least |x| is 0
        ("(assert (> X_0 1))(assert (< X_0 1))(assert (>= Y_0 0))", "unknown"),
        (box("-1", "1") + "(assert (> Y_0 1))", "unknown"),  # the largest |x| is 1: a tie is no witness
        (box("-1", "1") + "(assert (> Y_0 0.5))", "sat"),
        (box("-1", "1") + "(assert (> Y_0 1.5))", "unsat"),
    ],
)
def test_strict_comparisons_are_met_strictly(text: str, status: str) -> None:
    found = verify_query(ABSOLUTE, query(text), timeout=5)
    assert found.status == status
    assert "strict comparisons" in found.message
    if found.witness is not None:
        assert abs(float(found.witness[0])) > 0.5


def test_a_point_is_sought_before_anything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a network is large easy sat answers need no l,u; unsat ones do."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("bounds were asked for")

    monkeypatch.setattr(module, "certify", never)
    monkeypatch.setattr(module, "MANY_NEURONS", 2)
    found = verify_query(ABSOLUTE, query(box("-1", "1") + "(assert (>= Y_0 0.9))"), timeout=30)
    assert (found.status, found.certified) == ("sat", True)
    with pytest.raises(AssertionError, match="bounds were asked for"):
        verify_query(ABSOLUTE, query(box("-1", "1") + "(assert (>= Y_0 1.1))"), timeout=30)


def test_what_the_ladder_leaves_open_is_searched_for_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two boxes, asked a rung that decides neither, the one with a point: by searches in the time that is left."""
    parts = "(and (<= X_0 -0.5) (<= Y_0 0.4)) (and (>= X_0 -0.5) (<= X_0 1) (>= Y_0 0.7) (<= Y_0 0.701))"
    asked = query(box("-1", "1") + f"(assert (or {parts}))")
    monkeypatch.setattr(module, "CHEAP", ("interval",))
    for timeout in (30, None):
        found = verify_query(ABSOLUTE, asked, timeout=timeout, ladder=("interval",))
        assert found.status == "sat"
        assert found.witness is not None
        assert 0.7 <= float(found.witness[0]) <= 0.701
    never = query(box("-1", "1") + "(assert (or (and (>= X_0 0) (<= Y_0 -1e-9)) (and (<= X_0 0) (<= Y_0 -1e-9))))")
    assert verify_query(ABSOLUTE, never, timeout=None, ladder=("interval",)).status in ("unknown", "unsat")


def test_exact_arithmetic_waits_for_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tie needs integers; with a clock that leaves no second for them it is not said to be sat, and that is all."""
    asked = query(box("-1", "1") + "(assert (<= Y_0 0))")
    assert verify_query(ABSOLUTE, asked, timeout=30).status == "sat"
    monkeypatch.setattr(replay, "EXACT_A_SECOND", 0)
    assert verify_query(ABSOLUTE, asked, timeout=5, ladder=("interval",)).status in ("unknown", "timed-out")
