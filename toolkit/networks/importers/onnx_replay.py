"""An imported network against onnxruntime: outputs at random points of several scales, each relative to its own size.

|found − expected| ≤ (10⁻⁵ + float32's own rounding) · max over the points of |expected|, output by output's scale, and
what rounds to the least numbers of the file's type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.arrays import FloatArray
from toolkit.networks.float_error import UNIT32
from toolkit.networks.importers.evaluation import stage_magnitude, stage_outputs
from toolkit.networks.importers.tensors import entries
from toolkit.networks.onnx_runtime import first_line, import_runtime, inference_session
from toolkit.networks.stages import Stage

if TYPE_CHECKING:
    from onnx import ModelProto

_SCALES = (0.1, 1.0, 10.0)  # of the points
_POINTS = 4  # per scale, half of them in the positive orthant
_AGREEMENT = 1e-5  # relative to the largest output at points of that scale
_COMPARED = 1 << 28  # multiplications a point: a few seconds in all
_ULPS = 16  # of float32, of an output's sum of absolute terms
LEAST32 = 2.0**-149  # float32's least number > 0
_LOOSEST = 1e-2  # what rounding is believed to explain, relative to the largest output


def runtime_session(model: ModelProto, output: str) -> Any:
    """An onnxruntime session of the model up to the value `output`; None where there is no onnxruntime."""
    if import_runtime() is None:
        return None
    own = type(model)()
    own.CopyFrom(model)
    if own.graph.output[0].name != output:
        del own.graph.output[:]
        own.graph.output.add().name = output
    del own.graph.value_info[:]  # what the file says of shapes is not needed
    return inference_session(own.SerializeToString())


def random_points(size: int) -> list[FloatArray]:
    """Points of each scale, shape (_POINTS, size): half of both signs, so that neurons switch, half positive."""
    rng = np.random.default_rng(0)
    signs = np.array([-1.0] * (_POINTS // 2) + [0.0] * (_POINTS - _POINTS // 2))[:, None]
    return [scale * rng.uniform(np.broadcast_to(signs, (_POINTS, size)), 1.0) for scale in _SCALES]


def runtime_outputs(session: Any, fed: Sequence[int], points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The points as the runtime takes them, in its own type, and its outputs there, as (k, outputs)."""
    given = session.get_inputs()[0]
    dtype = {"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(given.type, np.float32)
    rounded = points.astype(dtype)
    try:
        found = [session.run(None, {given.name: point.reshape(fed)})[0] for point in rounded]
    except Exception as error:
        raise ValueError(f"onnxruntime fails on inputs of shape {tuple(fed)}: {first_line(error)}") from None
    return rounded.astype(np.float64), np.asarray([np.ravel(v) for v in found], dtype=np.float64)


def check_onnx_replay(model: ModelProto, output: str, fed: Sequence[int], stages: Sequence[Stage]) -> None:
    """Raise ValueError where network and onnxruntime differ by more than rounding explains.

    Not done where onnxruntime is not installed, and for networks of more than _COMPARED; types it does not take are
    refused.
    """
    if sum(entries(layer) for stage in stages for _, layer in stage.sources) > _COMPARED:
        return
    if import_runtime() is None:
        return
    session = runtime_session(model, output)
    kind = session.get_inputs()[0].type
    unit = {"tensor(float)": UNIT32, "tensor(double)": 2.0**-53}.get(kind, 2.0**-10)
    least = {"tensor(float16)": 2.0**-24, "tensor(double)": 2.0**-1074}.get(kind, LEAST32)
    least *= _ULPS + max(layer.input_size for stage in stages for _, layer in stage.sources)  # one for each product
    for points in random_points(int(np.prod(fed))):
        given, expected = runtime_outputs(session, fed, points)
        found = stage_outputs(stages, given)
        if expected.shape != found.shape:
            raise ValueError(f"onnxruntime gives {expected.shape[1]} outputs, the imported network {found.shape[1]}")
        if not np.all(np.isfinite(expected)):
            continue  # the file's own type overflows there
        size = float(np.max(np.abs(expected)))
        rounding = _ULPS * unit * stage_magnitude(stages, given)
        allowed = max(_AGREEMENT, 16 * unit) * size + np.minimum(rounding, _LOOSEST * size) + least
        off = np.max(np.abs(found - expected), axis=0)
        if not np.all(off <= allowed):
            where = int(np.argmax(off - allowed))
            raise ValueError(
                f"the imported network and onnxruntime differ by {off[where]:.3g} in output {where}, whose size is "
                f"{size:.3g}, at an input of size {np.max(np.abs(given)):.3g}"
            )
