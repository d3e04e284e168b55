"""One's own images: layout by shape, scale by type, PNG files made byte by byte with known pixel values."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from toolkit.data.images import check_fits, read_image

RNG = np.random.default_rng(0)
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples per pixel by PNG colour type
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def packed(row: np.ndarray, bits: int) -> bytes:
    """A filter byte 0 and the samples of one row, high bits first."""
    if bits == 16:
        return b"\0" + row.astype(">u2").tobytes()
    digits = (row.ravel()[:, None] >> np.arange(bits - 1, -1, -1)) & 1
    return b"\0" + np.packbits(digits.astype(np.uint8)).tobytes()


def png(samples: np.ndarray, bits: int, colour: int, extra: Sequence[bytes] = (), interlaced: bool = False) -> bytes:
    """A PNG file of whole numbers, shape (height, width, samples per pixel)."""
    height, width, _ = samples.shape
    passes = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [samples]
    rows = b"".join(packed(row, bits) for part in passes if part.size for row in part)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def written(content: bytes, folder: Path, name: str = "image.png") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(("bits", "interlaced"), [*itertools.product((1, 2, 4, 8, 16), (False, True))])
def test_grey_pngs_of_every_depth(bits: int, interlaced: bool, tmp_path: Path) -> None:
    """The value of a pixel is its number over the largest of its depth: exactly, no depth is cut to another."""
    samples = RNG.integers(0, 2**bits, (5, 7, 1))
    samples[0, :2, 0] = 0, 2**bits - 1
    path = written(png(samples, bits, 0, interlaced=interlaced), tmp_path)
    image = read_image(path, (1, 5, 7))
    np.testing.assert_array_equal(image.pixels[0], samples[..., 0] / (2**bits - 1))
    assert image.reading == f"{bits}-bit grey"
    np.testing.assert_array_equal(read_image(path, (3, 5, 7)).pixels[1], image.pixels[0])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("colour", [2, 6])
def test_colour_pngs(colour: int, interlaced: bool, tmp_path: Path) -> None:
    samples = RNG.integers(0, 256, (5, 7, CHANNELS[colour]))
    if colour == 6:
        samples[..., 3] = 255
    path = written(png(samples, 8, colour, interlaced=interlaced), tmp_path)
    np.testing.assert_array_equal(read_image(path, (3, 5, 7)).pixels, np.moveaxis(samples[..., :3], 2, 0) / 255)
    grey = read_image(path, (1, 5, 7))
    np.testing.assert_allclose(grey.pixels[0], samples[..., :3] @ [0.299, 0.587, 0.114] / 255, atol=1e-15)
    assert grey.reading == "8-bit colour, made grey"


def test_colourless_colour_is_its_grey_exactly(tmp_path: Path) -> None:
    level = RNG.integers(0, 256, (8, 8, 1))
    path = written(png(np.repeat(level, 3, axis=2), 8, 2), tmp_path)
    np.testing.assert_array_equal(read_image(path, (64,)).pixels, level.ravel() / 255)
    opaque = np.concatenate([level, np.full_like(level, 255)], axis=2)
    np.testing.assert_array_equal(read_image(written(png(opaque, 8, 4), tmp_path), (8, 8)).pixels, level[..., 0] / 255)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes(bits: int, tmp_path: Path) -> None:
    table = RNG.integers(0, 256, (2**bits, 3)).astype(np.uint8)
    samples = RNG.integers(0, 2**bits, (5, 7, 1))
    plte = chunk(b"PLTE", table.tobytes())
    path = written(png(samples, bits, 3, [plte]), tmp_path)
    np.testing.assert_array_equal(read_image(path, (3, 5, 7)).pixels, np.moveaxis(table[samples[..., 0]], 2, 0) / 255)
    opaque = written(png(samples, bits, 3, [plte, chunk(b"tRNS", b"\xff" * 2**bits)]), tmp_path)
    np.testing.assert_array_equal(read_image(opaque, (3, 5, 7)).pixels, read_image(path, (3, 5, 7)).pixels)


ONE = np.zeros((2, 2, 1), dtype=np.int64)
PLTE = chunk(b"PLTE", bytes(12))
WHOLE = png(RNG.integers(0, 256, (2, 2, 3)), 8, 2)
REFUSED: dict[str, tuple[bytes, str]] = {
    "16-bit colour": (
        png(RNG.integers(0, 2**16, (2, 2, 3)), 16, 2),
        "16 bits a channel are read from grey images only",
    ),
    "16-bit grey with alpha": (png(RNG.integers(0, 2**16, (2, 2, 2)), 16, 4), "16 bits a channel"),
    "transparent pixels": (png(np.dstack([ONE, ONE, ONE, ONE + 254]), 8, 6), "some of its pixels are transparent"),
    "transparent grey": (png(np.dstack([ONE, ONE]), 8, 4), "some of its pixels are transparent"),
    "a transparent colour": (png(np.dstack([ONE] * 3), 8, 2, [chunk(b"tRNS", bytes(6))]), "of its colours is transp"),
    "a transparent level": (png(ONE, 2, 0, [chunk(b"tRNS", bytes(2))]), "of its colours is transparent"),
    "a transparent palette entry": (png(ONE, 2, 3, [PLTE, chunk(b"tRNS", b"\0")]), "of its pixels are transparent"),
    "an index beyond the palette": (png(ONE + 3, 2, 3, [chunk(b"PLTE", bytes(9))]), "names colour 3 of a palette of 3"),
    "another size": (png(np.zeros((3, 2, 1), np.int64), 8, 0), "has 3×2 pixels, the network takes 2×2"),
    "cut short": (WHOLE[:-20], "not a readable .png"),
    "no pixels": (WHOLE[:33], "not a readable .png"),
    "a flipped bit": (WHOLE[:-20] + bytes([WHOLE[-20] ^ 1]) + WHOLE[-19:], "not a readable .png"),
    "nothing": (b"", "does not begin like one"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_pngs_are_refused(name: str, tmp_path: Path) -> None:
    content, message = REFUSED[name]
    with pytest.raises(ValueError, match=rf"image\.png: .*{message}"):
        read_image(written(content, tmp_path), (1, 2, 2))


def test_other_formats_under_the_name_of_a_png_are_refused(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    jpeg = io.BytesIO()
    image_module.new("CMYK", (2, 2)).save(jpeg, "JPEG")
    with pytest.raises(ValueError, match=r"image\.png: not a readable \.png"):
        read_image(written(jpeg.getvalue(), tmp_path), (1, 2, 2))
    with pytest.raises(ValueError, match=r"read from \.npy or \.png, got 'image.jpg'"):
        read_image(written(jpeg.getvalue(), tmp_path, "image.jpg"), (1, 2, 2))
    frames = [image_module.new("L", (2, 2), level) for level in (0, 255)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="must hold one image, got 2 frames"):
        read_image(tmp_path / "moving.png", (1, 2, 2))


def stored(array: np.ndarray, folder: Path) -> Path:
    np.save(folder / "image.npy", array)
    return folder / "image.npy"


CHW = RNG.uniform(size=(3, 4, 5))
GREY = RNG.uniform(size=(1, 6, 6))
TAKEN = [
    (CHW, CHW, (3, 4, 5)),
    (CHW[None], CHW, (3, 4, 5)),
    (CHW[None, None], CHW, (3, 4, 5)),
    (CHW.ravel(), CHW, (3, 4, 5)),
    (CHW.reshape(1, -1), CHW, (3, 4, 5)),
    (np.asfortranarray(CHW), CHW, (3, 4, 5)),
    (CHW.astype(">f8"), CHW, (3, 4, 5)),
    (GREY, GREY, (1, 6, 6)),
    (GREY[0], GREY, (1, 6, 6)),
    (GREY[0, :, :, None], GREY, (1, 6, 6)),
    (GREY[:, :, :, None], GREY, (1, 6, 6)),
    (GREY[0], GREY.ravel(), (36,)),
    (GREY, GREY.ravel(), (36,)),
    (GREY.ravel(), GREY.reshape(1, 1, 36), (1, 1, 36)),
    (GREY[0, :, :, None], GREY[0], (6, 6)),
    (np.moveaxis(np.arange(27).reshape(3, 3, 3) / 27, 0, 2), None, (3, 3, 3)),  # the network's own shape: as it is
]


@pytest.mark.parametrize(("array", "expected", "shape"), TAKEN)
def test_arrays_whose_shape_says_how_they_are_laid_out(
    array: np.ndarray, expected: np.ndarray | None, shape: tuple[int, ...], tmp_path: Path
) -> None:
    found = read_image(stored(array, tmp_path), shape).pixels
    assert found.shape == shape
    np.testing.assert_array_equal(found, array if expected is None else expected)


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ((4, 5, 3), (3, 4, 5)),
        ((1, 4, 5, 3), (3, 4, 5)),
        ((5, 4, 3), (3, 4, 5)),
        ((4, 3, 5), (3, 4, 5)),
        ((3, 20), (3, 4, 5)),
        ((2, 3, 4, 5), (3, 4, 5)),
        ((3, 4, 5, 1), (3, 4, 5)),
        ((3, 2, 6), (36,)),
        ((4, 9), (36,)),
        ((3, 12, 12), (432,)),
        ((9, 4), (4, 9)),
        ((4, 4), (3, 4, 4)),
        ((), (1,)),
        ((0,), (4,)),
    ],
)
def test_arrays_of_another_shape_are_refused_with_both_shapes(
    given: tuple[int, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    """Even of the right size: a network's inputs in another order are another image."""
    with pytest.raises(
        ValueError, match=r"image\.npy: (has shape .*, the network takes .* flat|not an array)"
    ) as caught:
        read_image(stored(np.zeros(given), tmp_path), shape)
    assert str(shape) in str(caught.value) or given == (0,)
    if given == (4, 5, 3):
        assert "np.moveaxis(image, -1, -3)" in str(caught.value)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "uint8"])
