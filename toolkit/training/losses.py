"""What training minimises: one small function per loss, of the network, a batch and the region around each image.

Every loss maps x (B, n), y (B,) to one value per image (B,). Adversarial ones are lower bounds of the worst loss over
the ball, robust ones upper bounds by the same closed-form functions that certify: with g ≤ min over the ball of
F_y − F_t, the logits −g (0 for t = y) dominate every point's logits relative to the label's, so that
cross_entropy(−g, y) ≥ max over the ball of cross_entropy(F(x̃), y): Wong & Kolter 2018, Theorem 2. Mixed ones combine
two bounds (crown_ibp) or two losses (mtl_ibp).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu

from toolkit.networks.network import Network
from toolkit.training.bounds import BatchBounds, BoundMethod, MarginMethod, batch_bounds, input_balls, margin_bounds
from toolkit.training.norm_inputs import best_moves, nearest_moves
from toolkit.training.projections import estimated_bounds


@dataclass(frozen=True)
class Perturbation:
    """The ball around every image of a batch, and how it is searched or bounded.

    eps: radius in pixel units, in this norm: linf, l1 or l2. domain: the ball's cut, None = none. generator: of every
    random draw (on the CPU).
    attack_steps: gradient steps of PGD. projections: number of random projections that estimate l,u, None = exact.
    beta: CROWN's share in the bounds of crown_ibp. alpha: the interval loss's share in mtl_ibp.
    """

    eps: float
    domain: tuple[float, float] | None = None
    generator: torch.Generator | None = None
    attack_steps: int = 10
    projections: int | None = None
    norm: str = "linf"
    beta: float = 1.0
    alpha: float = 0.5


Loss = Callable[[Network, Tensor, Tensor, Perturbation], Tensor]


def standard(network: Network, x: Tensor, y: Tensor, region: Perturbation) -> Tensor:
    """Cross-entropy at the image itself; the region is not used."""
    return cross_entropy(network.forward(x), y, reduction="none")


def adversarial(network: Network, x: Tensor, y: Tensor, region: Perturbation) -> Tensor:
    """Cross-entropy at the point PGD finds (Madry et al. 2018, eq. 2.1)."""
    return cross_entropy(network.forward(pgd_points(network, x, y, region)), y, reduction="none")


def adversarial_fgsm(network: Network, x: Tensor, y: Tensor, region: Perturbation) -> Tensor:
    """Cross-entropy at the FGSM point (Goodfellow et al. 2015): one step of size eps along the gradient's sign."""
    return cross_entropy(network.forward(fgsm_points(network, x, y, region)), y, reduction="none")


def dual(network: Network, x: Tensor, y: Tensor, region: Perturbation) -> Tensor:
    """Robust cross-entropy cross_entropy(−g, y) with the dual bound g (Wong & Kolter 2018, eq. 14)."""
    return cross_entropy(-robust_margins(network, x, y, region), y, reduction="none")


def dual_margin(network: Network, x: Tensor, y: Tensor, region: Perturbation) -> Tensor:
    """Hinge on the dual bound: max over t ≠ y of max(−g_t, 0), zero exactly where the dual certifies."""
    return relu(-robust_margins(network, x, y, region)).amax(-1)


def interval(network: Network, x: Tensor, y: Tensor, region: Perturbation) -> Tensor:
    """Robust cross-entropy with interval bounds, the last layer folded into the margins (Gowal et al. 2018, §3)."""
    return cross_entropy(-robust_margins(network, x, y, region, "interval"), y, reduction="none")


def crown_ibp(network: Network, x: Tensor, y: Tensor, region: Perturbation) -> Tensor:
    """Robust cross-entropy of the mean bound β·g_CROWN + (1 − β)·g_interval, both on interval l,u.

    A mean of lower bounds is one. Source: Zhang et al. 2020, "Towards stable and efficient training of verifiably
    robust neural networks", §3.2: β falls from 1 to 0 while ε grows, so that training begins with the tighter bound and
    ends with the cheaper one.
    """
    bounds = batch_bounds(network, input_balls(x, region.eps, region.domain, region.norm), "interval")
    shares: tuple[tuple[MarginMethod, float], ...] = (("crown", region.beta), ("interval", 1.0 - region.beta))
    parts = [share * margin_bounds(network, bounds, y, method) for method, share in shares if share > 0]
    return cross_entropy(-torch.stack(parts).sum(0), y, reduction="none")


