"""One image of one's own: read as what it is, or refused.

The array's shape says how it is laid out and its type how it is scaled; neither is guessed from the number of entries
or from the values. `reading` says in words what was done. Checked: layout, type, range, that nothing is truncated,
transparent or animated. Trusted: that an array of the network's own shape is laid out as the network's inputs are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.arrays import FloatArray
from toolkit.data.amounts import DataDomain, same_layout
from toolkit.data.arguments import file_path, whole_numbers
from toolkit.data.dataset_parts import UNIT_RANGE, scaled_levels
from toolkit.data.npy_files import open_npy

if TYPE_CHECKING:
    from PIL.Image import Image

LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue in grey
PNG_START = b"\x89PNG\r\n\x1a\n"
LARGEST_PNG = 1 << 26  # pixels of an image whose size nothing else tells
GREY, COLOUR, PALETTE = 0, 2, 3  # PNG's colour types; + 4: with alpha


@dataclass(frozen=True, eq=False)
class OwnImage:
    """An image as a network takes it. pixels: float64, of the network's input shape. reading: how it was read."""

    pixels: FloatArray
    reading: str


def load_image(path: str | Path, shape: Sequence[int], domain: DataDomain | None = UNIT_RANGE) -> FloatArray:
    """The pixels of `read_image`, of the given shape."""
    return read_image(path, shape, domain).pixels


def read_image(path: str | Path, shape: Sequence[int], domain: DataDomain | None = UNIT_RANGE) -> OwnImage:
    """One image of one's own as an array of the given shape, its numbers in the domain (None: any; an end per
    coordinate is not looked at, but levels are refused).

    .npy: float16/32/64 as stored, or uint8, divided by 255 or, in the domain [0, 255], as stored. Its shape must be the
    network's, up to leading 1s; or flat, (n,); a grey image may end in its one channel, and be given, if square, to a
    network of n inputs without axes. (height, width, channels) is refused: which axis is which is not guessed. .png:
    grey or colour of the network's height and width, up to 8 bits a channel, grey up to 16, opaque, its levels as
    those of uint8. Colour becomes
    grey (0.299 R + 0.587 G + 0.114 B) for one channel, grey is repeated for three. Raises FileNotFoundError, or
    ValueError naming what does not fit.
    """
    file, wanted = file_path("path", path), whole_numbers("shape", shape, 1)
    if not file.is_file():
        raise FileNotFoundError(f"no image file at {file}")
    readers = {".npy": _read_npy, ".png": _read_png}
    if file.suffix not in readers:
        raise ValueError(f"images are read from .npy or .png, got {file.name!r}")
    try:
        image = readers[file.suffix](file, wanted, domain)
        _check_range(image.pixels, domain)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from error
    return image


def check_fits(images: Sequence[int], inputs: Sequence[int], name: str = "") -> None:
    """Raise ValueError unless images of one shape are a network's inputs of another; see `same_layout`. name: of the
    images."""
    if not same_layout(images, inputs):
        hint = ""
        if len(images) == len(inputs) == 3 and (images[2], *images[:2]) == tuple(inputs):
            hint = "; if they are height×width×channels, save np.moveaxis(images, -1, 1)"
        if (
            len(images) == len(inputs) == 3
            and tuple(images)[1:] == tuple(inputs)[1:]
            and {images[0], inputs[0]} == {1, 3}
        ):
            hint = f"; save them in {'grey' if inputs[0] == 1 else 'colour'}"
        told = f"{name} has images of shape" if name else "images have shape"
        raise ValueError(f"{told} {tuple(images)}, the network takes {tuple(inputs)}{hint}")


def _check_range(pixels: FloatArray, domain: DataDomain | None) -> None:
    wrong = np.argwhere(~np.isfinite(pixels))
    if wrong.size:
        where = tuple(int(i) for i in wrong[0])
        raise ValueError(f"every number must be finite, got {pixels[where]} at {where}, {len(wrong)} such in all")
    if domain is None or np.ndim(domain[0]) or np.ndim(domain[1]):
        return
    if not (pixels.min() >= domain[0] and pixels.max() <= domain[1]):
        hint = "; save whole numbers 0 … 255 as uint8, or divide them by 255" if domain == UNIT_RANGE else ""
        raise ValueError(
            f"must hold numbers in [{domain[0]:g}, {domain[1]:g}], got {pixels.min():g} … {pixels.max():g}{hint}"
        )


def _read_npy(file: Path, shape: tuple[int, ...], domain: DataDomain | None) -> OwnImage:
    array = open_npy(file)
    if array.dtype != np.uint8 and array.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
        raise ValueError(
            f"must hold uint8 (0 … 255), float16, float32 or float64 (in the network's units), got {array.dtype}"
        )
    laid_out, layout = _laid_out(array, shape)
    pixels = np.array(laid_out, dtype=np.float64)
    if array.dtype == np.uint8:
        scaled, ends = scaled_levels(pixels, domain, "uint8")
        return OwnImage(scaled, f"uint8 {'divided by 255' if ends == UNIT_RANGE else 'as stored'}, {layout}")
    return OwnImage(pixels, f"{array.dtype.name} as stored, {layout}")


