"""Sceptical: verdicts against rational arithmetic on tiny networks, and solvers that lie.

The truth is found by enumerating all activation patterns in fractions: on each pattern the network is affine, and its
minimum over the pattern's polytope (inputs of one or two coordinates) is at a vertex, found exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from toolkit import solvers
from toolkit.balls import LinfBall
from toolkit.certify import certify
from toolkit.layers import Dense
from toolkit.network import Network
from toolkit.problem import Settings, Status, Verdict
from toolkit.session import SolveReport

Row = tuple[list[Fraction], Fraction]  # coefficients over the input, and a constant
LADDERS = (("dual", "lp"), ("crown", "alpha"), ("dual", "pgd", "lp", "ideal", "exact"), ("bab",))


def affine(layer: Dense, inputs: list[Row]) -> list[Row]:
    """The layer's outputs as functionals of the network's input."""
    rows = []
    for weights, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
        scaled = [(Fraction(w), row) for w, row in zip(weights, inputs, strict=True)]
        size = len(inputs[0][0])
        rows.append(
            (
                [sum((w * row[0][j] for w, row in scaled), Fraction(0)) for j in range(size)],
                sum((w * row[1] for w, row in scaled), Fraction(bias)),
            )
        )
    return rows


def value(row: Row, x: tuple[Fraction, ...]) -> Fraction:
    return sum((c * v for c, v in zip(row[0], x, strict=True)), row[1])


def vertices(sides: list[Row], size: int) -> Iterator[tuple[Fraction, ...]]:
    """Points where `size` of the inequalities row ≥ 0 are equalities and the others hold."""
    for chosen in itertools.combinations(sides, size):
        if size == 1:
            ((slope,), constant) = chosen[0]
            points = [(-constant / slope,)] if slope else []
        else:
            ((a, b), e), ((c, d), f) = chosen
            det = a * d - b * c
            points = [((b * f - d * e) / det, (c * e - a * f) / det)] if det else []
        yield from (x for x in points if all(value(side, x) >= 0 for side in sides))


def true_minimum(network: Network, ball: LinfBall, row: list[int]) -> Fraction:
    """min row·F over the real ball, in fractions."""
    size = ball.size
    unit = [([Fraction(int(i == j)) for j in range(size)], Fraction(0)) for i in range(size)]
    eps = Fraction(ball.eps)
    box: list[Row] = []
    for (coefficients, _), center in zip(unit, ball.center.tolist(), strict=True):
        box.append((coefficients, -(Fraction(center) - eps)))
        box.append(([-c for c in coefficients], Fraction(center) + eps))
    count = sum(network.relu_sizes)
    best: Fraction | None = None
    for pattern in itertools.product((False, True), repeat=count):
        phases = iter(pattern)
        rows, sides = unit, list(box)
        for layer in network.layers[:-1]:
            hats = affine(layer, rows)
            own = [next(phases) for _ in hats]
            sides += [hat if on else ([-c for c in hat[0]], -hat[1]) for hat, on in zip(hats, own, strict=True)]
            zero = ([Fraction(0)] * size, Fraction(0))
            rows = [hat if on else zero for hat, on in zip(hats, own, strict=True)]
        outputs = affine(network.layers[-1], rows)
        goal = (
            [sum((r * out[0][j] for r, out in zip(row, outputs, strict=True)), Fraction(0)) for j in range(size)],
            sum((r * out[1] for r, out in zip(row, outputs, strict=True)), Fraction(0)),
        )
        found = min((value(goal, x) for x in vertices(sides, size)), default=None)
        best = found if best is None or (found is not None and found < best) else best
    assert best is not None
    return best


def tiny_case(seed: int) -> tuple[Network, LinfBall, str]:
    """A random network with 1 or 2 inputs and 3 to 5 neurons, of one of the awkward kinds."""
    rng = np.random.default_rng(seed)
    kind = ("plain", "near tie", "huge", "tiny", "zero bound", "duplicated", "no radius", "integers")[seed % 8]
    inputs = 1 if rng.random() < 0.7 else 2
    sizes = (inputs, 3, 2) if inputs == 2 else (inputs, 3, 2, 2)
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        weight, bias = rng.normal(size=(fan_out, fan_in)), rng.normal(0, 0.5, fan_out)
        layers.append((np.round(weight), np.round(bias)) if kind == "integers" else (weight, bias))
    center, eps = rng.normal(size=inputs), float(rng.uniform(0.05, 1.0))
    if kind == "no radius":
        eps = 0.0
    if kind in ("integers", "zero bound"):
        center, eps = np.round(center), 1.0
    weight, bias = layers[0]
    if kind in ("huge", "tiny"):
        scale = 10.0 ** rng.uniform(3, 7) if kind == "huge" else 10.0 ** rng.uniform(-12, -5)
        layers[0] = weight * scale, bias * scale
    if kind == "zero bound":  # the first neuron's l is exactly 0, the second's u
        weight[0], weight[1] = np.round(2 * weight[0]) / 2, np.round(2 * weight[1]) / 2
        bias[0] = np.abs(weight[0]).sum() * eps - weight[0] @ center
        bias[1] = -np.abs(weight[1]).sum() * eps - weight[1] @ center
    if kind == "duplicated":
        weight[1], bias[1] = weight[0], bias[0]
    network = Network([Dense(*pair) for pair in layers])
    ball = LinfBall(center, eps)
    if kind == "near tie":  # moves the margin's minimum to within 1e-9 of 0, on either side
        least = float(true_minimum(network, ball, [1, -1]))
        bias = layers[-1][1]
        bias[0] -= least + float(rng.choice([-1, 1])) * 10.0 ** rng.uniform(-16, -9)
        network = Network([Dense(*pair) for pair in layers])
    return network, ball, kind


def exact_value(network: Network, point: np.ndarray) -> Fraction:
    """F_0 − F_1 at a point, in fractions."""
    y = [([Fraction(0)], Fraction(float(v))) for v in point]
    for k, layer in enumerate(network.layers):
        if k:
            y = [(c, max(v, Fraction(0))) for c, v in y]
        y = affine(layer, y)
    return y[0][1] - y[1][1]


def judge(network: Network, ball: LinfBall, ladder: tuple[str, ...], tolerance: float, truth: Fraction) -> Verdict:
    """One certification, held against the truth."""
    answer = certify(network, ball, 0, ladder, tolerance=tolerance)
    (margin,) = answer.margins
    if answer.verdict is Verdict.YES:
        assert truth > 0, f"YES by {answer.rung}, but the margin's minimum is {float(truth)}"
        assert Fraction(margin.certified_lower) <= truth
    if np.isfinite(margin.certified_lower):
        assert Fraction(margin.certified_lower) <= truth
    if answer.verdict is Verdict.NO:
        assert answer.witness is not None
        assert ball.contains(answer.witness)
        replayed = network.forward(answer.witness)
        assert replayed[0] - replayed[1] <= 0
        # replay is float64: the exact margin there is ≤ 0 up to its rounding
        scale = 1 + float(np.abs(replayed).max()) + float(np.abs(network.layers[0].weight).max())
        assert exact_value(network, answer.witness) <= Fraction(1e-12 * scale)
    return answer.verdict


def run_cases(count: int) -> dict[str, int]:
    """Verdicts of `count` random networks by every ladder; YES with no tolerance at all."""
    seen: dict[str, int] = {}
    for seed in range(count):
        network, ball, kind = tiny_case(seed)
        truth = true_minimum(network, ball, [1, -1])
        for ladder in LADDERS if seed % 4 == 0 else (LADDERS[seed % 3], LADDERS[3]):
            verdict = judge(network, ball, ladder, 0.0, truth)
            for key in (str(verdict), kind, "cases"):
                seen[key] = seen.get(key, 0) + 1
    return seen


def _report(seen: dict[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nsceptical: {seen['cases']} certifications, 0 violations: {seen}")
    assert min(seen["YES"], seen["NO"]) > 10


def test_verdicts_against_rational_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    _report(run_cases(200), capsys)


@pytest.mark.slow
def test_verdicts_against_rational_arithmetic_at_length(capsys: pytest.CaptureFixture[str]) -> None:
    _report(run_cases(2000), capsys)


def _higher(report: SolveReport) -> SolveReport:
    """Claims more than is true, with a status to match."""
    return replace(report, bound=report.bound + 10, incumbent=report.incumbent + 10, status=Status.OPTIMAL)


def _optimal(report: SolveReport) -> SolveReport:
    return replace(report, status=Status.OPTIMAL, bound=1e6)


def _infeasible(report: SolveReport) -> SolveReport:
    return replace(report, status=Status.INFEASIBLE, bound=np.inf)


def _nan(report: SolveReport) -> SolveReport:
    return replace(report, bound=np.nan, incumbent=np.nan, x=None if report.x is None else report.x * np.nan)


def _garbled(report: SolveReport) -> SolveReport:
    rng = np.random.default_rng(0)
    duals = None if report.duals is None else rng.normal(size=report.duals.size) * 100
    return replace(report, duals=duals)


def _infinite_duals(report: SolveReport) -> SolveReport:
    duals = None if report.duals is None else np.where(np.arange(report.duals.size) % 2, np.inf, np.nan)
    return replace(report, duals=duals)


def _flipped(report: SolveReport) -> SolveReport:
    return replace(report, duals=None if report.duals is None else -report.duals)


def _elsewhere(report: SolveReport) -> SolveReport:
    """A solution far outside the ball."""
    return replace(report, x=None if report.x is None else report.x + 1e3, incumbent=-1e3)


LIES: tuple[Callable[[SolveReport], SolveReport], ...] = (
    _higher, _optimal, _infeasible, _nan, _garbled, _infinite_duals, _flipped, _elsewhere,
)  # fmt: skip


@pytest.mark.parametrize("lie", [*LIES, None], ids=lambda lie: lie.__name__.strip("_") if lie else "stopped")
def test_a_lying_solver_never_gets_a_wrong_verdict(
    lie: Callable[[SolveReport], SolveReport] | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every report of the LP and MILP solver is falsified; `stopped`: LPs end after one iteration, "optimal"."""
    honest = solvers.HighsSession._solve

    def lying(self: solvers.HighsSession, cost: np.ndarray, offset: float, settings: Settings) -> SolveReport:
        if lie is None:
            self.iteration_limit = 1
            return replace(honest(self, cost, offset, settings), status=Status.OPTIMAL, bound=1e6)
        return lie(honest(self, cost, offset, settings))

    monkeypatch.setattr(solvers.HighsSession, "_solve", lying)
    monkeypatch.setattr("toolkit.rungs.ideal.ROUNDS", 6)
    count = 0
    for seed in range(24):
        network, ball, _ = tiny_case(seed)
        truth = true_minimum(network, ball, [1, -1])
        for ladder in (("lp",), ("ideal",), ("exact",)):
            for bounds in (("interval", "dual"), ("interval", "lp")):
                settings = Settings("highs", rigorous=True, time_limit=0.2)
                answer = certify(network, ball, 0, ladder, bounds, settings=settings, tolerance=0.0)
                assert answer.verdict is not Verdict.YES or truth > 0
                assert Fraction(max(answer.margins[0].certified_lower, -1e300)) <= truth
                if answer.verdict is Verdict.NO:
                    assert ball.contains(answer.witness)
                    outputs = network.forward(answer.witness)
                    assert outputs[0] <= outputs[1]
                count += 1
    with capsys.disabled():
        print(f"\nsceptical: {count} certifications with a solver that lies ({lie.__name__ if lie else 'stopped'})")
