"""`--save-witness`: the unsafe point that was found, as numbers or as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.data.atomic import write_atomically, write_figure
from toolkit.networks.network import Network
from toolkit.report.styles import PRINT_DPI
from toolkit.report.witness import picture_shape, witness_figure


def check_witness_file(path: Path | None, network: Network) -> None:
    """Raises ValueError, before any work, for a picture of inputs that are none."""
    if path is not None and path.suffix == ".png":
        picture_shape(network.input_shape)


def save_witness(
    path: Path, network: Network, center: FloatArray, witness: FloatArray | None, label: int | None
) -> str:
    """Write the witness and say so in a line; without one, nothing is written, and that is said.

    .npy: its numbers, of the network's input shape. .png: the image, the witness and their difference, enlarged.
    """
    if witness is None:
        return f"no unsafe point was found, {path.name} is not written"
    if path.suffix == ".npy":
        with write_atomically(path) as file:
            np.save(file, witness.reshape(network.input_shape))
        return f"unsafe point: {path}"
    said = f"unsafe point: class {int(network.predict(witness))}" if label is not None else "unsafe point"
    shown = "image" if label is None else f"image: class {label}"
    write_figure(path, witness_figure(center, witness, network.input_shape, (shown, said)), dpi=PRINT_DPI)
    return f"image, unsafe point and difference: {path}"