def test_the_type_decides_the_scale_and_is_said(kind: str, tmp_path: Path) -> None:
    array = np.array([0, 1, 1, 0], dtype=kind)
    image = read_image(stored(array, tmp_path), (4,))
    np.testing.assert_array_equal(image.pixels, array / 255.0 if kind == "uint8" else array.astype(np.float64))
    assert image.reading.startswith("uint8 divided by 255" if kind == "uint8" else f"{kind} as stored")


@pytest.mark.parametrize("kind", ["int64", "int32", "uint16", "int8", "bool", "complex128", "longdouble", "U1", "O"])
def test_types_without_a_scale_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image\.npy: (must hold uint8 .* got |not an array of numbers)"):
        read_image(stored(np.zeros(4, dtype=kind), tmp_path), (4,))


def test_the_domain_is_the_range_of_floats_and_bytes_have_the_unit_box(tmp_path: Path) -> None:
    path = stored(np.array([229.0, 25.5]), tmp_path)
    np.testing.assert_array_equal(read_image(path, (2,), (0.0, 255.0)).pixels, [229.0, 25.5])
    np.testing.assert_array_equal(read_image(path, (2,), None).pixels, [229.0, 25.5])
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\], got 25\.5 … 229; save whole numbers 0 … 255 as uint8"):
        read_image(path, (2,))
    with pytest.raises(ValueError, match=r"numbers in \[0, 128\], got 25\.5 … 229$"):
        read_image(path, (2,), (0.0, 128.0))
    for array in (np.array([np.nan, 0.0]), np.array([np.inf, 0.0])):
        with pytest.raises(ValueError, match=r"every number must be finite, got (nan|inf) at \(0,\), 1 such in all"):
            read_image(stored(array, tmp_path), (2,), None)
    levels = stored(np.array([229, 25], np.uint8), tmp_path)
    kept = read_image(levels, (2,), (0.0, 255.0))
    assert (kept.pixels.tolist(), kept.reading) == ([229.0, 25.0], "uint8 as stored, of the network's shape")
    for domain, told in (
        ((-1.0, 1.0), r"the domain is \(-1\.0, 1\.0\)"),
        ((np.zeros(2), np.full(2, 255.0)), "one per"),
    ):
        with pytest.raises(ValueError, match=rf"uint8 is read as numbers in \[0, 1\] or \[0, 255\], .*{told}"):
            read_image(levels, (2,), domain)


