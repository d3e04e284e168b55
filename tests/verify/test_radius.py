"""Minimum distortion: the interval holds the least distance found by enumerating activation patterns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from conftest import random_dense_network
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.properties import Property, robustness
from toolkit.problems.settings import Settings
from toolkit.verify import radius as radius_module
from toolkit.verify.bisection import Bisection
from toolkit.verify.ladder import certify
from toolkit.verify.nearest import Unsafe, distance_above
from toolkit.verify.radius import certified_radius, closest

HIGHS = Settings(solver="highs")
RUNGS = ("pgd", "dual", "crown", "lp", "exact")


def least_distance(layers: Sequence[Dense], center: np.ndarray, label: int, domain: tuple[float, float]) -> float:
    """min ‖x − center‖_∞ over the domain's points with another class on top, one LP per activation pattern."""
    first, last = (layer.weight for layer in layers)
    shift, constant = (layer.bias for layer in layers)
    size, best = center.size, math.inf
    near = np.block([[np.eye(size), -np.ones((size, 1))], [-np.eye(size), -np.ones((size, 1))]])
    for pattern in itertools.product((0.0, 1.0), repeat=len(first)):
        on = np.array(pattern)
        flip = np.where(on == 1, -1.0, 1.0)
        signs, values = flip[:, None] * first, last @ (on[:, None] * first)
        at = last @ (on * shift) + constant
        for target in set(range(len(last))) - {label}:
            row, offset = values[label] - values[target], at[label] - at[target]
            matrix = np.vstack([near, np.column_stack([np.vstack([signs, row]), np.zeros(len(signs) + 1)])])
            side = np.concatenate([center, -center, -flip * shift, [-offset]])
            limits = [domain] * size + [(0, None)]
            found = linprog(np.append(np.zeros(size), 1.0), matrix, side, bounds=limits, method="highs")
            best = min(best, found.fun if found.status == 0 else math.inf)
    return best


def tiny(seed: int) -> tuple[Network, np.ndarray, int]:
    layers = tiny_layers(seed)
    network, center = Network(layers), np.random.default_rng(seed).uniform(0, 1, 2)
    return network, center, int(network.predict(center))


def tiny_layers(seed: int) -> list[Dense]:
    """A network of five ReLUs and three classes."""
    rng = np.random.default_rng(1000 + seed)
    first = Dense(rng.normal(size=(5, 2)), rng.normal(0, 0.5, 5))
    return [first, Dense(rng.normal(0, 0.6, (3, 5)), rng.normal(0, 0.5, 3))]


