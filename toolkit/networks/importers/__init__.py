"""Reading networks made elsewhere: ONNX files, torch modules, state dicts with a named architecture, weight arrays.

Everything piecewise linear becomes ReLU stages (compiler.py), by one algebra of tensors (tensors.py). torch, onnx and
scikit-learn are imported on first use. What is not piecewise linear is refused by name.
"""

from toolkit.networks.importers.arrays import Layer, read_weight_arrays
from toolkit.networks.importers.onnx_graphs import read_onnx
from toolkit.networks.importers.sklearn_models import read_sklearn
from toolkit.networks.importers.state_dicts import read_state_dict
from toolkit.networks.importers.torch_modules import read_torch

__all__ = ["Layer", "read_onnx", "read_sklearn", "read_state_dict", "read_torch", "read_weight_arrays"]
