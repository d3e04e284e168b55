"""The loop of branch and bound with a toy bounder and no LP, against enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.arrays import FloatArray, PhaseArray
from toolkit.problems.answers import Status
from toolkit.problems.settings import Settings
from toolkit.search.branching import PhaseBrancher, PseudoCosts
from toolkit.search.clock import Clock
from toolkit.search.incumbent import Incumbent
from toolkit.search.tree import Node, Relaxed, Tree

SIZE = 5
TIGHT = Settings(mip_gap=0.0, mip_gap_abs=0.0)


@dataclass
class Toy:
    """A table of values over all 2ⁿ patterns. A node's bound: its least value, less `looseness` per free neuron.

    Its minimiser lies halfway between the phases of every free neuron; its point is some pattern of the node. lost:
    give up at so many nodes from the third on. empty: patterns that do not exist.
    """

    values: FloatArray
    looseness: float
    lost: int = 0
    solved: list[PhaseArray] = field(default_factory=list)

    def least(self, phases: PhaseArray) -> float:
        return float(self.values[self.members(phases)].min(initial=np.inf))

    @staticmethod
    def members(phases: PhaseArray) -> list[int]:
        choices = [(0, 1) if phase < 0 else (int(phase),) for phase in phases]
        return [int("".join(map(str, pattern)), 2) for pattern in itertools.product(*choices)]

    def solve(self, node: Node) -> Relaxed:
        self.solved.append(node.phases)
        if len(self.solved) > 2 and self.lost:
            self.lost -= 1
            return Relaxed(None, False, "lost")
        free = node.phases < 0
        node.raise_bound(max(node.bound, self.least(node.phases) - self.looseness * free.sum()), None)
        if node.bound == np.inf:
            return Relaxed(None, False, "empty")
        value = float(self.values[self.members(node.phases)[0]])
        point = (np.zeros(1), value) if value < np.inf else (None, np.inf)
        return Relaxed(np.tile(0.5 * free, (2, 1)), True, "", node.bound, point)

    def trial(self, node: Node) -> None:
        node.raise_bound(max(node.bound, self.least(node.phases) - 2 * self.looseness * (node.phases < 0).sum()), None)


class FirstFree:
    """Splits at the first free neuron and learns nothing."""

    def learn(self, node: Node, found: Relaxed) -> None:
        pass

    def split(self, node: Node, found: Relaxed) -> tuple[Node, Node] | None:
        free = np.flatnonzero(node.phases < 0).tolist()
        return (node.child(free[0], 1, 0.5), node.child(free[0], 0, 0.5)) if free else None


@dataclass
class Search:
    """A tree that has run, with everything it said."""

    tree: Tree
    incumbent: Incumbent
    leaves: list[Node]
    root: Node

    @classmethod
    def run(cls, toy: Toy, settings: Settings = TIGHT, clock: Clock | None = None, scored: bool = False) -> Search:
        incumbent = Incumbent(settings, float(np.max(toy.values[np.isfinite(toy.values)], initial=1.0)), 1.0)
        brancher = PhaseBrancher(toy, PseudoCosts(SIZE), incumbent) if scored else FirstFree()
        leaves: list[Node] = []
        tree = Tree(toy, brancher, incumbent, clock or Clock(settings), leaves.append)
        root = Node.root(SIZE)
        tree.run(root)
        return cls(tree, incumbent, leaves, root)

    def covers(self) -> bool:
        """Whether the leaves are a partition of all patterns."""
        return sorted(i for leaf in self.leaves for i in Toy.members(leaf.phases)) == list(range(2**SIZE))


def toys(looseness: Sequence[float] = (0.0, 0.1, 1.0)) -> st.SearchStrategy[Toy]:
    def made(seed: int, loose: float) -> Toy:
        return Toy(np.random.default_rng(seed).normal(size=2**SIZE), loose)

    return st.builds(made, st.integers(0, 10**6), st.sampled_from(list(looseness)))


@given(toy=toys(), scored=st.booleans())
def test_the_minimum_is_found_and_proven(toy: Toy, scored: bool) -> None:
    search = Search.run(toy, scored=scored)
    truth = toy.values.min()
    assert search.incumbent.upper == truth
    assert search.tree.bound == pytest.approx(truth, abs=1e-12)
    assert search.tree.finished
    assert search.covers()
    assert all(leaf.bound <= toy.least(leaf.phases) for leaf in search.leaves)
    assert search.incumbent.status(search.tree.bound, search.tree.finished)[0] is Status.OPTIMAL
    assert search.tree.nodes == len(toy.solved) - 1


@given(toy=toys(), gap=st.sampled_from([0.01, 0.1, 0.5]), scored=st.booleans())
def test_nothing_under_the_cutoff_is_closed(toy: Toy, gap: float, scored: bool) -> None:
    """With a gap fewer nodes are solved; no leaf but a solved one ends below the incumbent less the gap."""
    settings = Settings(mip_gap=0.0, mip_gap_abs=gap)
    search = Search.run(toy, settings, scored=scored)
    assert search.covers()
    truth = toy.values.min()
    assert search.tree.bound <= truth <= search.incumbent.upper
    assert search.incumbent.upper - search.tree.bound <= gap
    for leaf in search.leaves:
        assert leaf.bound >= search.incumbent.upper - gap or not (leaf.phases < 0).any()
    assert len(toy.solved) <= len(Search.run(Toy(toy.values, toy.looseness), scored=scored).tree.bounder.solved)


@given(toy=toys(), shift=st.floats(-2, 2), scored=st.booleans())
def test_stop_at_is_decided_truly_whatever_the_gap(toy: Toy, shift: float, scored: bool) -> None:
    stop = float(toy.values.min()) + shift
    search = Search.run(toy, Settings(mip_gap=0.5, mip_gap_abs=10.0, stop_at=stop), scored=scored)
    assert search.covers()
    assert search.tree.bound <= toy.values.min()
    if shift > 0:
        assert search.incumbent.refuted
        assert search.incumbent.upper <= stop
        # the last node solved is the one that refuted: nobody goes on
        assert toy.values[Toy.members(toy.solved[-1])[0]] == search.incumbent.upper
    elif shift < -1e-6:
        assert search.tree.bound > stop
        assert search.tree.finished
    if abs(shift) > 1e-6:
        assert search.incumbent.status(search.tree.bound, search.tree.finished) == (Status.DECIDED, "")


@dataclass
class Ticks(Clock):
    """Strikes when asked for the n-th time."""

    asked: int

    @property
    def struck(self) -> bool:
        self.asked -= 1
        return self.asked < 0


@given(toy=toys((0.1, 1.0)), ticks=st.integers(0, 40), scored=st.booleans())
def test_when_the_clock_strikes_what_is_proven_stays_true(toy: Toy, ticks: int, scored: bool) -> None:
    search = Search.run(toy, clock=Ticks(ticks), scored=scored)
    truth = toy.values.min()
    assert len(toy.solved) <= ticks + 1
    assert search.covers()
    assert search.tree.bound <= truth <= search.incumbent.upper
    assert search.tree.finished == (not search.tree.open)
    if search.tree.finished:
        assert search.tree.bound == pytest.approx(truth, abs=1e-12)
    else:
        assert search.incumbent.status(search.tree.bound, False)[0] is Status.TIME_LIMIT


def test_a_real_clock_strikes_and_leaves_a_little_for_the_root() -> None:
    clock = Clock(Settings(time_limit=1e-9))
    assert clock.struck
    assert clock.rest().time_limit == 1e-3
    settings = Settings()
    assert not Clock(settings).struck
    assert Clock(settings).rest() is settings


@given(toy=toys((1.0,)), lost=st.integers(1, 5))
def test_a_part_given_up_leaves_the_interval_open_unless_its_parents_bound_is_enough(toy: Toy, lost: int) -> None:
    toy.lost = lost
    search = Search.run(toy)
    assert search.covers()
    assert search.tree.bound <= toy.values.min() <= search.incumbent.upper
    if toy.lost < lost and search.tree.unfinished:
        assert search.tree.unfinished == "lost"
        assert not search.tree.finished
        assert search.incumbent.status(search.tree.bound, search.tree.finished)[0] is Status.TIME_LIMIT
    else:
        assert search.tree.bound == pytest.approx(toy.values.min(), abs=1e-12)


def test_a_region_that_is_empty_everywhere_has_the_bound_of_infinity() -> None:
    search = Search.run(Toy(np.full(2**SIZE, np.inf), 1.0))
    assert search.tree.bound == np.inf
    assert search.incumbent.witness is None
    assert search.covers()


def test_better_bounds_go_first_and_the_first_child_before_all() -> None:
    """Without gap every plunge goes down the first child until a leaf; then the least open bound is taken."""
    toy = Toy(np.random.default_rng(3).normal(size=2**SIZE), 0.3)
    search = Search.run(toy)
    depths = [int((phases >= 0).sum()) for phases in toy.solved]
    first_plunge = depths[: depths.index(max(depths)) + 1]
    assert first_plunge == list(range(len(first_plunge)))
    for phases in toy.solved[: len(first_plunge)]:
        assert (phases != 0).all()  # phase 1 first, as the brancher said
    jumps = [i for i in range(1, len(depths)) if depths[i] != depths[i - 1] + 1]
    assert jumps
    assert search.tree.nodes < 2 ** (SIZE + 1) - 2  # something was closed unsolved


@pytest.mark.parametrize("looseness", [0.1, 1.0])
def test_pseudo_costs_pay(looseness: float) -> None:
    """One neuron decides, the others hardly matter: the scores find it, so less is solved than in the given order."""
    total = {False: 0, True: 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        patterns = np.array(list(itertools.product((0, 1), repeat=SIZE)))
        values = patterns @ np.array([0.01, 0.02, 0.03, 0.05, 4.0]) + 1e-3 * rng.normal(size=2**SIZE)
        for scored in total:
            toy = Toy(values, looseness)
            Search.run(toy, scored=scored)
            total[scored] += len(toy.solved)
    assert total[True] < total[False]
