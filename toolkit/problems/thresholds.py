"""Thresholds: the one number per row that solves a linear or nearest-point problem on a norm ball cut by a box.

Moves m ≥ 0 away from the centre, at most w_j in coordinate j and ‖m‖ ≤ ε, are wanted that gain most in Σ_j a_j m_j, or
that are nearest to given a. By the optimality conditions all of m follows from one number:

- ℓ2, both problems:  m_j = min(w_j, s·a_j) with ‖m‖₂ = ε (and s ≤ 1 for the nearest point);
- ℓ1, most gain:      m_j = w_j where a_j > t, 0 where a_j < t, the rest of ε where a_j = t;
- ℓ1, nearest point:  m_j = min(w_j, max(a_j − μ, 0)) with Σ_j m_j = ε.

Shapes: sizes a ≥ 0 and widths w ≥ 0 (m, n), eps > 0 → (m,) for a threshold. Nothing here is trusted: any threshold
gives a valid bound and a point of the set (norm_balls.py), the right one the best. Source: Duchi et al. 2008,
"Efficient projections onto the ℓ1-ball for learning in high dimensions" (sorting); Michelot 1986 (active sets).
"""

from __future__ import annotations

import numpy as np

from toolkit.arrays import FloatArray

ACTIVE_SET_ROUNDS = 64  # of the active-set search, which ends by itself after a few
LARGEST_SCALE = 1e300


def l2_scale(sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
    """The s with ‖min(w, s·a)‖₂ = ε; LARGEST_SCALE where every width fits. Shape (m,).

    Coordinates that reach their width at one s do so at every larger one: s grows, round by round, to the solution.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scale = np.nan_to_num(eps / np.sqrt(np.einsum("ij,ij->i", sizes, sizes)), nan=LARGEST_SCALE)
        scale = np.minimum(scale, LARGEST_SCALE)
        going = np.flatnonzero(scale < LARGEST_SCALE)
        for _ in range(ACTIVE_SET_ROUNDS):
            if not going.size:
                break
            a, w = sizes[going], widths[going]
            full = a * scale[going, None] >= w
            used = np.einsum("ij,ij->i", np.where(full, w, 0.0), w)
            left = np.einsum("ij,ij->i", np.where(full, 0.0, a), a)
            found = np.sqrt(np.maximum(eps * eps - used, 0.0) / left)
            found = np.where(left > 0, np.minimum(found, LARGEST_SCALE), LARGEST_SCALE)
            grown = found > scale[going]
            scale[going] = np.where(grown, found, scale[going])
            going = going[grown & (found < LARGEST_SCALE)]
    return np.asarray(scale, dtype=np.float64)


def l1_moves(sizes: FloatArray, widths: FloatArray, eps: float) -> tuple[FloatArray, FloatArray]:
    """The threshold t and the moves m of most gain, largest sizes first. Shapes: (m,), (m, n)."""
    order = np.argsort(-sizes, axis=1, kind="stable")
    filled = np.cumsum(np.take_along_axis(widths, order, axis=1), axis=1)
    before = np.concatenate([np.zeros((len(sizes), 1)), filled[:, :-1]], axis=1)
    sorted_moves = np.clip(eps - before, 0.0, np.take_along_axis(widths, order, axis=1))
    moves = np.empty_like(sizes)
    np.put_along_axis(moves, order, sorted_moves, axis=1)
    last = np.argmax(filled >= eps, axis=1)
    every = np.arange(len(sizes))
    return np.where(filled[:, -1] >= eps, sizes[every, order[every, last]], 0.0), moves


def l1_shrink(sizes: FloatArray, widths: FloatArray, eps: float) -> FloatArray:
    """The μ ≥ 0 with Σ_j min(w_j, max(a_j − μ, 0)) = ε; 0 where less than ε is reached. Shape (m,).

    The sum is piecewise linear in μ: on the way down a coordinate begins to move at a_j and stops at a_j − w_j.
    """
    count = sizes.shape[1]
    places = np.concatenate([sizes, sizes - widths], axis=1)
    order = np.argsort(-places, axis=1, kind="stable")
    falling = np.maximum(np.take_along_axis(places, order, axis=1), 0.0)
    slope = np.cumsum(np.where(order < count, 1.0, -1.0), axis=1)
    gained = np.cumsum(slope[:, :-1] * (falling[:, :-1] - falling[:, 1:]), axis=1)
    gained = np.concatenate([np.zeros((len(sizes), 1)), gained], axis=1)  # at each place
    gained = np.concatenate([gained, gained[:, -1:] + slope[:, -1:] * falling[:, -1:]], axis=1)  # and at μ = 0
    ends = np.concatenate([falling, np.zeros((len(sizes), 1))], axis=1)
    past = np.argmax(gained >= eps, axis=1)
    every = np.arange(len(sizes))
    step = slope[every, np.maximum(past - 1, 0)]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = ends[every, past] + (gained[every, past] - eps) / step
    return np.where(gained[:, -1] > eps, np.maximum(np.nan_to_num(found), 0.0), 0.0)
