"""sdp-mnist, sdp-cifar, eran-mnist: the test images on which verifiers are compared, as two .npy files each.

sdp-…: 200 test images of MNIST and of CIFAR-10, of Dathathri et al. 2020, "Enabling certification of
verification-agnostic networks via memory-efficient semidefinite programming", NeurIPS. eran-mnist: the first 1,000
MNIST test images, of ERAN. The files are those of github.com/Verified-Intelligence/alpha-beta-CROWN: float32 pixels
as stored, up to 10⁻⁷ from the multiples of 1/255 that they stand for. There are no train splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.arrays import FloatArray, IndexArray
from toolkit.data.dataset_source import DatasetSource
from toolkit.data.registry import Download, obtain, place

_ORIGIN = (
    "https://raw.githubusercontent.com/Verified-Intelligence/alpha-beta-CROWN/"
    "8250d5fbd530c76e5e3243db28b3cad5fbaef740/complete_verifier/datasets/"
)


@dataclass(frozen=True, eq=False)
class VerifierImages(DatasetSource):
    """A test split in two files. channels_last: images are (n, height, width, channels), not (n, channels, …)."""

    fixed: ClassVar[bool] = True  # the files' SHA-256 are checked
    images: Download
    labels: Download
    channels_last: bool

    def read(self, split: str) -> tuple[FloatArray, IndexArray]:
        if split != "test":
            raise ValueError(f"split must be test, the only one of {self.images.path}, got {split!r}")
        images, labels = (np.load(obtain(file), allow_pickle=False) for file in (self.images, self.labels))
        return (np.moveaxis(images, -1, 1) if self.channels_last else images).astype(np.float64), labels

    def found(self, split: str) -> tuple[bool, str]:
        if split != "test":
            return False, "there is none"
        paths = [place(file) for file in (self.images, self.labels)]
        if all(path.is_file() for path in paths):
            return True, str(paths[0].parent)
        return False, f"fetched from {self.images.url} when asked for"


def _file(path: str, sha256: str) -> Download:
    return Download(f"alpha-beta-crown/{path}", f"{_ORIGIN}{path}", sha256)


SDP_MNIST = VerifierImages(
    _file("sdp/mnist/X_sdp.npy", "277b5e781c2e2838246070f3663b64e5ec02087e1a0a25dba804fcf8ff832419"),
    _file("sdp/mnist/y_sdp.npy", "00b2d850ef5c455c33eea88bcc86a940be739b0479f2067d27d8b282263f29a9"),
    channels_last=True,
)
SDP_CIFAR = VerifierImages(
    _file("sdp/cifar/X_sdp.npy", "bc487064171fc74ce09b8c29db029da3a9be1f0275a23aa2f3aca6ccacb6958e"),
    _file("sdp/cifar/y_sdp.npy", "b02c682406c3ae3aeba6b0fa0f6598ddb1d0331ce87c9b869136263946296dbd"),
    channels_last=True,
)
ERAN_MNIST = VerifierImages(
    _file("eran/mnist_eran/X_eran.npy", "1d1d577cc3a2ffda225c54304a5ab4749bcaf5f3631e07b34c83cdc11a93cfd4"),
    _file("eran/mnist_eran/y_eran.npy", "70320469f227fb2e9550d6ae21903e8c8231b82e8b038e752e6a54b9ce9619fc"),
    channels_last=False,
)
