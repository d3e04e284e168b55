"""Checkpoints: everything the next epoch of training depends on, in one file that is whole or absent."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def save_checkpoint(
    path: Path,
    digest: str,
    weights: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    history: Sequence[dict[str, Any]],
) -> None:
    """Write weights, optimiser state and history; a kill at any moment leaves the previous file or this one."""
    state = {
        "spec": digest,
        "weights": [tensor.detach() for tensor in weights],
        "optimizer": optimizer.state_dict(),
        "history": list(history),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    torch.save(state, scratch)
    os.replace(scratch, path)


def load_checkpoint(
    path: Path | None, digest: str, weights: Sequence[Tensor], optimizer: torch.optim.Optimizer
) -> list[dict[str, Any]]:
    """Set weights and optimiser state in place; the epochs done so far, none where there is no file.

    digest: of the spec; ValueError for the checkpoint of another one, or for a file that is not a checkpoint.
    """
    if path is None or not path.is_file():
        return []
    try:
        state = torch.load(path, weights_only=True)
        if state["spec"] == digest:
            with torch.no_grad():
                for tensor, saved in zip(weights, state["weights"], strict=True):
                    tensor.copy_(saved)
            optimizer.load_state_dict(state["optimizer"])
            return list(state["history"])
    except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not a checkpoint ({type(error).__name__}); remove it to start anew") from error
    raise ValueError(f"{path} is of another spec; remove it, or train under the spec that made it")
