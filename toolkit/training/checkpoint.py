"""Checkpoints: everything the next epoch of training depends on, in one file that is whole or absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.data.archives import require_keys
from toolkit.data.atomic import write_atomically
from toolkit.training.training_data import known_digests

KEYS = ("spec", "weights", "optimizer", "history")
LATER_KEYS = ("data",)  # checkpoints from before lack them


def save_checkpoint(
    path: Path,
    digest: str,
    weights: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    history: Sequence[dict[str, Any]],
    data: Mapping[str, str],
) -> None:
    """Write weights, optimiser state and history; a kill at any moment leaves the previous file or this one."""
    state = {
        "spec": digest,
        "weights": [tensor.detach() for tensor in weights],
        "optimizer": optimizer.state_dict(),
        "history": list(history),
        "data": dict(data),
    }
    with write_atomically(path) as file:
        torch.save(state, file)


def load_checkpoint(
    path: Path | None,
    digest: str,
    weights: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    data: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Set weights and optimiser state in place; the epochs done so far, none where there is no file.

    digest: of the spec, data: of the splits; ValueError for the checkpoint of others, or for a file that is none.
    """
    if path is None or not path.is_file():
        return []
    try:
        state = torch.load(path, weights_only=True)
        require_keys("key", state, KEYS, (*KEYS, *LATER_KEYS))
        if state["spec"] != digest:
            raise _OtherSpecError(f"{path} is of another spec; remove it, or train under the spec that made it")
        if not known_digests(state, data):
            raise _OtherSpecError(f"{path} is of other data, which changed; remove it, or train on what made it")
        _check_weights(weights, state["weights"])
        history = [_checked_epoch(k, epoch) for k, epoch in enumerate(state["history"], start=1)]
        optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for tensor, saved in zip(weights, state["weights"], strict=True):
                tensor.copy_(saved)
    except _OtherSpecError as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # a damaged file surfaces as anything from KeyError to UnpicklingError
        reason = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:200]}"
        raise ValueError(f"{path} is not a checkpoint ({reason}); remove it to start anew") from error
    return history


class _OtherSpecError(ValueError):
    """A whole checkpoint, of another spec or of other data."""


def _check_weights(weights: Sequence[Tensor], saved: Sequence[Tensor]) -> None:
    """One tensor each, of the same shape (copying would spread a smaller one) and finite."""
    if len(saved) != len(weights):
        raise ValueError(f"it has {len(saved)} weights, the network {len(weights)}")
    for k, (own, other) in enumerate(zip(weights, saved, strict=True)):
        if other.shape != own.shape or other.dtype != own.dtype:
            raise ValueError(
                f"weight {k} is {tuple(other.shape)} {other.dtype}, must be {tuple(own.shape)} {own.dtype}"
            )
        if not bool(torch.isfinite(other).all()):
            raise ValueError(f"weight {k} must be finite")


def _checked_epoch(number: int, epoch: Mapping[str, Any]) -> dict[str, Any]:
    if epoch.get("epoch") != number or not all(type(value) in (int, float) for value in epoch.values()):
        raise ValueError(f"its history must hold epoch {number} as numbers")
    return dict(epoch)
