"""Trees over the input box, split on until the checker's own bound suffices at every leaf.

A search may have bounded its leaves by better means than a proof's checker has (box_leaves.py); what it leaves a little
short is halved here, at the coordinate, among the widest ones, whose worse half gains most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.certificates.box_leaves import box_leaf_bounds
from toolkit.certificates.coverage import BoxTree
from toolkit.certificates.rounding import ErrorModel

TRIED = 8  # coordinates tried per box
SETTLING_ROUNDS = 24  # of halving
SPARE = 64  # open leaves that are worth a round however few leaves there are


@dataclass(frozen=True, eq=False)
class SettledTree:
    """A tree, and what is certified of its row: the least bound of its leaves."""

    tree: BoxTree
    certified: float


def settled(
    model: ErrorModel, row: FloatArray, tree: BoxTree, ends: tuple[FloatArray, FloatArray], goal: float
) -> SettledTree:
    """The tree over the box `ends`, leaves below `goal` halved for some rounds; row: (outputs,).

    Given up, with what is certified then, where half of all leaves are open. Raises ValueError as `BoxTree.boxes` does.
    """
    lower, upper = tree.leaves(*ends)
    bound = box_leaf_bounds(model, row, lower, upper)
    leaves = bound.size
    axis, cut, child = np.full(leaves, -1), np.zeros(leaves), np.zeros(leaves, dtype=np.int64)
    widths = ends[1] - ends[0]
    for _ in range(SETTLING_ROUNDS):
        open_ = np.flatnonzero((axis < 0) & ~(bound >= goal))
        if not 0 < open_.size <= SPARE + leaves // 2:
            break
        at, where = _best_halves(model, row, lower[open_], upper[open_], widths)
        axis[open_], cut[open_], child[open_] = at, where, bound.size + 2 * np.arange(open_.size)
        low, high = _halves(lower[open_], upper[open_], at, where)
        lower, upper = np.concatenate([lower, low]), np.concatenate([upper, high])
        bound = np.concatenate([bound, box_leaf_bounds(model, row, low, high)])
        axis, cut = (np.concatenate([old, np.full(len(low), new)]) for old, new in ((axis, -1), (cut, 0.0)))
        child = np.concatenate([child, np.zeros(len(low), dtype=np.int64)])
    return SettledTree(_grafted(tree, axis, cut, child), float(bound[axis < 0].min()))


def _best_halves(
    model: ErrorModel, row: FloatArray, lower: FloatArray, upper: FloatArray, widths: FloatArray
) -> tuple[IndexArray, FloatArray]:
    """Coordinate and middle of every box: of the widest, in units of the root's widths, the one that gains most."""
    share = np.where(widths > 0, (upper - lower) / np.where(widths > 0, widths, 1.0), -1.0)
    tried = np.argsort(-share, axis=1, kind="stable")[:, :TRIED]
    own = np.arange(len(lower))
    best, axis, cut = np.full(own.size, -np.inf), tried[:, 0], np.zeros(own.size)
    for at in tried.T:
        where = np.clip(0.5 * lower[own, at] + 0.5 * upper[own, at], lower[own, at], upper[own, at])
        worse = box_leaf_bounds(model, row, *_halves(lower, upper, at, where)).reshape(-1, 2).min(axis=1)
        better = (worse > best) | (at == tried[:, 0])
        best, axis, cut = np.where(better, worse, best), np.where(better, at, axis), np.where(better, where, cut)
    return axis, cut


def _halves(lower: FloatArray, upper: FloatArray, axis: IndexArray, cut: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both halves of every box, one after the other: (2B, n) each."""
    low, high = np.repeat(lower, 2, axis=0), np.repeat(upper, 2, axis=0)
    own = np.arange(axis.size)
    high[2 * own, axis] = low[2 * own + 1, axis] = cut
    return low, high


def _grafted(tree: BoxTree, axis: IndexArray, cut: FloatArray, child: IndexArray) -> BoxTree:
    """The tree with its leaves, numbered in preorder, replaced by what grew of them; child: the lower half's number,
    the upper half's is the next."""
    axes: list[int] = []
    cuts: list[float] = []
    leaf = 0
    for at, where in zip(tree.axis.tolist(), tree.cut.tolist(), strict=True):
        if at >= 0:
            axes.append(at)
            cuts.append(where)
            continue
        waiting = [leaf]
        leaf += 1
        while waiting:
            node = waiting.pop()
            axes.append(int(axis[node]))
            cuts.append(float(cut[node]))
            if axis[node] >= 0:
                waiting += [int(child[node]) + 1, int(child[node])]
    return BoxTree(np.array(axes, dtype=np.int64), np.array(cuts))
