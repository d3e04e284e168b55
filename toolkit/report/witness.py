"""A witness as a picture: the image, the unsafe point, and their difference so enlarged that it can be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from toolkit.arrays import AnyArray, FloatArray
from toolkit.data.arguments import number_array
from toolkit.data.names import plot_text
from toolkit.report.styles import IMAGE_MAP, PaperFigure, paper_style

LARGEST_ZOOM = 1000  # factors beyond it show rounding


def witness_figure(
    image: ArrayLike, witness: ArrayLike, shape: Sequence[int], titles: tuple[str, str] = ("image", "unsafe point"),
) -> Figure:  # fmt: skip
    """Image, witness and k times their difference side by side; grey in the difference is 0; its title has that and k.

    image, witness: n numbers each. shape: (channels, height, width) or (height, width), with 1 or 3 channels; a flat
    shape of n inputs that fill a square is one too. k: the largest of 1, 2, 5, 10, … that keeps all in the range.
    Returns a matplotlib Figure. Raises ValueError for inputs that are no picture.
    """
    original, point = _picture("image", image, shape), _picture("witness", witness, shape)
    low, high = float(min(original.min(), point.min())), float(max(original.max(), point.max()))
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    span = max(high - low, np.finfo(np.float64).tiny)
    change = point - original
    factor = zoom(float(np.abs(change).max()), span)
    with paper_style():
        figure = PaperFigure(figsize=(7.0, 2.7), layout="constrained")
        panels = figure.subplots(1, 3)
        shown = ((original - low) / span, (point - low) / span, 0.5 + 0.5 * np.clip(factor * change / span, -1.0, 1.0))
        for panel, pixels, title in zip(panels, shown, (*titles, f"difference × {factor:g}, grey: 0"), strict=True):
            panel.imshow(_laid_out(pixels), cmap=IMAGE_MAP, vmin=0.0, vmax=1.0, interpolation="nearest")
            panel.set_title(plot_text(title))
            panel.set_xticks([])
            panel.set_yticks([])
            panel.spines[:].set_visible(False)
    return figure


def picture_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(channels, height, width) of inputs of a shape. Raises ValueError for inputs that are no picture."""
    core = tuple(int(n) for n in shape)
    while len(core) > 1 and core[0] == 1:
        core = core[1:]
    side = math.isqrt(math.prod(core))
    if len(core) == 1 and side * side == core[0]:
        core = (side, side)
    whole = core if len(core) == 3 else (1, *core)
    if len(whole) != 3 or whole[0] not in (1, 3):
        raise ValueError(
            f"a picture has 1 or 3 channels of height×width, the network takes {tuple(shape)}; save a .npy"
        )
    return whole[0], whole[1], whole[2]


def zoom(largest: float, span: float) -> float:
    """The largest of 1, 2, 5, 10, … by which a difference may be multiplied without leaving the range."""
    if not largest > 0:
        return 1.0
    room = min(span / largest, float(LARGEST_ZOOM))
    steps = [base * 10.0**power for power in range(4) for base in (1.0, 2.0, 5.0)]
    return max([step for step in steps if step <= room * (1 + 1e-9)], default=1.0)


def _picture(name: str, values: ArrayLike, shape: Sequence[int]) -> FloatArray:
    """(channels, height, width)."""
    flat, whole = number_array(name, values).ravel(), picture_shape(shape)
    if math.prod(whole) != flat.size:
        raise ValueError(f"{name} must have {math.prod(whole)} numbers, of shape {tuple(shape)}, got {flat.size}")
    return flat.reshape(whole)


def _laid_out(pixels: FloatArray) -> AnyArray:
    return pixels[0] if pixels.shape[0] == 1 else np.moveaxis(pixels, 0, 2)
