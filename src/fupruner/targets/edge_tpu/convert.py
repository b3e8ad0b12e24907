"""Modules to TFLite: channels last, one image, int8 throughout. The libraries for it are an extra, and heavy: imported on use."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from fupruner.errors import TargetError
from fupruner.targets.check import batch_of
from fupruner.targets.onnx_file import float_inputs, inference_copy
from fupruner.targets.runtime import Array

EXTRA = "pip install 'fupruner[targets]'"


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what these libraries print and warn of while they are imported and at work; absent ones are named.

    Raises:
        TargetError: a library is not installed.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except ImportError as error:
        raise TargetError(f"TFLite files need libraries that are not installed: {error}.", hint=EXTRA) from None
    finally:
        logging.disable(before)


def to_float_tflite(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> bytes:
    """A float32 TFLite model for one image (1, H, W, C) of a module that takes one input (N, C, H, W).

    Raises:
        TargetError: there is more than one input, the libraries are missing, or an operator has no TFLite form.
    """
    image = batch_of(float_inputs(example_inputs), 1)
    if len(image) != 1 or image[0].dim() != 4:
        shapes = ", ".join("x".join(map(str, x.shape)) for x in image)
        raise TargetError(f"TFLite files are written for networks of one image; this one takes {shapes}.")
    with quiet(), tempfile.TemporaryDirectory(prefix="fupruner-") as folder:
        import litert_torch  # noqa: PLC0415 - heavy, and an extra

        try:
            network = litert_torch.to_channel_last_io(inference_copy(module), args=[0])
            path = Path(folder) / "float.tflite"
            litert_torch.convert(network, (image[0].permute(0, 2, 3, 1).contiguous(),)).export(str(path))
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise TargetError(f"The module cannot be written as TFLite: {first or type(error).__name__}") from error
        return path.read_bytes()


def quantise(model: bytes, images: Sequence[Array]) -> bytes:
    """Static int8 by the range of each activation over images (1, H, W, C); weights per channel, of linear layers per tensor.

    Linear layers with a scale per channel make an old runtime's output a constant, without a word.

    Raises:
        TargetError: the libraries are missing, or an operator cannot be quantised.
    """
    with quiet():
        from ai_edge_quantizer import (  # noqa: PLC0415 - heavy, and an extra
            calibrator,
            quantizer,
            recipe,
            recipe_manager,
        )

        rules: list[dict[str, Any]] = recipe.static_wi8_ai8()
        settings = rules[0]["op_config"]
        weights = {**settings["weight_tensor_config"], "granularity": "TENSORWISE"}
        linear = {
            **rules[0],
            "operation": "FULLY_CONNECTED",
            "op_config": {**settings, "weight_tensor_config": weights},
        }
        try:
            worker, manager = quantizer.Quantizer(model), recipe_manager.RecipeManager()
            worker.load_quantization_recipe([*rules, linear])
            manager.load_quantization_recipe([*rules, linear])
            key, name = _signature(model)
            seen = calibrator.Calibrator(model, num_threads=1, qsv_update_func=_widened)
            seen.calibrate({key: [{name: image} for image in images]}, manager)
            return bytes(worker.quantize(seen.get_model_qsvs()).quantized_model)
        except Exception as error:
            raise TargetError(f"The network cannot be quantised: {str(error).strip().partition(chr(10))[0]}") from error


def _widened(known: dict[str, Array], new: dict[str, Array]) -> dict[str, Array]:
    """The range that holds both; the quantiser's own moving average would clip what a few images reach."""
    if not known:
        return new
    return {"min": np.minimum(known["min"], new["min"]), "max": np.maximum(known["max"], new["max"])}


def _signature(model: bytes) -> tuple[str, str]:
    (key, entry), *_ = open_interpreter(model).get_signature_list().items()
    return str(key), str(entry["inputs"][0])


def open_interpreter(model: bytes, threads: int = 1) -> Any:
    """A LiteRT interpreter with its memory allocated.

    Raises:
        TargetError: the library is missing, or refuses the model.
    """
    with quiet():
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - an extra

        try:
            interpreter = Interpreter(model_content=model, num_threads=threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise TargetError(f"LiteRT refuses the file: {error}") from None
    return interpreter


def input_shape(model: bytes) -> tuple[int, ...]:
    """Shape of the input of a model without the batch, channels first."""
    _, height, width, channels = (int(size) for size in open_interpreter(model).get_input_details()[0]["shape"])
    return channels, height, width


def run_interpreter(interpreter: Any, image: Array) -> list[Array]:
    """Run one image (1, C, H, W) in float32; every output in float32."""
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], _to_integers(np.ascontiguousarray(image.transpose(0, 2, 3, 1)), entry))
    interpreter.invoke()
    return [_to_floats(interpreter.get_tensor(out["index"]), out) for out in interpreter.get_output_details()]


def _to_integers(values: Array, entry: Any) -> Array:
    scale, zero = entry["quantization"]
    if not scale:
        return values
    limits = np.iinfo(entry["dtype"])
    whole: Array = np.clip(np.round(values / scale + zero), limits.min, limits.max).astype(entry["dtype"])
    return whole


def _to_floats(values: Array, entry: Any) -> Array:
    scale, zero = entry["quantization"]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale) if scale else values
