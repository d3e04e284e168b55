"""The pickles of torch.save, read by a machine of our own that knows a dozen names and runs nothing.

A pickle is a program for a stack machine that may import and call anything. This one builds lists, tuples, dicts, texts
and numbers, and a tensor where the program asks for one: a storage, where it begins, its sizes and strides. Every other
name is refused, so nothing that a file says is imported, called or set on an object.

Source of the format: torch/serialization.py and torch/_utils.py (_rebuild_tensor_v2), pickle protocols 2 to 5. Checked:
opcodes and names against lists; what is on the stack before it is used; how long the program is. Trusted:
`pickletools.genops`, which splits a program into its opcodes.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.networks.importers.stored_tensors import DTYPES, PickleError, Storage, StoredTensor

LONGEST_PROGRAM = 1 << 24  # bytes of a pickle; a thousand tensors take a hundredth
MOST_STEPS = 1 << 20  # opcodes; a tensor takes some forty
LARGEST_KEY = 1 << 60  # of whole numbers
PLAIN = "only plain tensors are read; save model.state_dict()"
MARK = object()


@dataclass(frozen=True)
class _Name:
    """A name that the pickle asks for; no object of that name is ever looked up."""

    module: str
    name: str


def read_pickle(file: io.BytesIO) -> Any:
    """The object of the pickle that begins where `file` stands, and leave it behind the pickle.

    dicts (ordered), lists, tuples, numbers, texts, bytes, None and `StoredTensor`. Raises PickleError.
    """
    return read_program(file)[0]


def read_program(file: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """The object, and the storages of its tensors by their key; see `read_pickle`."""
    machine, start = _Machine(), file.tell()
    try:
        for count, (opcode, argument, place) in enumerate(pickletools.genops(file)):
            if count >= MOST_STEPS:
                raise PickleError(f"its pickle must have at most {MOST_STEPS} opcodes")
            if place is not None and place - start > LONGEST_PROGRAM:
                raise PickleError(f"its pickle must have at most {LONGEST_PROGRAM} bytes")
            machine.step(opcode.name, argument)
    except PickleError:
        raise
    except (ValueError, OverflowError, LookupError, TypeError, RecursionError) as error:
        raise PickleError(f"its pickle is damaged: {str(error)[:200] or type(error).__name__}") from None
    return machine.result(), machine.storages


class _Machine:
    """Stack and memo of one pickle."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def result(self) -> Any:
        """What the program leaves on the stack."""
        if len(self._stack) != 1:
            raise PickleError(f"its pickle must leave one object, got {len(self._stack)}")
        return self._stack[0]

    def step(self, name: str, argument: Any) -> None:
        """Run one opcode."""
        if name in ("PROTO", "FRAME", "STOP"):
            return
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self._stack.append(argument)
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        elif name in _PUTS:
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self.top()
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise PickleError(f"{PLAIN} (it uses {name})")

    def top(self) -> Any:
        """The object on top, which stays."""
        if not self._stack or self._stack[-1] is MARK:
            raise PickleError("its pickle is damaged: the stack is empty")
        return self._stack[-1]

    def pop(self) -> Any:
        """The object on top."""
        top = self.top()
        del self._stack[-1]
        return top

    def since_mark(self) -> list[Any]:
        """The objects above the last mark, which goes as well."""
        for k in range(len(self._stack) - 1, -1, -1):
            if self._stack[k] is MARK:
                found = self._stack[k + 1 :]
                del self._stack[k:]
                return found
        raise PickleError("its pickle is damaged: there is no mark")

    def push(self, value: Any) -> None:
        """One object more."""
        self._stack.append(value)

    def tuple_of(self, count: int) -> None:
        """The last few objects as a tuple."""
        self.push(tuple(reversed([self.pop() for _ in range(count)])))

    def append(self, values: Sequence[Any]) -> None:
        """Put them behind the list on top."""
        if type(self.top()) is not list:
            raise PickleError("its pickle is damaged: it appends to what is no list")
        self._stack[-1].extend(values)

    def set_items(self, pairs: Sequence[Any]) -> None:
        """Keys and values, one after the other, into the dict on top."""
        if type(self.top()) is not dict or len(pairs) % 2:
            raise PickleError("its pickle is damaged: it sets items of what is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, float | bytes | None):
                _check_key(key)
            self._stack[-1][key] = value


def _named(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.push(_allowed(module, name))


def _stack_named(machine: _Machine, _: object) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(_allowed(str(module), str(name)))


def _allowed(module: str, name: str) -> _Name:
    if (module, name) == ("torch._utils", "_rebuild_sparse_tensor"):
        raise PickleError("weights must be dense tensors with values, got torch.sparse")
    known = (module, name) in _CALLS or (module == "torch" and (name in DTYPES or name in _TORCH_DTYPES))
    if not known:
        raise PickleError(f"{PLAIN} (it asks for {module[:60]}.{name[:60]})")
    return _Name(module, name)


def _called(machine: _Machine, _: object) -> None:
    arguments, name = machine.pop(), machine.pop()
    if not isinstance(name, _Name) or type(arguments) is not tuple or (name.module, name.name) not in _CALLS:
        raise PickleError("its pickle is damaged: it calls what is no function")
    machine.push(_CALLS[name.module, name.name](*arguments))


def _built(machine: _Machine, _: object) -> None:
    """State of an object: of an ordered dict (its _metadata) alone, and not needed."""
    machine.pop()
    if type(machine.top()) is not dict:
        raise PickleError(f"{PLAIN} (it sets the state of an object)")


def _persistent(machine: _Machine, _: object) -> None:
    given = machine.pop()
    if type(given) is not tuple or len(given) not in (5, 6) or given[0] != "storage" or given[5:] not in ((), (None,)):
        raise PickleError(f"{PLAIN} (its storages are of another kind)")
    kind, key, size = given[1], given[2], given[4]
    if not isinstance(kind, _Name) or kind.name not in DTYPES or not isinstance(key, str):
        raise PickleError(f"{PLAIN} (its storages are of another kind)")
    storage = Storage(kind.name, key, _count("a storage's size", size))
    if machine.storages.setdefault(key, storage) != storage:
        raise PickleError(f"its pickle is damaged: storage {key[:100]!r} is of two kinds")
    machine.push(storage)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> StoredTensor:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2; rest: requires_grad, hooks, and bits that change values."""
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise PickleError("its pickle is damaged: a tensor without storage, sizes or strides")
    if len(shape) != len(strides) or len(shape) > 32 or len(rest) > 3 or rest[2:] not in ((), (None,), ({},)):
        raise PickleError(f"{PLAIN} (a tensor is more than a view of numbers)")
    sizes = tuple(_count("a size", size) for size in shape)
    return StoredTensor(
        storage, _count("an offset", offset), sizes, tuple(_count("a stride", step) for step in strides)
    )


def _parameter(data: Any, *_: Any) -> Any:
    """torch._utils._rebuild_parameter: requires_grad and hooks say nothing of the values."""
    return data


def _ordered(items: Any = ()) -> dict[Any, Any]:
    """collections.OrderedDict; filled by the opcodes that follow, or, by Python 2, from a list of pairs."""
    if type(items) not in (list, tuple) or not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in items):
        raise PickleError("its pickle is damaged: a dict of what are no pairs")
    found: dict[Any, Any] = {}
    for key, value in items:
        _check_key(key)
        found[key] = value
    return found


def _check_key(key: Any) -> None:
    """Raise PickleError for a key that is neither a text nor a number that is its own hash: larger ones can be chosen
    so that all have one hash, and a dict of them takes quadratic time."""
    if not isinstance(key, str | int):
        raise PickleError(f"{PLAIN} (a key is a {type(key).__name__})")
    if isinstance(key, int) and abs(key) >= LARGEST_KEY:
        raise PickleError(f"{PLAIN} (a key is a number of {key.bit_length()} bits)")


def _unused(*_: Any) -> None:
    """What checkpoints hold beside weights: sizes, devices, sets, bytes."""


def _count(what: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise PickleError(f"its pickle is damaged: {what} must be a whole number ≥ 0, got {_told(value)}")
    return value


def _told(value: Any) -> str:
    """A number as it is; of anything else what it is, since it may hold itself a billion times."""
    return str(value)[:40] if isinstance(value, int | float) else type(value).__name__


_CALLS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _unused,
    ("torch", "device"): _unused,
    ("_codecs", "encode"): _unused,
    ("builtins", "set"): _unused,
    ("__builtin__", "set"): _unused,
}
_TORCH_DTYPES = {kind.torch.removeprefix("torch.") for kind in DTYPES.values()}
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,  # whose members nobody needs
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": lambda: MARK,
}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
}
_GETS = {"BINGET", "LONG_BINGET"}
_PUTS = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}
_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GLOBAL": _named,
    "STACK_GLOBAL": _stack_named,
    "REDUCE": _called,
    "BUILD": _built,
    "BINPERSID": _persistent,
}
