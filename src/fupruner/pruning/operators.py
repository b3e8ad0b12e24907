"""Which layers and operators work on channels one by one."""

from __future__ import annotations

from torch import nn

FEW_GROUPS, NARROW_GROUP = 4, 4
"""A convolution of at most so many groups, of more than so many channels each, is cut inside its groups."""
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

ELEMENTWISE = {
    "add", "sub", "mul", "div", "maximum", "minimum", "relu", "sigmoid", "tanh", "silu", "gelu", "hardswish", "hardsigmoid", "hardtanh",
    "leaky_relu", "elu", "exp",
    "sqrt", "rsqrt", "pow", "abs", "neg", "clamp", "clamp_min", "clamp_max", "mish", "softplus", "erf", "square",
    "log_sigmoid", "relu6", "rsub", "reciprocal", "round", "floor", "sign", "where", "to", "_to_copy", "dropout", "celu", "selu",
}  # fmt: skip
"""Operators whose output at one place depends on their operands at that place alone."""

PER_CHANNEL = (
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.Mish, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.ELU, nn.LeakyReLU,
    nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout2d,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
"""Layers without parameters that treat every channel alike and on its own."""

SPATIAL = {"max_pool2d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d",
           "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_nearest_exact2d",
           "adaptive_max_pool1d", "max_pool2d_with_indices"}  # fmt: skip
"""Operators that work on the last two axes, channel by channel."""
