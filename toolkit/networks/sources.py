"""What `Network.load` reads: zoo:NAME, published:NAME, or a file told by its ending."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from toolkit.data.arguments import instance
from toolkit.networks.importers import read_onnx, read_state_dict
from toolkit.networks.network_file import read_network_file
from toolkit.networks.parts import NetworkParts
from toolkit.networks.published import PREFIX, read_published

STATE_DICTS = (".pth", ".pt")


def read_source(source: str | Path, architecture: str | None = None) -> NetworkParts:
    """The network that `source` names; see `Network.load`."""
    if not isinstance(source, str | Path):
        told = "a torch module is converted by Network.from_torch(module)"
        instance(
            "source",
            source,
            Path,
            told if callable(getattr(source, "state_dict", None)) else "a file's path, zoo:NAME or published:NAME",
        )
    text = str(source)
    if architecture is not None and Path(text).suffix not in STATE_DICTS:
        raise ValueError(f"only .pth and .pt files take an architecture, got {architecture!r} with {text}")
    if text.startswith("zoo:"):
        return read_network_file(_zoo_path(text.removeprefix("zoo:")))
    if text.startswith(PREFIX):
        return read_published(text)
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"no network file at {path}; networks shipped are named zoo:NAME ({', '.join(zoo_names())}), "
            "published ones published:NAME (see relugap doctor)"
        )
    if path.suffix == ".npz":
        return read_network_file(path)
    if path.suffix == ".onnx" or path.suffixes[-2:] == [".onnx", ".gz"]:
        return read_onnx(path)
    if path.suffix in STATE_DICTS:
        return read_state_dict(path, architecture)
    raise ValueError(f"network files end in .npz, .onnx, .onnx.gz, .pth or .pt, got {path.name!r}")


def zoo_names() -> list[str]:
    """Names of the networks shipped with the package."""
    return sorted(item.name.removesuffix(".npz") for item in _zoo().iterdir() if item.name.endswith(".npz"))


def _zoo() -> Path:
    return Path(str(resources.files("toolkit") / "zoo"))


def _zoo_path(name: str) -> Path:
    if name not in zoo_names():
        raise ValueError(f"no zoo network {name!r}; allowed: {', '.join(zoo_names())}")
    return _zoo() / f"{name}.npz"
