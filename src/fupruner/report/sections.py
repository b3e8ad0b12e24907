"""What the page says, section by section, as plain values; the template only places them."""

from __future__ import annotations

from collections import Counter

from fupruner.records import FusionLog, Metric, Plan, Shipped
from fupruner.report import words
from fupruner.report.charts import charts
from fupruner.report.data import RunReport
from fupruner.report.drawings import drawings, table_rows
from fupruner.report.parts import Section, Table, present
from fupruner.report.plotting import Chart
from fupruner.report.training_section import training
from fupruner.report.use import use


def headline(run: RunReport) -> str:
    """Say the result in a dozen words."""
    old, new = run.summary.baseline, run.summary.final
    if words.original_kept(run.summary):
        return f"No faster network found for {run.summary.target}"
    pace = f"{run.summary.speedup:.2f}x faster" if run.summary.speedup > 1 else f"{run.summary.speedup:.2f}x the speed"
    grade = "" if new.latency_grade == "measured" else f" ({new.latency_grade})"
    before, after = map(run.metric.text, (old.accuracy, new.accuracy))
    return f"{pace} on {run.summary.target}{grade}, {run.metric.name} {before} → {after}"


def story(run: RunReport) -> str:
    """Say what was asked and what was done."""
    summary = run.summary
    asked = run.options.get("speedup")
    goal = f"a speed-up of {asked}x" if asked else "the fastest network within the requirement"
    judged = words.which_data(elsewhere=run.is_judged_elsewhere, of_the_search=False)
    tried = f" for {words.plural(len(run.attempts), 'attempt')}" if run.attempts else ""
    return (
        f"Asked for: {goal} on {summary.target}. Latency at batch 1 went from {words.latency(summary.baseline)} to "
        f"{words.latency(summary.final)}. The run took {words.duration(summary.seconds)}{tried}; the network that was "
        f"kept was trained for {words.plural(summary.epochs, 'epoch')}."
        + "".join(f" {line}" for line in (*judged, *words.certainty(summary, run.metric), *_refused(run)))
    )


def _refused(run: RunReport) -> list[str]:
    """Say which attempts were good enough in the search alone."""
    numbers = sorted(run.judgement.refused) if run.judgement else []
    if not numbers:
        return []
    noun = "Attempt" if len(numbers) == 1 else "Attempts"
    return [f"{noun} {words.ranges(numbers)} met the requirement in the search, but not there."]


def summary_table(run: RunReport) -> Table:
    """Baseline against final."""
    return Table("Before and after", ("", "Baseline", "Final", "Change"), words.before_after(run.summary, run.metric))


def sections(run: RunReport) -> list[Section]:
    """Everything below the headline; what the run has no records of is left out."""
    drawn = charts(run)
    parts = [
        _trade_off(run, drawn),
        _widths(run.plan, drawn) if run.plan else None,
        _times(run, drawn) if "times" in drawn else None,
        training(run, drawn) if "accuracy" in drawn else None,
        _network(run),
        _plan(run.plan) if run.plan else None,
        _fusion(run.fusion, "fusion", "Fusion") if run.fusion else None,
        _fusion(run.fusion_after, "fusion-after", "Fusion after pruning") if run.fusion_after else None,
        _device(run.shipped, run.metric) if run.shipped else None,
        _conditions(run),
        use(run),
    ]
    return [part for part in parts if part]


