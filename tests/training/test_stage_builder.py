"""Residual blocks and max pooling as stages compute what torch computes, before and after freezing."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install relugap[train]")

from torch.nn.functional import conv2d, linear, max_pool2d, relu  # noqa: E402

from toolkit.networks.network import Network  # noqa: E402
from toolkit.training.spec import LayerSpec  # noqa: E402
from toolkit.training.trainable import as_torch, frozen, parameters, trainable_network  # noqa: E402


def _layers(*entries):
    return tuple(LayerSpec(**entry) for entry in entries)


def _images(shape, count=6, seed=0):
    return torch.tensor(np.random.default_rng(seed).uniform(-1, 1, (count, *shape)))


CONV = {"conv": 2, "padding": 1}


def pooled_first(x, w):
    return linear(max_pool2d(x, 3).flatten(1), *w)


def pooled_twice(x, w):
    first = max_pool2d(relu(conv2d(x, w[0], w[1], padding=1)), 2)
    return linear(max_pool2d(relu(conv2d(first, w[2], w[3])), 3).flatten(1), w[4], w[5])


def residual_of_input(x, w):
    inner = relu(conv2d(x, w[0], w[1], padding=1))
    return linear(relu(conv2d(inner, w[2], w[3], padding=1) + x).flatten(1), w[4], w[5])


def projected(x, w):
    inner = relu(conv2d(x, w[0], w[1], stride=2, padding=1))
    block = relu(conv2d(inner, w[2], w[3], padding=1) + conv2d(x, w[4], stride=2)).flatten(1)
    deep = relu(linear(relu(linear(block, w[5], w[6])), w[7], w[8]) + linear(block, w[9]))
    return linear(deep, w[10], w[11])


def pooled_in_a_block_of_pooled(x, w):
    first = max_pool2d(relu(conv2d(x, w[0], w[1], padding=1)), 2)
    inner = max_pool2d(relu(conv2d(first, w[2], w[3], padding=2)), 2)
    return linear(relu(conv2d(inner, w[4], w[5], padding=1) + first).flatten(1), w[6], w[7])


CASES = {
    "pooled input": (_layers({"max_pool": 3}), (2, 3, 6), pooled_first),
    "pooled twice": (_layers(CONV, {"max_pool": 2}, {"conv": 3, "kernel": 2}, {"max_pool": 3}), (1, 8, 8),
                     pooled_twice),
    "residual of the input": (_layers({"residual": [CONV, CONV]}), (2, 4, 3), residual_of_input),
    "projected": (
        _layers({"residual": [{"conv": 3, "stride": 2, "padding": 1}, {"conv": 3, "padding": 1}], "skip": "projection"},
                {"residual": [{"dense": 5}, {"dense": 6}], "skip": "projection"}),
        (2, 5, 4), projected,
    ),
    "pooled in a block of pooled": (
        _layers(CONV, {"max_pool": 2}, {"residual": [{"conv": 2, "kernel": 2, "padding": 2}, {"max_pool": 2}, CONV]}),
        (1, 6, 6), pooled_in_a_block_of_pooled,
    ),
}  # fmt: skip


def _network(name, dtype=torch.float64):
    layers, shape, _ = CASES[name]
    return trainable_network(layers, shape, 4, 0, dtype)


@pytest.mark.parametrize("name", CASES)
def test_stages_compute_what_torch_computes(name):
    _, shape, wanted = CASES[name]
    network, x = _network(name), _images(shape)
    weights = parameters(network)
    found, expected = network.forward(x), wanted(x, weights)
    assert torch.allclose(found, expected, atol=1e-12)
    gradients = [torch.autograd.grad(value.square().sum(), weights) for value in (found, expected)]
    for own, other in zip(*gradients, strict=True):
        assert torch.allclose(own, other, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_frozen_networks_are_the_trained_ones_exactly(name, tmp_path):
    """Weights fit float32, maps carry no error, files and torch give the same network back."""
    network, x = _network(name, torch.float32), _images(CASES[name][1])
    certifying = frozen(network, "net")
    assert certifying.relu_sizes == network.relu_sizes
    assert not certifying.sequential
    for layer in certifying.maps:
        assert layer.column_error is None
        assert layer.bias_error == 0.0
        data = layer.to_sparse().data
        assert np.array_equal(data.astype(np.float32), data)
    again = Network.load(certifying.save(tmp_path / "net.npz"))
    assert again.digest == certifying.digest
    assert np.allclose(certifying.forward(x.numpy()), network.forward(x.float()).detach(), atol=1e-5)
    assert np.allclose(as_torch(again).forward(x).detach(), certifying.forward(x.numpy()), atol=1e-12)
    for stage in as_torch(again).stages:
        assert not any(layer.bias_vector.requires_grad for _, layer in stage.sources[1:])


@pytest.mark.parametrize("window", [2, 3])
def test_maxima_are_a_tree_over_all_windows_at_once(window):
    network = trainable_network(_layers({"max_pool": window}), (2, 6, 6), 3, 0, torch.float64)
    values, sizes, count = window * window, [], 2 * (6 // window) ** 2
    while values > 1:
        sizes.append(values // 2 * count)
        values -= values // 2
    assert network.relu_sizes == tuple(sizes)
    assert sum(sizes) == (window * window - 1) * count  # one ReLU per value but the first of every window


def test_a_projection_has_no_bias_of_its_own():
    network = _network("projected")
    assert [tuple(tensor.shape) for tensor in parameters(network)][:5] == [
        (3, 2, 3, 3), (3,), (3, 3, 3, 3), (3,), (3, 2, 1, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"max_pool": 4}], r"max_pool = 4 must divide the image's height and width, got 6×6"),
        ([{"dense": 8}, {"max_pool": 2}], r"pooling \(max_pool = 2\) cannot follow a dense layer"),
        (
            [{"dense": 8}, {"residual": [{"conv": 2}, {"dense": 8}]}],
            r"a convolution \(conv = 2\) cannot follow a dense",
        ),
        (
            [{"residual": [CONV, {"conv": 3}]}],
            r'of shape \(1, 6, 6\), to its last layer, of shape \(3, 4, 4\); skip = "projection" puts a trained map',
        ),
        (
            [{"residual": [CONV, {"conv": 1, "padding": 1}], "skip": "projection"}],
            r'of shape \(1, 6, 6\), to its last layer, of shape \(1, 6, 6\); skip = "projection" has no use there',
        ),
        (
            [{"residual": [CONV, {"conv": 3}], "skip": "projection"}],
            r"no 1×1 convolution takes \(1, 6, 6\) to \(3, 4, 4\): its stride 2 gives \(3, 3, 3\)",
        ),
    ],
)
def test_layers_that_do_not_fit_are_named(layers, message):
    with pytest.raises(ValueError, match=message):
        trainable_network(_layers(*layers), (1, 6, 6), 4, 0)
