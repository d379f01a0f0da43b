"""How it was measured: definitions, commands to repeat it, and what was left out and why."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from stages.report.page.document import (
    Block,
    Code,
    Data,
    Facts,
    Paragraph,
    Section,
    Table,
    quoted,
)
from stages.report.reading.find import LeftOut
from stages.report.reading.runs import Study
from stages.report.sections.definitions import ACCURACIES, COSTS, REPLAYS, Definition
from stages.report.sections.what import by_value, versions
from stages.report.terminal.remarks import sampling, short_heading

_ACTIVATE = ". .venv/bin/activate"
_SETTINGS = "--params"


def section(studies: Sequence[Study], left_out: Sequence[LeftOut], prefix: str) -> Section:
    """For the whole report."""
    parts = [
        _definitions(studies, f"{prefix}measured-definitions"),
        _repeat(studies, f"{prefix}measured-repeat"),
    ]
    if left_out:
        parts.insert(0, _left_out(left_out, f"{prefix}left-out"))
    return Section(f"{prefix}measured", "How it was measured", (), tuple(parts))


# --- what was left out -------------------------------------------------------------------


def _left_out(left_out: Sequence[LeftOut], key: str) -> Section:
    rows = tuple((quoted(str(out.folder)), quoted(out.why)) for out in left_out)
    exact = tuple((str(out.folder), out.why, out.again) for out in left_out)
    blocks: list[Block] = [
        Table(
            key,
            "What was left out, and why",
            ("folder", "why"),
            rows,
            Data(("folder", "why", "again"), exact),
            "Nothing of it is in any figure or table.",
            printed=False,
        )
    ]
    commands = [command for out in left_out if (command := as_typed(out.again))]
    if commands:
        blocks += [Paragraph("To finish them:"), Code("\n".join([_ACTIVATE, *commands]))]
    return Section(key, "Left out", tuple(blocks))


# --- definitions -------------------------------------------------------------------------


def _definitions(studies: Sequence[Study], key: str) -> Section:
    runs = [run for study in studies for run in study.runs]
    replays = any(seed.replay for run in runs for seed in run.runs)
    tables = [("accuracies", "Accuracies", ACCURACIES), ("costs", "Costs", COSTS)]
    if replays:
        tables.append(("replays", "Replays", REPLAYS))
    return Section(
        key,
        "Definitions",
        (
            Paragraph(
                "R\\[i, j\\]: accuracy on the test rows of task j after learning task i; T tasks; "
                "a, b: accuracies of two strategies with the same seed. Fractions in files, per "
                "cent in tables; differences of per cent are points. ± is the sample standard "
                "deviation over n seeds, that is with n − 1 below the root. Seeds differ in "
                "initialisation, order of the rows and what is replayed; the tasks are the same."
            ),
            *(_table(f"{key}-{name}", title, of) for name, title, of in tables),
            Paragraph(
                f"{sampling(runs)}What rises and falls between two samples is not seen. "
                "1 MB = 1e6 bytes; what was not measured is empty, never nought.",
                "note",
            ),
        ),
    )


def _table(name: str, title: str, definitions: Sequence[Definition]) -> Table:
    shown = 3 if any(source for *_, source in definitions) else 2
    rows = tuple(tuple(quoted(text) for text in one[:shown]) for one in definitions)
    return Table(
        name, title, ("measure", "what it is", "source")[:shown], rows,
        Data(("measure", "definition", "source"), tuple(definitions)), printed=False,
    )  # fmt: skip


# --- to repeat it ------------------------------------------------------------------------


def _repeat(studies: Sequence[Study], key: str) -> Section:
    blocks: list[Block] = [
        Paragraph(
            "Each row of the tables comes from one command, run where the caches are. Equal "
            "settings, seeds and versions give equal accuracies on one kind of processor; costs "
            "vary with what else the machine does."
        )
    ]
    names_settings = False
    for number, study in enumerate(studies, 1):
        if len(studies) > 1:
            blocks.append(Paragraph(f"**{number}. {quoted(short_heading(study.first))}**"))
        known, unknown = _commands(study)
        if known:
            blocks.append(Code("\n".join([_ACTIVATE, *known])))
        if unknown:
            blocks.append(Paragraph(f"Not recorded: the command of {', '.join(unknown)}.", "note"))
        names_settings |= any(_SETTINGS in command for command in known)
    if names_settings:
        blocks.append(
            Paragraph(
                f"`{_SETTINGS}` names a file with settings: it must hold those that are told "
                "above, as it did then.",
                "note",
            )
        )
    blocks.append(Facts(tuple(_versions(studies))))
    return Section(key, "To repeat it", tuple(blocks))


def _commands(study: Study) -> tuple[list[str], list[str]]:
    """What is known, once each, and the names of runs of which it is not."""
    known, unknown = [], []
    for run in study.runs:
        command = as_typed(run.about.command) if run.about else ""
        if command:
            known.append(command)
        if not command:
            unknown.append(quoted(run.label))
        elif len(run.folders) > 1:
            unknown.append(f"{quoted(run.label)} in {len(run.folders) - 1} further folders")
    return list(dict.fromkeys(known)), unknown


def as_typed(command: str) -> str:
    """A command of a run folder, which may be anybody's, safe to be pasted into a shell: words of
    `lgr-pipe` only, quoted.  Empty where it is nothing of the kind.

    >>> as_typed("lgr-pipe train --class-order a;b")
    "lgr-pipe train --class-order 'a;b'"
    >>> as_typed("rm -rf data")
    ''
    """
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that is not closed
        return ""
    return shlex.join(words) if words[:1] == ["lgr-pipe"] else ""


def _versions(studies: Sequence[Study]) -> Iterator[tuple[str, str]]:
    said = [by_value(study, versions) for study in studies]
    if len(set(said)) == 1:
        yield "Versions", said[0]
        return
    for number, (study, text) in enumerate(zip(studies, said, strict=True), 1):
        yield f"{number}. {quoted(short_heading(study.first))}", text
