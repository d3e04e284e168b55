"""Networks that papers published, by name: where their weights are fetched, and the architecture the files leave out.

`Network.load("published:NAME")`, or `relugap certify published:NAME …`. Files are looked for in $RELUGAP_DATA and the
user's cache, else fetched from the repositories below at a fixed commit; SHA-256 is checked in any case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from toolkit.data.registry import Download, obtain
from toolkit.networks.importers import read_state_dict, read_weight_arrays
from toolkit.networks.parts import NetworkParts

PREFIX = "published:"


@dataclass(frozen=True)
class PublishedNetwork:
    """One published network.

    files: one state dict, or .npy arrays W, b, W, b, … of layers x ↦ x·W + b with ReLUs between. architecture: of the
    state dict, as `read_state_dict` takes it; None for arrays. paper: where it is described.
    """

    name: str
    files: tuple[Download, ...]
    architecture: str | None
    paper: str


WONG_KOLTER = "Wong & Kolter 2018, Provable defenses against adversarial examples, ICML"
SALMAN = "Salman et al. 2019, A convex relaxation barrier to tight robustness verification, NeurIPS"
TJENG = "Tjeng et al. 2019, Evaluating robustness of neural networks with mixed integer programming, ICLR"
_LOCUSLAB = (
    "https://raw.githubusercontent.com/locuslab/convex_adversarial/2cd8149249b9e90383af10fc7e9b9fe90166813e/models/"
)
_HADI = "https://raw.githubusercontent.com/Hadisalman/robust-verify-benchmark/fce1c27c1aef4f1f0a873b4fd88530894f81ce20/weights/"
_VTJENG = (
    "https://raw.githubusercontent.com/vtjeng/MIPVerify_data/35578a19c5182714e6d4874d4615da8362f9c674/weights/mnist/"
)
DATHATHRI = "Dathathri et al. 2020, Enabling certification of verification-agnostic networks, NeurIPS"
ERAN = "Singh et al. 2019, Beyond the single neuron convex barrier for neural network certification, NeurIPS"
_ALPHA_BETA_CROWN = (
    "https://raw.githubusercontent.com/Verified-Intelligence/alpha-beta-CROWN/"
    "8250d5fbd530c76e5e3243db28b3cad5fbaef740/complete_verifier/models/"
)

# name after "wong-kolter-2018/" → SHA-256
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
# of Wong & Kolter's architecture, but other weights than their mnist.pth above: theirs at an earlier commit
_WK17A_FILE = "665cce40af979286eabde7ba405af0a3a2575bbe6abbcaddc2c5e6f58621efc3"
# Raghunathan et al. 2018's network, in order of its layers → SHA-256
_RSL18A_FILES = {
    "W1": "074e6d3f6e2e9a3d55bbc62014e366e0d419657a27a90b0bec54d1d24e2c83f2",
    "B1": "82e61ae93e229c823c4b3d536d2c17f41638e51fe4cb65d9d18262e4d0663e14",
    "W2": "b6a3fc8aca69afd8ab63378f4b077e572b2593677dc9fca2ec3f545ea7c81af1",
    "B2": "c6fcf4acc1f5f4fbeb1946cfc80fc99e2fb32ade2db53f5ffc8f9239457ace5b",
}
# Trained on (x − mean)/std, which the files leave out: their code does it to the images, and scales ε; pixels / 255.
_CIFAR_MEAN, _CIFAR_STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)  # in 1/255, per channel
_SCALED = f"mean={':'.join(str(m / 255) for m in _CIFAR_MEAN)},std={':'.join(str(s / 255) for s in _CIFAR_STD)}"
_DENSE = "relu flatten linear relu linear"
_CIFAR_CNN_A = f"3x32x32 normalize({_SCALED}) conv(stride=2,padding=1) relu conv(stride=2,padding=1) {_DENSE}"
_CONV_SMALL = f"1x28x28 normalize(mean=0.1307,std=0.3081) conv(stride=2) relu conv(stride=2) {_DENSE}"
# path below _ALPHA_BETA_CROWN → name, architecture, SHA-256
_ALPHA_BETA_CROWN_FILES = {
    "sdp/mnist_cnn_a_adv.model": (
        "dathathri-2020/mnist_cnn_a_adv",
        "wong-kolter-small",
        "3a1dbfc656e45be2cf6e8ae709c43da0fa0f3b71762c8a0842df72868f2b3459",
    ),
    "sdp/cifar_cnn_a_adv.model": (
        "dathathri-2020/cifar_cnn_a_adv",
        _CIFAR_CNN_A,
        "e45d79e68342395f4ada6f89852ae41feba14b430a3b2462a04d7f5e02c65657",
    ),
    "sdp/cifar_cnn_a_adv4.model": (
        "dathathri-2020/cifar_cnn_a_adv4",
        _CIFAR_CNN_A,
        "f872a69536be3f0ab98397094bb7c3952d747b08321b81eafd00d9fab5eca0e7",
    ),
    "sdp/cifar_cnn_a_mix.model": (
        "dathathri-2020/cifar_cnn_a_mix",
        _CIFAR_CNN_A,
        "5a1370f41961766db169ad9f945e9cc3157c9afd7986eac73bf2786c35dc3773",
    ),
    "sdp/cifar_cnn_a_mix4.model": (
        "dathathri-2020/cifar_cnn_a_mix4",
        _CIFAR_CNN_A,
        "91d5ade259939afecdccbeb9f818f55f9c560466d9b5b0b01ecc86dc8eaa8d13",
    ),
    "eran/mnist_6_100_nat.pth": (
        "eran/mnist_6_100",
        "mlp",
        "38f0dcd40e28d890f7a70809ea8821455349af7cb635604e99286a4970beaf5d",
    ),
    "eran/mnist_9_100_nat.pth": (
        "eran/mnist_9_100",
        "mlp",
        "60961992717108623987c265881a0db816ebb1ada340bc8989123e1237ae8a54",
    ),
    "eran/mnist_6_200_nat.pth": (
        "eran/mnist_6_200",
        "mlp",
        "5e998d6ef0f3be6a4f231536686a7a768668ffbfda2211c5005e234ee6057e47",
    ),
    "eran/mnist_9_200_nat.pth": (
        "eran/mnist_9_200",
        "mlp",
        "90db3361c48e8421c2588153dd35bf2b1a893101cfb9b7129706cca655b8a067",
    ),
    "eran/mnist_conv_small_nat.pth": (
        "eran/mnist_conv_small",
        _CONV_SMALL,
        "7d0bf96c4b4c5cd2bc15aca1c14b2d7d9c93a2ca88662439364f6635cd450adc",
    ),
}


def _all() -> Iterator[PublishedNetwork]:
    small = "wong-kolter-small"
    for file, sha256 in _WONG_KOLTER_FILES.items():
        download = Download(f"convex_adversarial/{file}.pth", f"{_LOCUSLAB}{file}.pth", sha256)
        yield PublishedNetwork(f"wong-kolter-2018/{file}", (download,), small, WONG_KOLTER)
    for folder, files in _SALMAN_FILES.items():
        for file, sha256 in files.items():
            download = Download(f"robust-verify-benchmark/{file}.pth", f"{_HADI}{folder}/{file}.pth", sha256)
            yield PublishedNetwork(f"salman-2019/{file}", (download,), small if "cnn_small" in file else "mlp", SALMAN)
    wk17a = Download("tjeng-2019/WK17a.pth", f"{_VTJENG}WK17a/linf0.1/master_seed_1_epochs_100.pth", _WK17A_FILE)
    yield PublishedNetwork("tjeng-2019/WK17a", (wk17a,), small, TJENG)
    arrays = [
        Download(f"tjeng-2019/RSL18a/{file}.npy", f"{_VTJENG}RSL18a/linf0.1/{file}.npy", sha256)
        for file, sha256 in _RSL18A_FILES.items()
    ]
    yield PublishedNetwork("tjeng-2019/RSL18a", tuple(arrays), None, TJENG)
    for path, (name, architecture, sha256) in _ALPHA_BETA_CROWN_FILES.items():
        download = Download(f"alpha-beta-crown/{path}", f"{_ALPHA_BETA_CROWN}{path}", sha256)
        yield PublishedNetwork(name, (download,), architecture, DATHATHRI if path.startswith("sdp/") else ERAN)


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
    paths = [obtain(file) for file in known.files]
    if known.architecture is not None:
        (state_dict,) = paths
        return read_state_dict(state_dict, known.architecture, known.name)
    arrays = [np.load(path, allow_pickle=False) for path in paths]
    return read_weight_arrays(list(zip(arrays[::2], arrays[1::2], strict=True)), "in_out", known.name)
