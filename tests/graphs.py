"""Random networks of stages with several sources: chains, residual blocks, dense connections, linear stages."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import scipy.sparse as sp
from rational import dot_fractions, exact_map, fractions

from toolkit.certificates.rounding import ErrorModel, staged_error_model
from toolkit.networks.layers import AffineMap, Dense, Sparse
from toolkit.networks.network import Network
from toolkit.networks.stages import Stage, place_sizes
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.phases import is_inactive, is_unstable
from toolkit.relaxations.relu import evaluate


def random_graph(
    rng: np.random.Generator, depth: int, inputs: int = 3, outputs: int = 2, relus: float = 0.8
) -> tuple[Stage, ...]:
    """`depth` hidden stages, ReLU ones with chance `relus`, and a linear one.

    Each reads the place before it and, at random, earlier ones.
    """
    sizes, stages = [inputs], []
    for k in range(depth + 1):
        size = outputs if k == depth else int(rng.integers(1, 6))
        places = [k, *(j for j in range(k) if rng.random() < 0.5)]
        sources = []
        for place in places:
            bias = rng.normal(size=size) * (place == k)
            weight = rng.normal(size=(size, sizes[place]))
            dense = rng.random() < 0.5
            made: AffineMap = Dense(weight, bias) if dense else Sparse(sp.csr_array(weight), bias)
            sources.append((place, made))
        stages.append(Stage(tuple(sources), bool(k < depth and rng.random() < relus)))
        sizes.append(size)
    return tuple(stages)


def random_network(rng: np.random.Generator, depth: int, inputs: int = 3, outputs: int = 2) -> Network:
    """A network whose stages read several places."""
    return Network(random_graph(rng, depth, inputs, outputs, 1.0), "graph")


def values(stages: tuple[Stage, ...], points: np.ndarray) -> list[np.ndarray]:
    """x̂ of every stage at the points."""
    heads = ((*stages[:k], stage.linear()) for k, stage in enumerate(stages))
    return [evaluate(head, points, lambda _, x_hat: np.maximum(x_hat, 0.0))[-1] for head in heads]


def interval_bounds(stages: tuple[Stage, ...], ball: LinfBall) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """l and u of x̂ of every hidden stage by interval arithmetic, a little widened."""
    ends = [(ball.lower, ball.upper)]
    lower, upper = [], []
    for stage in stages[:-1]:
        middle = stage.forward([0.5 * (low + high) for low, high in ends])
        parts = [abs(layer.to_sparse()) @ (0.5 * (ends[j][1] - ends[j][0])) for j, layer in stage.sources]
        reach = sum(parts) * 1.01 + 1e-9
        lower.append(middle - reach)
        upper.append(middle + reach)
        box = (lower[-1], upper[-1])
        ends.append((np.maximum(box[0], 0.0), np.maximum(box[1], 0.0)) if stage.relu else box)
    return lower, upper


def graph_model(stages: tuple[Stage, ...], ball: LinfBall) -> ErrorModel:
    """The error model of the graph with interval bounds, inactive neurons left out."""
    lower, upper = interval_bounds(stages, ball)
    hidden = list(zip(stages[:-1], lower, upper, strict=True))
    alive = [np.flatnonzero(~(is_inactive(low, high) & stage.relu)) for stage, low, high in hidden]
    places = [np.arange(ball.size), *alive]
    parts = tuple(stage.restrict(alive[k] if k < len(alive) else None, places) for k, stage in enumerate(stages))
    low, high = (tuple(side[k][alive[k]] for k in range(len(alive))) for side in (lower, upper))
    unstable = tuple(np.flatnonzero(is_unstable(low[k], high[k]) & stage.relu) for k, stage in enumerate(stages[:-1]))
    place_sizes(parts, ball.size)
    return staged_error_model(stages, parts, alive, (low, high), unstable, ball)


def exact_values(stages: tuple[Stage, ...], point: np.ndarray) -> list[list[Fraction]]:
    """x̂ of every stage in rational arithmetic."""
    places, hats = [fractions(point)], []
    for stage in stages:
        hat = fractions(stage.bias)
        for j, layer in stage.sources:
            rows = exact_map(layer)[0]
            hat = [h + dot_fractions(row, places[j]) for h, row in zip(hat, rows, strict=True)]
        hats.append(hat)
        places.append([max(h, Fraction(0)) for h in hat] if stage.relu else hat)
    return hats
