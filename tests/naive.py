"""The lecture's LP and the exact minimum, the long way: scipy on dense matrices, one LP per activation pattern."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linprog

from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall


def naive_lp(network: Network, ball: LinfBall, bounds: ReluBounds, row: np.ndarray) -> float:
    """The lecture's overall LP, every x̃, x̂ and y a variable, y(u − l) − u·x̂ ≤ −u·l."""
    sizes = [network.input_size] + [n for size in network.relu_sizes for n in (size, size)] + [network.output_size]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    total = int(starts[-1])
    equal, equal_rhs, upper, upper_rhs = [], [], [], []
    low, high = np.full(total, -np.inf), np.full(total, np.inf)
    low[: sizes[0]], high[: sizes[0]] = ball.lower, ball.upper
    for k, layer in enumerate(network.layers):
        before, after = int(starts[2 * k]), int(starts[2 * k + 1])
        matrix = np.zeros((layer.output_size, total))
        matrix[:, before : before + layer.input_size] = -layer.to_sparse().toarray()
        matrix[:, after : after + layer.output_size] = np.eye(layer.output_size)
        equal.append(matrix)
        equal_rhs.append(layer.bias_vector)
        if k == len(network.layers) - 1:
            break
        post = int(starts[2 * k + 2])
        for i in range(layer.output_size):
            low_i, u = bounds.lower[k][i], bounds.upper[k][i]
            line = np.zeros(total)
            if low_i >= 0 or u <= 0:
                line[post + i], line[after + i] = 1.0, -1.0 if low_i >= 0 else 0.0
                equal.append(line[None])
                equal_rhs.append(np.zeros(1))
                continue
            low[post + i] = 0.0
            line[after + i], line[post + i] = 1.0, -1.0
            upper.append(line)
            upper_rhs.append(0.0)
            chord = np.zeros(total)
            chord[post + i], chord[after + i] = u - low_i, -u
            upper.append(chord)
            upper_rhs.append(-u * low_i)
    cost = np.zeros(total)
    cost[int(starts[-2]) :] = row
    found = linprog(
        cost,
        A_ub=np.array(upper) if upper else None,
        b_ub=upper_rhs if upper else None,
        A_eq=np.vstack(equal),
        b_eq=np.concatenate(equal_rhs),
        bounds=list(zip(low, high, strict=True)),
        method="highs",
    )
    assert found.status == 0
    return float(found.fun)


def enumerate_patterns(network: Network, ball: LinfBall, row: np.ndarray) -> float:
    """min row·F over the ball as the least of one LP per activation pattern."""
    sizes = network.relu_sizes
    best = np.inf
    for pattern in itertools.product((0, 1), repeat=sum(sizes)):
        matrix, shift = np.eye(network.input_size), np.zeros(network.input_size)
        upper, upper_rhs, at = [], [], 0
        for layer in network.layers[:-1]:
            signs = np.array(pattern[at : at + layer.output_size])
            at += layer.output_size
            weight = layer.to_sparse().toarray()
            matrix, shift = weight @ matrix, weight @ shift + layer.bias_vector
            flip = np.where(signs == 1, -1.0, 1.0)  # active: −x̂ ≤ 0, inactive: x̂ ≤ 0
            upper.append(flip[:, None] * matrix)
            upper_rhs.append(-flip * shift)
            matrix, shift = signs[:, None] * matrix, signs * shift
        last = network.layers[-1].to_sparse().toarray()
        cost = row @ last @ matrix
        offset = row @ (last @ shift + network.layers[-1].bias_vector)
        box = list(zip(ball.lower, ball.upper, strict=True))
        found = linprog(cost, A_ub=np.vstack(upper), b_ub=np.concatenate(upper_rhs), bounds=box, method="highs")
        if found.status == 0:
            best = min(best, float(found.fun + offset))
    return best
