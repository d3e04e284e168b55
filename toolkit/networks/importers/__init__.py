"""Reading networks made elsewhere: torch modules, ONNX files and state dicts with a named architecture.

torch and onnx are optional and imported on first use. Whatever is not known to be an affine map or a ReLU is refused.
"""

from toolkit.networks.importers.onnx_graphs import read_onnx
from toolkit.networks.importers.state_dicts import read_state_dict
from toolkit.networks.importers.torch_modules import read_torch

__all__ = ["read_onnx", "read_state_dict", "read_torch"]
