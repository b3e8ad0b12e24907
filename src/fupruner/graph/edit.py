"""The only mutations of graphs: names, modules, nodes, and cleaning up after a change."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn


class Names:
    """Hands out dotted names that are not taken and do not lie inside one another."""

    def __init__(self, taken: set[str] | None = None) -> None:
        self.taken = set(taken or ())

    def fresh(self, base: str) -> str:
        """Return ``base``, or ``base`` with the first free number, and mark it as taken."""
        name, count = base, 0
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name


def fresh_name(graph_module: fx.GraphModule, base: str) -> str:
    """Return a name based on ``base`` at which nothing hangs in the module tree yet."""
    name, count = base, 0
    while has_attribute(graph_module, name):
        count += 1
        name = f"{base}_{count}"
    return name


def has_attribute(root: nn.Module, name: str) -> bool:
    """Whether a dotted name leads to a module, parameter or buffer."""
    value: object = root
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def get_attribute(root: nn.Module, name: str) -> Any:
    """The module, parameter or buffer at a dotted name."""
    value: Any = root
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _parent(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    *path, leaf = name.split(".")
    parent = root
    for part in path:
        if part not in parent._modules:
            parent.add_module(part, nn.Module())
        child = parent._modules[part]
        assert child is not None  # noqa: S101 - add_module above, or a module that was set
        parent = child
    return parent, leaf


def set_module(root: nn.Module, name: str, module: nn.Module) -> None:
    """Hang a module at a dotted name; parents that are missing become empty modules.

    A module that already hangs there only to hold children keeps its children.
    """
    parent, leaf = _parent(root, name)
    old = parent._modules.get(leaf)
    if old is not None:
        for child_name, child in old._modules.items():
            if child_name not in module._modules:
                module.add_module(child_name, child)
    parent._modules.pop(leaf, None)
    parent.add_module(leaf, module)


def set_tensor(root: nn.Module, name: str, value: Tensor) -> None:
    """Hang a parameter (or, for anything that is not one, a buffer) at a dotted name."""
    parent, leaf = _parent(root, name)
    parent._parameters.pop(leaf, None)
    parent._buffers.pop(leaf, None)
    if isinstance(value, nn.Parameter):
        parent.register_parameter(leaf, value)
    else:
        parent.register_buffer(leaf, value.detach())


def module_of(graph_module: fx.GraphModule, node: object) -> nn.Module | None:
    """The module that a node calls, or None if it calls none."""
    return layer_at(graph_module, str(node.target)) if isinstance(node, fx.Node) and node.op == "call_module" else None


def layer_at(root: nn.Module, name: str) -> nn.Module:
    """The module at a dotted name; what ``get_submodule`` does ten times slower, and this is asked most often."""
    module: Any = root
    for part in name.split("."):
        module = module._modules[part]
    return module  # type: ignore[no-any-return]


def calls(graph_module: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """Call sites of every module, by the module's name."""
    sites: dict[str, list[fx.Node]] = defaultdict(list)
    for node in graph_module.graph.nodes:
        if node.op == "call_module":
            sites[str(node.target)].append(node)
    return sites


def shared_modules(graph_module: fx.GraphModule) -> set[str]:
    """Names of modules that are called more than once or whose parameters are used elsewhere too."""
    owners: dict[int, set[str]] = defaultdict(set)
    shared = set()
    for name, sites in calls(graph_module).items():
        if len(sites) > 1:
            shared.add(name)
        for tensor in layer_at(graph_module, name)._parameters.values():
            if tensor is not None:
                owners[id(tensor)].add(name)
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            owners[id(get_attribute(graph_module, str(node.target)))].add("")
    for names in owners.values():
        if len(names) > 1:
            shared |= names - {""}
    return shared


def add_call(
    graph_module: fx.GraphModule, name: str, module: nn.Module, inputs: tuple[fx.Node, ...], after: fx.Node
) -> fx.Node:
    """Hang a new module under a fresh name and call it right after a node."""
    name = fresh_name(graph_module, name)
    set_module(graph_module, name, module.train(graph_module.training))
    with graph_module.graph.inserting_after(after):
        node = graph_module.graph.call_module(name, inputs)
    node.meta["path"] = after.meta.get("path", "")
    if "shape" in after.meta:
        node.meta["shape"] = after.meta["shape"]
    return node


