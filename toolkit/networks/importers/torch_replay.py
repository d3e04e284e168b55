"""An imported torch network against its module: outputs at points of five scales, in double precision.

Every output is compared relative to its own size, so that a small one is not hidden by the others.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.importers.chain import as_array
from toolkit.networks.importers.evaluation import stage_magnitude, stage_outputs
from toolkit.networks.importers.torch_calls import import_torch
from toolkit.networks.stages import Stage

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

_SCALES = (0.0, 1e-3, 1.0, 30.0, 1e3)  # of the points compared: from biases alone to weights alone
_POINTS = 4  # per scale, half of them in the positive orthant
_AGREEMENT = 1e-7  # relative to the largest value of that output at points of that scale, in double precision
_ULPS = 64  # units in the last place of an output's own sum of absolute terms


def _points(shape: Sequence[int]) -> list[FloatArray]:
    """Points of each scale, shape (_POINTS, *shape): half of both signs, so that neurons switch, half positive."""
    rng = np.random.default_rng(0)
    signs = np.array([-1.0] * (_POINTS // 2) + [0.0] * (_POINTS - _POINTS // 2)).reshape(-1, *(1,) * len(shape))
    return [scale * rng.uniform(np.broadcast_to(signs, (_POINTS, *shape)), 1.0) for scale in _SCALES]


def refresh(module: Module, shape: Sequence[int]) -> None:
    """Run the module once: pruning and weight normalisation renew `weight` in a hook before each forward."""
    if any(part._forward_pre_hooks for part in module.modules()):
        output_of(module, np.zeros((1, *shape)), *home_of(module))


def in_double(module: Module) -> Module:
    """A copy in double precision, with the weights that pruning and normalisation give now, to the last bit."""
    torch = import_torch()
    from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

    own = copy.deepcopy(module).cpu()
    for part in list(own.modules()):
        made: dict[str, Tensor] = {}
        if is_parametrized(part):
            made = {name: getattr(part, name) for name in part.parametrizations}
            part.__class__ = type_before_parametrizations(part)  # torch's own remover would change the original's class
            del part.parametrizations
        elif part._forward_pre_hooks:
            made = {key: value for key, value in vars(part).items() if isinstance(value, torch.Tensor)}
            part._forward_pre_hooks.clear()
        for name, values in made.items():
            vars(part).pop(name, None)
            part.register_parameter(name, torch.nn.Parameter(values.detach().clone()))
    return own.double()


def check_torch_replay(
    module: Module, stages: Sequence[Stage], shape: Sequence[int], run: Module | None = None
) -> None:
    """Raise ValueError unless stages and module agree at points of every scale, on every output by itself.

    The module is run in double precision, where only summation order separates the two: |difference| ≤ 1e-7 of that
    output's largest value at that scale, plus its rounding (64 ulp of Σ|w||x| through the stages). A module that
    cannot be copied to double runs in its own precision, with both terms in that precision's ulps. run: what to compare
    with in the module's place, point by point.
    """
    torch = import_torch()
    dtype, device = torch.float64, "cpu"
    output = output_of if run is None else _one_by_one
    if run is None:
        try:
            run = in_double(module)
        except (RuntimeError, TypeError, NotImplementedError):
            run, (dtype, device) = module, home_of(module)
    eps = float(torch.finfo(dtype).eps)
    for points in _points(shape):
        expected = output(run, points, dtype, device)
        given = as_array(torch.as_tensor(points, dtype=dtype)).reshape(len(points), -1)  # as the module sees them
        found = stage_outputs(stages, given)
        if expected.shape != found.shape:
            raise ValueError(f"{type(module).__name__} has outputs {expected.shape}, its layers give {found.shape}")
        own_size = np.max(np.abs(expected), axis=0)
        allowed = max(_AGREEMENT, 16 * eps) * own_size + _ULPS * eps * stage_magnitude(stages, given)
        if not np.all(np.abs(found - expected) <= allowed):
            where = int(np.argmax(np.max(np.abs(found - expected) - allowed, axis=0)))
            raise ValueError(
                f"the layers of {type(module).__name__} do not add up to its own output {where}: at an input of size "
                f"{np.max(np.abs(points)):g} they differ by {np.max(np.abs(found - expected)[:, where]):.3g}"
            )


def _one_by_one(module: Module, points: FloatArray, dtype: torch.dtype, device: torch.device | str) -> FloatArray:
    return np.concatenate([output_of(module, point[None], dtype, device) for point in points])


def output_of(module: Module, points: FloatArray, dtype: torch.dtype, device: torch.device | str) -> FloatArray:
    """The module's output at points, shape (points, outputs)."""
    torch = import_torch()
    try:
        values = module(torch.as_tensor(points, dtype=dtype, device=device))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{type(module).__name__} fails on inputs of shape {points.shape[1:]}: {reason}") from None
    if not isinstance(values, torch.Tensor) or values.shape[:1] != (len(points),):
        raise ValueError(f"{type(module).__name__} must give one row of outputs per input, got {type(values).__name__}")
    return as_array(values).reshape(len(points), -1)


def may_have_doubles(module: Module) -> bool:
    """Whether some parameter or buffer is of double precision; a module without any may be run in it."""
    torch = import_torch()
    kinds = {tensor.dtype for group in (module.parameters(), module.buffers()) for tensor in group}
    return torch.float64 in kinds or not any(kind.is_floating_point for kind in kinds)


def home_of(module: Module) -> tuple[torch.dtype, torch.device]:
    """dtype and device of the module's first floating-point parameter or buffer."""
    torch = import_torch()
    tensors = (tensor for group in (module.parameters(), module.buffers()) for tensor in group)
    first = next((tensor for tensor in tensors if tensor.dtype.is_floating_point), torch.zeros(()))
    return first.dtype, first.device
