"""Networks whose convolutions have no matrix are bounded as those with it are, in little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from toolkit.certificates.rounding import float32_error
from toolkit.networks import convolutions, kernel_operators
from toolkit.networks.convolutions import Conv2d, ConvolutionPart
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.networks.stages import Stage
from toolkit.problems import reduced
from toolkit.problems.answers import Verdict
from toolkit.problems.input_set import InputSet
from toolkit.problems.input_sets import L1Ball, L2Ball, LinfBall
from toolkit.problems.reduced import restrict_to_alive
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margins

SHAPE = (2, 7, 7)
SCALES = {"alike": np.ones(4), "of all sizes": np.array([1e6, 1e-4, 1.0, 1.0])}  # of the first layer's channels
CHAINS = [("interval",), ("interval", "dual"), ("interval", "crown", "alpha")]


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)


def chain_and_residual(seed: int, scale: np.ndarray) -> Iterator[Network]:
    """Two convolutions in a row; a residual block; a last stage that is a convolution beside a dense map."""
    rng = np.random.default_rng(seed)
    first = weights(rng, 4, 2, 3, 3) * scale[:, None, None, None]
    one = Conv2d(first, rng.normal(size=4), SHAPE, stride=2, padding=1)
    two = Conv2d(weights(rng, 4, 4, 3, 3), rng.normal(size=4), one.output_shape, padding=1)
    shortcut, head = Conv2d(weights(rng, 4, 4, 1, 1), None, one.output_shape), Dense(weights(rng, 3, 64))
    yield Network([one, two, head])
    begin = Stage(((0, one),)), Stage(((1, two),))
    yield Network([*begin, Stage(((2, two), (1, shortcut))), Stage(((3, head),), relu=False)])
    last = Conv2d(weights(rng, 3, 4, 4, 4), rng.normal(size=3), two.output_shape)
    yield Network([*begin, Stage(((2, last), (1, Dense(weights(rng, 3, 64)))), relu=False)])


def both(seed: int, scale: np.ndarray, patched: pytest.MonkeyPatch, entries: int = 0) -> list[tuple[Network, Network]]:
    """Each network with matrices, and without."""
    stored = list(chain_and_residual(seed, scale))
    for network in stored:
        layer_bounds(network, ball_of(LinfBall, 0.0))  # what convolutions are is settled
    patched.setattr(convolutions, "MATRIX_ENTRIES", entries)
    large = list(chain_and_residual(seed, scale))
    assert all(one.digest == other.digest for one, other in zip(stored, large, strict=True))
    return list(zip(stored, large, strict=True))


def ball_of(kind: Callable[..., InputSet], eps: float) -> InputSet:
    return kind(np.random.default_rng(9).uniform(0, 1, SHAPE), eps, (0, 1))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("kind", "eps"), [(LinfBall, 0.03), (L2Ball, 0.15), (L1Ball, 0.3)])
def test_bounds_are_those_with_the_matrix(
    kind: Callable[..., InputSet], eps: float, scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ball = ball_of(kind, eps)
    for stored, large in both(0, SCALES[scale], monkeypatch):
        for chain in CHAINS:
            one, other = layer_bounds(stored, ball, chain), layer_bounds(large, ball, chain)
            assert one.certified
            assert other.certified
            for mine, theirs in zip((*other.lower, *other.upper), (*one.lower, *one.upper), strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9 * np.abs(theirs).max())
        for rung in ("interval", "lipschitz", "dual", "crown", "alpha", "pgd"):
            found = ([b.lower, b.certified_lower, b.upper] for b in margins(large, ball, 0, rung, other))
            known = ([b.lower, b.certified_lower, b.upper] for b in margins(stored, ball, 0, rung, one))
            np.testing.assert_allclose(list(found), list(known), rtol=1e-9)
        np.testing.assert_allclose(float32_error(large, ball, other), float32_error(stored, ball, one), rtol=1e-9)


def test_verdicts_are_those_with_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    for eps in (0.02, 0.3):
        with pytest.MonkeyPatch.context() as patched:
            for stored, large in both(1, SCALES["alike"], patched):
                ball = ball_of(LinfBall, eps)
                label = int(stored.predict(ball.center))
                one, other = certify(stored, ball, label), certify(large, ball, label)
                assert one.verdict is other.verdict
                assert one.verdict is not Verdict.MAYBE


@pytest.mark.parametrize("carried", [1, 200, 1 << 25])
def test_rows_that_do_not_fit_are_carried_back_in_blocks(carried: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduced, "CARRIED_ENTRIES", carried)
    monkeypatch.setattr(kernel_operators, "STORED_ENTRIES", 0)
    ball = ball_of(LinfBall, 0.03)
    for stored, large in both(2, SCALES["alike"], monkeypatch):
        one, other = layer_bounds(stored, ball), layer_bounds(large, ball)
        for mine, theirs in zip((*other.lower, *other.upper), (*one.lower, *one.upper), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)


def test_parts_between_alive_neurons_have_no_matrix_while_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = ball_of(LinfBall, 0.03)
    stored, large = both(3, SCALES["alike"], monkeypatch, entries=500)[0]
    bounds = layer_bounds(large, ball)
    one, other = restrict_to_alive(stored, bounds), restrict_to_alive(large, bounds)
    assert isinstance(other.stages[1].sources[0][1], ConvolutionPart)
    for mine, theirs in zip(other.stages, one.stages, strict=True):
        part, expected = (stage.sources[0][1].to_sparse().toarray() for stage in (mine, theirs))
        np.testing.assert_array_equal(part, expected)


def test_a_large_first_layer_is_bounded_without_its_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("rows of the matrix were written out")

    rng = np.random.default_rng(0)
    one = Conv2d(weights(rng, 16, 3, 7, 7), rng.normal(size=16), (3, 64, 64), stride=2, padding=3)
    two = Conv2d(weights(rng, 8, 16, 4, 4), rng.normal(size=8), one.output_shape, stride=4)
    with monkeypatch.context() as patched:
        patched.setattr(convolutions, "MATRIX_ENTRIES", 20_000)
        network = Network([one, two, Dense(weights(rng, 10, two.output_size))])
        patched.setattr(kernel_operators, "matrix_rows", forbidden)
        patched.setattr(convolutions, "matrix_rows", forbidden)
        ball = LinfBall(rng.uniform(0, 1, (3, 64, 64)), 1 / 255, (0, 1))
        bounds = layer_bounds(network, ball, ("interval",))
        found = margins(network, ball, 0, "dual", bounds)
    for x in ball.sample(5):
        inside = zip(network.preactivations(x)[:-1], bounds.lower, bounds.upper, strict=True)
        assert all(np.all((low <= x_hat) & (x_hat <= high)) for x_hat, low, high in inside)
        logits = network.forward(x)
        assert all(bound.certified_lower <= logits[0] - logits[bound.target] for bound in found)
    assert min(bound.certified_lower for bound in found) > -np.inf
