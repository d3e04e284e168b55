"""Archives made to harm: each is refused with an error that names the member, neither decompressed nor believed."""

from __future__ import annotations

import io
import json
import struct
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_conv_network, random_dense_network

from toolkit.certificates.check import RejectedProofError, check_proof
from toolkit.data.archives import ArchiveError, checked_integer, checked_number, open_archive, parse_json
from toolkit.networks.layers import ChannelAffine, Dense, Sparse
from toolkit.networks.network import Network
from toolkit.problems.bounds import ReluBounds
from toolkit.problems.input_sets import LinfBall
from toolkit.runs.sweep.bounds_cache import load_bounds, save_bounds
from toolkit.verify.prove import write_proof

Content = dict[str, Any]
CHAIN = ("interval", "dual")
STEM = "a" * 40


def member(shape: tuple[int, ...], descr: str, data: bytes, version: bytes = b"\x01\x00") -> bytes:
    """A .npy member written by hand, whatever it says."""
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(head)) + head + data


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=True)
    return file.getvalue()


def write_members(path: Path, members: Any, compression: int = zipfile.ZIP_STORED) -> None:
    """members: by name, or pairs."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in dict.items(members) if isinstance(members, dict) else members:
            file.writestr(f"{name}.npy", data)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name.removesuffix(".npy"): file.read(name) for name in file.namelist()}


def network_with_every_kind() -> Network:
    rng = np.random.default_rng(0)
    conv = random_conv_network(rng, channels=(2,), hidden=()).layers[0]
    size = conv.output_size
    matrix = rng.normal(size=(4, size)) * (rng.random((4, size)) < 0.3)
    return Network(
        [ChannelAffine([2.0], [0.5], (1, 6, 6)), conv, Sparse(matrix, np.zeros(4)), Dense(rng.normal(size=(3, 4)))]
    )


def load_network(path: Path) -> None:
    Network.load(path)


PROVEN = random_dense_network(np.random.default_rng(1), (4, 5, 3))


def load_proof(path: Path) -> None:
    check_proof(path, PROVEN)


def load_cache(path: Path) -> None:
    with pytest.warns(UserWarning, match="are not used but computed again") as caught:
        assert load_bounds(path, CHAIN, (3, 2)) is None
    raise ValueError(str(caught[0].message))


def make_network(path: Path) -> None:
    network_with_every_kind().save(path)


def make_proof(path: Path) -> None:
    write_proof(path, PROVEN, LinfBall(np.full(4, 0.3), 0.05), 0)


def make_cache(path: Path) -> None:
    sides = [np.array([-1.0, 0.5, -2.0]), np.array([0.0, 1.0])]
    bounds = ReluBounds.sealed(sides, [side + 1.0 for side in sides], CHAIN, True, "d" * 64)
    save_bounds(path, bounds, 0.5)


# kind → (writes a good file, reads it, one of its float members)
LOADERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None], str]] = {
    "network": (make_network, load_network, "layer3.dense.weight"),
    "proof": (make_proof, load_proof, "lower0"),
    "cache": (make_cache, load_cache, "upper1"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("good")
    paths = {kind: folder / kind / f"{STEM}.npz" for kind in LOADERS}
    for kind, path in paths.items():
        LOADERS[kind][0](path)
    return paths


def test_good_files_are_read(good: dict[str, Path]) -> None:
    assert Network.load(good["network"]).digest == network_with_every_kind().digest
    assert check_proof(good["proof"], PROVEN).claims
    found = load_bounds(good["cache"], CHAIN, (3, 2))
    assert found is not None
    assert found[0].certified
    assert found[0].upper[1].tolist() == [1.0, 2.0]


def huge(members: dict[str, bytes], key: str) -> None:
    members[key] = member((1 << 20, 1 << 20), "'<f8'", b"")


def negative(members: dict[str, bytes], key: str) -> None:
    members[key] = member((-1, 5), "'<f8'", b"\0" * 40)


def overflowing(members: dict[str, bytes], key: str) -> None:
    members[key] = member((1 << 32, 1 << 32), "'<f8'", b"")  # 2⁶⁷ bytes: 0 in 64 bits


def short(members: dict[str, bytes], key: str) -> None:
    members[key] = members[key][:-8]


def longer(members: dict[str, bytes], key: str) -> None:
    members[key] += b"\0" * 8


def pickled(members: dict[str, bytes], key: str) -> None:
    members[key] = npy(np.array([{"a": 1}], dtype=object))


def structured(members: dict[str, bytes], key: str) -> None:
    members[key] = npy(np.zeros(3, dtype=[("a", "<f8"), ("b", "<i4")]))


def nested_dtype(members: dict[str, bytes], key: str) -> None:
    members[key] = member((2,), "('<f8', (1000000000,))", b"")


def not_npy(members: dict[str, bytes], key: str) -> None:
    members[key] = b"PK\x03\x04 nothing"


def later_version(members: dict[str, bytes], key: str) -> None:
    members[key] = b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xFFFFFFF0) + b" " * 100


def code_in_header(members: dict[str, bytes], key: str) -> None:
    members[key] = member((2,), "__import__('os').abort()", b"\0" * 16)


def missing(members: dict[str, bytes], key: str) -> None:
    del members[key]


def recast(dtype: Any) -> Callable[[dict[str, bytes], str], None]:
    def tamper(members: dict[str, bytes], key: str) -> None:
        with np.errstate(all="ignore"):
            members[key] = npy(np.lib.format.read_array(io.BytesIO(members[key])).astype(dtype))

    tamper.__name__ = f"as {np.dtype(dtype)}"
    return tamper


def filled(value: float) -> Callable[[dict[str, bytes], str], None]:
    def tamper(members: dict[str, bytes], key: str) -> None:
        array = np.lib.format.read_array(io.BytesIO(members[key]))
        array.flat[-1] = value
        members[key] = npy(array)

    tamper.__name__ = f"with {value}"
    return tamper


def more_axes(members: dict[str, bytes], key: str) -> None:
    members[key] = npy(np.lib.format.read_array(io.BytesIO(members[key]))[None])


TAMPERINGS = [
    huge, negative, overflowing, short, longer, pickled, structured, nested_dtype, not_npy, later_version,
    code_in_header, missing, more_axes, recast(np.complex128), recast(np.longdouble), recast("S8"), recast("U8"),
    recast(np.int64), recast(np.bool_), recast("M8[s]"), filled(np.nan),
]  # fmt: skip


@pytest.mark.parametrize("kind", list(LOADERS))
@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__)
def test_tampered_members_are_named_and_not_allocated(
    kind: str, tamper: Callable[[dict[str, bytes], str], None], good: dict[str, Path], tmp_path: Path
) -> None:
    _, load, key = LOADERS[kind]
    members = members_of(good[kind])
    tamper(members, key)
    path = tmp_path / f"{STEM}.npz"
    write_members(path, members)
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(ValueError, match=key.rpartition(".")[0] or key) as caught:
        load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 5e6
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("kind", list(LOADERS))
def test_unknown_and_repeated_members_are_refused(kind: str, good: dict[str, Path], tmp_path: Path) -> None:
    """A key that would be ignored hides what its writer meant; of two with one name it is open which counts."""
    load = LOADERS[kind][1]
    path = tmp_path / f"{STEM}.npz"
    members = members_of(good[kind])
    for extra in ("nothing", "layer9.dense.weight", "lower7", "layer00.dense.weight", "../../x"):
        write_members(path, members | {extra: npy(np.zeros(2))})
        with pytest.raises(ValueError, match=f"unknown member '{extra}'"):
            load(path)
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_members(path, [*members.items(), ("header", members["header"])])
    with pytest.raises(ValueError, match=r"'header\.npy' is there twice"):
        load(path)


@pytest.mark.parametrize("kind", list(LOADERS))
def test_headers_are_objects_of_known_keys(kind: str, good: dict[str, Path], tmp_path: Path) -> None:
    load = LOADERS[kind][1]
    path = tmp_path / f"{STEM}.npz"
    members = members_of(good[kind])
    text = str(np.lib.format.read_array(io.BytesIO(members["header"])))
    header = json.loads(text)
    bad: dict[str, Any] = {
        "not JSON": npy(text[:-1]),
        "a JSON object, got list": npy("[1, 2]"),
        "nested too deeply": npy("[" * 100_000),
        "is there twice": npy(text.replace("{", '{"format": 1, ', 1)),
        "unknown header key 'extra'": npy(json.dumps(header | {"extra": 1})),
        "header key format is missing": npy(json.dumps({k: v for k, v in header.items() if k != "format"})),
        "header must hold text": npy(np.zeros(3)),
        "header must be one text": npy(np.array([text, text])),
        "format": npy(json.dumps(header | {"format": True})),
        "format ": npy(json.dumps(header | {"format": 99})),
        "header is not JSON": npy(text.replace('"format": ', '"format": 1' + "0" * 5000, 1)),
        "header is not ": member((), f"'<U{len(text)}'", b"\xff" * 4 * len(text)),
    }
    for message, data in bad.items():
        write_members(path, members | {"header": data})
        with pytest.raises(ValueError, match=message if kind != "cache" or "format" not in message else "format|JSON"):
            load(path)


def _with_header(members: dict[str, bytes], **changes: Any) -> None:
    header = json.loads(str(np.lib.format.read_array(io.BytesIO(members["header"]))))
    members["header"] = npy(json.dumps(header | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "layers must be a whole number"),
        ({"layers": True}, "layers must be a whole number in 1 … 10000, got True"),
        ({"layers": 4.0}, "layers must be a whole number"),
        ({"layers": 10**30}, "layers must be a whole number .* got a number of 100 bits"),
        ({"layers": 5}, "layer 4 must be one of dense, conv2d, channel, sparse, got none"),
        ({"layers": 3}, r"unknown member 'layer3\.dense\.weight'"),
        ({"input_shape": [36, -1, -1]}, "input_shape must be sizes ≥ 1"),
        ({"input_shape": [10**9, 10**9]}, "input_shape must be sizes ≥ 1"),
        ({"input_shape": "36"}, "input_shape must be a list"),
        ({"input_shape": [35]}, "does not hold the 36 inputs"),
        ({"name": 5}, "name must be a text"),
        ({"name": "n" * 5000}, "name must be a text of at most 1000 characters"),
        ({"metadata": [1]}, "metadata must be a JSON object, got list"),
    ],
)
def test_network_headers(changes: dict[str, Any], message: str, good: dict[str, Path], tmp_path: Path) -> None:
    members = members_of(good["network"])
    _with_header(members, **changes)
    write_members(tmp_path / "n.npz", members)
    with pytest.raises(ValueError, match=message):
        Network.load(tmp_path / "n.npz")


def _geometry(place: int, value: int) -> tuple[str, Any, str]:
    numbers = np.array([1, 6, 6, 2, 2, 1, 1, 1, 1, 1])
    numbers[place] = value
    return "layer1.conv2d.geometry", numbers, r"layer1\.conv2d\.|Conv2d|layer 1 gives"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        *(_geometry(place, value) for place in range(10) for value in (-1, 10**7, 2**62)),
        _geometry(3, 0), _geometry(7, 0), _geometry(9, 0), _geometry(9, 2),
        ("layer1.conv2d.geometry", np.arange(1, 9), r"geometry must have shape 10, got 8"),
        ("layer1.conv2d.geometry", np.ones(10), "geometry must hold whole numbers"),
        ("layer1.conv2d.geometry", np.full(10, 2**64 - 1, dtype=np.uint64), "geometry must be < 2⁶³"),
        ("layer0.channel.shape", np.array([1, 10**7, 10**7]), "must have at most .* features"),
        ("layer0.channel.shape", np.array([10**9, 0, 1]), "shape must be ≥ 1"),
        ("layer0.channel.scale", np.ones(7), r"scale must have shape 1, got 7"),
        ("layer2.sparse.shape", np.array([4, 10**9]), "shape must be ≥ 0 and ≤"),
        ("layer2.sparse.shape", np.array([-4, 18]), "shape must be ≥ 0"),
        ("layer2.sparse.shape", np.array([4, 3]), "indices must be ≥ 0 and ≤ 2"),
        ("layer2.sparse.indptr", np.array([0, 9, 3, 3, 3]), "indptr"),
        ("layer2.sparse.bias", np.zeros(5), "bias must have shape 4, got 5"),
        ("layer3.dense.bias", np.array([0.0, np.inf, 0.0]), r"bias must be finite, got inf at index \(1,\)"),
    ],
)  # fmt: skip
def test_network_numbers(key: str, value: Any, message: str, good: dict[str, Path], tmp_path: Path) -> None:
    members = members_of(good["network"]) | {key: npy(value)}
    write_members(tmp_path / "n.npz", members)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        Network.load(tmp_path / "n.npz")
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def _sparse(tmp_path: Path, indices: list[int], indptr: list[int]) -> Path:
    header = {"format": 1, "name": "x", "layers": 1, "input_shape": [64], "metadata": {}}
    parts = {
        "data": np.ones(len(indices)),
        "indices": np.array(indices, np.int64),
        "indptr": np.array(indptr, np.int64),
    }
    parts |= {"shape": np.array([3, 64]), "bias": np.zeros(3)}
    path = tmp_path / "s.npz"
    np.savez(path, header=np.array(json.dumps(header)), **{f"layer0.sparse.{key}": part for key, part in parts.items()})
    return path


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("index", [-(10**9), -1, 64, 10**8, 2**62])
def test_sparse_indices_never_reach_foreign_memory(place: int, index: int, tmp_path: Path) -> None:
    indices = [3, 4, 5]
    indices[place] = index
    with pytest.raises(ValueError, match=r"layer0\.sparse\.indices must be ≥ 0 and ≤ 63"):
        Network.load(_sparse(tmp_path, indices, [0, 1, 2, 3]))


@pytest.mark.parametrize("indptr", [[0, 3, 1, 3], [0, -(10**9), 1, 3], [1, 1, 2, 3], [0, 1, 2, 2], [0, 1, 2, 4]])
def test_sparse_rows_follow_each_other(indptr: list[int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layer0\.sparse\.indptr must"):
        Network.load(_sparse(tmp_path, [3, 4, 5], indptr))


def test_sparse_entries_may_be_unsorted_but_not_doubled(tmp_path: Path) -> None:
    """A doubled entry is a sum, 10⁸ − 10⁸ say, that norms over entries do not see."""
    found = Network.load(_sparse(tmp_path, [5, 4, 3], [0, 3, 3, 3])).forward(np.arange(64.0))
    assert found.tolist() == [12.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="indices must not repeat within a row"):
        Network.load(_sparse(tmp_path, [5, 4, 5], [0, 3, 3, 3]))


def test_errors_of_merging_are_never_dropped(good: dict[str, Path], tmp_path: Path) -> None:
    """Whoever reads a file either takes over its error terms or refuses it."""
    members = members_of(good["network"])
    parts = {"layer3.error.columns": npy(np.full(4, 1e-12)), "layer3.error.bias": npy(np.float64(1e-13))}
    path = tmp_path / "n.npz"
    write_members(path, members | parts)
    try:
        layer = Network.load(path).layers[3]
    except ValueError as error:
        assert "merging errors" in str(error)  # noqa: PT017
    else:
        assert vars(layer)["column_error"].tolist() == [1e-12] * 4
        assert vars(layer)["bias_error"] == 1e-13
    for key, value in (
        ("layer3.error.columns", np.full(4, -1.0)), ("layer3.error.columns", np.full(3, 1.0)),
        ("layer3.error.columns", np.full(4, np.nan)), ("layer3.error.bias", np.float64(-1.0)),
        ("layer3.error.bias", np.float64(np.inf)), ("layer3.error.bias", np.zeros(4)),
    ):  # fmt: skip
        write_members(path, members | parts | {key: npy(value)})
        with pytest.raises(ValueError, match=rf"{key} must"):
            Network.load(path)
    write_members(path, members | {"layer3.error.bias": parts["layer3.error.bias"]})
    with pytest.raises(ValueError, match=r"layer3\.error\.columns is missing"):
        Network.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": float("nan")}, "eps must be a number"),
        ({"eps": True}, "eps must be a number .* got True"),
        ({"eps": "0.05"}, "eps must be a number"),
        ({"eps": -0.1}, "eps must be a number in"),
        ({"eps": float("inf")}, "eps must be a number"),
        ({"eps": 10**400}, "eps must be a number"),
        ({"label": True}, "label must be a whole number"),
        ({"label": 0.0}, "label must be a whole number"),
        ({"label": -1}, "label must be a whole number"),
        ({"domain": [1, 0]}, "domain must be null or"),
        ({"domain": [0, float("nan")]}, "domain must be a number"),
        ({"domain": 5}, "domain must be a list"),
        ({"targets": [True, 2]}, "targets must be a whole number"),
        ({"targets": {"1": 2}}, "targets must be a list"),
        ({"claims": [float("nan"), 0.0]}, "claims must be a number"),
        ({"claims": [float("inf"), 0.0]}, "claims must be a number"),
        ({"claims": [True, False]}, "claims must be a number"),
        ({"network": 5}, "network must be a text"),
        ({"ball": None}, "ball must be a text"),
    ],
)
def test_proof_headers(changes: dict[str, Any], message: str, good: dict[str, Path], tmp_path: Path) -> None:
    members = members_of(good["proof"])
    _with_header(members, **changes)
    write_members(tmp_path / "p.npz", members)
    with pytest.raises(RejectedProofError, match=message):
        check_proof(tmp_path / "p.npz", PROVEN)


def test_every_bit_of_a_cache_counts(good: dict[str, Path], tmp_path: Path) -> None:
    """One flipped bit anywhere is found, or was in a date or flag of the zip, which says nothing of the numbers."""
    path = tmp_path / f"{STEM}.npz"
    whole = good["cache"].read_bytes()
    before, _ = load_bounds(good["cache"], CHAIN, (3, 2)) or (None, 0.0)
    assert before is not None
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place in range(0, len(whole), 17):
            content = bytearray(whole)
            content[place] ^= 1 << (place % 8)
            path.write_bytes(content)
            found = load_bounds(path, CHAIN, (3, 2))
            refused += found is None
            if found is not None:
                assert np.array_equal(np.concatenate(found[0].lower), np.concatenate(before.lower))
                assert np.array_equal(np.concatenate(found[0].upper), np.concatenate(before.upper))
                assert found[0].certified == before.certified
    assert refused > 0.5 * len(whole) / 17


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"certified": 1}, "certified must be true or false"),
        ({"certified": False}, "another SHA-256"),
        ({"region": "e" * 64}, "another SHA-256"),
        ({"region": None}, "region must be a text"),
        ({"question": "b" * 40}, "its question is"),
        ({"code": "0" * 64}, "its code is"),
        ({"chain": ["interval"]}, "its chain is"),
        ({"format": 1}, "its format is"),
        ({"seconds": float("nan")}, "seconds must be a number"),
        ({"seconds": 9.0}, "another SHA-256"),
    ],
)
def test_cached_bounds_belong_to_their_question(
    change: dict[str, Any], message: str, good: dict[str, Path], tmp_path: Path
) -> None:
    members = members_of(good["cache"])
    _with_header(members, **change)
    path = tmp_path / f"{STEM}.npz"
    write_members(path, members)
    with pytest.raises(ValueError, match=message):
        load_cache(path)


def test_cached_bounds_of_another_name_or_size_are_not_used(good: dict[str, Path], tmp_path: Path) -> None:
    copied = tmp_path / f"{'b' * 40}.npz"
    copied.write_bytes(good["cache"].read_bytes())
    with pytest.warns(UserWarning, match="its question is"):
        assert load_bounds(copied, CHAIN, (3, 2)) is None
    with pytest.warns(UserWarning, match="lower1 must have shape 3, got 2"):
        assert load_bounds(good["cache"], CHAIN, (3, 3)) is None
    with pytest.warns(UserWarning, match="unknown member 'lower1'"):
        assert load_bounds(good["cache"], CHAIN, (3,)) is None
    assert load_bounds(tmp_path / "none.npz", CHAIN, (3, 2)) is None  # silently: nothing is damaged


def test_bombs_are_not_decompressed(tmp_path: Path) -> None:
    """80 MB of zeros in 80 kB, true to its word; and a directory that lies about the sizes."""
    header = json.dumps({"format": 1, "name": "", "layers": 1, "input_shape": [5000], "metadata": {}})
    bomb = tmp_path / "bomb.npz"
    np.savez_compressed(
        bomb, **{"header": np.array(header), "layer0.dense.weight": np.zeros((2000, 5000)),
                 "layer0.dense.bias": np.zeros(2000)}
    )  # fmt: skip
    assert bomb.stat().st_size < 1e6
    tracemalloc.start()
    with pytest.raises(ValueError, match="refused as a decompression bomb"):
        Network.load(bomb)
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()
    with pytest.raises(ArchiveError, match="at most 1000 bytes decompressed"), open_archive(bomb, limit=1000):
        pass
    lying = bytearray(bomb.read_bytes())
    place = lying.index(b"PK\x01\x02")  # the first entry of the directory: its sizes are at 20 and 24
    struct.pack_into("<II", lying, place + 20, 10**9, 10**9)
    bomb.write_bytes(lying)
    with pytest.raises(ValueError, match="not a relugap network"):
        Network.load(bomb)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(compression: int, good: dict[str, Path], tmp_path: Path) -> None:
    write_members(tmp_path / "n.npz", members_of(good["network"]), compression)
    with pytest.raises(ValueError, match="must be stored or deflated"):
        Network.load(tmp_path / "n.npz")


def test_any_layout_of_numbers_is_read_alike(tmp_path: Path) -> None:
    """Fortran order, foreign byte order and half precision are other spellings of the same numbers."""
    array = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]])
    forms = {"f": np.asfortranarray(array), "big": array.astype(">f8"), "half": array.astype(np.float16)}
    np.savez(tmp_path / "a.npz", **forms, u=np.array([1, 2], dtype=np.uint16), none=np.zeros((0, 3)))
    with open_archive(tmp_path / "a.npz") as archive:
        for key in forms:
            found = archive.array(key, (2, None))
            assert found.dtype == np.float64
            assert found.flags.c_contiguous
            assert found.flags.writeable
            assert np.array_equal(found, array)
        assert archive.array("u", (2,), "i").dtype == np.int64
        assert archive.array("none", (None, 3)).shape == (0, 3)
        with pytest.raises(ArchiveError, match="u must be ≥ 2, got 1"):
            archive.array("u", kind="i", low=2)


def test_numbers_in_headers() -> None:
    for wrong in (True, 1.0, "1", None, -1, 2**60):
        with pytest.raises(ArchiveError, match="n must be a whole number"):
            checked_integer({"n": wrong}, "n")
    for wrong in (True, "1", None, float("nan"), float("inf"), 10**400):
        with pytest.raises(ArchiveError, match="x must be a number"):
            checked_number({"x": wrong}, "x", 0.0, 1e308)
    assert checked_number({"x": 1}, "x") == 1.0
    assert parse_json("t", '{"a": [1, {"b": 2}]}') == {"a": [1, {"b": 2}]}
    with pytest.raises(ArchiveError, match="key 'b' is there twice"):
        parse_json("t", '{"a": {"b": 1, "b": 2}}')
