"""An imported network: layers under dotted names, and the steps that call them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.graph.edit import get_attribute
from fupruner.onnx_import.values import Array

MOST_INPUTS = 4
"""As many as ``ImportedNetwork.forward`` names."""


@dataclass(frozen=True)
class Step:
    """One operator: a layer of the network by its name, or a function; names of what it reads and makes."""

    run: str | Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    before: Callable[[Tensor], Tensor] | None
    label: str


class ImportedNetwork(nn.Module):
    """Computes what the ONNX graph computes, with layers that can be fused, pruned and trained.

    Takes the inputs of the file in their order, and returns its output, or a tuple of them.

    Args:
        steps: in the order in which they run.
        inputs: names.
        outputs: names.
        arrays: constants that stay on the host, by name.
        tensors: name -> dotted name of the parameter or buffer that holds a constant.
        batch: the only batch size that works, or None.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        arrays: dict[str, Array],
        tensors: dict[str, str],
        batch: int | None = None,
    ) -> None:
        super().__init__()
        self.steps, self.inputs, self.outputs, self.batch = tuple(steps), inputs, outputs, batch
        self.arrays, self.tensors = arrays, tensors
        self.notes: tuple[str, ...] = ()
        """What was changed on import, in words."""
        self._last_use = {name: i for i, step in enumerate(self.steps) for name in step.inputs}

    def forward(
        self, first: Tensor, second: Tensor | None = None, third: Tensor | None = None, fourth: Tensor | None = None
    ) -> Any:
        """Run all steps; each value is dropped after its last use."""
        # named one by one, since torch.export cannot leave the batch of a *inputs open
        inputs = self._checked((first, second, third, fourth))
        values: dict[str, Any] = {**self.arrays, **dict(zip(self.inputs, inputs, strict=True)), "": None}
        values |= {name: get_attribute(self, where) for name, where in self.tensors.items()}
        keep = {"", *self.outputs}
        for i, step in enumerate(self.steps):
            made = self._run(step, [values[name] for name in step.inputs])
            # one by one, since a proxy of several values cannot be unpacked
            parts = [made[k] for k in range(len(step.outputs))] if len(step.outputs) > 1 else [made]
            values.update(zip(step.outputs, parts, strict=True))
            for name in {*step.inputs} - keep:
                if self._last_use[name] == i:
                    del values[name]
        results = tuple(values[name] for name in self.outputs)
        return results[0] if len(results) == 1 else results

    def _run(self, step: Step, arguments: list[Any]) -> Any:
        try:
            if step.before is not None:
                arguments = [step.before(arguments[0]), *arguments[1:]]
            function = self.get_submodule(step.run) if isinstance(step.run, str) else step.run
            made = function(*arguments)
            return made[0] if len(step.outputs) == 1 and isinstance(made, tuple | list) else made
        except Exception as error:
            error.add_note(step.label)
            raise

    def _checked(self, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        count = len(self.inputs)
        inputs = tuple(x for x in given[:count] if x is not None)
        if len(inputs) != count or any(isinstance(x, Tensor) for x in given[count:]):
            total = sum(x is not None for x in given)
            raise InputError(
                f"The ONNX model takes {count} inputs ({', '.join(self.inputs)}), not {total}.",
                hint="Give all of them as a tuple to fupruner.fuse, prune or optimize in Python.",
            )
        if self.batch is not None and inputs[0].shape[0] != self.batch:
            raise InputError(
                f"The ONNX model was exported for a batch of {self.batch} only; it was given {inputs[0].shape[0]}.",
                hint="Export it with a free batch axis.",
            )
        return inputs
