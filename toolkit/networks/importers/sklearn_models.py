"""Networks from scikit-learn's MLPClassifier and MLPRegressor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.importers.arrays import checked_layers
from toolkit.networks.importers.chain import OperationChain
from toolkit.networks.parts import NetworkParts

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

ACTIVATIONS = ("relu", "identity")
_AGREEMENT = 1e-6  # of probabilities, and of predictions relative to the largest


def read_sklearn(model: MLPClassifier | MLPRegressor, name: str = "") -> NetworkParts:
    """The network of a fitted scikit-learn model, before its softmax or logistic function.

    An MLPClassifier's outputs rank its classes in the order of `classes_`, which stands in metadata["classes"]; that of
    two classes has one logit z in scikit-learn and two outputs (0, z) here: class 1 where z > 0. An MLPRegressor's
    outputs are its predictions. Raises ValueError for models that are not fitted, for activations other than relu and
    identity, and for classifiers of one class or of several labels at once.

    Checked: against the model's own predict_proba or predict at random points.
    """
    try:
        from sklearn.neural_network import MLPClassifier, MLPRegressor
    except ImportError:
        raise ValueError("reading scikit-learn models needs scikit-learn: pip install scikit-learn") from None
    kind = type(model)
    if kind not in (MLPClassifier, MLPRegressor):
        raise ValueError(f"model must be an MLPClassifier or MLPRegressor, got {kind.__name__}")
    if not hasattr(model, "coefs_"):
        raise ValueError(f"the {kind.__name__} must be fitted first")
    if model.activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {model.activation!r}")
    classes = list(model.classes_) if kind is MLPClassifier else []
    if kind is MLPClassifier and len(classes) < 2:
        raise ValueError(
            f"a classifier must have been fitted on two classes or more, got {', '.join(map(str, classes))}"
        )
    last = model.out_activation_
    if kind is MLPClassifier and not (last == "softmax" or (last == "logistic" and model.n_outputs_ == 1)):
        raise ValueError(f"a classifier of several labels at once has no ranking of classes, got {last!r}")
    if kind is MLPRegressor and last != "identity":
        raise ValueError(f"a regressor's output must not be transformed, got {last!r}")
    chain = _chain(model)
    if last == "logistic":
        chain.dense(np.array([[0.0], [1.0]]), None)
    metadata = {"classes": [str(label) for label in classes]} if classes else {}
    _check(model, chain)
    return chain.parts(name, metadata)


def _chain(model: Any) -> OperationChain:
    matrices, biases = checked_layers(list(zip(model.coefs_, model.intercepts_, strict=True)), "in_out")
    chain = OperationChain((matrices[0].shape[1],))
    for k, (weight, bias) in enumerate(zip(matrices, biases, strict=True)):
        if k and model.activation == "relu":
            chain.relu()
        chain.dense(weight, bias)
    return chain


def _check(model: Any, chain: OperationChain) -> None:
    """Raise ValueError unless the network gives what the model predicts, at points of three sizes."""
    rng = np.random.default_rng(0)
    for scale in (0.1, 1.0, 10.0):
        points = scale * rng.uniform(-1.0, 1.0, (8, *chain.input_shape))
        found = chain.outputs(points)
        expected = np.asarray(model.predict_proba(points) if hasattr(model, "classes_") else model.predict(points))
        if hasattr(model, "classes_"):
            found = _softmax(found)
        size = max(1.0, float(np.max(np.abs(expected))))
        if not np.all(np.abs(found - expected.reshape(found.shape)) <= _AGREEMENT * size):
            raise ValueError(f"the layers of the {type(model).__name__} do not give what it predicts")


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
