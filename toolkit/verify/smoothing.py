"""Randomized smoothing: the ℓ2 radius within which the most likely class under Gaussian noise stays the same.

Claim: for the smoothed classifier g(x̃) = argmax_c P(f(q(x̃ + ε)) = c), ε ~ N(0, σ²I), the returned class is g(x̃) for
every real x̃ with ‖x̃ − x‖₂ < radius. It holds with probability ≥ 1 − α over the n draws made here, for each image by
itself, and it is about g: another classifier than the network, whose own radius may be smaller or larger.

    k ~ Binomial(n, p_c),  p̲ = the Clopper-Pearson bound: P(Binomial(n, p̲) ≥ k) = α,  radius = σΦ⁻¹(p̲) − ‖x − x_q‖₂

f(p) is the class whose logit is strictly the largest at p, in real arithmetic (none on ties); q rounds every pixel to
the nearest of low, low + 1/levels, …, high, and x_q = q(x). For an image on that grid, of 8 bits say, q(x + ε) has
finitely many values per pixel: index k_j + D_j, cut at both ends, with P(D_j ≤ d) = Φ((d + ½)/(levels·σ)). So D is
drawn directly, no noise in floats is added to anything, and what holds is a statement about real noise ε. An image off
the grid loses its distance from it.

Draws: 53 fair bits a pixel against the thresholds Φ(·). Bits that lie so near a threshold that its rounding, or bits
not drawn, could decide are a draw that votes for no class; so is one whose logits' rounding leaves the order open. Both
only lower k.

Source: Cohen, Rosenfeld & Kolter 2019, "Certified adversarial robustness via randomized smoothing", Thm 1 and CERTIFY;
Voráček & Hein 2023, "Sound randomized smoothing in floating-point arithmetic", ICLR (q, and drawing behind it);
Clopper & Pearson 1934. Checked: every vote counted, by replay with rounding against it. Trusted: that PCG64's bits are
fair and independent; scipy's Φ to 2⁻⁴⁷, its Φ⁻¹ and beta quantile to nine digits; IEEE 754 binary64.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, ndtr, ndtri
from scipy.stats import beta

from toolkit.arrays import BoolArray, FloatArray, IndexArray
from toolkit.data.arguments import check_outputs, instance, real_number, shown, whole_number
from toolkit.networks.float_error import UNIT, norm
from toolkit.networks.network import Network
from toolkit.networks.replay import replay_margins
from toolkit.networks.weights import exact_numbers
from toolkit.problems.properties import robustness

DRAWN_BITS = 53  # of a draw: integers that floats hold
GUIDE_BITS = 14  # of them, that place most draws without a search
NEAR_THRESHOLD = (
    64.0  # in 2⁻⁵³: how near a threshold a draw decides nothing, rounding of Φ and of its argument included
)
QUANTILE_ERROR = 1e-9  # relative: what is taken off scipy's quantiles
MOST_LEVELS = 1 << 16  # values of a pixel
DRAWS_TOGETHER = 512  # draws evaluated together


@dataclass(frozen=True)
class SmoothedRadius:
    """What sampling shows of the smoothed classifier at one image.

    label: its class, None where it abstains. radius: ℓ2, in input units, 0 where it abstains. p_lower: a lower bound of
    the class's probability that holds with probability 1 − alpha. votes: of the n draws, those counted for the class.
    guess: the class asked about, the most frequent of n0 other draws. sigma, n0, n, alpha, seed: as asked.
    """

    label: int | None
    radius: float
    p_lower: float
    votes: int
    guess: int
    sigma: float
    n0: int
    n: int
    alpha: float
    seed: int


def smoothed_radius(
    network: Network,
    x: ArrayLike,
    sigma: float,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 1e-3,
    seed: int = 0,
    domain: tuple[float, float] = (0.0, 1.0),
    levels: int = 255,
) -> SmoothedRadius:
    """The class of the smoothed classifier at x and a radius within which it stays, or an abstention.

    Claim, formula and what is trusted: above. x: (inputs,) or of the network's input shape, within the domain. sigma:
    of the noise, in input units. n0, n: draws for the guess and for its probability. alpha: probability that the
    statement is false. domain, levels: of the grid that q rounds to, low + i/levels up to high; levels = 255 for pixels
    of 8 bits in [0, 1], 16 for digits. Noise beyond the domain is cut; a wide one cuts nothing. The same seed gives the
    same draws; two images asked with one seed share them, which leaves the statement of each as it is.

    Raises ValueError for sigma ≤ 0, alpha outside (0, 1), n0 or n < 1, a domain that is no whole number of steps or
    more than MOST_LEVELS wide, and an x that the network does not take or that leaves the domain.
    """
    instance("network", network, Network).check_weights()
    check_outputs(network.output_size)
    sigma, alpha = _finite("sigma", sigma), real_number("alpha", alpha, above=0)
    if not alpha < 1:
        raise ValueError(f"alpha must be < 1, got {alpha}")
    n0, n, seed = whole_number("n0", n0, 1), whole_number("n", n, 1), whole_number("seed", seed, 0)
    grid = PixelGrid.of(domain, whole_number("levels", levels, 1))
    center = exact_numbers("x", x).ravel()
    if center.size != network.input_size:
        raise ValueError(f"x must have the network's {network.input_size} inputs, got {center.size}")
    noise = QuantisedNoise(grid, grid.index(center), sigma, seed)
    first = [network.predict(grid.values(part)) for part, _ in noise.draws(n0)]
    guess = int(np.bincount(np.concatenate(first), minlength=network.output_size).argmax())
    votes = count_votes(network, noise, guess, n)
    p_lower = clopper_pearson(votes, n, alpha)
    radius = _radius(sigma, p_lower) - grid.distance(center)
    stays = p_lower > 0.5 and radius > 0
    label, radius = (guess, radius) if stays else (None, 0.0)
    return SmoothedRadius(label, radius, p_lower, votes, guess, sigma, n0, n, alpha, seed)


def _finite(name: str, value: object) -> float:
    found = real_number(name, value, above=0)
    if not found < math.inf:
        raise ValueError(f"{name} must be finite, got {found}")
    return found


def clopper_pearson(votes: int, n: int, alpha: float) -> float:
    """The p̲ with P(Binomial(n, p̲) ≥ votes) = α, less QUANTILE_ERROR of it; 0 for no votes, and where scipy finds no
    such p̲, as for α of 10⁻¹⁰⁰.

    Claim: p̲ ≤ p with probability ≥ 1 − α over votes ~ Binomial(n, p).
    """
    if votes == 0:
        return 0.0
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of a root that was not found
        found = float(beta.ppf(alpha, votes, n - votes + 1)) * (1.0 - QUANTILE_ERROR)
    return found if betainc(votes, n - votes + 1, found) <= alpha * (1.0 + QUANTILE_ERROR) else 0.0


def _radius(sigma: float, probability: float) -> float:
    """σΦ⁻¹(p̲), rounded down. −inf for p̲ = 0."""
    found = sigma * float(ndtri(probability))
    return found - QUANTILE_ERROR * abs(found)


def count_votes(network: Network, noise: QuantisedNoise, label: int, n: int) -> int:
    """How many of n draws are of that class in real arithmetic, no draw that leaves it open among them."""
    others = -robustness(network.output_size, label).objective.rows  # F_t − F_c, every t
    votes = 0
    for index, settled in noise.draws(n):
        points = noise.grid.values(index)
        upper = replay_margins(network, others, points, largest=0)[1]
        votes += int(((upper < 0).all(axis=1) & settled).sum())
    return votes


@dataclass(frozen=True)
class PixelGrid:
    """The floats nearest to i/levels for i = low … high: what pixels are rounded to."""

    low: int
    high: int
    levels: int

    @classmethod
    def of(cls, domain: tuple[float, float], levels: int) -> PixelGrid:
        """Raises ValueError for a domain whose ends are no grid points, that is empty, or that has too many."""
        if not isinstance(domain, Sequence) or len(domain) != 2:
            raise ValueError(f"domain must be (low, high), got {shown(domain)}")
        low, high = (levels * real_number("domain", end) for end in domain)
        if not 0.5 <= high - low <= MOST_LEVELS + 0.5:
            raise ValueError(f"domain must be 1 … {MOST_LEVELS} steps of 1/{levels} wide, got {shown(domain)}")
        if abs(low - round(low)) > QUANTILE_ERROR or abs(high - round(high)) > QUANTILE_ERROR:
            raise ValueError(f"domain must begin and end at multiples of 1/{levels}, got {shown(domain)}")
        return cls(round(low), round(high), levels)

    def index(self, x: FloatArray) -> IndexArray:
        """i of the nearest grid point of every pixel. Raises ValueError for a pixel outside of the domain."""
        first, last = self.low / self.levels, self.high / self.levels
        outside = np.flatnonzero(~((x >= first) & (x <= last)))
        if outside.size:
            raise ValueError(f"x must lie in the domain [{first:g}, {last:g}], got {x[outside[0]]} at {outside[0]}")
        return np.asarray(np.rint(x * self.levels), dtype=np.int64)

    def values(self, index: IndexArray) -> FloatArray:
        """The floats at these places."""
        return np.asarray(index / self.levels, dtype=np.float64)

    def distance(self, x: FloatArray) -> float:
        """‖x − x_q‖₂, rounded up, with x_q the real grid point: its float differs from it by half a unit."""
        nearest = self.values(self.index(x))
        return norm(np.abs(x - nearest)) + 4 * UNIT * norm(np.abs(nearest))


class QuantisedNoise:
    """q(x + ε) for real Gaussian ε, drawn as it is distributed on the grid, without ε."""

    def __init__(self, grid: PixelGrid, center: IndexArray, sigma: float, seed: int) -> None:
        self.grid, self.center = grid, center
        reach = grid.high - grid.low  # a move beyond it ends at the domain's end from wherever it starts
        with np.errstate(over="ignore", divide="ignore"):
            ends = ndtr((np.arange(-reach, reach) + 0.5) / (grid.levels * sigma))
        self._thresholds = np.concatenate([[-np.inf], 2.0**DRAWN_BITS * ends, [np.inf]])
        self._guide = self._places_by_leading_bits()
        self._least = -reach
        self._bits = np.random.PCG64(seed)

    def _places_by_leading_bits(self) -> IndexArray:
        """For every value of a draw's first GUIDE_BITS the place it falls on, −1 where a threshold is in or near it."""
        width = 2.0 ** (DRAWN_BITS - GUIDE_BITS)
        first = width * np.arange(2**GUIDE_BITS)
        low = np.searchsorted(self._thresholds, first - NEAR_THRESHOLD, side="left")
        high = np.searchsorted(self._thresholds, first + width + NEAR_THRESHOLD, side="right")
        return np.where(low == high, low, -1)

    def draws(self, count: int) -> Iterator[tuple[IndexArray, BoolArray]]:
        """The next `count` draws in batches: grid places (k, inputs), and whether the bits decide all of them (k,)."""
        sizes = [min(DRAWS_TOGETHER, count - k) for k in range(0, count, DRAWS_TOGETHER)]
        return (self._batch(size) for size in sizes)

    def _batch(self, size: int) -> tuple[IndexArray, BoolArray]:
        raw = self._bits.random_raw(size * self.center.size) >> np.uint64(64 - DRAWN_BITS)
        place = self._guide[raw >> np.uint64(DRAWN_BITS - GUIDE_BITS)]
        settled = np.ones(place.size, dtype=np.bool_)
        near = np.flatnonzero(place < 0)
        drawn = raw[near].astype(np.float64)  # the uniform number lies between it and its successor, in 2⁻⁵³
        place[near] = found = np.searchsorted(self._thresholds, drawn, side="right")
        below, above = self._thresholds[found - 1], self._thresholds[found]
        settled[near] = (drawn - below > NEAR_THRESHOLD) & (above - drawn > NEAR_THRESHOLD + 1.0)
        moved = self.center + (place - 1 + self._least).reshape(size, -1)
        index = np.clip(moved, self.grid.low, self.grid.high)
        return index, np.asarray(settled.reshape(size, -1).all(axis=1))
