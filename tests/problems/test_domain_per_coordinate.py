"""A domain with an end per coordinate: the ball is cut coordinate by coordinate, and everything proven of it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_dense_network

from toolkit import Box, L2Ball, LinfBall, certify, closest, margins, write_proof

CENTER = np.array([0.5, -1.0, 3.0])
LOW, HIGH = np.array([0.45, -1.0, -9.0]), np.array([1.0, 0.0, 3.0])


def test_the_cut_is_the_box_of_both() -> None:
    ball = LinfBall(CENTER, 0.25, (LOW, HIGH))
    np.testing.assert_array_equal(ball.lower, np.maximum(CENTER - 0.25, LOW))
    np.testing.assert_array_equal(ball.upper, np.minimum(CENTER + 0.25, HIGH))
    assert ball.contains(ball.inner_lower)
    assert not ball.contains(CENTER - [0.1, 0.0, 0.0])
    assert all(ball.contains(point) for point in ball.sample(20))
    assert LinfBall(CENTER, 0.25, (-9.0, HIGH)).upper[2] == 3.0


def test_equal_ends_are_the_same_set_and_others_are_not() -> None:
    one = LinfBall(CENTER, 0.25, (LOW, HIGH)).digest
    assert one == LinfBall(CENTER, 0.25, (LOW.copy(), HIGH.copy())).digest
    others = [(LOW - 1, HIGH), (LOW, HIGH + 1), None, (-9.0, 9.0)]
    digests = {LinfBall(CENTER, 0.25, domain).digest for domain in others}  # type: ignore[arg-type]
    assert len(digests | {one}) == 5
    assert LinfBall(CENTER, [0.25] * 3, (LOW, HIGH)).digest != one


def test_margins_and_verdicts_are_those_of_the_box(rng: np.random.Generator) -> None:
    network = random_dense_network(rng, [3, 6, 3])
    ball = LinfBall(CENTER, 0.25, (LOW, HIGH))
    box = Box(ball.lower, ball.upper)
    for rung in ("dual", "lp", "exact"):
        for own, other in zip(margins(network, ball, 0, rung), margins(network, box, 0, rung), strict=True):
            assert own.lower == pytest.approx(other.lower, abs=1e-6)
    label = int(network.predict(CENTER))
    assert certify(network, ball, label).verdict == certify(network, box, label).verdict
    found = closest(network, CENTER, label, domain=(LOW, HIGH), rungs=("pgd", "dual"), tolerance=0.1)
    assert found.witness is None or ((found.witness >= LOW) & (found.witness <= HIGH)).all()


def test_ends_and_radii_are_laid_out_as_the_centre_or_flat() -> None:
    image, low, high = np.full((1, 2, 3), 0.5), np.linspace(0, 0.4, 6), np.linspace(0.6, 1, 6)
    eps = np.linspace(0.1, 0.6, 6)
    plain = LinfBall(image.ravel(), eps, (low, high)).digest
    for shape in ((6,), (1, 2, 3), (2, 3), (1, 6)):
        for center in (image, image.ravel(), image[0]):
            ends = low.reshape(shape), high.reshape(shape)
            assert LinfBall(center, eps.reshape(shape), ends).digest == plain
    with pytest.raises(ValueError, match=r"eps must be one number or fit the centre's shape \(1, 2, 3\), got .*3, 2"):
        LinfBall(image, eps.reshape(3, 2))
    with pytest.raises(ValueError, match=r"domain must have one end per coordinate, of shape \(1, 2, 3\), got .*3, 2"):
        LinfBall(image, 0.1, (low.reshape(3, 2), high))


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ((LOW + 1, HIGH + 1), r"center must lie in the domain, got 0.5 outside \[1.45, 2.0\] at index 0"),
        ((HIGH, LOW), r"domain must have finite low ≤ high, got \[1.0, 0.45\] at index 0"),
        ((LOW, np.array([1.0, np.nan, 3.0])), "domain must have finite low ≤ high"),
        ((LOW[:2], HIGH), r"domain must have one end per coordinate, of shape \(3,\), got shape \(2,\)"),
        ((LOW, HIGH, HIGH), r"domain must be \(low, high\)"),
    ],
)
def test_domains_that_do_not_fit_are_named(domain: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinfBall(CENTER, 0.25, domain)


def test_other_balls_and_proofs_take_one_domain_for_all(rng: np.random.Generator, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a domain per coordinate is for LinfBall, not for L2Ball"):
        L2Ball(CENTER, 0.25, (LOW, HIGH))  # type: ignore[arg-type]
    network = random_dense_network(rng, [3, 4, 3])
    with pytest.raises(ValueError, match="a proof is about one domain for all coordinates"):
        write_proof(tmp_path / "p.npz", network, LinfBall(CENTER, 0.01, (LOW, HIGH)), 0)
    assert not (tmp_path / "p.npz").exists()
