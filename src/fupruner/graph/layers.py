"""Which ATen operators become layers: one builder per operator, from its arguments to an ``nn.Module``.

A builder returns the module and its tensor inputs, or None to leave the operator as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _ntuple

aten = torch.ops.aten


@dataclass(frozen=True)
class Parameter:
    """A parameter, buffer or constant of the captured model: its value and its dotted name ('' for a computed one)."""

    value: Any
    name: str = ""


@dataclass(frozen=True)
class Layer:
    """A layer raised from an operator: the module, the arguments it is called with, and the parameters that name it."""

    module: nn.Module
    inputs: tuple[Any, ...]
    owner: Parameter | None = None


Arguments = dict[str, Any]
Builder = Callable[[Arguments, tuple[int, ...]], Layer | None]

_CONVS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS: dict[int, type[nn.Module]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE: dict[int, type[nn.Module]] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def _is_parameter(value: object) -> bool:
    return isinstance(value, Parameter) and isinstance(value.value, Tensor)


def _assign(module: nn.Module, **tensors: Parameter | None) -> None:
    for name, parameter in tensors.items():
        if parameter is None:
            continue
        value = parameter.value
        if name in module._buffers:
            module._buffers[name] = value.detach()
        else:
            keep = isinstance(value, nn.Parameter)
            module._parameters[name] = (
                value if keep else nn.Parameter(value.detach(), requires_grad=value.is_floating_point())
            )


def _convolution(a: Arguments, shape: tuple[int, ...]) -> Layer | None:
    weight, bias = a["weight"], a["bias"]
    if not _is_parameter(weight) or not (bias is None or _is_parameter(bias)):
        return None
    w = weight.value
    dims = w.dim() - 2
    n = _ntuple(dims)
    transposed = a.get("transposed", False)
    padding = a["padding"] if isinstance(a["padding"], str) else n(_widen(a["padding"]))
    if len(shape) != dims + 2:
        return None  # an unbatched call; the operator stays as it is
    settings: dict[str, Any] = {
        "stride": n(_widen(a["stride"])), "padding": padding, "dilation": n(_widen(a["dilation"])), "groups": a["groups"],
        "bias": bias is not None, "device": "meta",
    }  # fmt: skip
    kernel = tuple(w.shape[2:])
    if transposed:
        settings["output_padding"] = n(_widen(a.get("output_padding", 0)))
        module = _TRANSPOSED[dims](w.shape[0], w.shape[1] * a["groups"], kernel, **settings)
    else:
        module = _CONVS[dims](w.shape[1] * a["groups"], w.shape[0], kernel, **settings)
    _assign(module, weight=weight, bias=bias)
    return Layer(module, (a["input"],), weight)


def _widen(value: Any) -> Any:
    """ATen allows one-element lists for every spatial axis."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _conv_transpose(a: Arguments, shape: tuple[int, ...]) -> Layer | None:
    return _convolution({**a, "transposed": True}, shape)


def _linear(a: Arguments, shape: tuple[int, ...]) -> Layer | None:
    weight, bias = a["weight"], a["bias"]
    if not _is_parameter(weight) or weight.value.dim() != 2 or not (bias is None or _is_parameter(bias)):
        return None
    module = nn.Linear(weight.value.shape[1], weight.value.shape[0], bias=bias is not None, device="meta")
    _assign(module, weight=weight, bias=bias)
    return Layer(module, (a["input"],), weight)


def _batch_norm(a: Arguments, shape: tuple[int, ...]) -> Layer | None:
    tensors = {k: a[k] for k in ("weight", "bias", "running_mean", "running_var")}
    if any(t is not None and not _is_parameter(t) for t in tensors.values()) or len(shape) not in _NORMS:
        return None
    if (tensors["weight"] is None) != (tensors["bias"] is None):
        return None
    tracked = tensors["running_mean"] is not None
    module = _NORMS[len(shape)](shape[1], eps=a["eps"], momentum=a["momentum"], affine=tensors["weight"] is not None,
                                track_running_stats=tracked)  # fmt: skip
    _assign(module, **tensors)
    owner = tensors["weight"] or tensors["running_mean"]
    return Layer(module, (a["input"],), owner)


def _instance_norm(a: Arguments, shape: tuple[int, ...]) -> Layer | None:
    tensors = {k: a[k] for k in ("weight", "bias", "running_mean", "running_var")}
    if any(t is not None and not _is_parameter(t) for t in tensors.values()) or len(shape) not in _INSTANCE:
        return None
    module = _INSTANCE[len(shape)](shape[1], eps=a["eps"], momentum=a["momentum"], affine=tensors["weight"] is not None,
                                   track_running_stats=not a["use_input_stats"])  # fmt: skip
    _assign(module, **tensors)
    return Layer(module, (a["input"],), tensors["weight"])


def _layer_norm(a: Arguments, shape: tuple[int, ...]) -> Layer | None:
    if not all(t is None or _is_parameter(t) for t in (a["weight"], a["bias"])):
        return None
    module = nn.LayerNorm(
        tuple(a["normalized_shape"]),
        eps=a["eps"],
        elementwise_affine=a["weight"] is not None,
        bias=a["bias"] is not None,
    )
    _assign(module, weight=a["weight"], bias=a["bias"])
    return Layer(module, (a["input"],), a["weight"])


