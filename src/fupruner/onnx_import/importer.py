"""ONNX file -> network, in one page: read, refuse what cannot be, build with a free batch if possible, check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from fupruner.errors import InputError
from fupruner.graph.check import FLOAT32_TOLERANCE
from fupruner.onnx_import.batch import fixed_batch, freed
from fupruner.onnx_import.build import build
from fupruner.onnx_import.graph import Graph, read_graph
from fupruner.onnx_import.module import MOST_INPUTS, ImportedNetwork
from fupruner.onnx_import.patterns import join
from fupruner.onnx_import.reader import read_model
from fupruner.onnx_import.refusals import refuse_kinds
from fupruner.onnx_import.verify import Reference, Sample, agrees, error_on


@dataclass(frozen=True)
class Imported:
    """What a file holds.

    Attributes:
        module: in eval mode; computes what the file computes.
        input_shape: of the first input without the batch; None where the file leaves a size open.
        notes: what the user should know, in words: another precision, a fixed batch, a check that was not possible.
    """

    module: ImportedNetwork
    input_shape: tuple[int, ...] | None
    notes: tuple[str, ...]


def import_onnx(path: str | Path) -> Imported:
    """Import an ONNX file as a network that can be fused, pruned and trained. The file is only read.

    The network is run against ONNX Runtime on random inputs before it is returned.

    Raises:
        InputError: the file cannot be read, holds what cannot be imported, or the import computes something else.
    """
    path = Path(path)
    model, notes = read_model(path)
    refuse_kinds(model.graph.node, path)
    graph = join(read_graph(model))
    if not graph.inputs:
        raise InputError(f"{path} has no input.")
    if len(graph.inputs) > MOST_INPUTS:
        raise InputError(f"{path} has {len(graph.inputs)} inputs; at most {MOST_INPUTS} can be imported.")
    network, more = _checked(model, graph, path)
    network.notes = (*notes, *more)
    return Imported(network, _image_shape(graph), network.notes)


def _checked(model: onnx.ModelProto, graph: Graph, path: Path) -> tuple[ImportedNetwork, tuple[str, ...]]:
    """The network with the batch as free as the file allows, checked against the runtime."""
    network = build(graph, path, None)
    reference = Reference(model, graph.inputs)
    sample = reference.sample((2, 1))
    if sample is None:
        return network, (f"{path.name} could not be run in ONNX Runtime, so the imported network is unchecked.",)
    batch = fixed_batch(graph) or (1 if sample.batch == 1 else None)
    if batch is None:
        return _require(network, sample, path), ()
    twice = reference.twice(sample)
    for candidate in (network, build(freed(graph, batch), path, None)):
        if agrees(candidate, sample) and agrees(candidate, twice):
            return candidate, ()
    network = _require(build(graph, path, batch), sample, path)
    if batch != 1:  # networks are measured one image at a time
        raise InputError(f"{path} works with a batch of {batch} only.", hint="Export it with a free batch axis.")
    return network, (
        f"{path.name} works with a batch of {batch} only; export it with a free batch axis for any other.",
    )


def _require(network: ImportedNetwork, sample: Sample, path: Path) -> ImportedNetwork:
    try:
        error = error_on(network, sample)
    except InputError as reason:
        raise InputError(f"{path} cannot be imported: {_located(reason)}") from None
    except Exception as reason:  # whatever an operator raises on values it does not expect
        raise InputError(f"{path} was imported, but does not run: {_located(reason)}") from reason
    if not error <= FLOAT32_TOLERANCE:
        raise InputError(
            f"{path} was imported, but computes something else than in ONNX Runtime: outputs differ by {error:.3g} (relative).",
            hint="This is a fault of the import; please give the PyTorch model instead.",
        )
    return network


def _located(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    notes = getattr(error, "__notes__", [])
    return f"{first} ({notes[0]})" if notes else first


def _image_shape(graph: Graph) -> tuple[int, ...] | None:
    sizes = (graph.inputs[0].shape or ())[1:]
    known = tuple(size for size in sizes if size is not None)
    return known if known and len(known) == len(sizes) else None