def _trade_off(run: RunReport, drawn: dict[str, Chart]) -> Section:
    rows = [
        (
            f"attempt {a.attempt}",
            "met" if a.satisfied else "not met",
            f"{a.asked_speedup:.2f}x",
            f"{a.speedup:.2f}x",
            words.milliseconds(a.latency_ms),
            run.metric.text(a.accuracy),
            run.metric.difference(a.drop, signed=False),
            words.count(a.macs),
            words.count(a.params),
        )
        for a in run.attempts
    ]
    columns = (
        "",
        "In the search" if run.is_judged_elsewhere else "Requirement",
        "Asked",
        "Speed-up",
        "Latency",
        run.metric.title,
        "Drop",
        "Multiply-adds",
        "Parameters",
    )
    tables = (Table("Attempts", columns, rows, text_columns=2),) if rows else ()
    lines = (
        "Up and to the left is better. The front joins the networks that no other one beats in both.",
        "Each network was timed in turn with the original, and is drawn at the original's latency divided by that speed-up.",
        *words.which_data(elsewhere=run.is_judged_elsewhere, of_the_search=True),
    )
    return Section("trade-off", f"{run.metric.title} against latency", lines, (drawn["trade-off"],), tables)


def _widths(plan: Plan, drawn: dict[str, Chart]) -> Section:
    removed = [name for name in plan.widths_before if not plan.widths_after.get(name, 0)]
    before = sum(plan.widths_before.values())
    after = sum(plan.widths_after.get(name, 0) for name in plan.widths_before)
    line = f"{before} output channels became {after}; {words.plural(len(removed), 'layer')} disappeared."
    rows = [
        (
            name,
            str(width),
            str(left) if (left := plan.widths_after.get(name, 0)) else "removed",
            words.change(width, left),
        )
        for name, width in plan.widths_before.items()
    ]
    added = [
        (name, "", str(width), "new") for name, width in plan.widths_after.items() if name not in plan.widths_before
    ]
    table = Table("Widths as a table", ("Layer", "Before", "After", "Change"), [*rows, *added], folded=True)
    return Section("widths", "Widths per layer", (line,), present(drawn, "widths"), (table,))


def _times(run: RunReport, drawn: dict[str, Chart]) -> Section:
    old = {layer.name: layer for layer in run.layer_times.before}
    new = {layer.name: layer for layer in run.layer_times.after}
    rows = [
        (
            name,
            (old.get(name) or new[name]).kind,
            words.milliseconds(old[name].ms) if name in old else "",
            words.milliseconds(new[name].ms) if name in new else "",
        )
        for name in dict.fromkeys([*old, *new])
    ]
    measured = all(layer.grade == "measured" for layer in (*old.values(), *new.values()))
    lines = (
        "Each operator timed inside the target's runtime; the sum need not equal the latency of the whole."
        if measured
        else "Estimated for each operator by the target's cost model; nothing was measured on the device.",
        "Before and after are matched by the names that operators have in the exported files.",
    )
    table = Table("Times as a table", ("Layer", "Operator", "Before", "After"), rows, text_columns=2, folded=True)
    return Section("times", "Time per layer", lines, (drawn["times"],), (table,))


def _plan(plan: Plan) -> Section:
    before, after = words.milliseconds(plan.baseline_ms), words.milliseconds(plan.predicted_ms)
    line = (
        f"{words.plural(len(plan.moves), 'move')} for the budget “{plan.budget}”, chosen by {plan.importance} "
        f"importance. Predicted time on {plan.target}: {before} → {after} ({plan.grade})."
    )
    rows = [
        (
            str(number),
            move.kind,
            move.where,
            words.ranges(move.closed),
            f"{move.loss:.3g}",
            words.milliseconds(move.saved_ms),
        )
        for number, move in enumerate(plan.moves, 1)
    ]
    columns = ("Move", "Kind", "Where", "Gates", "Predicted loss", "Saved")
    table = Table("Every move", columns, rows, text_columns=4, folded=True)
    return Section("plan", "Plan", (line,), tables=(*_carried(plan), table))


def _carried(plan: Plan) -> tuple[Table, ...]:
    """What became of the shortcuts that fusion turns into identity filters."""
    rows = [
        (name, str(before), str(plan.carried_after.get(name, 0)), str(before - plan.carried_after.get(name, 0)))
        for name, before in plan.carried_before.items()
    ]
    columns = ("Block", "Before", "Kept", "Closed")
    return (Table("Identity filters reserved for shortcuts, by block", columns, rows),) if rows else ()


