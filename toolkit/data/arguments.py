"""Checks of what a caller hands in, at the public entries: whatever does not fit is a ValueError that names the
parameter, the value, what is allowed, and what was probably meant.

They depend on no other module; numbers from numpy and torch count as numbers, `True` and "3" do not.
"""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Kind = TypeVar("_Kind")
MOST_THREADS = 1024  # what the solvers take
MOST_COUNTED = 10**9  # of steps, restarts and nodes
LONGEST_VALUE = 60  # characters of a value that a message shows
LABEL_HINT = "of a one-hot vector or logits take int(label.argmax())"
EPS_HINT = "a radius per feature is an array that fits the centre"


def shown(value: object) -> str:
    """The value for a message, on one line: a number as it is, else with its type; of a large object its type alone."""
    if value is None or type(value) in (int, float, bool):
        return repr(value)
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{kind} of shape {tuple(int(n) for n in shape)}"
    text = " ".join(repr(value).split())
    if isinstance(value, str):
        return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
    return f"{text} ({kind})" if len(text) <= LONGEST_VALUE else kind


def whole_number(name: str, value: object, low: int | None = None, high: int | None = None, hint: str = "") -> int:
    """The value as an int. Raises ValueError unless it is a whole number (of any library, no bool) in low … high."""
    dtype = getattr(value, "dtype", None)
    try:
        found = None if isinstance(value, bool) or "bool" in str(dtype) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        found = None
    if found is None:
        told = f"; {hint}" if hint and getattr(value, "shape", ()) != () else ""
        raise ValueError(f"{name} must be a whole number{_range(low, high)}, got {shown(value)}{told}")
    if (low is not None and found < low) or (high is not None and found > high):
        raise ValueError(f"{name} must be {_range(low, high).strip()}, got {found}")
    return int(found)


def _range(low: int | None, high: int | None) -> str:
    if low is not None and high is not None:
        return f" in {low} … {high}"
    return f" ≥ {low}" if low is not None else f" ≤ {high}" if high is not None else ""


def real_number(
    name: str, value: object, low: float | None = None, above: float | None = None, hint: str = ""
) -> float:
    """The value as an int or float. Raises ValueError unless it is one real number (an array of one entry is one), or
    where it is below `low` or not above `above`; NaN is neither."""
    found = _real(value)
    if found is None:
        several = isinstance(value, Sequence) or getattr(value, "shape", ()) != ()
        told = f"; {hint}" if hint and several else ""
        raise ValueError(f"{name} must be one number, got {shown(value)}{told}")
    if isinstance(found, int) and abs(found) > sys.float_info.max:
        raise ValueError(f"{name} must lie in the range of double precision, got a number of {found.bit_length()} bits")
    if low is not None and not found >= low:
        raise ValueError(f"{name} must be ≥ {low:g}, got {found}")
    if above is not None and not found > above:
        raise ValueError(f"{name} must be > {above:g}, got {found}")
    return found


def _real(value: object) -> float | None:
    if type(value) in (int, float):
        return value  # type: ignore[return-value]
    no_number = str | bytes | bytearray | memoryview | complex | bool
    if value is None or isinstance(value, no_number) or "bool" in str(getattr(value, "dtype", "")):
        return None
    try:
        if _is_masked(value):
            return None
        if hasattr(value, "shape") and hasattr(value, "item"):  # of one entry, in any float type, gradients left out
            entry = value.item()
            return float(entry) if isinstance(entry, int | float) else None
        if hasattr(value, "shape") or isinstance(value, Sequence):
            array = np.asarray(value)
            return float(array.item()) if array.size == 1 and array.dtype.kind in "iuf" else None
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _is_masked(value: object) -> bool:
    """Whether a numpy array has entries that it says are missing; numpy would read what lies below the mask."""
    return isinstance(value, np.ma.MaskedArray) and bool(np.ma.is_masked(value))


def check_unmasked(name: str, value: object) -> None:
    """Raises ValueError for an array with entries that it says are missing."""
    if _is_masked(value):
        raise ValueError(f"{name} must have no masked entries, got {shown(value)}")


