"""Layer bounds estimated by random projections, for training networks whose exact bounds are too dear.

At slopes α = s the dual's range of a neuron is middle ∓ ‖z‖₁, where z collects one entry per pixel (the neuron's
linear coefficient times the pixel's half-width) and one per unstable neuron before it (its coefficient ν_j times half
its relaxation's height −s_j·l_j). Middles go forward through the network as one extra image. For r with independent
standard Cauchy entries z·r is Cauchy with scale ‖z‖₁, and the median of |z·r| is ‖z‖₁: `count` such r go forward as
`count` extra images, fresh noise joining at every ReLU. The cost is linear in depth, whatever the width.

Source: Wong, Schmidt, Metzen & Kolter 2018, "Scaling provable adversarial defenses", §3.2 (there one estimate per
layer of z; here one for all of it). An estimate is not a bound: never used for certifying.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.networks.network import Network
from toolkit.networks.stages import Stage
from toolkit.relaxations.relu import chord, evaluate
from toolkit.training.bounds import BatchBounds, stage_box


def estimated_bounds(
    network: Network, balls: BatchBounds, count: int, generator: torch.Generator | None = None
) -> BatchBounds:
    """Estimates of the l and u of every ReLU input that the dual alone gives; those of layers on the input are exact.

    count: projections, ≥ 1; the error of ‖z‖₁ is about 1.6/√count of it. Where interval arithmetic is tighter than the
    estimate, interval arithmetic is kept.
    """
    if count < 1:
        raise ValueError(f"projections must be ≥ 1, got {count}")
    bounds, hidden = balls, network.stages[:-1]

    def relax(k: int, hat: Sketch) -> Sketch:
        """What leaves ReLU k; adds the bounds of its inputs to those found so far."""
        nonlocal bounds
        low, high = stage_box(hidden[k], bounds)
        if any(place for place, _ in hidden[k].sources):
            size = hat.directions.abs().median(dim=1).values
            low, high = torch.maximum(low, hat.middle - size), torch.minimum(high, hat.middle + size)
        bounds = bounds.with_layer(low, high)
        slope = chord(low, high)
        half_height = -0.5 * slope * low.clamp_max(0.0)
        noise = _cauchy(half_height, count, generator)
        return Sketch(slope * hat.middle + half_height, slope[:, None, :] * hat.directions + noise)

    middle = 0.5 * (balls.ball_lower + balls.ball_upper)
    directions = _cauchy(0.5 * (balls.ball_upper - balls.ball_lower), count, generator)
    evaluate([SketchStage(stage) for stage in hidden], Sketch(middle, directions), relax)
    return bounds


@dataclass(frozen=True)
class Sketch:
    """The middle of every image's values, (B, n), and the random directions, (B, count, n)."""

    middle: Tensor
    directions: Tensor


@dataclass(frozen=True)
class SketchStage:
    """A stage for sketches: middles go through W and b, directions through W alone."""

    stage: Stage
    relu: bool = True

    def forward(self, outputs: Sequence[Sketch]) -> Sketch:
        """The sketch of x̂ from those of the places before."""
        middle: Tensor = self.stage.forward([one.middle for one in outputs])
        return Sketch(middle, self.stage.linear_part([one.directions for one in outputs]))


def _cauchy(scale: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` independent Cauchy draws for every entry, of that entry's scale. Shapes: (B, n) → (B, count, n)."""
    shape = (scale.shape[0], count, scale.shape[1])
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    draws = torch.tan(math.pi * (uniform - 0.5))
    return scale[:, None, :] * draws.to(scale.device, scale.dtype)