def _group_norm(a: Arguments, shape: tuple[int, ...]) -> Layer | None:
    if not all(t is None or _is_parameter(t) for t in (a["weight"], a["bias"])) or (a["weight"] is None) != (
        a["bias"] is None
    ):
        return None
    module = nn.GroupNorm(a["num_groups"], shape[1], eps=a["eps"], affine=a["weight"] is not None)
    _assign(module, weight=a["weight"], bias=a["bias"])
    return Layer(module, (a["input"],), a["weight"])


def _prelu(a: Arguments, shape: tuple[int, ...]) -> Layer | None:
    if not _is_parameter(a["weight"]):
        return None
    module = nn.PReLU(a["weight"].value.numel())
    _assign(module, weight=a["weight"])
    return Layer(module, (a["self"],), a["weight"])


def _activation(make: Callable[[Arguments], nn.Module | None]) -> Builder:
    def build(a: Arguments, shape: tuple[int, ...]) -> Layer | None:
        module = make(a)
        return None if module is None else Layer(module, (a.get("self", a.get("input")),))

    return build


def _clip(a: Arguments) -> nn.Module | None:
    low, high = a.get("min_val", a.get("min")), a.get("max_val", a.get("max"))
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return None
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


def _window(a: Arguments) -> dict[str, Any]:
    """Settings of a pool; a stride that is not given is the kernel's."""
    stride = a["stride"] or None
    return {
        "kernel_size": _widen(a["kernel_size"]),
        "stride": _widen(stride),
        "padding": _widen(a["padding"]),
        "ceil_mode": a["ceil_mode"],
    }


def _max_pool(cls: Callable[..., nn.Module]) -> Builder:
    return _activation(lambda a: cls(dilation=_widen(a["dilation"]), **_window(a)))


def _avg_pool2d(a: Arguments) -> nn.Module:
    return nn.AvgPool2d(
        count_include_pad=a["count_include_pad"], divisor_override=a.get("divisor_override"), **_window(a)
    )


def _avg_pool1d(a: Arguments) -> nn.Module:
    return nn.AvgPool1d(count_include_pad=a["count_include_pad"], **_window(a))


def _flatten(a: Arguments) -> nn.Module | None:
    return nn.Flatten(a["start_dim"], a["end_dim"]) if a["start_dim"] >= 1 else None


def _mean(a: Arguments, shape: tuple[int, ...]) -> Layer | None:
    """A mean over both spatial axes that keeps them is global average pooling."""
    if not a["dim"] or a.get("dtype") is not None:
        return None
    axes = sorted(d % len(shape) for d in a["dim"])
    if len(shape) == 4 and axes == [2, 3] and a["keepdim"]:
        return Layer(nn.AdaptiveAvgPool2d(1), (a["self"],))
    return None


def _sizes(value: Any) -> Any:
    return tuple(value) if len(value) > 1 else value[0]


LAYERS: dict[Any, Builder] = {
    aten.conv1d.default: _convolution,
    aten.conv2d.default: _convolution,
    aten.conv3d.default: _convolution,
    aten.conv1d.padding: _convolution,
    aten.conv2d.padding: _convolution,
    aten.conv3d.padding: _convolution,
    aten.convolution.default: _convolution,
    aten.conv_transpose1d.default: _conv_transpose,
    aten.conv_transpose2d.input: _conv_transpose,
    aten.conv_transpose3d.input: _conv_transpose,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.instance_norm.default: _instance_norm,
    aten.layer_norm.default: _layer_norm,
    aten.group_norm.default: _group_norm,
    aten.prelu.default: _prelu,
    aten.relu.default: _activation(lambda a: nn.ReLU()),
    aten.relu6.default: _activation(lambda a: nn.ReLU6()),
    aten.hardtanh.default: _activation(_clip),
    aten.clamp.default: _activation(_clip),
    aten.silu.default: _activation(lambda a: nn.SiLU()),
    aten.mish.default: _activation(lambda a: nn.Mish()),
    aten.gelu.default: _activation(lambda a: nn.GELU(approximate=a["approximate"])),
    aten.hardswish.default: _activation(lambda a: nn.Hardswish()),
    aten.hardsigmoid.default: _activation(lambda a: nn.Hardsigmoid()),
    aten.sigmoid.default: _activation(lambda a: nn.Sigmoid()),
    aten.tanh.default: _activation(lambda a: nn.Tanh()),
    aten.elu.default: _activation(lambda a: nn.ELU(a["alpha"]) if a["scale"] == 1 and a["input_scale"] == 1 else None),
    aten.leaky_relu.default: _activation(lambda a: nn.LeakyReLU(a["negative_slope"])),
    aten.softplus.default: _activation(lambda a: nn.Softplus(a["beta"], a["threshold"])),
    aten.dropout.default: _activation(lambda a: nn.Dropout(a["p"])),
    aten.feature_dropout.default: _activation(lambda a: nn.Dropout2d(a["p"])),
    aten.max_pool1d.default: _max_pool(nn.MaxPool1d),
    aten.max_pool2d.default: _max_pool(nn.MaxPool2d),
    aten.max_pool3d.default: _max_pool(nn.MaxPool3d),
    aten.avg_pool1d.default: _activation(_avg_pool1d),
    aten.avg_pool2d.default: _activation(_avg_pool2d),
    aten.adaptive_avg_pool1d.default: _activation(lambda a: nn.AdaptiveAvgPool1d(_sizes(a["output_size"]))),
    aten.adaptive_avg_pool2d.default: _activation(lambda a: nn.AdaptiveAvgPool2d(_sizes(a["output_size"]))),
    aten.mean.dim: _mean,
    aten.flatten.using_ints: _activation(_flatten),
}
"""ATen operators and their builders; everything that is not here stays an operator in the graph."""