def mtl_ibp(network: Network, x: Tensor, y: Tensor, region: Perturbation) -> Tensor:
    """α·interval + (1 − α)·adversarial: between a lower and an upper bound of the worst loss, so for α < 1 no bound.

    Source: De Palma et al. 2024, "Expressive losses for verified robustness via convex combinations", MTL-IBP.
    """
    losses = ((interval, region.alpha), (adversarial, 1.0 - region.alpha))
    parts = [share * loss(network, x, y, region) for loss, share in losses if share > 0]
    return torch.stack(parts).sum(0)


LOSSES: dict[str, Loss] = {
    "standard": standard,
    "adversarial": adversarial,
    "adversarial-fgsm": adversarial_fgsm,
    "dual": dual,
    "dual-margin": dual_margin,
    "interval": interval,
    "crown-ibp": crown_ibp,
    "mtl-ibp": mtl_ibp,
}


def robust_margins(
    network: Network, x: Tensor, y: Tensor, region: Perturbation, method: BoundMethod = "dual"
) -> Tensor:
    """Lower bounds g_t of F_y − F_t over each ball, 0 for t = y: bounds unless l,u are estimated by projections.

    Shapes: x (B, n), y (B,) → (B, classes). What certifies is `margins` in numpy, not this.
    """
    balls = input_balls(x, region.eps, region.domain, region.norm)
    if region.projections is not None and method == "dual":
        bounds = estimated_bounds(network, balls, region.projections, region.generator)
    else:
        bounds = batch_bounds(network, balls, method)
    return margin_bounds(network, bounds, y, method)


def pgd_points(network: Network, x: Tensor, y: Tensor, region: Perturbation) -> Tensor:
    """Points of the balls where cross-entropy is large: steepest ascent from a random start, projected.

    Step size 2.5·eps/steps, as Madry et al. 2018 choose it; a step goes along the gradient's sign in ℓ∞, in ℓ1 and ℓ2
    towards the point of the ball around its centre where the linear part is largest. Shapes: (B, n) → (B, n), without
    gradient.
    """
    balls = input_balls(x, region.eps, region.domain, region.norm)
    draws = torch.rand(x.shape, generator=region.generator, dtype=x.dtype).to(x.device)
    point = balls.ball_lower + draws * (balls.ball_upper - balls.ball_lower)
    size = 2.5 * region.eps / region.attack_steps
    if balls.ball is not None:
        point, share = _projected(balls, point), size / region.eps if region.eps else 0.0
        for _ in range(region.attack_steps):
            point = _projected(balls, point + share * _best_step(balls, _gradient(network, point, y)))
        return point
    for _ in range(region.attack_steps):
        point = torch.clamp(point + size * _ascent(network, point, y), balls.ball_lower, balls.ball_upper)
    return point


def fgsm_points(network: Network, x: Tensor, y: Tensor, region: Perturbation) -> Tensor:
    """The point of each ball where the linear part of cross-entropy at x is largest: x + eps·sign ∇ₓ cut by the domain
    in ℓ∞. Shapes: (B, n) → (B, n), without gradient."""
    balls = input_balls(x, region.eps, region.domain, region.norm)
    if balls.ball is not None:
        return x + _best_step(balls, _gradient(network, x, y))
    return torch.clamp(x + region.eps * _ascent(network, x, y), balls.ball_lower, balls.ball_upper)


def _ascent(network: Network, point: Tensor, y: Tensor) -> Tensor:
    """sign ∇ of the cross-entropy at each point."""
    return _gradient(network, point, y).sign()


def _best_step(balls: BatchBounds, gradient: Tensor) -> Tensor:
    """From the centre to the ball's point with the largest gradient·x̃."""
    assert balls.ball is not None
    center, eps, norm = balls.ball
    widths = torch.where(gradient < 0, center - balls.ball_lower, balls.ball_upper - center)
    return torch.copysign(best_moves(gradient.abs(), widths, eps, norm), gradient)


def _projected(balls: BatchBounds, point: Tensor) -> Tensor:
    """The nearest point of each ball."""
    assert balls.ball is not None
    center, eps, norm = balls.ball
    moves = point - center
    widths = torch.where(moves < 0, center - balls.ball_lower, balls.ball_upper - center)
    return center + torch.copysign(nearest_moves(moves.abs(), widths, eps, norm), moves)


def _gradient(network: Network, point: Tensor, y: Tensor) -> Tensor:
    """∇ of the cross-entropy at each point."""
    with torch.enable_grad():
        moved = point.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network.forward(moved), y, reduction="sum"), moved)
    return gradient.detach()


def at_radius(region: Perturbation, eps: float) -> Perturbation:
    """The same region with another radius."""
    return replace(region, eps=eps)
