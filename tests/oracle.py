"""Networks in exact arithmetic: the forward pass, membership in the ball, and the true minimum of a functional.

Every float is a fraction with a power of two below, so a network is an integer function up to a known power of two, and
nothing is rounded anywhere. The minimum: the box is cut by one neuron's hyperplane x̂ = 0 after the other into polytopes
on which the network is affine; there a linear function is least at a vertex. Vertices X/w are kept as integer vectors
(X, w), w > 0, so that no fraction is ever reduced but for one gcd per new vertex.

Source of the cut: Motzkin et al. 1953, the double description method; two vertices share an edge if the constraints
tight at both are tight at no third one. Cost: ∝ vertices² per cut, so for up to four inputs and a dozen neurons.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from toolkit.networks.layers import AffineMap
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall

Form = tuple[int, ...]  # an affine functional of the input: n coefficients and a constant, all times one power of two
MAX_INPUTS = 6


@dataclass(frozen=True)
class Vertex:
    """A vertex X/w as (X, w), and which constraints are equalities there."""

    at: Form
    tight: frozenset[int]

    def on(self, form: Form) -> int:
        """The functional's value there times w: its sign is exact."""
        return sum(map(int.__mul__, form, self.at))


@dataclass(frozen=True)
class IntegerMap:
    """An affine map times `scale`, a power of two."""

    weight: tuple[tuple[tuple[int, int], ...], ...]  # per output: (input, entry) of the entries that are not 0
    bias: Form
    scale: int

    def compose(self, forms: Sequence[Form], scale: int) -> list[Form]:
        """The outputs as functionals of the network's input; `scale`: of the forms given."""
        found = []
        for entries, bias in zip(self.weight, self.bias, strict=True):
            total = [0] * len(forms[0])
            total[-1] = bias * scale
            for j, entry in entries:
                for place, value in enumerate(forms[j]):
                    if value:
                        total[place] += entry * value
            found.append(tuple(total))
        return found


def integer_map(layer: AffineMap) -> IntegerMap:
    """The layer in integers, by its sparse matrix: Dense, Conv2d, ChannelAffine and Sparse alike."""
    matrix = layer.to_sparse().tocsr()
    rows = [
        [(int(j), Fraction(float(matrix.data[e]))) for e in range(start, stop) for j in (matrix.indices[e],)]
        for start, stop in itertools.pairwise(matrix.indptr.tolist())
    ]
    bias = [Fraction(float(b)) for b in layer.bias_vector]
    entries = [value for row in rows for _, value in row]
    scale = max((value.denominator for value in (*entries, *bias)), default=1)
    return IntegerMap(
        tuple(tuple((j, int(value * scale)) for j, value in row if value) for row in rows),
        tuple(int(value * scale) for value in bias),
        scale,
    )


def forward(network: Network, point: Sequence[float | Fraction]) -> list[Fraction]:
    """F(x), exactly."""
    places = [[Fraction(v) for v in point]]
    for stage in network.stages:
        own = integer_map(stage.stacked)
        values = [v for place, _ in stage.sources for v in places[place]]
        hats = [
            (sum((e * values[j] for j, e in entries), Fraction(0)) + bias) / own.scale
            for entries, bias in zip(own.weight, own.bias, strict=True)
        ]
        places.append([max(v, Fraction(0)) for v in hats] if stage.relu else hats)
    return places[-1]


def value_at(network: Network, row: Sequence[float], point: Sequence[float | Fraction]) -> Fraction:
    """row·F(x), exactly."""
    return sum((Fraction(r) * out for r, out in zip(row, forward(network, point), strict=True)), Fraction(0))


def sides(ball: LinfBall) -> list[tuple[Fraction, Fraction]]:
    """The real interval each coordinate ranges over; a domain end of ±inf cuts nothing."""
    found = []
    for center in ball.center.tolist():
        low, high = Fraction(center) - Fraction(ball.eps), Fraction(center) + Fraction(ball.eps)
        if ball.domain is not None:
            low = max(low, Fraction(ball.domain[0])) if math.isfinite(ball.domain[0]) else low
            high = min(high, Fraction(ball.domain[1])) if math.isfinite(ball.domain[1]) else high
        found.append((low, high))
    return found


def inside(ball: LinfBall, point: Sequence[float | Fraction]) -> bool:
    """Whether ‖x − center‖_∞ ≤ eps and x lies in the domain, in real arithmetic. Numbers that are none lie nowhere."""
    if len(point) != ball.size or not all(math.isfinite(v) for v in point):
        return False
    return all(low <= Fraction(v) <= high for v, (low, high) in zip(point, sides(ball), strict=True))


def box_vertices(ball: LinfBall) -> tuple[Vertex, ...]:
    """The corners of the real ball; constraint 2j is coordinate j's lower side, 2j + 1 its upper."""
    if ball.size > MAX_INPUTS:
        raise ValueError(f"exact minima are for up to {MAX_INPUTS} inputs, got {ball.size}")
    every = [[(low, {2 * j}), (high, {2 * j + 1})] if low < high else [(low, {2 * j, 2 * j + 1})]
             for j, (low, high) in enumerate(sides(ball))]  # fmt: skip
    found = []
    for corner in itertools.product(*every):
        weight = math.lcm(*(value.denominator for value, _ in corner))
        at = (*(int(value * weight) for value, _ in corner), weight)
        found.append(Vertex(at, frozenset().union(*(tight for _, tight in corner))))
    return tuple(found)


