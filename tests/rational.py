"""Rational arithmetic for tests: exact values of what the kernel evaluates in floats, and the worst order of a sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from toolkit.certificates.rounding import ErrorModel
from toolkit.networks.layers import AffineMap


def fractions(values: Any) -> list[Fraction]:
    return [Fraction(float(v)) for v in np.ravel(values)]


def dot(left: Any, right: Any) -> Fraction:
    return sum((a * b for a, b in zip(fractions(left), fractions(right), strict=True)), Fraction(0))


def dot_fractions(left: Iterable[Fraction], right: Iterable[Fraction]) -> Fraction:
    return sum((a * b for a, b in zip(left, right, strict=True)), Fraction(0))


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


def starts(model: ErrorModel) -> list[int]:
    """Where the unstable neurons of every hidden stage begin among all of them."""
    return np.cumsum([0, *(index.size for index in model.unstable)]).tolist()


def sequential_certificate(model: ErrorModel, row: Any, multipliers: Any) -> float:
    """The same right-hand side in floats, every sum taken one term after the other: a legitimate evaluation of it."""
    value, places, top = 0.0, starts(model), len(model.stages)
    waiting = {top: [float(v) for v in row]}
    for k in range(top - 1, -1, -1):
        active, corners = waiting.pop(k + 1), []
        chosen = model.unstable[k].tolist() if k < top - 1 else []
        for place, i in enumerate(chosen, start=places[k]):
            low, high = (float(side[k][i]) for side in (model.lower, model.upper))
            taken = float(multipliers[place])
            corners.append(min(0.0, (active[i] - taken) * high, -taken * low))
            active[i] = taken
        value += sequential(corners)
        value += sequential([a * float(b) for a, b in zip(active, model.stages[k].bias, strict=True)])
        for j, layer in model.stages[k].sources:
            columns = layer.to_sparse().toarray().T
            part = [sequential([a * float(w) for a, w in zip(active, column, strict=True)]) for column in columns]
            known = waiting.get(j, [0.0] * len(part))
            waiting[j] = [a + b for a, b in zip(known, part, strict=True)]
    nu = waiting[0]
    low, high = model.input_set.lower, model.input_set.upper
    middle, radius = 0.5 * (low + high), 0.5 * (high - low)
    value += sequential([n * float(m) for n, m in zip(nu, middle, strict=True)])
    return value - sequential([abs(n) * float(r) for n, r in zip(nu, radius, strict=True)])


def exact_certificate(
    model: ErrorModel, row: Any, multipliers: Any, phases: Any = None, cuts: Any = None, weights: Any = None
) -> Fraction:
    """The right-hand side of dual_bound.py's claim for finite multipliers λ, with every float taken as it is."""
    lambdas, inputs = fractions(multipliers), model.input_set.size
    extra = [Fraction(0)] * (inputs + model.count)
    indicator = [Fraction(0)] * model.count
    value = Fraction(0)
    for c, weight in enumerate([] if cuts is None else fractions(weights)):
        for j, entry in enumerate(fractions(cuts.rows.toarray()[c])):
            extra[j] += weight * entry
        indicator[int(cuts.neuron[c])] -= weight * Fraction(float(cuts.slope[c]))
        value += weight * Fraction(float(cuts.constant[c]))
    top, places = len(model.stages), starts(model)
    waiting = {top: fractions(row)}
    for k in range(top - 1, -1, -1):
        nu = waiting.pop(k + 1)
        chosen = model.unstable[k].tolist() if k < top - 1 else []
        for place, i in enumerate(chosen, start=places[k]):
            low, high = (Fraction(float(side[k][i])) for side in (model.lower, model.upper))
            arriving, taken = nu[i] + extra[inputs + place], lambdas[place]
            phase = -1 if phases is None else phases[place]
            corners = []
            if phase != 0:
                corners.append(indicator[place] + min(Fraction(0), (arriving - taken) * high))
            if phase != 1:
                corners.append(min(Fraction(0), -taken * low))
            value += min(corners)
            nu[i] = taken
        value += dot_fractions(nu, fractions(model.stages[k].bias))
        for j, layer in model.stages[k].sources:
            columns = [fractions(column) for column in layer.to_sparse().toarray().T]
            known = waiting.get(j, [Fraction(0)] * layer.input_size)
            waiting[j] = [a + dot_fractions(nu, column) for a, column in zip(known, columns, strict=True)]
    ends = fractions(model.input_set.lower), fractions(model.input_set.upper)
    for j, (low, high) in enumerate(zip(*ends, strict=True)):
        total = waiting[0][j] + extra[j]
        value += min(total * low, total * high)
    return value
