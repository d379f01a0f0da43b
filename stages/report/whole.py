"""The whole report: a heading, then the sections of each study, then how it was measured."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stages.report.numbers.collapse import verdicts
from stages.report.numbers.paired import over_none
from stages.report.numbers.replays import states
from stages.report.page.document import (
    Block,
    Document,
    Figure,
    Group,
    Paragraph,
    Section,
    paragraphs,
    quoted,
)
from stages.report.reading.find import Found
from stages.report.reading.runs import Study
from stages.report.sections import (
    cost,
    forgetting,
    measured,
    published,
    replayed,
    results,
    what,
)
from stages.report.sections.verdict import FEW, brief, listed
from stages.report.terminal.remarks import apart, heading, short_heading


@dataclass(frozen=True)
class Faces:
    """Whether and from where faces are shown."""

    shown: bool = False
    """Real people's too."""
    crops: Path | None = None
    """The crop cache, where it is not where the runs say."""


def report(found: Found, faces: Faces) -> Document:
    """All studies that were found, and what was left out."""
    studies = found.studies
    if len(studies) == 1:
        parts = _sections(studies[0], "", faces)
    else:
        parts = tuple(_study(k, study, found, faces) for k, study in enumerate(studies, 1))
    last = measured.section(studies, found.left_out, "")
    return Document(_title(found), _lead(found), (*parts, last))


def _title(found: Found) -> str:
    names = list(dict.fromkeys(study.first.dataset for study in found.studies))
    several = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"Continual learning on {quoted(names[0])}{several}"


def _lead(found: Found) -> tuple[Block, ...]:
    studies = found.studies
    lead: list[Block] = []
    if len(studies) == 1:
        lead.append(Paragraph(heading(studies[0].first)))
        lead.append(Paragraph(f"{_brief(studies[0])} [Results](#results)"))
    else:
        lead.append(
            Paragraph(
                f"{len(studies)} studies, which differ in more than the strategy: figures of one "
                "are not comparable with another's."
            )
        )
        lead += [
            Paragraph(f"[{k}](#s{k}) {heading(study.first)}. {_brief(study)}")
            for k, study in enumerate(studies, 1)
        ]
    lead += _alarms(studies)
    if found.left_out:
        count = len(found.left_out)
        lead.append(
            Paragraph(
                f"{count} run{'s' if count > 1 else ''} {'are' if count > 1 else 'is'} left out: "
                "[which, and why](#left-out).",
                "warning",
            )
        )
    return tuple(lead)


def _brief(study: Study) -> str:
    return brief(study, over_none(study))


def _alarms(studies: Sequence[Study]) -> Iterator[Paragraph]:
    """Of all studies at most one: which generators are broken, and where it is shown."""
    said = []
    for k, study in enumerate(studies, 1):
        names = [
            quoted(run.label)
            for run in study.runs
            if any(one.kind == "alarm" for one in verdicts(run, states(run)))
        ]
        if names:
            prefix, where = ("", "") if len(studies) == 1 else (f"s{k}-", f" in study {k}")
            said.append(f"{listed(names, FEW)}{where} ([What is replayed](#{prefix}replayed))")
    if said:
        yield Paragraph(f"**Collapsed or one-sided generators**: {'; '.join(said)}.", "alarm")


def _study(number: int, study: Study, found: Found, faces: Faces) -> Section:
    prefix = f"s{number}-"
    about = paragraphs([heading(study.first), *apart(study, found.studies)])
    title = f"{number}. {short_heading(study.first)}"
    return Section(f"s{number}", title, about, _sections(study, prefix, faces))


def _sections(study: Study, prefix: str, faces: Faces) -> tuple[Section, ...]:
    made = (
        what.section(study, prefix),
        results.section(study, prefix),
        published.section(study, prefix),
        forgetting.section(study, prefix),
        cost.section(study, prefix),
        replayed.section(study, prefix, show_faces=faces.shown, crops=faces.crops),
    )
    return tuple(_side_by_side(section) for section in made if section is not None)


def _side_by_side(section: Section) -> Section:
    """With figures that follow each other in one group: half the way to scroll."""
    blocks: list[Block] = []
    for pictures, few in itertools.groupby(section.blocks, lambda one: isinstance(one, Figure)):
        row = tuple(few)
        figures = tuple(one for one in row if isinstance(one, Figure))
        blocks += (Group(figures),) if pictures and len(row) > 1 else row
    return replace(section, blocks=tuple(blocks))
