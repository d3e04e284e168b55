"""ONNX operators with windows: Conv, ConvTranspose, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolkit.networks.importers import maps
from toolkit.networks.importers.onnx_calls import Call, Handler
from toolkit.networks.importers.tensors import AffineTensor
from toolkit.networks.importers.values import Value
from toolkit.networks.importers.windows import Windows, average_pool, max_pool, same_padding


def _sample(call: Call) -> AffineTensor:
    """The features, the batch axis left out."""
    x = call.tensor(0, "X")
    if len(x.shape) < 3 or x.shape[0] != 1:
        raise ValueError(f"the features must have shape (1, channels, …), got {x.shape}")
    return x.reshape(x.shape[1:])


def _batched(x: AffineTensor) -> AffineTensor:
    return x.reshape((1, *x.shape))


def _numbers(call: Call, key: str, default: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(n) for n in call.attributes.get(key, default))


def _windows(call: Call, kernel: tuple[int, ...], sizes: Sequence[int]) -> Windows:
    """The windows of a Conv or pooling node over an image of these sizes."""
    axes = len(kernel)
    pads = _numbers(call, "pads", (0,) * 2 * axes)
    windows = Windows(
        kernel,
        _numbers(call, "strides", (1,) * axes),
        pads[:axes],
        pads[axes:],
        _numbers(call, "dilations", (1,) * axes),
        bool(call.attributes.get("ceil_mode", 0)),
    )
    if len(sizes) != axes:
        raise ValueError(f"kernel {kernel} does not fit features with sizes {tuple(sizes)}")
    auto = call.attributes.get("auto_pad", b"NOTSET").decode()
    if auto == "VALID":
        return replace(windows, before=(0,) * axes, after=(0,) * axes)
    if auto.startswith("SAME"):
        before, after = same_padding(sizes, windows, auto == "SAME_UPPER")
        return replace(windows, before=before, after=after)
    return windows


def _kernel(call: Call, weight_sizes: tuple[int, ...]) -> tuple[int, ...]:
    kernel = _numbers(call, "kernel_shape", weight_sizes)
    if kernel != weight_sizes:
        raise ValueError(f"kernel_shape must be that of W, {weight_sizes}, got {kernel}")
    return kernel


def conv(call: Call) -> Value:
    """A convolution of one or two axes, grouped, dilated, padded in any way."""
    if not isinstance(call.at(0), AffineTensor):
        raise ValueError("the features must be input X, the others constants")
    x, weight = _sample(call), call.parameter(1, "W")
    if weight.ndim != len(x.shape) + 1 or weight.ndim not in (3, 4):
        raise ValueError(f"only 1-D and 2-D convolutions are supported, got W {weight.shape} and features {x.shape}")
    bias = call.optional(2, "B")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"B must have shape ({weight.shape[0]},), one number per channel, got {bias.shape}")
    windows = _windows(call, _kernel(call, weight.shape[2:]), x.shape[1:])
    groups = int(call.attributes.get("group", 1))
    geometry = (windows.stride, windows.before, windows.after, windows.dilation, groups)
    return _batched(call.compiler.applied(x, *maps.convolution(x.shape, weight, bias, *geometry)))


def conv_transpose(call: Call) -> Value:
    """The transpose of a convolution."""
    x, weight = _sample(call), call.parameter(1, "W")
    axes = len(x.shape) - 1
    kernel = _kernel(call, weight.shape[2:])
    pads = _numbers(call, "pads", (0,) * 2 * axes)
    stride, dilation = _numbers(call, "strides", (1,) * axes), _numbers(call, "dilations", (1,) * axes)
    extra = _numbers(call, "output_padding", (0,) * axes)
    windows = Windows(kernel, stride, pads[:axes], pads[axes:], dilation)
    before, after = windows.before, windows.after
    asked = call.attributes.get("output_shape")
    auto = call.attributes.get("auto_pad", b"NOTSET").decode()
    if asked is not None or auto.startswith("SAME"):
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        sizes = [n * s for n, s in zip(x.shape[1:], stride, strict=True)] if asked is None else list(asked)[-axes:]
        full = zip(x.shape[1:], stride, spans, extra, sizes, strict=True)
        total = [s * (n - 1) + e + span - size for n, s, span, e, size in full]
        if min(total) < 0:
            raise ValueError(f"output_shape {sizes} is larger than what the convolution gives")
        less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        before, after = (less, more) if auto == "SAME_UPPER" else (more, less)
    elif auto == "VALID":
        before = after = (0,) * axes
    groups, bias = int(call.attributes.get("group", 1)), call.optional(2, "B")
    geometry = (stride, before, after, dilation, groups, extra)
    return _batched(call.compiler.applied(x, *maps.transposed_convolution(x.shape, weight, bias, *geometry)))


def average(call: Call) -> Value:
    """AveragePool."""
    x = _sample(call)
    windows = _windows(call, _numbers(call, "kernel_shape", ()), x.shape[1:])
    return _batched(average_pool(call.compiler, x, windows, bool(call.attributes.get("count_include_pad", 0))))


def largest(call: Call) -> Value:
    """MaxPool."""
    if any(list(call.node.output)[1:]):
        raise ValueError("the places of the largest values, its second output, are not continuous")
    x = _sample(call)
    windows = _windows(call, _numbers(call, "kernel_shape", ()), x.shape[1:])
    return _batched(max_pool(call.compiler, x, windows))


def over_the_image(pool: Handler) -> Handler:
    """A reduction over all axes behind the channels: GlobalAveragePool, GlobalMaxPool."""

    def handler(call: Call) -> Value | list[Value]:
        axes = list(range(2, len(call.tensor(0, "X").shape)))
        return pool(replace(call, attributes={"axes": axes}))

    return handler