@pytest.mark.parametrize("seed", range(8))
def test_the_interval_holds_the_least_distance_of_all_activation_patterns(seed: int) -> None:
    network, center, label = tiny(seed)
    truth = least_distance(tiny_layers(seed), center, label, (-1.0, 2.0))
    found = closest(network, center, label, domain=(-1.0, 2.0), rungs=RUNGS, settings=HIGHS)
    if truth == math.inf:  # certified as far as the domain reaches, and no witness
        assert found.refuted == math.inf
        assert found.witness is None
        assert found.certified == 3.0
        return
    assert found.certified <= truth + 1e-9
    assert found.refuted >= truth - 1e-9
    assert found.gap <= max(1e-3 * found.refuted, 1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_rungs_are_ordered_from_dual_to_attack(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    network = random_dense_network(rng, (4, 8, 6, 3))
    center = rng.normal(size=4)
    label = int(network.predict(center))
    found = closest(network, center, label, rungs=("fgsm", *RUNGS), settings=HIGHS)
    shown = {one.rung: one for one in found.by_rung}
    assert list(shown) == ["fgsm", *RUNGS]
    assert max(shown["dual"].certified, shown["crown"].certified) <= shown["lp"].certified
    assert shown["lp"].certified <= shown["exact"].certified <= shown["exact"].refuted
    assert shown["exact"].refuted <= shown["pgd"].refuted <= shown["fgsm"].refuted
    assert shown["pgd"].certified == 0.0
    assert (found.certified, found.refuted) == (shown["exact"].certified, shown["exact"].refuted)
    assert sum(one.verdicts for one in found.by_rung) == len(found.tried)
    alone = closest(network, center, label, rungs=("dual",), settings=HIGHS)  # its radius is its own
    assert alone.certified == pytest.approx(shown["dual"].certified, rel=3e-3)


@pytest.mark.parametrize("seed", range(6))
def test_the_witness_is_unsafe_and_as_near_as_said(seed: int) -> None:
    network, center, label = tiny(seed)
    found = closest(network, center, label, domain=(-5.0, 5.0), rungs=("pgd", "dual"), settings=HIGHS)
    assert found.witness is not None
    assert LinfBall(center, found.refuted, (-5.0, 5.0)).contains(found.witness)
    assert not LinfBall(center, math.nextafter(found.refuted, 0.0), (-5.0, 5.0)).contains(found.witness)
    assert Unsafe(network, robustness(3, label), center, "linf").proven(found.witness)
    assert certify(network, LinfBall(center, found.refuted), label, settings=HIGHS).verdict is Verdict.NO
    assert certify(network, LinfBall(center, found.certified), label, ("dual",)).verdict is Verdict.YES


moves = st.floats(-1e160, 1e160, allow_nan=False)


@given(st.lists(st.tuples(moves, moves), min_size=1, max_size=4), st.sampled_from([("linf", 0), ("l1", 1), ("l2", 2)]))
def test_distances_are_the_least_floats_above_the_real_ones(
    pairs: list[tuple[float, float]], norm: tuple[str, int]
) -> None:
    first, second = np.array(pairs).T
    gaps = [abs(Fraction(a) - Fraction(b)) for a, b in pairs]
    power = norm[1] or 1
    total = sum((gap**power for gap in gaps), Fraction(0)) if norm[1] else max(gaps)
    found = distance_above(norm[0], first, second)
    assert Fraction(found) ** power >= total
    assert found == 0 or Fraction(math.nextafter(found, 0.0)) ** power < total


def test_a_linear_classifier_and_its_property_have_the_distance_computed_by_hand() -> None:
    """F = (x₁ + x₂, 0) at (1, 1): the margin is 2 − 2ε in ℓ∞, and F₀ ≤ 1/2 is reached at ε = 3/4."""
    first = Dense(np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([10.0, 10.0]))
    network = Network([first, Dense(np.eye(2), -10.0 * np.ones(2))])
    for asked, truth in ((0, 1.0), (robustness(2, 0), 1.0), (Property.of([[1.0, 0.0]], [-0.5]), 0.75)):
        found = closest(network, [1.0, 1.0], asked, rungs=("fgsm", "dual"), settings=HIGHS)
        assert found.certified <= truth <= found.refuted
        assert found.gap <= 2e-3
    both = Property.of([[1.0, 0.0], [-1.0, 0.0]], [-0.5, 0.0], [0, 0])  # 0 ≤ F₀ ≤ 1/2
    found = closest(network, [1.0, 1.0], both, rungs=("pgd", "dual"), settings=HIGHS)
    assert found.certified <= 0.75 <= found.refuted


def test_a_misclassified_centre_has_distance_zero() -> None:
    network, center, label = tiny(0)
    found = closest(network, center, (label + 1) % 3, settings=HIGHS)
    assert (found.certified, found.refuted, found.tried) == (0.0, 0.0, ())
    np.testing.assert_array_equal(found.witness, center)


def test_nothing_unsafe_is_said_as_such() -> None:
    network = Network([Dense(np.ones((2, 2)), np.zeros(2)), Dense(np.zeros((2, 2)), np.array([1.0, 0.0]))])
    found = closest(network, [0.5, 0.25], 0, domain=(0.0, 1.0), settings=HIGHS)
    assert found.certified == 1.0
    assert found.refuted == math.inf
    assert found.witness is None


def test_an_open_gap_is_left_where_time_or_the_rungs_end() -> None:
    rng = np.random.default_rng(5)
    network = random_dense_network(rng, (6, 20, 20, 20, 4))
    center = rng.normal(size=6)
    label = int(network.predict(center))
    full = closest(network, center, label, rungs=("pgd", "dual"), settings=HIGHS)
    assert 0 < full.certified < full.refuted < math.inf
    assert full.gap > 1e-2 * full.refuted
    short = closest(network, center, label, time_limit=1e-9, settings=HIGHS)
    assert (short.certified, short.refuted, short.tried) == (0.0, math.inf, ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "l7"}, "norm must be one of linf.*got 'l7'"),
        ({"norm": "box"}, "norm must be one of linf.*got 'box'"),
        ({"tolerance": 0.0}, "tolerance must be > 0"),
        ({"largest": -1.0}, "largest must be > 0"),
        ({"time_limit": 0}, "time_limit must be > 0"),
        ({"rungs": ()}, "rungs"),
        ({"domain": (0.6, 1.0)}, "center must lie in the domain"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, object], message: str) -> None:
    network, _, _ = tiny(0)
    with pytest.raises(ValueError, match=message):
        closest(network, [0.5, 0.5], 0, **changes)  # type: ignore[arg-type]


def test_a_certificate_that_a_witness_contradicts_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    network, center, label = tiny(0)
    monkeypatch.setattr(Bisection, "largest_yes", lambda self, largest: setattr(self, "certified", 2.0 * largest))
    with pytest.raises(ValueError, match=r"dual: certified .* a witness is .* away"):
        closest(network, center, label, domain=(-5.0, 5.0), rungs=("pgd", "dual"))


def test_both_radii_come_from_one_bisection(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Watched(Bisection):
        def __init__(self, *arguments: object) -> None:
            made.append(self)
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(radius_module, "Bisection", Watched)
    network, center, label = tiny(1)
    certified_radius(network, center, label, ("dual",))
    closest(network, center, label, rungs=("pgd", "dual"))
    assert len(made) == 3
