"""Pruning inside a training loop that belongs to somebody else."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from fupruner.errors import InputError
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import shapes
from fupruner.graph.trace import example_tuple, trace
from fupruner.models.resolve import as_module
from fupruner.options import Options
from fupruner.pruning.deadline import freeze
from fupruner.pruning.dynamic import Decision, DynamicPruning
from fupruner.pruning.dynamic_state import restore, state_of
from fupruner.pruning.factors import Factors
from fupruner.pruning.gates import GatedNetwork, require_prunable
from fupruner.pruning.importance import Importance, criterion
from fupruner.pruning.plan import GatePlan
from fupruner.pruning.prepare import fuse_as_planned, make_planner
from fupruner.pruning.schedule import BudgetSchedule
from fupruner.pruning.slim import slim
from fupruner.pruning.trade import best_factors, compensated_loss
from fupruner.pruning.verify import measured_speedup, shipping_speedup
from fupruner.results import LoopEpoch, LoopResult
from fupruner.targets.registry import get_target
from fupruner.training.custom import Calibration, Loss, first_of
from fupruner.training.modes import device_of, modes_kept, on_cpu
from fupruner.training.task import calibration_images as calibration_images_of

log = logging.getLogger(__name__)
_DEFAULTS = Options()


@final
class PruningCallback:
    """Prunes a network while a loop that it does not own trains it.

    Train ``callback.module`` instead of the model. It holds copies of the model's parameters, so make the optimizer from
    ``callback.module.parameters()``. Call ``on_step`` after each step of the optimizer and ``on_epoch`` after each epoch, and
    take the pruned network from ``finish``::

        pruning = fupruner.PruningCallback(model, images, loss=loss, calibration=loader, speedup=1.5, total_steps=2000)
        optimizer = torch.optim.SGD(pruning.module.parameters(), lr=0.01)
        for batch in loader:
            loss(pruning.module, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            pruning.on_step()
        result = pruning.finish()

    Gates close softly and may reopen until the deadline; then what is closed stays closed, multiplied by exactly 0. Nothing is
    replaced before ``finish``, so the optimizer and its state stay as they are. A loop that wants to train the rest of its
    steps at the smaller network's speed calls ``slim`` after the deadline and makes a new optimizer for what it returns.

    Args:
        model: a module, which is left untouched, or the path or name of a network.
        example_inputs: a tensor or tuple of tensors, batch first, on the CPU.
        loss: called as ``loss(module, batch)``; calls the module once and returns the mean loss of the batch, a scalar, or the
            loss of each sample, (N,). Importance is taken from it, in eval mode.
        calibration: batches without augmentation, such as a ``DataLoader``; asked for anew at each decision.
        speedup: wanted on the target, more than 1.
        total_steps: of the loop.
        target: for alignment, cost and timing.
        ship: number format of the file that is timed, see ``Options.ship``.
        inputs: what of a batch goes into the network; the first thing of it unless given.
        importance: a name of ``pruning.importance.CRITERIA``.
        fusion: level at which the pruned network is fused; where shortcuts become filters by it, their channels are gated too.
        calibration_images: how many scores are taken from.
        deadline: share of the steps after which gates are frozen, above 0, at most 1.
        decisions: how often gates are decided.
        plans: how many plans are made and judged as a whole at the first decision.

    ``state_dict`` and ``load_state_dict`` go into the loop's own checkpoints.

    Attributes:
        module: what to train; ``.to(device)``, ``.train()`` and ``.eval()`` work as on any module.
        step: steps that were counted.
        decisions: what was decided so far.

    Raises:
        InputError: an argument is out of range, there is nothing to prune, or the speed-up is out of reach.
    """

    def __init__(
        self,
        model: Any,
        example_inputs: Tensor | tuple[Tensor, ...],
        *,
        loss: Loss,
        calibration: Iterable[Any],
        speedup: float,
        total_steps: int,
        target: str = "cpu",
        ship: str = "auto",
        inputs: Callable[[Any], Tensor] = first_of,
        importance: str = "fisher",
        fusion: str = "auto",
        calibration_images: int = _DEFAULTS.calibration_images,
        deadline: float = _DEFAULTS.pruning_share,
        decisions: int = _DEFAULTS.decisions,
        plans: int = _DEFAULTS.plans,
    ) -> None:
        _check(speedup, total_steps, deadline, decisions, plans)
        self.example_inputs, self.fusion = example_tuple(example_inputs), fusion
        self.original = trace(as_module(model), self.example_inputs)
        shapes.propagate(self.original, self.example_inputs)
        data = Calibration(calibration, loss, inputs, self._place)
        self.target = get_target(target, ship).adapted(self.original, calibration_images_of(data))
        _, fused = fuse_graph(self.original, self.example_inputs, fusion, cost_model=self.target.cost_model())
        shipping = shipping_speedup(self.target, self.original, self.example_inputs)
        network, planner = make_planner(self.original, self.example_inputs, self.target, fused, shipping=shipping)
        require_prunable(network)
        self.module: fx.GraphModule = network.graph_module.train()
        planner.for_speedup(criterion("l2")(network, None, 0), speedup)  # refuse now what no plan can reach
        last = max(1, round(deadline * total_steps))
        budget = BudgetSchedule(speedup, max(1, round(last / decisions)), last, decisions)
        score = criterion(importance)
        self._pruning = DynamicPruning(
            network,
            planner,
            lambda n: score(n, data, calibration_images),
            budget,
            self._correct,
            self._judge(network, data),
        )
        self.step, self.frozen, self._plans = 0, False, plans
        self.epochs: list[LoopEpoch] = []

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was decided so far."""
        return tuple(self._pruning.decisions)

    def on_step(self) -> Decision | None:
        """Count a step of the optimizer; where the schedule says so, decide the gates and return what was decided."""
        self.step += 1
        if self.frozen or self.step not in self._pruning.schedule.steps():
            return None
        return self._decide()

    def on_epoch(self, metric: float | None = None) -> LoopEpoch:
        """Record the end of an epoch, with the loop's own figure for the network as it is now."""
        last = self.decisions[-1] if self.decisions else None
        seen = self.epochs[-1].step if self.epochs else 0
        record = LoopEpoch(
            epoch=len(self.epochs) + 1,
            step=self.step,
            metric=metric,
            predicted_speedup=last.predicted_speedup if last else 1.0,
            closed=last.closed if last else 0,
            reopened=sum(d.reopened for d in self.decisions if d.step > seen),
        )
        self.epochs.append(record)
        return record

    def state_dict(self) -> dict[str, Any]:
        """All that the loop's own checkpoint has to keep of the pruning, the weights of ``module`` included.

        Tensors and plain values only, so that ``torch.load(..., weights_only=True)`` reads it. Save the optimizer beside it.
        """
        network = self._pruning.network
        return {
            "step": self.step,
            "frozen": self.frozen,
            "epochs": [vars(epoch) for epoch in self.epochs],
            "pruning": state_of(self._pruning),
            "network": network.graph_module.state_dict(),
            "cut": None if self.module is network.graph_module else self.module.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave, in a callback that was just made with the same arguments.

        Where the network was cut already, ``module`` is the cut network afterwards, with new parameters; so make the optimizer
        after this, and then load its state.

        Raises:
            InputError: the state is that of another network or of other arguments, or this callback has cut its network.
        """
        network = self._pruning.network
        if self.module is not network.graph_module:
            raise InputError("This network is cut already; a state goes into a callback that was just made.")
        restore(self._pruning, state["pruning"])
        try:
            network.graph_module.load_state_dict(state["network"])
        except RuntimeError as error:
            raise InputError(f"The state is that of another network: {str(error).splitlines()[-1].strip()}") from None
        self.step, self.frozen = state["step"], state["frozen"]
        self.epochs = [LoopEpoch(**epoch) for epoch in state["epochs"]]
        if state["cut"] is not None:
            self.slim().load_state_dict(state["cut"])

    def slim(self) -> fx.GraphModule:
        """Cut what is closed out of the network, exactly; ``module`` is the result from now on, with new parameters.

        Raises:
            InputError: the deadline has not passed.
        """
        if not self.frozen:
            raise InputError(
                f"Gates are decided until step {self._pruning.schedule.deadline}; this is step {self.step}.",
                hint="Call slim() after that step, or leave it to finish().",
            )
        if self.module is self._pruning.network.graph_module:
            training, device = self.module.training, device_of(self.module)
            with on_cpu(self.module):
                slimmed = slim(self._pruning.network, self.example_inputs)
            self.module = slimmed.train(training).to(device)
        return self.module

    def finish(self) -> LoopResult:
        """End the loop: cut what is closed, fuse again what that freed, and time the result against the original.

        Where the loop ended before the deadline, gates are decided for the last time now.
        """
        if not self.frozen:
            log.warning(
                "The loop ended at step %d, before the deadline at step %d: gates closed without training behind them.",
                self.step,
                self._pruning.schedule.deadline,
            )
            self._decide(last=True)
        slimmed = self.slim().cpu().eval()
        fused = self._fused(slimmed)
        plan, network = self._pruning.plan, self._pruning.network
        assert plan is not None  # noqa: S101 - gates are frozen
        return LoopResult(
            module=fused,
            plan=plan.record,
            groups=tuple(group.record() for group in network.groups.groups),
            speedup=self._speedup(fused),
            decisions=self.decisions,
            epochs=tuple(self.epochs),
        )

    # -- parts -------------------------------------------------------------------------------------------------------

    def _judge(self, network: GatedNetwork, data: Calibration) -> Callable[[GatePlan], float] | None:
        """Loss of what a plan would leave; plans of a network that takes several inputs are not judged."""
        if len(self.example_inputs) > 1:
            return None
        of_plan = compensated_loss(network, self.original, data)

        def loss(plan: GatePlan) -> float:
            with on_cpu(self.module):
                return of_plan(plan)

        return loss

    def _correct(self, importance: Importance, speedup: float) -> Factors:
        """Factors on scores, decided by whole plans; none where these are not judged."""
        loss = self._pruning.judge
        return {} if loss is None else best_factors(self._pruning.planner, importance, speedup, loss, plans=self._plans)

    def _decide(self, *, last: bool = False) -> Decision:
        deadline = self._pruning.schedule.deadline
        step = deadline if last else self.step
        exact = torch.autocast(device_of(self.module).type, enabled=False)
        with modes_kept(self.module), torch.inference_mode(False), torch.enable_grad(), exact:
            self._pruning.decide(step)
            if step >= deadline:
                with on_cpu(self.module):  # where graphs are cut and timed
                    freeze(self._pruning, self.example_inputs, self._cut_speedup, log.info)
                self.frozen = True
        decision = self.decisions[-1]
        log.info(
            "step %d: %.2fx predicted, %d gates closed, %d reopened",
            step, decision.predicted_speedup, decision.closed, decision.reopened,
        )  # fmt: skip
        return decision

    def _fused(self, slimmed: fx.GraphModule) -> fx.GraphModule:
        """As it ships: what pruning freed is fused again."""
        network, cost_model = self._pruning.network, self.target.cost_model()
        return fuse_as_planned(network, slimmed.eval(), self.example_inputs, self.fusion, cost_model)[0]

    def _cut_speedup(self, cut: fx.GraphModule, enough: float) -> float:
        return self._speedup(self._fused(cut), enough)

    def _speedup(self, module: fx.GraphModule, confirm_from: float = math.inf) -> float:
        """Measured in turn with the original, as both ship."""
        with tempfile.TemporaryDirectory(prefix="fupruner-") as folder:
            file = Path(folder) / f"original{self.target.suffix}"
            (self.target.reference or self.target).export(self.original, self.example_inputs, file)
            return measured_speedup(self.target, file, module, self.example_inputs, confirm_from=confirm_from)

    def _place(self, batch: Any) -> Any:
        device = device_of(self.module)
        return pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, batch)


def _check(speedup: float, total_steps: int, deadline: float, decisions: int, plans: int) -> None:
    if not speedup > 1:
        raise InputError(f"The speed-up is {speedup}; it must be more than 1.")
    if total_steps < 1:
        raise InputError(f"The loop has {total_steps} steps; it needs at least one.")
    if not 0 < deadline <= 1:
        raise InputError(f"The deadline is {deadline}; it is a share of the steps, above 0 and at most 1.")
    for count, what in ((decisions, "decisions cannot be taken"), (plans, "plans cannot be made")):
        if count < 1:
            raise InputError(f"{count} {what}; at least one is needed.")