def optional_number(name: str, value: object, low: float | None = None, above: float | None = None) -> float | None:
    """None, or as real_number."""
    return None if value is None else real_number(name, value, low, above)


def finite_number(name: str, value: object) -> float:
    """As real_number, and neither NaN nor infinite."""
    found = real_number(name, value)
    if not math.isfinite(found):
        raise ValueError(f"{name} must be finite, got {found}")
    return found


def one_of(name: str, value: object, allowed: Collection[str]) -> str:
    """The value itself. Raises ValueError unless it is one of the names allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {shown(value)}")
    return value


def instance(name: str, value: object, kind: type[_Kind], hint: str = "") -> _Kind:
    """The value itself. Raises ValueError for another kind of object, with what was probably meant."""
    if not isinstance(value, kind):
        told = hint or _meant(value, kind.__name__)
        raise ValueError(f"{name} must be a {kind.__name__}, got {shown(value)}{told and '; '}{told}")
    return value


def _meant(value: object, wanted: str) -> str:
    """How the wanted object is made of the one given."""
    if wanted == "Network":
        if isinstance(value, str) or hasattr(value, "__fspath__"):
            return "a file is read by Network.load(path)"
        if callable(getattr(value, "state_dict", None)):
            return "a torch module is converted by Network.from_torch(module)"
        return "list of layers: Network(layers)" if isinstance(value, Sequence) else ""
    if wanted == "LinfBall":
        return "a ball around a point x is LinfBall(x, eps)"
    if wanted == "Settings" and isinstance(value, Mapping):
        return "write Settings(**settings)"
    return ""


def yes_or_no(name: str, value: object) -> bool:
    """The value as a bool. Raises ValueError unless it is True or False, of numpy or not."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def a_function(name: str, value: object) -> None:
    """Raises ValueError for what is neither a function nor None."""
    if value is not None and (not callable(value) or callable(getattr(value, "state_dict", None))):
        raise ValueError(f"{name} must be a function or None, got {shown(value)}")


def mapping(name: str, value: object, hint: str = "") -> Mapping[Any, Any]:
    """The value itself. Raises ValueError unless it is a mapping."""
    return instance(name, value, Mapping, hint)  # type: ignore[type-abstract]


def text(name: str, value: object) -> str:
    """The value itself. Raises ValueError unless it is a str."""
    return instance(name, value, str)


def names(name: str, value: object, empty: bool = True) -> tuple[str, ...]:
    """A list of names as a tuple. Raises ValueError for a single str, which would be read letter by letter."""
    if isinstance(value, str):
        told = f"; write ({value!r},)" if len(value) <= LONGEST_VALUE else ""
        raise ValueError(f"{name} must be a list of names, got {shown(value)}{told}")
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping) or getattr(value, "shape", 1) == ():
        raise ValueError(f"{name} must be a list of names, got {shown(value)}")
    found = tuple(value)
    for entry in found:
        if not isinstance(entry, str):
            raise ValueError(f"{name} must hold names, got {shown(entry)} in it")
    if not found and not empty:
        raise ValueError(f"{name} must name at least one rung, got none")
    return found