def cut(vertices: tuple[Vertex, ...], form: Form, name: int) -> tuple[tuple[Vertex, ...], tuple[Vertex, ...]]:
    """The parts of a polytope where the functional is ≥ 0 and ≤ 0; () where it has that sign at no inner point."""
    heights = [vertex.on(form) for vertex in vertices]
    if min(heights) >= 0:
        return vertices, ()
    if max(heights) <= 0:
        return (), vertices
    on = [Vertex(v.at, v.tight | {name}) for v, height in zip(vertices, heights, strict=True) if height == 0]
    above = [(v, height) for v, height in zip(vertices, heights, strict=True) if height > 0]
    below = [(v, height) for v, height in zip(vertices, heights, strict=True) if height < 0]
    for (high, up), (low, down) in itertools.product(above, below):
        common = high.tight & low.tight
        if sum(common <= other.tight for other in vertices) == 2:  # an edge: these two and no third
            at = [up * b - down * a for a, b in zip(high.at, low.at, strict=True)]
            shared = math.gcd(*at)
            on.append(Vertex(tuple(value // shared for value in at), common | {name}))
    return tuple(v for v, _ in above) + tuple(on), tuple(v for v, _ in below) + tuple(on)


def cells(network: Network, ball: LinfBall) -> Iterator[tuple[tuple[Vertex, ...], list[list[Form]], list[int]]]:
    """Polytopes that cover the ball, each with every x̂⁽ˡ⁾ (the logits last) as functionals there, and their scales."""
    maps, n = [integer_map(stage.stacked) for stage in network.stages], ball.size
    inputs = [tuple(int(i == j) for j in range(n + 1)) for i in range(n)]
    zero = (0,) * (n + 1)

    def divide(
        vertices: tuple[Vertex, ...], k: int, places: list[tuple[Sequence[Form], int]], name: int,
        below: list[list[Form]], scales: list[int],
    ) -> Iterator[tuple[tuple[Vertex, ...], list[list[Form]], list[int]]]:  # fmt: skip
        read = [places[place] for place, _ in network.stages[k].sources]
        scale = math.lcm(*(own for _, own in read))
        forms = [tuple(entry * (scale // own) for entry in form) for part, own in read for form in part]
        hats, own = maps[k].compose(forms, scale), scale * maps[k].scale
        below, scales = [*below, hats], [*scales, own]
        if k == len(maps) - 1:
            yield vertices, below, scales
            return
        parts: list[tuple[tuple[Vertex, ...], tuple[Form, ...]]] = [(vertices, ())]
        for i, hat in enumerate(hats):
            split = []
            for part, outputs in parts:
                on, off = cut(part, hat, name + i)
                split += [(on, (*outputs, hat))] * bool(on) + [(off, (*outputs, zero))] * bool(off)
            parts = split
        for part, outputs in parts:
            yield from divide(part, k + 1, [*places, (outputs, own)], name + len(hats), below, scales)

    return divide(box_vertices(ball), 0, [(inputs, 1)], 2 * n, [], [])


def least(network: Network, ball: LinfBall, rows: Sequence[Sequence[float]]) -> list[tuple[Fraction, list[Fraction]]]:
    """min row·F over the real ball and a point where it is attained, for every row."""
    best: list[tuple[Fraction, list[Fraction]] | None] = [None] * len(rows)
    for vertices, forms, scales in cells(network, ball):
        for r, row in enumerate(rows):
            own = [Fraction(v) for v in row]
            goal = [sum((c * form[j] for c, form in zip(own, forms[-1], strict=True) if c), Fraction(0))
                    for j in range(ball.size + 1)]  # fmt: skip
            for vertex in vertices:
                value = sum((g * v for g, v in zip(goal, vertex.at, strict=True)), Fraction(0))
                value /= vertex.at[-1] * scales[-1]
                known = best[r]
                if known is None or value < known[0]:
                    best[r] = value, [Fraction(v, vertex.at[-1]) for v in vertex.at[:-1]]
    return [one for one in best if one is not None]


def least_margins(network: Network, ball: LinfBall, label: int) -> list[Fraction]:
    """m*_t for every target t ≠ label, in order."""
    outputs = network.output_size
    rows = [[int(i == label) - int(i == t) for i in range(outputs)] for t in range(outputs) if t != label]
    return [value for value, _ in least(network, ball, rows)]


def neuron_ranges(network: Network, ball: LinfBall) -> list[list[tuple[Fraction, Fraction]]]:
    """The true minimum and maximum of every ReLU input over the real ball, layer by layer."""
    found: list[list[tuple[Fraction, Fraction]]] = [[] for _ in network.relu_sizes]
    for vertices, forms, scales in cells(network, ball):
        for k, hats in enumerate(forms[:-1]):
            for i, hat in enumerate(hats):
                values = [Fraction(vertex.on(hat), vertex.at[-1] * scales[k]) for vertex in vertices]
                low, high = min(values), max(values)
                if i == len(found[k]):
                    found[k].append((low, high))
                else:
                    found[k][i] = min(low, found[k][i][0]), max(high, found[k][i][1])
    return found


def rounded(value: Fraction, towards: float) -> float:
    """The float next to a real number on the side of `towards` (±inf); the number itself where it is a float."""
    try:
        near = float(value)
    except OverflowError:
        near = math.inf if value > 0 else -math.inf
    wrong: Callable[[Fraction], bool] = (lambda f: f < value) if towards > 0 else (lambda f: f > value)
    return float(np.nextafter(near, towards)) if math.isfinite(near) and wrong(Fraction(near)) else near
