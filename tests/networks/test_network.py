"""Networks: evaluation, cutting, digests, and the .npz format."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import random_conv_network, random_dense_network
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import AffineMap, ChannelAffine, Dense, Flatten, Sparse
from toolkit.networks.network import Network


def all_kinds_network(rng: np.random.Generator) -> Network:
    """A network with one layer of every kind, with weights that float32 cannot hold."""
    conv = Conv2d(rng.normal(size=(4, 1, 3, 2)), rng.normal(size=4), (2, 6, 5), (2, 1), (1, 0), (1, 2), groups=2)
    spatial = Conv2d(rng.normal(size=(2, 4, 1, 1)), rng.normal(size=2 * 9), conv.output_shape)
    assert conv.output_shape == (4, 3, 3)
    layers: list[AffineMap | Flatten] = [
        ChannelAffine(rng.normal(size=2), rng.normal(size=2), (2, 6, 5)),
        conv,
        spatial,
        Flatten(),
        Sparse(sp.random_array((7, 18), density=0.3, rng=rng), rng.normal(size=7)),
        Dense(rng.normal(size=(3, 7)), rng.normal(size=3)),
    ]
    return Network(layers, "kinds", {"trained": {"epochs": 3, "error": 0.25}}, (2, 6, 5))


def by_hand(net: Network, x: np.ndarray) -> list[np.ndarray]:
    """x̂ of every layer by the definition, with matrices."""
    found = []
    for layer in net.layers:
        found.append(layer.to_sparse().toarray() @ x + layer.bias_vector)
        x = np.maximum(found[-1], 0)
    return found


def test_preactivations_follow_the_definition(rng: np.random.Generator) -> None:
    for net in (random_dense_network(rng, (5, 4, 6, 3)), random_conv_network(rng), all_kinds_network(rng)):
        x = rng.normal(size=net.input_size)
        for found, expected in zip(net.preactivations(x), by_hand(net, x), strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_leading_axes_are_batch_axes_and_images_are_flattened(rng: np.random.Generator) -> None:
    net = random_conv_network(rng, (2, 6, 6))
    images = rng.normal(size=(4, 3, 2, 6, 6))
    found = net.forward(images)
    assert found.shape == (4, 3, net.output_size)
    np.testing.assert_array_equal(found, net.forward(images.reshape(4, 3, 72)))
    np.testing.assert_allclose(found[2, 1], net.forward(images[2, 1]), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(net.predict(images), found.argmax(axis=-1))


def test_predict_takes_the_first_of_tied_classes() -> None:
    net = Network([Dense(np.zeros((3, 2)), [1.0, 2.0, 2.0])])
    assert net.predict(np.zeros(2)) == 1


def test_forward_refuses_inputs_of_another_size(rng: np.random.Generator) -> None:
    net = random_conv_network(rng)
    with pytest.raises(ValueError, match=r"x must end in 36 or \(1, 6, 6\), got shape \(2, 35\)"):
        net.forward(np.zeros((2, 35)))


def test_cut_gives_the_preactivations(rng: np.random.Generator) -> None:
    net = all_kinds_network(rng)
    x = rng.normal(size=(2, net.input_size))
    for k, expected in enumerate(net.preactivations(x)):
        np.testing.assert_array_equal(net.cut(k).forward(x), expected)
        assert net.cut(k).input_shape == net.input_shape
    assert net.cut(-1) is net
    assert net.relu_sizes == tuple(net.cut(k).output_size for k in range(4))
    for wrong in (-2, 5):
        with pytest.raises(ValueError, match=f"layer must be in -1 … 4, got {wrong}"):
            net.cut(wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network([]), "at least one affine map"),
        (
            lambda: Network([Dense(np.ones((3, 2))), Dense(np.ones((1, 4)))]),
            "layer 0 gives 3 features, layer 1 takes 4",
        ),
        (lambda: Network([Dense(np.ones((3, 2))), "relu"]), "must be affine maps or Flatten, got str"),  # type: ignore[list-item]
        (lambda: Network([Dense(np.ones((3, 4)))], input_shape=(1, 3)), r"\(1, 3\) does not hold the 4 inputs"),
    ],
)
def test_bad_networks_are_refused(make: Callable[[], Network], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_save_and_load_keep_every_bit(rng: np.random.Generator, tmp_path: Path) -> None:
    net = all_kinds_network(rng)
    loaded = Network.load(net.save(tmp_path / "deep" / "kinds.npz"))
    assert loaded.digest == net.digest
    assert (loaded.name, loaded.metadata, loaded.input_shape) == (net.name, net.metadata, net.input_shape)
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in net.layers]
    x = rng.normal(size=(3, net.input_size))
    np.testing.assert_array_equal(loaded.forward(x), net.forward(x))


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_weights_survive_the_file_whatever_their_precision(
    value: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    net = Network([Dense([[value, 1.0], [-0.0, 0.5]], [0.1, value])])
    loaded = Network.load(net.save(tmp_path_factory.mktemp("bits") / "net.npz"))
    assert loaded.digest == net.digest


def test_float32_weights_take_half_the_space(rng: np.random.Generator, tmp_path: Path) -> None:
    exact = rng.normal(size=(100, 100))
    short = Network([Dense(exact.astype(np.float32))]).save(tmp_path / "short.npz")
    full = Network([Dense(exact)]).save(tmp_path / "full.npz")
    assert short.stat().st_size < 0.6 * full.stat().st_size


def test_an_unnamed_network_takes_its_files_name(tmp_path: Path) -> None:
    assert Network.load(Network([Dense([[1.0]])]).save(tmp_path / "mine.npz")).name == "mine"


def test_the_digest_names_the_function(rng: np.random.Generator) -> None:
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    digest = Network([Dense(weight, bias)]).digest
    assert Network([Dense(weight.copy(), bias)], "another name", {"note": 1}).digest == digest
    nudged = weight.copy()
    nudged[2, 3] = np.nextafter(nudged[2, 3], 9)
    shifted = bias.copy()
    shifted[0] += 1e-12
    others = [
        Network([Dense(nudged, bias)]),
        Network([Dense(weight, shifted)]),
        Network([Dense(weight.reshape(3, 4)[:, ::-1], bias)]),
        Network([Dense(weight.reshape(4, 3), np.zeros(4))]),
        Network([Dense(weight, bias), Dense(np.eye(3))]),
    ]
    assert len({digest, *(net.digest for net in others)}) == 6


def test_the_digest_sees_a_convolutions_geometry(rng: np.random.Generator) -> None:
    weight = rng.normal(size=(1, 1, 2, 2))
    geometries = [(1, 0, 1), (2, 0, 1), (1, 1, 1), (1, 0, 2)]
    assert len({Network([Conv2d(weight, None, (1, 5, 5), *g)]).digest for g in geometries}) == 4


def archive(**entries: object) -> bytes:
    """The bytes of an .npz with these entries; objects are pickled."""
    buffer = io.BytesIO()
    np.savez(buffer, **entries)  # type: ignore[arg-type]
    return buffer.getvalue()


def header(**changes: object) -> np.ndarray:
    fields = {"format": 1, "name": "", "layers": 1, "input_shape": [1], "metadata": {}}
    return np.array(json.dumps(fields | changes))


WEIGHTS = {"layer0.dense.weight": np.ones((1, 1)), "layer0.dense.bias": np.ones(1)}
DAMAGED = {
    "empty": b"",
    "text": b"not an archive at all\n",
    "npy": (lambda buffer: (np.save(buffer, np.ones(3)), buffer.getvalue())[1])(io.BytesIO()),
    "no header": archive(**WEIGHTS),
    "header is no JSON": archive(header=np.array("{"), **WEIGHTS),
    "header is a list": archive(header=np.array("[1]"), **WEIGHTS),
    "another format": archive(header=header(format=99), **WEIGHTS),
    "a layer too many": archive(header=header(layers=2), **WEIGHTS),
    "an unknown kind": archive(**{"header": header(), "layer0.lstm.weight": np.ones(1)}),
    "no bias": archive(**{"header": header(), "layer0.dense.weight": np.ones((1, 1))}),
    "nan weight": archive(**{"header": header(), **WEIGHTS, "layer0.dense.weight": np.array([[np.nan]])}),
    "wrong input shape": archive(header=header(input_shape=[2, 2]), **WEIGHTS),
    "pickled objects": archive(header=header(), **WEIGHTS, extra=np.array([{"a": 1}, None], dtype=object)),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files_give_one_line_that_names_them(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(ValueError, match=r"broken\.npz is not a relugap network: .") as caught:
        Network.load(path)
    assert "\n" not in str(caught.value)


def test_the_intact_twin_of_the_damaged_files_loads(tmp_path: Path) -> None:
    path = tmp_path / "fine.npz"
    path.write_bytes(archive(header=header(), **WEIGHTS))
    assert Network.load(path).forward([2.0]) == 3.0


@settings(max_examples=200)
@given(data=st.data())
def test_flipped_or_missing_bytes_never_change_weights_silently(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    original = random_dense_network(np.random.default_rng(0), (4, 3, 2))
    path = tmp_path_factory.getbasetemp() / "flipped.npz"
    raw = bytearray(original.save(path).read_bytes())
    where = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[where] ^= data.draw(st.integers(1, 255))
    else:
        del raw[where:]
    path.write_bytes(raw)
    refusal = ""
    try:
        assert Network.load(path).digest == original.digest  # a flip in a zip's bookkeeping may be harmless
    except ValueError as error:
        refusal = str(error)
    assert not refusal or "flipped.npz is not a relugap network" in refusal


def test_load_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no network file at .*nowhere\.npz"):
        Network.load(tmp_path / "nowhere.npz")
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"end in \.npz, \.onnx, \.onnx\.gz, \.pth or \.pt, got 'weights.h5'"):
        Network.load(tmp_path / "weights.h5")
    with pytest.raises(ValueError, match="no zoo network 'no-such-net'; allowed: "):
        Network.load("zoo:no-such-net")
    with pytest.raises(ValueError, match=r"saved as \.npz, got 'net.onnx'"):
        Network([Dense([[1.0]])]).save(tmp_path / "net.onnx")
