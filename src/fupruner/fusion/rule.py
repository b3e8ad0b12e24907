"""What a fusion rule is: it finds a place, gives a reason where it must not act, and rewrites."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from torch import Tensor, fx, nn

from fupruner.graph import edit

Level = Literal["basic", "aggressive", "request"]


@dataclass(frozen=True)
class Match:
    """A place where a rule may act.

    Attributes:
        node: the node that names the place in logs.
        inputs: where the rewritten region begins; the rule does not touch anything before.
        output: the node whose value must stay the same.
        nonnegative: inputs that the rule may take to be at least zero, because the graph guarantees it.
        parts: whatever the rule wants to find again when it rewrites.
    """

    node: fx.Node
    inputs: tuple[fx.Node, ...]
    output: fx.Node
    nonnegative: tuple[fx.Node, ...] = ()
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refuse:
    """A place that a rule recognises but must leave alone, and why."""

    node: fx.Node
    reason: str


@dataclass(frozen=True)
class Context:
    """What rules may ask about the graph. A new one is made whenever the graph has changed.

    Attributes:
        graph_module: the graph.
        spare: tensors of the place that is being rewritten whose memory nothing else holds, not even what an undone rewrite goes
            back to.
    """

    graph_module: fx.GraphModule
    spare: list[Tensor] = field(default_factory=list)

    @cached_property
    def shared(self) -> set[str]:
        """Modules that are called more than once or share parameters with others."""
        return edit.shared_modules(self.graph_module)

    def module(self, node: object) -> nn.Module | None:
        """The module that a node calls, or None."""
        return edit.module_of(self.graph_module, node)

    def is_spare(self, tensor: Tensor) -> bool:
        """Whether a rewrite may write to the memory of a tensor, instead of taking memory of its own."""
        return any(tensor is each for each in self.spare)

    def is_shared(self, node: fx.Node) -> bool:
        """Whether changing the module that a node calls would change another call too."""
        return str(node.target) in self.shared


class Rule(ABC):
    """One rewriting of the catalogue. Rules keep no state.

    Attributes:
        name: as given to ``fuse --rule``; unique.
        level: ``basic`` never adds work; ``aggressive`` adds filters that pruning is meant to remove; ``request`` runs only when asked
            for by name, because it serves a purpose of its own or undoes another rule.
    """

    name: ClassVar[str]
    level: ClassVar[Level]

    @abstractmethod
    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Look at one node: a match, a refusal with its reason, or None where the pattern does not begin."""

    @abstractmethod
    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Apply the rule and return the node that now carries the output's value.

        Modules are never changed in place: a rewrite makes new ones, so that it can be undone. The memory of spare tensors it may use.
        """


def only_user(node: fx.Node) -> fx.Node | None:
    """The single user of a node, or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None
