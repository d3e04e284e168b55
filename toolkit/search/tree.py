"""Branch and bound over splits of unstable ReLUs: the queue, and what closes a part of the region.

Best-first with plunging into the first child; a bounder proves bounds and offers points, a brancher splits. Neither is
known here but for what it answers, so a tree rests on any relaxation. The closed and the open parts together cover the
region: the least of their bounds holds in all of it, whenever the search ends.

Source: Bunel et al. 2020, "Branch and bound for piecewise linear neural network verification". Checked: nothing; the
evidence that goes with every part is for `certificates/leaves.py` to judge. Trusted: the bounder's and the brancher's
word, for the bounds inside the search.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import numpy as np

from toolkit.arrays import FloatArray, PhaseArray
from toolkit.certificates.leaves import Evidence
from toolkit.search.clock import Clock
from toolkit.search.incumbent import Incumbent, Point


@dataclass(frozen=True)
class Split:
    """What made a part of its parent: neuron and phase, and how far the parent's minimiser was from that phase.

    distance: of the neuron's range. origin: the parent's bound.
    """

    neuron: int
    phase: int
    distance: float
    origin: float


@dataclass(eq=False)
class Node:
    """A part of the region: phases[i] is 1 (active), 0 (inactive) or −1 (free) for unstable neuron i.

    bound: the best proven so far; evidence: what proves it. split: None at the root.
    """

    bound: float
    phases: PhaseArray
    evidence: Evidence | None = field(default=None, repr=False)
    split: Split | None = None
    depth: int = 0

    @classmethod
    def root(cls, size: int) -> Node:
        """The whole region, of so many unstable neurons; nothing is proven of it."""
        return cls(-np.inf, np.full(size, -1, dtype=np.int8))

    def child(self, neuron: int, phase: int, distance: float) -> Node:
        """The part where the neuron is in this phase; what is proven here holds there."""
        phases = self.phases.copy()
        phases[neuron] = phase
        return Node(self.bound, phases, self.evidence, Split(neuron, phase, distance, self.bound), self.depth + 1)

    def raise_bound(self, bound: float, evidence: Evidence | None) -> None:
        """Take a bound that was proven, and what proves it."""
        self.bound, self.evidence = bound, evidence


@dataclass(frozen=True, eq=False)
class Relaxed:
    """What a bounder found in a node, whose bound it has raised.

    distances: of its minimiser from both phases of every neuron, of the neuron's range, (2, N); None: no minimiser, so
    nothing to split at. complete: the bound is the relaxation's minimum, attained at the minimiser; message: why not.
    first: the bound before the relaxation was tightened; None: not solved so far that it shows what the split was
    worth. point: one of the region, and the objective there.
    """

    distances: FloatArray | None
    complete: bool
    message: str = ""
    first: float | None = None
    point: Point = (None, np.inf)


class Bounder(Protocol):
    """Proves bounds of parts of the region."""

    def solve(self, node: Node) -> Relaxed:
        """Raise the node's bound as far as its relaxation goes."""
        ...


class Brancher(Protocol):
    """Splits parts of the region, and learns from what the splits were worth."""

    def learn(self, node: Node, found: Relaxed) -> None:
        """The node was solved."""
        ...

    def split(self, node: Node, found: Relaxed) -> tuple[Node, Node] | None:
        """Two children that cover the node, the one to go on with first; None: its minimiser is in no ReLU's gap."""
        ...


class Tree:
    """One objective row's branch and bound.

    leaf: called with every node that is done with, and at the end with those left open. nodes: solved besides the root.
    bound: the least of all parts' bounds. unfinished: why a part was given up below the cutoff, "" if none was.
    """

    def __init__(
        self, bounder: Bounder, brancher: Brancher, incumbent: Incumbent, clock: Clock, leaf: Callable[[Node], None]
    ) -> None:
        self.bounder, self.brancher, self.incumbent, self.clock, self.leaf = bounder, brancher, incumbent, clock, leaf
        self.open: list[tuple[float, int, Node]] = []
        self.order = count()  # among equal bounds, the older goes first
        self.nodes, self.bound, self.unfinished = 0, np.inf, ""

    @property
    def finished(self) -> bool:
        """Whether every part reached the cutoff or was solved to its end."""
        return not self.open and not self.unfinished

    def run(self, root: Node) -> None:
        """Search until nothing open is under the cutoff, a point is at or below stop_at, or the clock strikes."""
        plunge = self._expand(root)
        while (plunge is not None or self.open) and not self.incumbent.refuted and not self.clock.struck:
            node = plunge if plunge is not None else heapq.heappop(self.open)[-1]
            plunge = None
            if node.bound >= self.incumbent.cutoff:
                self._close(node)
            else:
                self.nodes += 1
                plunge = self._expand(node)
        if plunge is not None:
            self._push(plunge)
        for _, _, node in self.open:
            self._close(node)

    def _expand(self, node: Node) -> Node | None:
        """Solve a node, then close or split it: one child goes to the queue, the other is returned to be plunged into.

        Learning comes before the new point: it may lower the cutoff, up to which a split's gain counts.
        """
        found = self.bounder.solve(node)
        self.brancher.learn(node, found)
        self.incumbent.offer(*found.point)
        if node.bound >= self.incumbent.cutoff:
            self._close(node)
            return None
        children = None if found.distances is None else self.brancher.split(node, found)
        if children is None:
            if not found.complete:
                self.unfinished = found.message
            self._close(node)
            return None
        first, later = children
        self._push(later)
        return first

    def _push(self, node: Node) -> None:
        heapq.heappush(self.open, (node.bound, next(self.order), node))

    def _close(self, node: Node) -> None:
        """Nothing more is done about this part."""
        self.bound = min(self.bound, node.bound)
        self.leaf(node)
