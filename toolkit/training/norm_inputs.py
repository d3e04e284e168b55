"""ℓ1 and ℓ2 balls of a batch in torch, with gradients: ranges of linear functionals, steepest moves, nearest points.

The formulas are those of problems/norm_balls.py: min ν·x̃ ≥ ν·x − [w·(a − q) + ε‖q‖_*] with a = |ν|, q = min(a, t·w)
(ℓ2) or min(a, t) (ℓ1), for any threshold t; the bracket's gradient is the moves m that attain it (envelope theorem).
Shapes: rows (…, m, n), centre and widths (…, n), widths 0 where a coordinate cannot move.

For training only: nothing is rounded to a safe side here.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALE_ROUNDS = 20  # of the active-set search for ℓ2
HALVINGS = 50  # of the search for the nearest point in ℓ1


def ball_range(
    rows: Tensor, center: Tensor, widths: tuple[Tensor, Tensor], eps: float, norm: str
) -> tuple[Tensor, Tensor]:
    """Middle and half-width of ν·x̃ over every ball; widths: how far each coordinate may move down and up.

    Shapes: rows (…, m, n), the others (…, n) → (…, m) each.
    """
    middle = (rows @ center[..., None])[..., 0]
    if eps == 0.0:
        return middle, torch.zeros_like(middle)
    down, up = (side[..., None, :].expand(rows.shape) for side in widths)
    sizes, positive = rows.abs(), rows > 0
    fall = _gains(sizes, torch.where(positive, down, up), eps, norm)
    rise = _gains(sizes, torch.where(positive, up, down), eps, norm)
    return middle + 0.5 * (rise - fall), 0.5 * (rise + fall)


def best_moves(sizes: Tensor, widths: Tensor, eps: float, norm: str) -> Tensor:
    """m with the largest Σ_j a_j m_j, 0 ≤ m ≤ w, ‖m‖ ≤ ε; any shape (…, n)."""
    if eps == 0.0:
        return torch.zeros_like(sizes)
    if norm == "l2":
        return torch.minimum(widths, sizes * _l2_scale(sizes, widths, eps))
    order = torch.argsort(-sizes, dim=-1, stable=True)
    sorted_widths = widths.gather(-1, order)
    left = (eps - (sorted_widths.cumsum(-1) - sorted_widths)).clamp_min(0.0)
    return torch.zeros_like(sizes).scatter(-1, order, torch.minimum(sorted_widths, left))


def nearest_moves(sizes: Tensor, widths: Tensor, eps: float, norm: str) -> Tensor:
    """m nearest to a with 0 ≤ m ≤ w and ‖m‖ ≤ ε; any shape (…, n)."""
    if eps == 0.0:
        return torch.zeros_like(sizes)
    if norm == "l2":
        return torch.minimum(widths, sizes * _l2_scale(sizes, widths, eps).clamp_max(1.0))
    low, high = torch.zeros_like(sizes[..., :1]), sizes.amax(-1, keepdim=True)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        long = _shrunk(sizes, widths, middle).sum(-1, keepdim=True) > eps
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    fits = _shrunk(sizes, widths, torch.zeros_like(low)).sum(-1, keepdim=True) <= eps
    return _shrunk(sizes, widths, torch.where(fits, 0.0, high))


def _shrunk(sizes: Tensor, widths: Tensor, less: Tensor) -> Tensor:
    return torch.minimum(widths, (sizes - less).clamp_min(0.0))


def _gains(sizes: Tensor, widths: Tensor, eps: float, norm: str) -> Tensor:
    """The bracket at the threshold found, with the gradient of a·m. (…, n) → (…,)."""
    with torch.no_grad():
        moves = best_moves(sizes, widths, eps, norm)
        if norm == "l2":
            top = widths / _l2_scale(sizes, widths, eps)
        else:
            ordered, order = sizes.sort(dim=-1, descending=True)
            filled = widths.gather(-1, order).cumsum(-1) >= eps
            first = filled.to(torch.int8).argmax(-1, keepdim=True)
            top = torch.where(filled.any(-1, keepdim=True), ordered.gather(-1, first), 0.0)
        q = torch.minimum(sizes, top)
        dual_norm = torch.linalg.vector_norm(q, dim=-1) if norm == "l2" else q.amax(-1)
        value = (widths * (sizes - q)).sum(-1) + eps * dual_norm
    gained = (sizes * moves).sum(-1)
    return gained + (value - gained).detach()


def _l2_scale(sizes: Tensor, widths: Tensor, eps: float) -> Tensor:
    """The s with ‖min(w, s·a)‖₂ = ε, large where every width fits. (…, n) → (…, 1)."""
    largest = torch.finfo(sizes.dtype).max ** 0.25
    scale = (eps / torch.linalg.vector_norm(sizes, dim=-1, keepdim=True)).clamp_max(largest)
    for _ in range(SCALE_ROUNDS):
        full = sizes * scale >= widths
        left = eps * eps - torch.where(full, widths, 0.0).square().sum(-1, keepdim=True)
        rest = torch.where(full, 0.0, sizes).square().sum(-1, keepdim=True)
        found = torch.where(rest > 0, left.clamp_min(0.0) / rest, largest**2).sqrt().clamp_max(largest)
        scale = torch.maximum(scale, found)
    return scale