def _fusion(log: FusionLog, anchor: str, title: str) -> Section:
    fired = Counter(each.rule for each in log.fired)
    tried = f" (inputs {', '.join(log.checked_inputs)})" if log.checked_inputs else ""
    line = (
        f"Level {log.level}: {words.plural(len(log.fired), 'rewrite')} fired, {len(log.refused)} refused. "
        f"Largest relative error of the rewritten network: {log.max_error:.1e} in float64, "
        f"{log.max_error_float32:.1e} in float32{tried}."
    )
    tables = (
        Table("Operators before and after fusion", ("Operator", "Before", "After", "Change"), words.operators(log)),
        Table("Rules that fired", ("Rule", "Times"), [(rule, str(times)) for rule, times in fired.most_common()]),
        Table(
            "Every rewrite",
            ("Rule", "Layer", "Detail"),
            [(f.rule, f.node, f.detail) for f in log.fired],
            3,
            folded=True,
        ),
        Table(
            "Refused, and why",
            ("Rule", "Layer", "Reason"),
            [(r.rule, r.node, r.reason) for r in log.refused],
            3,
            folded=True,
        ),
    )
    return Section(anchor, title, (line,), tables=tuple(table for table in tables if table.rows))


def _conditions(run: RunReport) -> Section:
    summary = run.summary
    facts = [
        ("Hardware", summary.hardware),
        ("FuPruner", summary.version),
        *((name, version) for name, version in run.versions.items() if name != "FuPruner"),
        ("Target", summary.target),
        ("Threads of the runtime", str(run.options.get("threads", "not recorded"))),
        ("Seed", str(run.options.get("seed", "not recorded"))),
        ("Wall-clock time", words.duration(summary.seconds)),
    ]
    options = [(name, str(value)) for name, value in run.options.items()]
    events = [(event.time, event.event, event.details()) for event in run.events]
    tables = (
        Table("Where it ran", ("", "Value"), facts, 2),
        Table("Options", ("Option", "Value"), options, 2, folded=True),
        Table("Log of events", ("Time", "Event", "Details"), events, 3, folded=True),
    )
    return Section("conditions", "Options and conditions", tables=tuple(table for table in tables if table.rows))


def _device(shipped: Shipped, metric: Metric) -> Section:
    lines = (
        f"Ships as {shipped.ships}, {shipped.precision}: {', '.join(shipped.files)}.",
        f"{metric.title} was judged in {shipped.judged_in}.",
    )
    old = {fact.name: fact for fact in shipped.before}
    new = {fact.name: fact for fact in shipped.after}
    rows = [
        (
            name,
            old[name].value if name in old else "",
            new[name].value if name in new else "",
            (new.get(name) or old[name]).source,
        )
        for name in dict.fromkeys([*old, *new])
    ]
    table = Table("What the tools say", ("", "Before", "After", "Source"), rows, text_columns=4)
    return Section("device", "On the device", lines, tables=(table,) if rows else ())


def _network(run: RunReport) -> Section | None:
    drawn = drawings(run)
    if not drawn:
        return None
    graphs = (run.graphs.before, run.graphs.fused, run.graph_after)
    columns = ("Operator", "Kind", "Reads", "Output", "Removed")
    tables = tuple(
        Table(f"{drawing.title} as a table", columns, table_rows(graph, run.plan), text_columns=4, folded=True)
        for drawing, graph in zip(drawn, (graph for graph in graphs if graph), strict=True)
    )
    line = (
        "Each box is an operator, read from top to bottom; the colour is its kind, and the striped share of a box the "
        "part of its channels that pruning removes. Scroll or drag to move, + and − to zoom."  # noqa: RUF001
    )
    return Section("network", "The network", (line,), tables=tables, drawings=tuple(drawn))
