"""The fusion rules: the algebra that each family's file states, and a network drawn before and after the family rewrote it."""

from __future__ import annotations

import importlib
import inspect
from html import escape

import torch
from networks import FAMILIES, Family

from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.record import graph_record
from fupruner.graph.trace import trace
from fupruner.report.drawings import SIZE, Box, Drawing, draw


def families() -> str:
    """One section per family, in the order of the catalogue."""
    return "\n\n".join(_section(family) for family in FAMILIES)


def _section(family: Family) -> str:
    module = importlib.import_module(f"fupruner.fusion.rules.{family.module}")
    title, _, algebra = inspect.cleandoc(module.__doc__ or "").partition("\n")
    before, after, names = _drawn(family)
    figure = (
        '<div class="rewrite">'
        f"<figure><figcaption>before</figcaption>{_svg(before)}</figure>"
        f"<figure><figcaption>after {escape(', '.join(names))}</figcaption>{_svg(after)}</figure></div>"
    )
    return f"## {title.rstrip('.')}\n\n{algebra.strip(chr(10))}\n\n{figure}\n\nThe code: `{module.__name__}`."


def _drawn(family: Family) -> tuple[Drawing, Drawing, list[str]]:
    """Draw the family's network before and after its rules, and name those that fired."""
    torch.manual_seed(0)
    network, x = family.network.eval(), (torch.randn(2, family.channels, 8, 8),)
    with torch.no_grad():
        for norm in (each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 1.5)
    graph = trace(network, x)
    if family.prepared:
        graph, _ = fuse_graph(graph, x, "aggressive", only=family.prepared)
    fused, log = fuse_graph(graph, x, "aggressive", only=family.rules)
    fired = list(dict.fromkeys(each.rule for each in log.fired))
    if family.rules[-1] not in fired:
        raise RuntimeError(f"{family.rules[-1]} did not fire on the network that is drawn for {family.module}")
    return (
        draw(f"{family.module}-before", "before", graph_record(graph, x), None),
        draw(f"{family.module}-after", "after", graph_record(fused, x), None),
        fired,
    )


def _svg(drawing: Drawing) -> str:
    width, height = f"{drawing.width + 16:.0f}", f"{drawing.height + 16:.0f}"
    edges = "".join(f'<path class="edge" d="{edge}"/>' for edge in drawing.edges)
    boxes = "".join(_box(box) for box in drawing.boxes)
    alternative = "; ".join(box.title for box in drawing.boxes)
    return (
        f'<svg role="img" aria-label="{escape(alternative)}" width="{width}" height="{height}" '
        f'viewBox="-8 -8 {width} {height}">{edges}{boxes}</svg>'
    )


def _box(box: Box) -> str:
    width, height = SIZE
    return (
        f'<g class="box k{box.kind}" transform="translate({box.x:.0f} {box.y:.0f})"><title>{escape(box.title)}</title>'
        f'<rect class="body" width="{width:.0f}" height="{height:.0f}" rx="4"/><rect class="band" width="5" height="{height:.0f}" rx="2"/>'
        f'<text x="12" y="15">{escape(box.label)}</text><text x="12" y="29" class="detail">{escape(box.detail)}</text></g>'
    )