def whole_numbers(name: str, value: object, low: int | None = None, high: int | None = None) -> tuple[int, ...]:
    """A list of whole numbers as a tuple; a set in ascending order. Raises ValueError for anything else."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable) or getattr(value, "shape", 1) == ():
        raise ValueError(f"{name} must be a list of whole numbers, got {shown(value)}")
    found = tuple(whole_number(f"every entry of {name}", entry, low, high) for entry in value)
    return tuple(sorted(found)) if isinstance(value, AbstractSet) else found


def check_outputs(outputs: int) -> None:
    """Raises ValueError for a network that tells no classes apart."""
    if outputs < 2:
        raise ValueError(f"a margin needs at least two outputs (classes), the network has {outputs} output")


def class_label(name: str, value: object, outputs: int) -> int:
    """A class of a network with so many outputs, as an int."""
    check_outputs(outputs)
    return whole_number(name, value, 0, outputs - 1, LABEL_HINT)


def class_targets(value: object, label: int, outputs: int) -> tuple[int, ...]:
    """The classes t ≠ label whose margins are asked for; None: all of them. Raises ValueError for none, for one that is
    no class or the label itself, and for one that is listed twice."""
    if value is None:
        return tuple(t for t in range(outputs) if t != label)
    found = whole_numbers("targets", value)
    if not found:
        raise ValueError("targets must name at least one class, got none; leave it out for all classes but the label")
    for k, target in enumerate(found):
        if not 0 <= target < outputs or target == label:
            raise ValueError(f"target must be in 0 … {outputs - 1} and differ from the label {label}, got {target}")
        if target in found[:k]:
            raise ValueError(f"targets must not repeat a class, got {target} twice")
    return found


def check_labels(labels: NDArray[np.int64], outputs: int, where: str) -> None:
    """Raises ValueError for a network with fewer outputs than the labels need, or with one."""
    check_outputs(outputs)
    wrong = np.flatnonzero((np.asarray(labels) < 0) | (np.asarray(labels) >= outputs))
    if wrong.size:
        k = int(wrong[0])
        raise ValueError(f"{where} has label {labels[k]}, the network has {outputs} classes: 0 … {outputs - 1}")


def number_array(name: str, value: object, hint: str = "") -> NDArray[np.float64]:
    """The value as a new float64 array. Raises ValueError for what is no array of real numbers."""
    told = f"; {hint}" if hint else ""
    check_unmasked(name, value)
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return np.array(value, order="C")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        if getattr(value, "requires_grad", False):
            told = f"; take {name}.detach()"
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{name} must be an array of numbers, got {shown(value)}: {reason}{told}") from None
    if array.dtype.kind not in "biufO" or value is None:
        raise ValueError(f"{name} must be an array of real numbers, got {shown(value)}{told}")
    try:
        return np.array(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be an array of real numbers, got {shown(value)}{told}") from None


def file_path(name: str, value: object) -> Path:
    """The value as a path, ~ as a home folder. Raises ValueError unless it is a str or a path."""
    if not isinstance(value, str | os.PathLike) or value == "":
        raise ValueError(f"{name} must be a path, got {shown(value)}")
    return own_path(value)


def own_path(path: str | os.PathLike[str]) -> Path:
    """The path with ~ as a home folder. Raises ValueError where there is none of that user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"no home folder is known for {shown(str(path))}") from None


def check_writable(path: Path) -> None:
    """Make the folder of a file that is written when the work is done, before it begins. Raises OSError where that or
    the file cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, a file is to be written there")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(f"{path} cannot be written")


def check_settings(settings: Any) -> None:
    """Types and ranges of Settings' fields, for its __post_init__; numbers of other libraries become Python's own."""
    found: dict[str, object] = {
        "solver": text("solver", settings.solver),
        "time_limit": optional_number("time_limit", settings.time_limit),
        "threads": whole_number("threads", settings.threads, 1, MOST_THREADS),
        "mip_gap": real_number("mip_gap", settings.mip_gap),
        "mip_gap_abs": real_number("mip_gap_abs", settings.mip_gap_abs),
        "stop_at": None if settings.stop_at is None else finite_number("stop_at", settings.stop_at),
        "seed": whole_number("seed", settings.seed, 0, 2_000_000_000),
        "attack_steps": whole_number("attack_steps", settings.attack_steps, 1, MOST_COUNTED),
        "attack_restarts": whole_number("attack_restarts", settings.attack_restarts, 1, MOST_COUNTED),
        "nodes": None if settings.nodes is None else whole_number("nodes", settings.nodes, 1, MOST_COUNTED),
        "hopeless": None if settings.hopeless is None else whole_number("hopeless", settings.hopeless, 1, MOST_COUNTED),
        "device": text("device", settings.device),
    }
    for name in ("rigorous", "until_refuted"):
        found[name] = yes_or_no(name, getattr(settings, name))
    for name, value in found.items():
        object.__setattr__(settings, name, value)
