"""Small problems for tests of searches over ReLU phases, and what is true on the pieces they make."""

from __future__ import annotations

import numpy as np
from conftest import random_dense_network
from graphs import random_network, values
from scipy.optimize import linprog

from toolkit.networks.network import Network
from toolkit.problems.input_sets import Box, L1Ball, L2Ball, LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.reduced import alive_network
from toolkit.problems.settings import Settings
from toolkit.verify.layer_bounds import layer_bounds

SETS = ("linf", "box", "l1", "l2")


def small_problem(
    seed: int, sizes: tuple[int, ...] = (3, 5, 4, 2), eps: float = 0.6, kind: str = "linf", graph: bool = False,
    settings: Settings | None = None,
) -> Problem:  # fmt: skip
    """A random network (with several sources per stage if `graph`) on a set, with rows of mixed signs."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, len(sizes) - 2, sizes[0], sizes[-1]) if graph else random_dense_network(rng, sizes)
    center = rng.normal(size=sizes[0])
    sides = rng.uniform(0.6, 1.6, (2, sizes[0])) * eps
    input_set = {
        "linf": lambda: LinfBall(center, eps),
        "box": lambda: Box(center - sides[0], center + sides[1]),
        "l1": lambda: L1Ball(center, 2 * eps),
        "l2": lambda: L2Ball(center, 1.5 * eps),
    }[kind]()
    rows = np.round(8 * rng.normal(size=(3, sizes[-1]))) / 8
    return Problem.of(network, input_set, rows, layer_bounds(network, input_set), settings)


def hidden_values(problem: Problem, points: np.ndarray) -> np.ndarray:
    """x̂ of all unstable neurons at the points, (K, N)."""
    network, hats = alive_network(problem), values(problem.network.stages, points)
    own = [hat[:, alive[network.unstable(k)]] for k, (hat, alive) in enumerate(zip(hats, network.alive, strict=False))]
    return np.concatenate([np.zeros((len(points), 0)), *own], axis=1)


def met_phases(problem: Problem, rng: np.random.Generator, count: int, free: float) -> np.ndarray:
    """Phases (N, count) of points of the set, each neuron free with this chance: no such part is empty."""
    points = np.asarray(problem.input_set.sample(count, int(rng.integers(1 << 30))))
    phases = (hidden_values(problem, points) > 0).astype(np.int8).T
    return np.where(rng.random(phases.shape) < free, np.int8(-1), phases)


def feasible_duals(rng: np.random.Generator, phases: np.ndarray) -> np.ndarray:
    """Dual variables (N, B) that are allowed with these phases."""
    return np.where(phases < 0, rng.uniform(0, 1, phases.shape), rng.exponential(0.5, phases.shape))


def piece_minimum(problem: Problem, row: np.ndarray, phases: np.ndarray) -> float:
    """min row·F where every unstable neuron has its phase (N,), by one LP; of a sequential network on a box."""
    network, box = problem.network, problem.input_set
    matrix, shift = np.eye(network.input_size), np.zeros(network.input_size)
    above, limits, at = [], [], 0
    for k, layer in enumerate(network.layers[:-1]):
        low, high = problem.relu_bounds.lower[k], problem.relu_bounds.upper[k]
        weight = layer.to_sparse().toarray()
        matrix, shift = weight @ matrix, weight @ shift + layer.bias_vector
        sign = np.where(low >= 0, 1, 0)
        for i in np.flatnonzero((low < 0) & (high > 0)):
            sign[i] = phases[at]
            at += 1
            flip = -1.0 if sign[i] else 1.0
            above.append(flip * matrix[i])
            limits.append(-flip * shift[i])
        matrix, shift = sign[:, None] * matrix, sign * shift
    last = network.layers[-1]
    cost, offset = row @ last.to_sparse().toarray() @ matrix, row @ (last.to_sparse() @ shift + last.bias_vector)
    sides = list(zip(box.lower, box.upper, strict=True))
    found = linprog(cost, A_ub=np.array(above) if above else None, b_ub=limits or None, bounds=sides, method="highs")
    return float(found.fun + offset) if found.status == 0 else np.inf


def scaled_network(network: Network, factors: tuple[float, ...]) -> Network:
    """The same maps, each times a factor."""
    maps = [
        type(layer)(layer.weight * one, layer.bias * one) for layer, one in zip(network.layers, factors, strict=True)
    ]
    return Network(maps)