def _laid_out(array: NDArray[np.generic], shape: tuple[int, ...]) -> tuple[NDArray[np.generic], str]:
    """The array in the network's shape, and what its own layout was; ValueError where the shape does not say."""
    given, wanted = _without_leading_ones(array.shape), _without_leading_ones(shape)
    if given == wanted:
        return array.reshape(shape), "of the network's shape"
    if given == (math.prod(shape),):
        return array.reshape(shape), "flat"
    grey = _without_leading_ones(array.shape[:-1]) if array.ndim >= 3 and array.shape[-1] == 1 else given
    square = (math.isqrt(math.prod(shape)),) * 2
    fills = len(wanted) == 1 and grey == square and math.prod(square) == math.prod(shape)
    if len(grey) == 2 and (grey == wanted or fills):
        return array.reshape(shape), "height×width"
    hint = ""
    if len(shape) == 3 and given[-3:] == (*shape[1:], shape[0]):
        hint = "; if it is height×width×channels, save np.moveaxis(image, -1, -3)"
    raise ValueError(
        f"has shape {array.shape}, the network takes {shape}; allowed are that shape, the same with leading 1s, and "
        f"flat ({math.prod(shape)},){hint}"
    )


def _without_leading_ones(shape: Sequence[int]) -> tuple[int, ...]:
    first = next((k for k, n in enumerate(shape) if n != 1), max(len(shape) - 1, 0))
    return tuple(int(n) for n in shape[first:])


def _read_png(file: Path, shape: tuple[int, ...], domain: DataDomain | None) -> OwnImage:
    ends = scaled_levels(np.zeros(0), domain, "a .png")[1]
    core = _without_leading_ones(shape)
    side = math.isqrt(math.prod(core))
    wanted = {1: (1, side, side), 2: (1, *core), 3: core}.get(len(core), (0,))
    if wanted[0] not in (1, 3) or math.prod(wanted) != math.prod(shape):
        raise ValueError(f"a .png is 1 or 3 channels of height×width, the network takes {shape}")
    levels, reading = read_levels(file, (wanted[1], wanted[2]))
    if wanted[0] == levels.shape[2]:
        pixels = np.moveaxis(levels, 2, 0)
    elif wanted[0] == 3:
        pixels, reading = np.repeat(np.moveaxis(levels, 2, 0), 3, axis=0), f"{reading}, repeated for 3 channels"
    else:
        without_colour = bool(np.all(levels == levels[..., :1]))
        grey = levels[..., 0] if without_colour else np.clip(levels @ LUMA, 0.0, 1.0)
        pixels, reading = grey[None], reading if without_colour else f"{reading}, made grey"
    if ends != UNIT_RANGE:
        pixels, reading = whole_levels(pixels), f"{reading}, levels 0 … 255"
    return OwnImage(np.ascontiguousarray(pixels).reshape(shape), reading)


def whole_levels(pixels: FloatArray) -> FloatArray:
    """Pixels in [0, 1] as levels in [0, 255], whole where they were: (v / 255)·255 may miss v by its last place."""
    found = pixels * 255.0
    level = np.rint(found)
    return np.asarray(np.where(np.abs(found - level) < 1e-9, level, found))


def read_levels(file: Path, size: tuple[int, int] | None = None) -> tuple[FloatArray, str]:
    """The pixels of a .png in [0, 1], shape (height, width, 1 or 3), and what the file holds.

    size: the height and width it must have, None: any of at most LARGEST_PNG pixels. Raises ValueError, OSError.
    """
    from PIL.Image import open as open_image

    with file.open("rb") as stream:
        head = stream.read(29)
    if len(head) < 29 or head[:8] != PNG_START or head[12:16] != b"IHDR":
        raise ValueError("not a readable .png: it does not begin like one")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    if size is None and not 0 < height * width <= LARGEST_PNG:
        raise ValueError(f"must have at most {LARGEST_PNG:,} pixels, got {height}×{width}")
    if size is not None and (height, width) != size:
        raise ValueError(f"has {height}×{width} pixels, the network takes {size[0]}×{size[1]}")
    if bits == 16 and colour != GREY:
        raise ValueError("16 bits a channel are read from grey images only; save 8 bits, or the numbers as .npy")
    try:
        with open_image(file, formats=["PNG"]) as image:
            image.verify()  # the checksums, which reading alone skips
        with open_image(file, formats=["PNG"]) as image:
            frames = getattr(image, "n_frames", 1)
            if frames != 1:
                raise ValueError(f"must hold one image, got {frames} frames")
            return _levels(image, bits, colour), f"{bits}-bit {_kind(colour)}"
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"not a readable .png: {error}") from error


def _kind(colour: int) -> str:
    return {GREY: "grey", COLOUR: "colour", PALETTE: "palette"}.get(colour & 3, "image")


def _levels(image: Image, bits: int, colour: int) -> FloatArray:
    """Pixel values divided by the largest of their depth; Pillow has spread depths below 8 over 0 … 255."""
    if colour in (GREY, COLOUR) and "transparency" in image.info:
        raise ValueError("must be opaque, but one of its colours is transparent")
    if colour == GREY:
        values = np.atleast_3d(np.asarray(image, dtype=np.float64))
        return values / {1: 1.0, 16: 65535.0}.get(bits, 255.0)
    if colour == PALETTE:
        entries = len(image.palette.palette) // 3 if image.palette else 0
        if int(np.asarray(image).max()) >= entries:
            raise ValueError(f"a pixel names colour {int(np.asarray(image).max())} of a palette of {entries}")
    values = np.asarray(image.convert("RGBA"), dtype=np.float64)
    if not np.all(values[..., 3] == 255):
        raise ValueError("must be opaque, but some of its pixels are transparent")
    return values[..., : 3 if colour & COLOUR else 1] / 255.0
