"""The whole report: a heading, then the sections of each study, then how it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stages.report.page.document import Block, Document, Paragraph, Section, paragraphs, quoted
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
    else:
        lead.append(
            Paragraph(
                f"{len(studies)} studies, which differ in more than the strategy: figures of one "
                "are not comparable with another's."
            )
        )
        lead += [
            Paragraph(f"[{k}](#s{k}) {heading(study.first)}") for k, study in enumerate(studies, 1)
        ]
    if found.left_out:
        count = len(found.left_out)
        lead.append(
            Paragraph(
                f"{count} run{'s' if count > 1 else ''} {'are' if count > 1 else 'is'} left out: "
                "[which, and why](#measured).",
                "warning",
            )
        )
    return tuple(lead)


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
    return tuple(section for section in made if section is not None)
