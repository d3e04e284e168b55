"""Networks from weight arrays and scikit-learn models compute what their source computes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network

RNG = np.random.default_rng(0)
SIZES = (4, 6, 5, 3)
LAYERS = [(RNG.normal(size=(m, n)), RNG.normal(size=m)) for n, m in pairwise(SIZES)]


def test_both_orientations_give_the_network_of_its_maps() -> None:
    expected = Network([Dense(weight, bias) for weight, bias in LAYERS]).digest
    assert Network.from_arrays(LAYERS, "out_in").digest == expected
    turned = [(weight.T, bias) for weight, bias in LAYERS]
    assert Network.from_arrays(turned, "in_out", "mine").digest == expected
    assert Network.from_arrays(turned, "in_out", "mine").name == "mine"


def test_a_bias_may_be_left_out_and_numbers_of_other_types_are_exact() -> None:
    layers = [(LAYERS[0][0].astype(np.float32), None), (np.arange(12).reshape(2, 6), [1, -1])]
    net = Network.from_arrays(layers, "out_in")
    x = RNG.normal(size=4)
    hidden = np.maximum(layers[0][0].astype(np.float64) @ x, 0)
    np.testing.assert_allclose(net.forward(x), np.arange(12).reshape(2, 6) @ hidden + [1, -1], rtol=1e-14)


@pytest.mark.parametrize(
    ("layers", "orientation", "message"),
    [
        (LAYERS, "rows", "orientation must be one of out_in, in_out"),
        (LAYERS, "in_out", r"layer 0 has W of shape \(6, 4\) and b of shape \(6,\) .*; it fits orientation 'out_in'"),
        ([(w.T, b) for w, b in LAYERS], "out_in", r"layer 0 .*; it fits orientation 'in_out'"),
        ([LAYERS[0], LAYERS[2]], "out_in", r"layer 1 has W of shape \(3, 5\) .* for 6 inputs in orientation 'out_in'$"),
        ([(np.ones((3, 2)), None), (np.ones((3, 2)), None)], "out_in", "layer 1 .*; it fits orientation 'in_out'"),
        ([], "out_in", r"a list of pairs \(W, b\)"),
        ([(np.ones((3, 2)), np.ones(3), 1)], "out_in", r"layer 0 must be a pair \(W, b\)"),
        ([(np.ones(3), None)], "out_in", "W of layer 0 must be a matrix"),
        ([(np.full((3, 2), np.inf), None)], "out_in", "must be finite"),
        ([(np.ones((3, 2)) * 1j, None)], "out_in", "W of layer 0 must be real numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(layers: Any, orientation: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network.from_arrays(layers, orientation)


X = RNG.normal(size=(80, 4))


def fitted(kind: str, y: Any, **options: Any) -> Any:
    from sklearn import neural_network

    given = {"hidden_layer_sizes": (6, 5), "max_iter": 40, "random_state": 0} | options
    return getattr(neural_network, kind)(**given).fit(X, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize("classes", [2, 4])
def test_a_classifiers_network_ranks_the_classes_as_it_does(classes: int, activation: str) -> None:
    labels = np.array(["ant", "bee", "cat", "dog"])[RNG.integers(0, classes, 80)]
    model = fitted("MLPClassifier", labels, activation=activation)
    net = Network.from_sklearn(model, "bugs")
    assert net.output_size == classes
    assert net.metadata["classes"] == list(model.classes_)
    assert net.relu_sizes == ((6, 5) if activation == "relu" else ())
    points = RNG.normal(size=(300, 4))
    assert np.all(model.classes_[net.predict(points)] == model.predict(points))
    logits = net.forward(points)
    np.testing.assert_allclose(
        logits - logits[:, :1], np.log(model.predict_proba(points) / model.predict_proba(points)[:, :1]), atol=1e-6
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_regressors_network_gives_its_predictions(outputs: int) -> None:
    model = fitted("MLPRegressor", X[:, :outputs].squeeze() * 2)
    net = Network.from_sklearn(model)
    points = RNG.normal(size=(50, 4))
    np.testing.assert_allclose(net.forward(points), model.predict(points).reshape(50, -1), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_models_that_have_no_relu_network_are_refused() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    labels = RNG.integers(0, 2, 80)
    with pytest.raises(ValueError, match="activation must be one of relu, identity, got 'tanh'"):
        Network.from_sklearn(fitted("MLPClassifier", labels, activation="tanh"))
    with pytest.raises(ValueError, match="must be fitted first"):
        Network.from_sklearn(MLPClassifier())
    with pytest.raises(ValueError, match="several labels at once"):
        Network.from_sklearn(fitted("MLPClassifier", RNG.integers(0, 2, (80, 3))))
    with pytest.raises(ValueError, match="fitted on two classes or more, got 3"):
        Network.from_sklearn(fitted("MLPClassifier", np.full(80, 3)))
    with pytest.raises(ValueError, match="must be an MLPClassifier or MLPRegressor, got LogisticRegression"):
        Network.from_sklearn(LogisticRegression())  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_model_whose_weights_are_not_what_it_predicts_by_is_refused() -> None:
    model = fitted("MLPRegressor", X[:, 0])
    predict = model.predict
    model.predict = lambda points: predict(points) + 0.1
    with pytest.raises(ValueError, match="do not give what it predicts"):
        Network.from_sklearn(model)
