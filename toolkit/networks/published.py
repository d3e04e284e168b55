"""Networks that papers published, by name: where their weights are fetched, and the architecture the files leave out.

`Network.load("published:NAME")`, or `relugap certify published:NAME …`. Files are looked for in $RELUGAP_DATA and the
user's cache, else fetched from the repositories below at a fixed commit; SHA-256 is checked in any case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from toolkit.data.registry import Download, obtain
from toolkit.networks.importers import read_state_dict
from toolkit.networks.parts import NetworkParts

PREFIX = "published:"


@dataclass(frozen=True)
class PublishedNetwork:
    """One published network. architecture: as `read_state_dict` takes it. paper: where it is described."""

    name: str
    file: Download
    architecture: str
    paper: str


WONG_KOLTER = "Wong & Kolter 2018, Provable defenses against adversarial examples, ICML"
SALMAN = "Salman et al. 2019, A convex relaxation barrier to tight robustness verification, NeurIPS"
_LOCUSLAB = (
    "https://raw.githubusercontent.com/locuslab/convex_adversarial/2cd8149249b9e90383af10fc7e9b9fe90166813e/models/"
)
_HADI = "https://raw.githubusercontent.com/Hadisalman/robust-verify-benchmark/fce1c27c1aef4f1f0a873b4fd88530894f81ce20/weights/"

# name after "wong-kolter-2018/" → file, SHA-256
_WONG_KOLTER_FILES = {
    "mnist": "95014ab0c04c73f48b3be0cb7acc42aff60ce4420c6c43bec25e9a1447279e08",
    "fashion_mnist": "b90cca41cc42b427d5ba1d1c10d90a5a8b6b5219538a3a4d1c6f825d3f612bc5",
}
# name after "salman-2019/" → SHA-256, by folder
_SALMAN_FILES = {
    "experiment_1": {
        "NOR_MLP_B": "a3a47041e49c8bac2a9b4f73335ddceee70333f2104fbc12e1289eb4393ca74b",
        "ADV_MLP_B_0.03": "1328446879b2a4d71ffc88d618fe90e1f0337206a496fe033e7e8e7645387319",
        "ADV_MLP_B_0.05": "3f9b45f57392fc911fb790e4e77f359be096cc53a853f35459746eb738bbba75",
        "ADV_MLP_B_0.1": "91f82b4fb087e7ea49f36011bb7540beebfb80c1afb14a25b6158d1347e4e262",
        "LPD_MLP_B_0.1": "6f01f9174008be5c0690e8b81d4752caeef484113da1141e2272cb848040036e",
        "LPD_MLP_B_0.2": "a9f2c3d5c9dedf8279b21afa58eaaf24bd790c7112748920933c8d7fc0e80b94",
        "LPD_MLP_B_0.3": "ebcc878152e7a46352645b7192871461dbfe12256caa1ea691ee791d47b318e1",
        "LPD_MLP_B_0.4": "faa72446a52dadafa0d729f54e0a06b409f6ad7af333ce30d408941ee71e729e",
    },
    "experiment_2": {
        "mnist_MLP_2_100_NOR": "42e8e3626dc6e50755df9dc0f79178475f41f9bb52124cd0f816fe0bf7184c21",
        "mnist_MLP_2_100_ADV": "559d222af746e93d0ba04e53765d141083e765c9d50179eaaa2214c811ee11a9",
        "mnist_MLP_2_100_LPD": "16dee3237132c55de4cb24aefaaf65c4c29362afea09168792eaad4c13c9097b",
        "mnist_MLP_9_100_NOR": "35ff9352a0f4b18c15d1cbcbc1e7888c6d2f1a5ac13f4930dc00385541780966",
        "mnist_MLP_9_100_ADV": "322aacdc1e0e18e38d84f87232fd6074fc7ecf40bbb5bcfeaf5ecd7639b3c9a7",
        "mnist_MLP_9_100_LPD": "bfdc9011913873898b7718a2bbe7eed9592eff0c4c9598c76b64087c10c9a6e4",
        "mnist_cnn_small_NOR": "cb2dcd29f71515102c740df352ac00c247632dfd77ae58dbbb5795db165923db",
        "mnist_cnn_small_ADV": "72bd3872734a3a61ace258572ea4f339f34f7b6ad6920a91f322f100b6916d7a",
        "mnist_cnn_small_LPD": "e94df75390f062c4cbdabc87dcbe465ce5d75f3115fbc48e609f73fc0686fb31",
    },
}


def _all() -> Iterator[PublishedNetwork]:
    small = "wong-kolter-small"
    for file, sha256 in _WONG_KOLTER_FILES.items():
        download = Download(f"convex_adversarial/{file}.pth", f"{_LOCUSLAB}{file}.pth", sha256)
        yield PublishedNetwork(f"wong-kolter-2018/{file}", download, small, WONG_KOLTER)
    for folder, files in _SALMAN_FILES.items():
        for file, sha256 in files.items():
            download = Download(f"robust-verify-benchmark/{file}.pth", f"{_HADI}{folder}/{file}.pth", sha256)
            yield PublishedNetwork(f"salman-2019/{file}", download, small if "cnn_small" in file else "mlp", SALMAN)


PUBLISHED: dict[str, PublishedNetwork] = {network.name: network for network in _all()}


def published_network(name: str) -> PublishedNetwork:
    """The entry of a name, with or without "published:". Raises ValueError for an unknown one."""
    known = PUBLISHED.get(name.removeprefix(PREFIX))
    if known is None:
        raise ValueError(f"unknown published network {name!r}; allowed: {', '.join(PUBLISHED)}")
    return known


def read_published(name: str) -> NetworkParts:
    """The network, fetched if it is not here. Raises ValueError or FileNotFoundError."""
    known = published_network(name)
    return read_state_dict(obtain(known.file), known.architecture, known.name)
