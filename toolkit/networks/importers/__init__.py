"""Reading networks made elsewhere: torch modules, ONNX files and state dicts with a named architecture.

torch and onnx are optional and imported on first use. Whatever is not known to be an affine map or a ReLU is refused.
"""

from toolkit.networks.importers.onnx_graphs import from_onnx
from toolkit.networks.importers.state_dicts import ARCHITECTURES, from_state_dict_file
from toolkit.networks.importers.torch_modules import from_torch

__all__ = ["ARCHITECTURES", "from_onnx", "from_state_dict_file", "from_torch"]
