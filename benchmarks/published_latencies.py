"""Latencies of devices that others published, batch 1, with their sources; for ``cost_models.py``."""

from __future__ import annotations

from dataclasses import dataclass

LUXONIS = "docs.luxonis.com/hardware/platform/rvc/rvc2 (Myriad X, two inference threads)"
NN_METER = "nn-Meter's stored predictions for the NCS2"
"""From github.com/microsoft/nn-Meter, tests/integration_test/data: ResNet-34, ResNet-50, MobileNet v1 and GoogLeNet of its own networks,
all others of torchvision. Left out: ResNeXt-50 and Inception v3,
since nn-Meter knows a convolution by one kernel size and no groups (ResNeXt-50 has the figure of Wide ResNet-50), and ShuffleNet v2,
of which its two converters say 8.3 and 20.8 ms."""
TF_TO_TRT = "github.com/NVIDIA-AI-IOT/tf_to_trt_image_classification, TX2, FP16"
TORCH2TRT = "github.com/NVIDIA-AI-IOT/torch2trt, Nano, FP16"
CORAL = "coral.ai/docs/edgetpu/benchmarks and coral.ai/models/all, USB Accelerator on a desktop"
SPARK = "github.com/kzzalews/sparkaisummit_movidius"


@dataclass(frozen=True)
class Row:
    """A published latency in milliseconds."""

    network: str
    ms: float
    source: str


PUBLISHED = {
    "ncs2": [
        Row("resnet18", 19.7, LUXONIS),
        Row("mobileone_s0", 11.1, LUXONIS),
        Row("resnet18", 21.9, NN_METER),
        Row("resnet34", 40.1, NN_METER),
        Row("mobilenet_v1", 18.8, NN_METER),
        Row("googlenet", 17.8, NN_METER),
        Row("resnet50", 59.0, NN_METER),
        Row("wide_resnet50_2", 130.4, NN_METER),
        Row("vgg16", 211.4, NN_METER),
        Row("alexnet", 20.8, NN_METER),
        Row("squeezenet1_0", 11.1, NN_METER),
        Row("densenet161", 144.1, NN_METER),
        Row("mobilenet_v2", 22.0, NN_METER),
        Row("mnasnet1_0", 24.4, NN_METER),
    ],
    "jetson-tx2": [
        Row("resnet50", 15.7, TF_TO_TRT),
        Row("resnet101", 29.9, TF_TO_TRT),
        Row("resnet152", 42.6, TF_TO_TRT),
        Row("resnetv2_50@299", 27.5, TF_TO_TRT),
        Row("resnetv2_101@299", 49.2, TF_TO_TRT),
        Row("resnetv2_152@299", 74.6, TF_TO_TRT),
        Row("googlenet", 7.98, TF_TO_TRT),
        Row("inception_v3@299", 26.3, TF_TO_TRT),
        Row("inception_v4@299", 52.1, TF_TO_TRT),
        Row("inception_resnet_v2@299", 53.0, TF_TO_TRT),
        Row("mobilenet_v1", 12.9, TF_TO_TRT),
        Row("mobilenet_v1_05@160", 3.95, TF_TO_TRT),
        Row("mobilenet_v1_025@128", 2.67, TF_TO_TRT),
        Row("vgg16", 38.2, TF_TO_TRT),
    ],
    "jetson-nano": [
        Row("resnet18", 11.4, TORCH2TRT),
        Row("resnet50", 29.8, TORCH2TRT),
        Row("resnet152", 72.3, TORCH2TRT),
        Row("squeezenet1_1", 4.34, TORCH2TRT),
        Row("vgg11", 55.1, TORCH2TRT),
        Row("alexnet", 14.7, TORCH2TRT),
    ],
    "edge-tpu": [
        Row("mobilenet_v1", 2.4, CORAL),
        Row("mobilenet_v2", 2.6, CORAL),
        Row("googlenet", 3.4, CORAL),
        Row("squeezenet1_1", 2.1, CORAL),
        Row("inception_v3@299", 42.8, CORAL),
        Row("inception_v4@299", 85, CORAL),
        Row("resnet50@299", 49, CORAL),
        Row("resnet152@299", 128, CORAL),
        Row("vgg16", 296, CORAL),
        Row("vgg19", 308, CORAL),
        Row("densenet121", 20, CORAL),
        Row("inception_resnet_v2@299", 57, CORAL),
        Row("cifar_resnet18@32", 11.45, "github.com/mouad-zouhdi/sparta-edgetpu, USB"),
    ],
    "ncs": [Row("mobilenet_v1", 38.0, SPARK), Row("squeezenet1_1", 38.6, f"{SPARK} (33.8 to 43.3)")],
}
