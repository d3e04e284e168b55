"""What a network's training data called its classes, so that data which number them otherwise are told."""

from __future__ import annotations

from toolkit.data.dataset import Dataset
from toolkit.networks.network import Network

CLASS_NAMES = "class_names"  # key of a network's metadata: the names in order


def check_class_names(network: Network, data: Dataset) -> None:
    """Raises ValueError for data whose classes have other names than those the network was trained with."""
    own, trained = data.class_names, network.metadata.get(CLASS_NAMES)
    if not own or not isinstance(trained, list) or list(own) == trained:
        return
    k = next((k for k, pair in enumerate(zip(own, trained, strict=False)) if pair[0] != pair[1]), None)
    told = f"{len(own)} instead of {len(trained)}" if k is None else f"{own[k]!r} instead of {str(trained[k])[:60]!r}"
    name = network.name or "the network"
    raise ValueError(
        f"classes of {data.name} must be named as those that {name} was trained on, got {told}; "
        "a folder of both splits numbers them alike"
    )