def test_levels_of_a_png_are_as_stored_in_their_domain(tmp_path: Path) -> None:
    samples = RNG.integers(0, 256, (16, 16, 1))
    path = written(png(samples, 8, 0), tmp_path)
    kept = read_image(path, (1, 16, 16), (0.0, 255.0))
    np.testing.assert_array_equal(kept.pixels[0], samples[..., 0])
    assert kept.reading == "8-bit grey, levels 0 … 255"
    with pytest.raises(ValueError, match=r"a \.png is read as numbers in \[0, 1\] or \[0, 255\], .*\(0\.0, 2\.0\)"):
        read_image(path, (1, 16, 16), (0.0, 2.0))


def test_hostile_npy_files_are_refused_without_taking_memory(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header = header.ljust(117) + b"\n"
    lying = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(4))
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    for content in (lying, archive.getvalue(), pickled.getvalue(), b"", b"\x93NUMPY", lying[:40]):
        with pytest.raises(ValueError, match=r"image\.npy: not "):
            read_image(written(content, tmp_path, "image.npy"), (4,))


def test_data_sets_fit_networks_by_shape() -> None:
    for images, inputs in (((1, 8, 8), (64,)), ((1, 8, 8), (8, 8)), ((1, 8, 8), (8, 8, 1)), ((2,), (1, 2))):
        check_fits(images, inputs)
    for images, inputs in (((1, 8, 8), (4, 4, 4)), ((1, 8, 8), (1, 4, 16)), ((3, 4, 4), (4, 4, 3)), ((1, 8, 8), (63,))):
        with pytest.raises(ValueError, match=r"images have shape .*, the network takes "):
            check_fits(images, inputs)


