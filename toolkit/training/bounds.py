"""Layer bounds and margins of a whole batch in torch, with gradients: what robust losses are made of.

The recursion is the dual rung's own `dual_ranges`; this file only chooses which rows it runs on. Rows are the neurons
that interval arithmetic leaves unstable. A dense layer's rows are shared by the batch. A neuron of a convolution behind
convolutions alone sees a patch of the image, so its rows live on that patch: the same recursion with (image, place) as
batch axes and the convolutions restricted to the patch.

For training only. What certifies is layer_bounds and the rungs, in numpy float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad, unfold

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, Dense
from toolkit.networks.network import Network
from toolkit.networks.stages import Stage, hidden_stages
from toolkit.problems.input_set import box_min_linear, over_box
from toolkit.problems.phases import is_unstable
from toolkit.relaxations.relu import adaptive_slope
from toolkit.rungs.dual import dual_ranges, dual_values
from toolkit.rungs.interval import post_activation_box
from toolkit.training.fixed_maps import magnitude
from toolkit.training.norm_inputs import ball_range

BoundMethod = Literal["interval", "dual"]
MarginMethod = Literal["interval", "dual", "crown"]
MATRIX_LIMIT = 1 << 20  # entries up to which a convolution restricted to a patch is applied as a matrix


@dataclass(frozen=True)
class BatchBounds:
    """The balls around a batch and the bounds l ≤ x̂ ≤ u they imply. Shapes: (B, n) per layer.

    ball_lower, ball_upper: the hull. ball: centres, radius and norm of what is more than its hull; None: a box.
    """

    ball_lower: Tensor
    ball_upper: Tensor
    lower: tuple[Tensor, ...]
    upper: tuple[Tensor, ...]
    ball: tuple[Tensor, float, str] | None = None

    def with_layer(self, lower: Tensor, upper: Tensor) -> BatchBounds:
        """The same with one more layer."""
        return replace(self, lower=(*self.lower, lower), upper=(*self.upper, upper))

    @property
    def input_range(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Middle and half-width of ν·x̃ over every image's ball."""
        return self.range_on(lambda values: values)

    def range_on(self, cut: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """`input_range` over some coordinates only, which `cut` takes from (B, n), 0 where there is none."""
        low, high = cut(self.ball_lower), cut(self.ball_upper)
        if self.ball is None:
            return over_box(low, high)
        center, eps, norm = self.ball
        middle = cut(center)
        return partial(ball_range, center=middle, widths=(middle - low, high - middle), eps=eps, norm=norm)

    @property
    def relu_bounds(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """l and u per ReLU layer."""
        return self.lower, self.upper

    def box(self, place: int) -> tuple[Tensor, Tensor]:
        """The box that holds what a place gives: 0 is the input, k + 1 what ReLU layer k gives."""
        if not place:
            return self.ball_lower, self.ball_upper
        low, high = post_activation_box(self.lower[place - 1], self.upper[place - 1])
        return low, high

    def image(self, place: int, layer: AffineMap) -> tuple[Tensor, Tensor]:
        """Middle W·m and half-width of the smallest box around a map's image of a place, its bias left out.

        |W|·r of the place's box, or over a ball that is more than its hull the range of every row.
        """
        if not place and self.ball is not None:
            unit = torch.eye(layer.output_size, dtype=self.ball_lower.dtype, device=self.ball_lower.device)
            return self.input_range(layer.adjoint(unit).expand(len(self.ball_lower), -1, -1))
        low, high = self.box(place)
        absolute = magnitude(layer)  # first: gradients are summed in the reverse order, which decides how they round
        return layer.linear(0.5 * (low + high)), absolute.linear(0.5 * (high - low))


def input_balls(x: Tensor, eps: float, domain: Sequence[float] | None, norm: str = "linf") -> BatchBounds:
    """The balls of radius eps around each image, cut by the domain; x (B, n). norm: linf, l1 or l2."""
    lower, upper = x - eps, x + eps
    if domain is not None:
        lower, upper = lower.clamp_min(domain[0]), upper.clamp_max(domain[1])
    return BatchBounds(lower, upper, (), (), None if norm == "linf" else (x, eps, norm))


def batch_bounds(network: Network, balls: BatchBounds, method: BoundMethod = "dual") -> BatchBounds:
    """l and u of every ReLU input: interval arithmetic, then the dual where that leaves a neuron unstable.

    The chain ("interval",) or ("interval", "dual") of `layer_bounds`, for every image of the batch at once.
    """
    bounds = balls
    for k, stage in enumerate(network.stages[:-1]):
        if k == 0 and bounds.ball is not None and seen_on_patches(network.stages, k):
            everything = torch.ones(len(bounds.ball_lower), stage.output_size, dtype=torch.bool)
            low, high = _patch_ranges(network.stages, k, bounds, everything.to(bounds.ball_lower.device))
        else:
            low, high = stage_box(stage, bounds)
        if k and method == "dual":
            low, high = _tighten(network.stages, k, bounds, low, high)
        bounds = bounds.with_layer(low, high)
    return bounds


def stage_box(stage: Stage, bounds: BatchBounds) -> tuple[Tensor, Tensor]:
    """The box of a stage's x̂ by interval arithmetic: b + Σ W·middle ∓ Σ |W|·half-width over its sources."""
    (middle, half_width), *others = (bounds.image(place, layer) for place, layer in stage.sources)
    for own_middle, own_half_width in others:
        middle, half_width = middle + own_middle, half_width + own_half_width
    middle = middle + stage.bias
    return middle - half_width, middle + half_width


def margin_bounds(network: Network, bounds: BatchBounds, labels: Tensor, method: MarginMethod = "dual") -> Tensor:
    """Lower bounds of F_y − F_t over each ball, for every class t (0 for t = y). Shapes: labels (B,) → (B, classes).

    dual and crown are the rungs of these names: the dual bound at the slopes u/(u−l), and at 0 or 1 (adaptive_slope).
    """
    last = network.stages[-1]
    starts = {place: _margin_rows(layer, labels, bounds) for place, layer in last.sources}
    value = last.bias[labels][:, None] - last.bias
    if method == "interval":
        margins: Tensor = value
        for place, rows in starts.items():
            margins = margins + _least(place, rows, bounds)
        return margins
    slopes = None
    if method == "crown":
        slopes = [adaptive_slope(*ends)[..., None, :] for ends in zip(*bounds.relu_bounds, strict=True)]
    return dual_values(network.stages[:-1], starts, value, bounds.relu_bounds, bounds.input_range, slopes)


def _margin_rows(layer: AffineMap, labels: Tensor, bounds: BatchBounds) -> Tensor:
    """e_yW − e_tW for every label and class t. Shapes: (B,) → (B, classes, n)."""
    if isinstance(layer, Dense):
        rows: Tensor = layer.weight[labels][:, None, :] - layer.weight
        return rows
    unit = torch.eye(layer.output_size, dtype=bounds.ball_lower.dtype, device=bounds.ball_lower.device)
    return layer.adjoint(unit[labels][:, None, :] - unit)


def _least(place: int, rows: Tensor, bounds: BatchBounds) -> Tensor:
    """min ν·y over what a place may give."""
    if place or bounds.ball is None:
        return box_min_linear(rows, *bounds.box(place))
    middle, half_width = bounds.input_range(rows)
    return middle - half_width


def _tighten(stages: Sequence[Stage], k: int, bounds: BatchBounds, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Intersect a layer's box with its dual bounds, where the box leaves a neuron unstable.

    Or touches 0, as differences of pooled values do: `layer_bounds` rounds outward, which makes these unstable.
    """
    unstable = is_unstable(low, high) | (((low == 0.0) | (high == 0.0)) & (low < high))
    if not bool(unstable.any()):
        return low, high
    dual_low, dual_high = (_patch_ranges if seen_on_patches(stages, k) else _row_ranges)(stages, k, bounds, unstable)
    # rows that only fill up a batch are of neurons the box decides already, which layer_bounds leaves alone too
    return (
        torch.where(unstable, torch.maximum(low, dual_low), low),
        torch.where(unstable, torch.minimum(high, dual_high), high),
    )


def seen_on_patches(stages: Sequence[Stage], k: int) -> bool:
    """Whether stage k and all before it are a chain of convolutions: a neuron sees a patch of the image."""
    return all(
        place == j and isinstance(layer, Conv2d) and _plain(layer)
        for j, stage in enumerate(stages[: k + 1])
        for place, layer in stage.sources
    )


def _unstable_first(unstable: Tensor) -> Tensor:
    """For each leading index the unstable neurons, filled up to the largest number of them. (…, n) → (…, m)."""
    most = int(unstable.sum(-1).max())
    return torch.argsort(~unstable, dim=-1, stable=True)[..., :most]


def _row_ranges(stages: Sequence[Stage], k: int, bounds: BatchBounds, unstable: Tensor) -> tuple[Tensor, Tensor]:
    """Dual ranges of each image's unstable neurons of layer k, ∓∞ elsewhere. Shapes: (B, n_k) each."""
    neurons = _unstable_first(unstable)
    starts = {place: _neuron_rows(layer, neurons, bounds) for place, layer in stages[k].sources}
    value = stages[k].bias[neurons]
    middle, half_width = dual_ranges(stages[:k], starts, value, bounds.relu_bounds, bounds.input_range)
    unknown = torch.full(unstable.shape, math.inf, dtype=middle.dtype, device=middle.device)
    return (-unknown).scatter(-1, neurons, middle - half_width), unknown.scatter(-1, neurons, middle + half_width)


def _neuron_rows(layer: AffineMap, neurons: Tensor, bounds: BatchBounds) -> Tensor:
    """The rows of W that the neurons name. Shapes: (B, m) → (B, m, n)."""
    if isinstance(layer, Dense):
        rows: Tensor = layer.weight.index_select(0, neurons.reshape(-1)).reshape(*neurons.shape, -1)
        return rows
    unit = torch.zeros(*neurons.shape, layer.output_size, dtype=bounds.ball_lower.dtype, device=neurons.device)
    return layer.adjoint(unit.scatter(-1, neurons[..., None], 1.0))


def _plain(conv: Conv2d) -> bool:
    """Whether patches cover it: no groups, no dilation, one bias a channel, square geometry."""
    square = conv.stride[0] == conv.stride[1] and conv.padding[0] == conv.padding[1]
    kernel = conv.weight.shape[2] == conv.weight.shape[3]
    return bool(square and kernel and conv.groups == 1 and conv.dilation == (1, 1) and conv.bias.ndim == 1) and (
        int(conv.bias.shape[0]) == conv.output_shape[0]
    )


@dataclass(frozen=True)
class _Patch:
    """The part of a layer's input that one place of a later convolution sees: size² places, step apart."""

    size: int
    step: int
    padding: int

    def cut(self, values: Tensor, conv: Conv2d, places: tuple[int, int], fill: float) -> Tensor:
        """Every place's patch of flat `values` (B, n), filled outside the image. Shape: (B, places, C·size²)."""
        images = values.reshape(-1, *conv.shape)
        right = [(places[i] - 1) * self.step + self.size - self.padding - conv.shape[1 + i] for i in (0, 1)]
        padded = pad(images, (self.padding, right[1], self.padding, right[0]), value=fill)
        return unfold(padded, self.size, stride=self.step).mT


def _patch_ranges(stages: Sequence[Stage], k: int, bounds: BatchBounds, unstable: Tensor) -> tuple[Tensor, Tensor]:
    """Dual ranges of the unstable neurons of convolution k, ∓∞ elsewhere; as `_row_ranges`, one group a place.

    A neuron of an earlier layer that falls outside its image is padding, the constant 0: inactive.
    """
    convs = [layer for stage in stages[: k + 1] for _, layer in stage.sources if isinstance(layer, Conv2d)]
    channels, *places = convs[k].output_shape
    by_place = unstable.reshape(-1, channels, math.prod(places)).mT.flatten(0, 1)
    groups = torch.nonzero(by_place.any(1))[:, 0]
    patch = _Patch(1, 1, 0)
    patch_layers: list[AffineMap] = []
    relu: list[tuple[Tensor, Tensor]] = []
    for j in range(k, -1, -1):
        conv, outputs = convs[j], patch.size
        kernel, stride, padding = int(conv.weight.shape[2]), conv.stride[0], conv.padding[0]
        patch = _Patch((outputs - 1) * stride + kernel, patch.step * stride, patch.padding * stride + padding)
        if j < k:
            patch_layers.insert(0, _on_patch(conv, patch.size))
        if j:
            ends = (bounds.lower[j - 1], bounds.upper[j - 1])
            cut = [patch.cut(end, conv, (places[0], places[1]), -1.0).flatten(0, 1) for end in ends]
            relu.insert(0, (cut[0].index_select(0, groups), cut[1].index_select(0, groups)))
    chosen = _unstable_first(by_place[groups])
    kernels = convs[k].weight.flatten(1)
    rows = kernels.index_select(0, chosen.reshape(-1)).reshape(*chosen.shape, -1)

    def seen(values: Tensor) -> Tensor:
        return patch.cut(values, convs[0], (places[0], places[1]), 0.0).flatten(0, 1).index_select(0, groups)

    relu_bounds = [pair[0] for pair in relu], [pair[1] for pair in relu]
    parts, value = hidden_stages(patch_layers), convs[k].bias[chosen]
    middle, half_width = dual_ranges(parts, {k: rows}, value, relu_bounds, bounds.range_on(seen))
    unknown = torch.full(by_place.shape, math.inf, dtype=middle.dtype, device=middle.device).reshape(-1)
    where = (groups[:, None] * channels + chosen).reshape(-1)
    found = [
        unknown.mul(sign)
        .index_copy(0, where, (middle + sign * half_width).reshape(-1))
        .reshape(-1, *_swapped(convs[k]))
        for sign in (-1, 1)
    ]
    return found[0].mT.reshape(unstable.shape), found[1].mT.reshape(unstable.shape)


def _swapped(conv: Conv2d) -> tuple[int, int]:
    return math.prod(conv.output_shape[1:]), conv.output_shape[0]


def _on_patch(conv: Conv2d, size: int) -> AffineMap:
    """The convolution on a patch that holds its padding already; as a matrix where that is small."""
    restricted = Conv2d(conv.weight, conv.bias, (conv.shape[0], size, size), conv.stride)
    if math.prod((restricted.input_size, restricted.output_size)) > MATRIX_LIMIT:
        return restricted
    unit = torch.eye(restricted.output_size, dtype=conv.weight.dtype, device=conv.weight.device)
    return Dense(restricted.adjoint(unit), restricted.bias_vector)
