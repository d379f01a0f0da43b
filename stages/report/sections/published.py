"""Our numbers beside the published ones, where data set, root, scenario and tasks are the same."""

from __future__ import annotations

from collections.abc import Iterator

from stages.report.numbers.columns import ACCURACY, Column
from stages.report.page.document import (
    Block,
    Data,
    Facts,
    Fold,
    Paragraph,
    Section,
    Table,
    quoted,
)
from stages.report.page.document import Value as Cell
from stages.report.reading.published import STRATEGIES, Published, Value, published
from stages.report.reading.runs import Run, Study
from stages.report.sections.caveats import caveats, differing, on_costs
from stages.report.sections.results import COSTS_OF_PAPER
from stages.report.sections.weights import is_random
from stages.report.terminal.remarks import FLOOR
from stages.report.terminal.table import MISSING, Spread, as_in_paper, cell, spread

_SOURCE = (
    "S. Stoychev, N. Churamani, H. Gunes: Latent Generative Replay for Resource-Efficient "
    "Continual Learning of Facial Expressions"
)


def section(study: Study, prefix: str) -> Section | None:
    """None: nothing in the paper corresponds."""
    beside = published(study.first)
    if beside is None:
        return None
    blocks: list[Block] = [
        Paragraph(f"Published: {beside.source} ({_SOURCE}), means over 3 runs."),
        *_warnings(study, beside),
        _accuracy(study, beside, prefix),
        Paragraph("**What is known of the published numbers:**"),
        Facts(tuple(caveats(study, beside))),
        Fold(
            "Costs beside the published ones",
            (Paragraph(on_costs(study.first), "warning"), _costs(study, beside, prefix)),
        ),
    ]
    return Section(f"{prefix}published", "Beside the paper", tuple(blocks))


def _warnings(study: Study, beside: Published) -> Iterator[Paragraph]:
    if is_random(study.first.weights):
        yield Paragraph(
            "**Levels are not comparable**: our root is random, the published one was trained. "
            "Only the order of the strategies can be looked at.",
            "warning",
        )
    settings = list(differing(study, beside))
    if settings:
        yield Paragraph(f"**Our settings differ**: {'; '.join(settings)}.", "warning")


# --- tables ------------------------------------------------------------------------------


def _accuracy(study: Study, beside: Published, prefix: str) -> Table:
    rows: list[tuple[str, ...]] = []
    exact: list[tuple[Cell, ...]] = []
    floor = beside.settings.floor
    theirs: Value | None = Value(floor, None, 0) if floor is not None else None
    ours = Spread(study.floor, None, 1)
    rows.append((FLOOR, f"{100 * study.floor:.2f}", _said(theirs), _less(ours, theirs)))
    less = study.floor - floor if floor is not None else None
    exact.append((FLOOR, study.floor, None, None, floor, None, None, less))
    for label, strategy, run in _entries(study):
        theirs = beside.values.get((strategy, ACCURACY.key))
        found = spread(run, ACCURACY.measure) if run else None
        said = cell(run, ACCURACY) if run else MISSING
        rows.append((quoted(label), said, _said(theirs), _less(found, theirs)))
        exact.append(_exact(label, found, theirs))
    return Table(
        f"{prefix}published",
        "Accuracy, ours and published",
        ("strategy", "ours %", "published %", "difference, points"),
        tuple(rows),
        Data(_HEAD, tuple(exact)),
        "Mean ± sample standard deviation. – not published. Difference: ours less the published. "
        "The published spreads and floor are of the run logs.",
    )


_HEAD = (
    "strategy", "ours", "ours_sd", "ours_n", "published", "published_sd", "published_n",
    "difference",
)  # fmt: skip


def _costs(study: Study, beside: Published, prefix: str) -> Table:
    rows, exact = [], []
    for label, strategy, run in _entries(study):
        for column in COSTS_OF_PAPER:
            theirs = beside.values.get((strategy, column.key))
            if theirs is None or run is None:
                continue
            found = spread(run, column.measure)
            said = cell(run, column) or "–"
            mean = f"{theirs.mean * column.scale:.{column.digits}f}"
            less = _cost_less(found, theirs, column)
            name = column.heading.removesuffix(" ▼")
            rows.append((quoted(label), name, said, mean, less))
            label_, *numbers = _exact(label, found, theirs)
            exact.append((label_, column.key, *numbers))
    return Table(
        f"{prefix}published-costs",
        "Costs, ours and published",
        ("strategy", "cost", "ours", "published", "difference"),
        tuple(rows),
        Data((_HEAD[0], "measure", *_HEAD[1:]), tuple(exact)),
        "A seed's. – not measured. 1 MB = 1e6 bytes; the paper's MB are MiB and were converted.",
        printed=False,
    )


def _entries(study: Study) -> Iterator[tuple[str, str, Run | None]]:
    """Label, strategy and run: all that is published, and all that was run."""
    entries = as_in_paper(study)
    mine = {run.strategy for _, run in entries if run}
    order = ["none", *STRATEGIES]
    absent = [(name, None) for name in STRATEGIES if name not in mine]
    named = [(name, run.strategy if run else name, run) for name, run in entries]
    named += [(name, name, None) for name, _ in absent]
    yield from sorted(
        named, key=lambda entry: order.index(entry[1]) if entry[1] in order else len(order)
    )


def _said(theirs: Value | None) -> str:
    if theirs is None:
        return "–"
    sd = "" if theirs.sd is None else f" ± {100 * theirs.sd:.2f}"
    return f"{100 * theirs.mean:.2f}{sd}"


def _less(ours: Spread | None, theirs: Value | None) -> str:
    if ours is None or theirs is None:
        return ""
    return f"{100 * (ours.mean - theirs.mean):+.2f}"


def _cost_less(ours: Spread | None, theirs: Value, column: Column) -> str:
    if ours is None:
        return ""
    return f"{(ours.mean - theirs.mean) * column.scale:+.{column.digits}f}"


def _exact(label: str, ours: Spread | None, theirs: Value | None) -> tuple[Cell, ...]:
    mine: tuple[Cell, ...] = (ours.mean, ours.sd, ours.n) if ours else (None, None, 0)
    other: tuple[Cell, ...] = (theirs.mean, theirs.sd, theirs.n) if theirs else (None,) * 3
    return (label, *mine, *other, ours.mean - theirs.mean if ours and theirs else None)