def test_every_way_to_certify_asks_whether_the_images_fit(tmp_path: Path) -> None:
    """64 inputs of shape (4, 4, 4) are not an 8×8 digit; and the title says how an image was read."""
    from toolkit.cli.certify import centre
    from toolkit.cli.question import Question
    from toolkit.data.datasets import load_dataset
    from toolkit.networks.layers import Dense
    from toolkit.networks.network import Network
    from toolkit.runs.batch import BatchPlan, certify_samples
    from toolkit.runs.sweep.plan import make_plan
    from toolkit.runs.sweep.spec import SweepSpec, SweptNetwork

    other = Network([Dense(np.ones((10, 64)))], "other", input_shape=(4, 4, 4))
    path = str(other.save(tmp_path / "other.npz"))
    asked = Question(network=path, eps=0.1, data="digits", index=0)
    spec = SweepSpec(
        name="s", networks=(SweptNetwork(source=path, dataset="digits"),), samples=1, eps=(0.1,), rungs=("dual",)
    )
    for call in (
        lambda: centre(asked, other),
        lambda: certify_samples(other, load_dataset("digits"), [0], BatchPlan(0.1)),
        lambda: make_plan(spec),
    ):
        with pytest.raises(ValueError, match=r"digits has images of shape \(1, 8, 8\), the network takes \(4, 4, 4\)"):
            call()
    image = stored(np.full((4, 4, 4), 51, np.uint8), tmp_path)
    own = Question(network=path, eps=0.1, image=image, label=3)
    title, pixels, label = centre(own, other)
    assert (title, label) == ("image.npy (uint8 divided by 255, of the network's shape)", 3)
    np.testing.assert_array_equal(pixels, np.full(64, 0.2))