def replace_module(graph_module: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    """Let the single call of a module call another one under the same name."""
    module.train(graph_module.training)
    set_module(graph_module, str(node.target), module)


def replace_call(graph_module: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    """Let one call of a module, which other nodes may call too, call another one under a name of its own."""
    name = fresh_name(graph_module, f"{node.target}_own")
    set_module(graph_module, name, module.train(graph_module.training))
    node.target = name


def bypass(node: fx.Node, by: fx.Node) -> None:
    """Let every user of a node read ``by`` instead, and erase the node."""
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


def clone(
    graph_module: fx.GraphModule, dtype: torch.dtype | None = None, *, share_tensors: bool = False
) -> fx.GraphModule:
    """Copy a graph with all modules, parameters and node metadata; nothing is shared with the original.

    Args:
        graph_module: left as it is.
        dtype: of the copy's floating-point tensors; every tensor is copied once, whether it is converted or not.
        share_tensors: leave the parameters and buffers those of the original: free, but neither graph may be trained.
    """
    memo: dict[int, object] = {}
    tensors = [*graph_module.parameters(), *graph_module.buffers()]
    if share_tensors:
        memo = {id(tensor): tensor for tensor in tensors}
    elif dtype is not None:
        for tensor in tensors:
            if tensor.is_floating_point():
                converted = tensor.detach().to(dtype, copy=True)
                is_parameter = isinstance(tensor, nn.Parameter)
                memo[id(tensor)] = nn.Parameter(converted, tensor.requires_grad) if is_parameter else converted
    copied = copy.deepcopy(graph_module, memo)
    copied.meta = dict(graph_module.meta)
    return copied


def twin(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A second graph over the same modules: it can be rewritten as long as modules are never changed in place."""
    copied = fx.GraphModule(graph_module, Snapshot(graph_module).graph)
    copied.meta = dict(graph_module.meta)
    for name, module in list(copied.named_modules()):
        if name and module._modules and type(module) is not nn.Module and not has_parts(module):
            set_module(copied, name, shallow(module))  # layers that only hang below it are replaced in one graph alone
    return copied.train(graph_module.training)


def shallow(module: nn.Module) -> nn.Module:
    """A second module with the same tensors and children; replacing any of them leaves the first one alone."""
    copied: nn.Module = module.__class__.__new__(module.__class__)
    copied.__dict__.update({k: v.copy() if isinstance(v, dict) else v for k, v in module.__dict__.items()})
    return copied


def mapped(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of a layer, and of its parts if it has any, with other tensors."""
    copied = shallow(layer)
    copied._parameters = {n: None if t is None else change(t) for n, t in layer._parameters.items()}  # type: ignore[misc]
    copied._buffers = {n: None if t is None else change(t) for n, t in layer._buffers.items()}
    if has_parts(layer):
        copied._modules = {n: None if m is None else mapped(m, change) for n, m in layer._modules.items()}
    return copied


def tensors_of(layer: nn.Module) -> list[Tensor]:
    """Parameters and buffers of a layer and its parts; not of the layers that merely hang below it."""
    parts = has_parts(layer)
    return [*layer.parameters(recurse=parts), *layer.buffers(recurse=parts)]


def clean(graph_module: fx.GraphModule) -> None:
    """Drop dead nodes and unused modules and tensors, check the graph, and generate its code again."""
    graph_module.graph.eliminate_dead_code()
    _delete_unused(graph_module)
    graph_module.graph.lint()
    graph_module.recompile()


def _delete_unused(graph_module: fx.GraphModule) -> None:
    used = {str(node.target) for node in graph_module.graph.nodes if node.op in ("call_module", "get_attr")}
    prefixes = {name.rpartition(".")[0] for name in used} | {""}
    for prefix in list(prefixes):
        parts = prefix.split(".")
        prefixes.update(".".join(parts[:i]) for i in range(len(parts)))
    owners = tuple(f"{name}." for name, module in graph_module.named_modules() if name in used and has_parts(module))
    for name, module in list(graph_module.named_modules()):
        if name.startswith(owners) or (name in used and has_parts(module)):
            continue
        kept = {
            n: child for n, child in module._modules.items() if _full(name, n) in used or _full(name, n) in prefixes
        }
        tensors = {**module._parameters, **module._buffers}
        if name in used or (len(kept) == len(module._modules) and all(_full(name, n) in used for n in tensors)):
            continue
        holder = (
            module if not name else nn.Module()
        )  # another graph may still call the layer that hung here: it stays whole
        for n, tensor in tensors.items():
            if _full(name, n) not in used:
                holder._parameters.pop(n, None)
                holder._buffers.pop(n, None)
            elif holder is not module:
                set_tensor(holder, n, tensor)
        holder._modules = dict(kept)
        if name and name in prefixes:
            parent, leaf = _parent(graph_module, name)
            parent._modules[leaf] = holder


def _full(name: str, leaf: str) -> str:
    return f"{name}.{leaf}" if name else leaf


def has_parts(module: nn.Module) -> bool:
    """Whether a layer's children belong to it; PyTorch's own layers have none, what hangs below them only shares their name."""
    return bool(module._modules) and not type(module).__module__.startswith("torch.nn.modules")


class Snapshot:
    """A graph as it was: nodes are copied, modules are remembered. Enough to go back if modules are never changed in place."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph = fx.Graph()
        mapping: dict[fx.Node, fx.Node] = {}
        for node in graph_module.graph.nodes:
            mapping[node] = self.graph.node_copy(node, lambda n: mapping[n])
        self.modules = {name: layer_at(graph_module, name) for name in calls(graph_module)}

    def restore(self, graph_module: fx.GraphModule) -> None:
        """Put the graph and its modules back; the snapshot is used up."""
        for name, module in self.modules.items():
            if not has_attribute(graph_module, name) or graph_module.get_submodule(name) is not module:
                set_module(graph_module, name, module)
        graph_module.graph = self.graph


def erase_dead(nodes: Iterable[fx.Node]) -> None:
    """Erase those of some nodes that nobody reads any more.

    Args:
        nodes: in graph order; some may have been erased already.
    """
    for node in reversed(list(nodes)):
        if not is_erased(node) and not node.users and node.op not in ("placeholder", "output"):
            node.graph.erase_node(node)


def is_erased(node: fx.Node) -> bool:
    """Whether a node has left its graph."""
    return bool(node._erased)


def in_order(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """Nodes of one graph in the order in which they run."""
    return sorted(nodes, key=lambda node: node._sort_key)
