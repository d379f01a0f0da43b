"""What is replayed: how varied, as which classes, how near to real latents, and how it looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from stages.report.numbers.collapse import COLLAPSED, percent, verdicts
from stages.report.numbers.replays import Found, Head, State, replays, states, unrecorded
from stages.report.page.document import (
    Block,
    Data,
    Fold,
    Paragraph,
    Section,
    Table,
    Value,
    quoted,
)
from stages.report.reading.runs import Run, Study
from stages.report.sections.replayed_faces import faces
from stages.report.sections.replayed_figures import agreement, labels, ratios
from stages.report.sections.replayed_latents import latents
from stages.report.terminal.table import Spread

_MOST_LINES, _MOST_RUNS, _MOST_ALARMS = 12, 8, 8
"""Runs that a figure shows together, that have figures of their own, of which it is said that
they are broken."""
_LONG = 40
"""Rows from which a table is closed at first."""
_MOST_HEADS = 3
"""Of a state, that a cell of the table names."""


def section(
    study: Study, prefix: str, *, show_faces: bool = False, crops: Path | None = None
) -> Section | None:
    """None: no strategy of the study replays anything.

    `show_faces`: real people's too, and what was generated after them.  `crops`: the crop cache,
    where it is not where the runs say.
    """
    found = tuple((run, states(run)) for run in study.runs if replays(run))
    old = [run for run in study.runs if unrecorded(run)]
    if not found and not old:
        return None
    blocks = _not_recorded(old)
    if found:
        blocks += _alarms(found)
        blocks += [Paragraph(_introduction(found)), _folded(_table(found, f"{prefix}replayed"))]
        many, few = _shown(found, _MOST_LINES), _shown(found, _MOST_RUNS)
        blocks += [*_only(many, found, "compared in the next figures"), *ratios(many, prefix)]
        blocks += agreement(many, prefix)
        blocks += [*_only(few, found, "shown one by one"), *labels(few, prefix)]
        blocks += latents(few, prefix)
        blocks += faces(few, prefix, show_faces=show_faces, crops=crops)
    return Section(f"{prefix}replayed", "What is replayed", tuple(blocks))


def _not_recorded(old: Sequence[Run]) -> list[Block]:
    if not old:
        return []
    names = ", ".join(quoted(run.label) for run in old)
    text = (
        f"What {names} replayed was not recorded by the version that trained "
        f"{'it' if len(old) == 1 else 'them'}: train again to see it."
    )
    return [Paragraph(text, "note")]


def _alarms(found: Found) -> list[Block]:
    said = [one for run, of_run in found for one in verdicts(run, of_run)]
    said.sort(key=lambda one: one.kind != "alarm")
    more = len(said) - _MOST_ALARMS
    if more <= 0:
        return list(said)
    rest = f"{more} more runs have collapsed or one-sided generators: see the table."
    return [*said[:_MOST_ALARMS], Paragraph(rest, said[_MOST_ALARMS].kind)]


def _introduction(found: Found) -> str:
    kinds = {state.kind for _, of_run in found for state in of_run}
    drawn = sorted({state.drawn for _, of_run in found for state in of_run})
    said = {
        "generated": "a generator draws latents, and the old network answers them",
        "stored": "a buffer hands out stored samples with their labels",
    }
    what = "; ".join(text for kind, text in said.items() if kind in kinds)
    count = "–".join(str(n) for n in dict.fromkeys([drawn[0], drawn[-1]]))
    return (
        f"{what[0].upper()}{what[1:]}. After each task but the last, {count} replayed latents "
        "were compared with real training latents of the tasks learnt so far. "
        "**Variance**: the trace of the covariance, as a share of that of the real latents; a "
        f"generator below {percent(COLLAPSED)} is called collapsed. **Largest share**: the class "
        "that takes most of the answers within a head, the classes among which is chosen. "
        "**Agreement**: the share of answers that name the nearest mean of a real class of the "
        "head; beside it, the same of real latents and their true classes. High agreement alone "
        "is no praise: a collapsed generator whose one answer is right has 100 %."
    )


def _shown(found: Found, most: int) -> Found:
    """All, or the first of each strategy where they are more than `most`."""
    if len(found) <= most:
        return found
    first = {run.strategy: (run, of_run) for run, of_run in reversed(found)}
    return tuple(one for one in found if one in first.values())[:most]


def _only(shown: Found, found: Found, how: str) -> list[Block]:
    if len(shown) == len(found):
        return []
    names = ", ".join(quoted(run.label) for run, _ in shown)
    text = (
        f"Of {len(found)} runs that replay, only the first of each strategy is {how}: {names}. "
        "All are in the table."
    )
    return [Paragraph(text, "note")]


# --- the table ---------------------------------------------------------------------------


def _folded(table: Table) -> Block:
    if len(table.rows) < _LONG:
        return table
    return Fold(f"{table.title}: {len(table.rows)} rows", (table,))


def _table(found: Found, name: str) -> Table:
    return Table(
        name=name,
        title="What is replayed",
        head=(
            "strategy", "after task", "replayed", "n", "variance, % of real",
            "agreement, %", "of real latents, %", "largest share of a head, %",
        ),
        rows=tuple(_row(run, state) for run, of_run in found for state in of_run),
        data=Data(_DATA, tuple(line for run, of_run in found for line in _lines(run, of_run))),
        note="Mean ± sample sd over n seeds, – where it is undefined.",
        printed=len(found) * len(found[0][1]) < _LONG,
    )  # fmt: skip


def _row(run: Run, state: State) -> tuple[str, ...]:
    """For people: per cent."""
    return (
        quoted(run.label),
        str(state.learnt),
        "drawn" if state.kind == "generated" else state.kind,
        str(state.seeds),
        _cell(state.ratio),
        _cell(state.agreement),
        _cell(state.agreement_real),
        _largest(state),
    )


def _cell(value: Spread | None) -> str:
    if value is None:
        return "–"
    sd = "" if value.sd is None else f" ± {100 * value.sd:.1f}"
    return f"{100 * value.mean:.1f}{sd}"


def _largest(state: State) -> str:
    """Of each head, those with the largest first where not all are named."""
    tops = [(head.classes[top[0]], top[1]) for head in state.heads if (top := head.largest)]
    if len(tops) > _MOST_HEADS:
        tops.sort(key=lambda top: -top[1].mean)
    said = [f"{quoted(name)} {_cell(share)}" for name, share in tops[:_MOST_HEADS]]
    more = len(tops) - _MOST_HEADS
    return "; ".join(said) + (f"; and {more} more heads" if more > 0 else "") or "–"


_DATA = (
    "strategy", "learnt", "kind", "seeds", "drawn", "variance_ratio_mean", "variance_ratio_sd",
    "agreement_mean", "agreement_sd", "agreement_real_mean", "agreement_real_sd", "head",
    "largest_class", "largest_share_mean", "largest_share_sd", "largest_share_real",
)  # fmt: skip


def _lines(run: Run, of_run: Sequence[State]) -> Iterator[tuple[Value, ...]]:
    """One for each head of each state, counted from 1."""
    for state in of_run:
        known = (state.ratio, state.agreement, state.agreement_real)
        figures = tuple(part for value in known for part in _parts(value))
        about = (run.label, state.learnt, state.kind, state.seeds, state.drawn, *figures)
        for number, head in enumerate(state.heads, 1):
            yield (*about, number, *_largest_parts(head))


def _parts(value: Spread | None) -> tuple[float | None, float | None]:
    return (None, None) if value is None else (value.mean, value.sd)


def _largest_parts(head: Head) -> tuple[Value, ...]:
    if head.largest is None:
        return (None, None, None, None)
    k, share = head.largest
    return (head.classes[k], *_parts(share), head.real[k] if head.real else None)
