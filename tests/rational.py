"""Rational arithmetic for tests: exact values of what the kernel evaluates in floats, and the worst order of a sum."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from toolkit.certificates.rounding import Region
from toolkit.networks.layers import AffineMap


def fractions(values: Any) -> list[Fraction]:
    return [Fraction(float(v)) for v in np.ravel(values)]


def dot(left: Any, right: Any) -> Fraction:
    return sum((a * b for a, b in zip(fractions(left), fractions(right), strict=True)), Fraction(0))


def sequential(terms: Sequence[float]) -> float:
    """The float sum of the terms, one after the other."""
    total = 0.0
    for term in terms:
        total += term
    return total


def worst_error(left: Any, right: Any) -> Fraction:
    """The largest |fl(left·right) − left·right| over some orders of summation, one term after the other."""
    terms = [float(a) * float(b) for a, b in zip(np.ravel(left), np.ravel(right), strict=True)]
    falling = sorted(terms, key=abs, reverse=True)
    outside_in = [falling[0], *sorted(terms, key=abs)[: len(terms) - 2], falling[1]] if len(terms) > 2 else terms
    exact = dot(left, right)
    orders = (terms, terms[::-1], falling, falling[::-1], outside_in)
    return max(abs(Fraction(sequential(order)) - exact) for order in orders)


def exact_map(layer: AffineMap) -> tuple[list[list[Fraction]], list[Fraction]]:
    """W and b of a map as rational numbers."""
    return [fractions(row) for row in layer.to_sparse().toarray()], fractions(layer.bias_vector)


def compose(
    first: tuple[list[list[Fraction]], list[Fraction]], second: tuple[list[list[Fraction]], list[Fraction]]
) -> tuple[list[list[Fraction]], list[Fraction]]:
    """W₂W₁ and W₂b₁ + b₂."""
    (weight1, bias1), (weight2, bias2) = first, second
    columns = list(zip(*weight1, strict=True))
    weight = [[sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0)) for column in columns]
              for row in weight2]  # fmt: skip
    bias = [sum((a * b for a, b in zip(row, bias1, strict=True)), c) for row, c in zip(weight2, bias2, strict=True)]
    return weight, bias


def sequential_certificate(region: Region, row: Any, multipliers: Any) -> float:
    """The same right-hand side in floats, every sum taken one term after the other: a legitimate evaluation of it."""
    active, end, value = [float(v) for v in row], region.count, 0.0
    for k in range(len(region.maps) - 1, -1, -1):
        weight, bias = region.maps[k].to_sparse().toarray(), region.maps[k].bias_vector
        value += sequential([a * float(b) for a, b in zip(active, bias, strict=True)])
        nu = [sequential([a * float(w) for a, w in zip(active, column, strict=True)]) for column in weight.T]
        if k == 0:
            break
        chosen = region.unstable[k - 1].tolist()
        start = end - len(chosen)
        corners = []
        for place, i in enumerate(chosen, start=start):
            low, high = (float(side[k - 1][i]) for side in (region.lower, region.upper))
            taken = float(multipliers[place])
            corners.append(min(0.0, (nu[i] - taken) * high, -taken * low))
            nu[i] = taken
        value += sequential(corners)
        active, end = nu, start
    middle, radius = 0.5 * (region.ball_lower + region.ball_upper), 0.5 * (region.ball_upper - region.ball_lower)
    value += sequential([n * float(m) for n, m in zip(nu, middle, strict=True)])
    return value - sequential([abs(n) * float(r) for n, r in zip(nu, radius, strict=True)])


def exact_certificate(
    region: Region, row: Any, multipliers: Any, phases: Any = None, cuts: Any = None, weights: Any = None
) -> Fraction:
    """The right-hand side of certificate.py's claim for finite multipliers λ, with every float taken as it is."""
    lambdas, inputs = fractions(multipliers), region.ball_lower.size
    extra = [Fraction(0)] * (inputs + region.count)
    indicator = [Fraction(0)] * region.count
    value = Fraction(0)
    for c, weight in enumerate([] if cuts is None else fractions(weights)):
        for j, entry in enumerate(fractions(cuts.rows.toarray()[c])):
            extra[j] += weight * entry
        indicator[int(cuts.neuron[c])] -= weight * Fraction(float(cuts.slope[c]))
        value += weight * Fraction(float(cuts.constant[c]))
    active, end = fractions(row), region.count
    for k in range(len(region.maps) - 1, -1, -1):
        weight, bias = exact_map(region.maps[k])
        value += sum((a * b for a, b in zip(active, bias, strict=True)), Fraction(0))
        nu = [sum((a * w[j] for a, w in zip(active, weight, strict=True)), Fraction(0))
              for j in range(region.maps[k].input_size)]  # fmt: skip
        if k == 0:
            break
        chosen = region.unstable[k - 1].tolist()
        start = end - len(chosen)
        for place, i in enumerate(chosen, start=start):
            low, high = (Fraction(float(side[k - 1][i])) for side in (region.lower, region.upper))
            arriving, taken = nu[i] + extra[inputs + place], lambdas[place]
            phase = -1 if phases is None else phases[place]
            corners = []
            if phase != 0:
                corners.append(indicator[place] + min(Fraction(0), (arriving - taken) * high))
            if phase != 1:
                corners.append(min(Fraction(0), -taken * low))
            value += min(corners)
            nu[i] = taken
        active, end = nu, start
    for j, (low, high) in enumerate(zip(fractions(region.ball_lower), fractions(region.ball_upper), strict=True)):
        total = nu[j] + extra[j]
        value += min(total * low, total * high)
    return value
