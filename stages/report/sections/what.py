"""What was run: data, root, tasks, training, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stages.report.page.document import (
    Block,
    Data,
    Facts,
    Fold,
    Paragraph,
    Section,
    Table,
    Value,
    quoted,
)
from stages.report.reading.about import About, DataAbout, Images, as_text
from stages.report.reading.runs import Run, Study
from stages.report.sections.counts import NOT_RECORDED, classes, frequencies, tasks
from stages.report.sections.verdict import listed
from stages.report.sections.weights import weights_said

_SCENARIOS = {
    "task": "task-incremental: the task of an image is told, only its classes compete",
    "class": "class-incremental: the task is not told, all classes seen so far compete",
    "domain": "domain-incremental: every task has the same outputs",
}
_PROTOCOLS = {
    "corrected": "corrected: stored samples are taught to the head of their own task",
    "released": "released: as the LGR code was published, with what is wrong in it",
}


def section(study: Study, prefix: str) -> Section:
    data = _data(study)
    blocks: list[Block] = [
        Facts(tuple(_of_data(study, data))),
        Facts(tuple(_of_training(study))),
        *_unlike(study),
        tasks(study, prefix),
    ]
    if data is not None and data.classes:
        blocks.append(classes(study, data, prefix))
        figure = frequencies(study, data, prefix)
        blocks += [figure] if figure else []
    blocks.append(Fold("Options, cache and versions", tuple(_details(study, prefix))))
    return Section(f"{prefix}what", "What was run", tuple(blocks))


def _data(study: Study) -> DataAbout | None:
    """The same for all runs of a study: they share a cache."""
    return next((run.about.data for run in study.runs if run.about and run.about.data), None)


# --- facts -------------------------------------------------------------------------------


def _of_data(study: Study, data: DataAbout | None) -> Iterator[tuple[str, str]]:
    run = study.first
    rows = f", {_count(run.cache_rows, 'image')} in the cache" if run.cache_rows else ""
    yield "Data set", f"{quoted(run.dataset)}{rows}"
    yield "Faces", _faces(data)
    people = data.subjects if data else None
    if people is not None:
        aside = f", {people.validation} put aside for choosing" if people.validation else ""
        yield "People", f"{people.train} in training, {people.test} in test{aside}"
    yield "Root", _root(run, data)
    yield "Its weights", weights_said(run.weights, data)


def _faces(data: DataAbout | None) -> str:
    if data is None or data.images is None:
        return NOT_RECORDED
    images, side = data.images, data.side
    size = f"; crops of {side} x {side} pixels" if side else ""
    if data.face_crop == "off":
        unread = f"; {images.failed:,} images could not be read" if images.failed else ""
        return f"not searched for: whole images were taken{unread}{size}"
    stated = "as the data set states them" if data.face_crop == "box" else "found"
    return f"{images.found:,} {stated}, {_without(images)}{size}"


def _without(images: Images) -> str:
    """What was done with images that show no face, and with those that show nothing."""
    taken = [
        (images.whole, "the whole image was taken"),
        (images.center, "the middle of the image was taken"),
        (images.dropped, "left out"),
    ]
    there = [(count, what) for count, what in taken if count]
    lost = sum(count for count, _ in there)
    said = ", ".join(f"{count:,} {what}" for count, what in there)
    if len(there) == 1:
        said = there[0][1]
    without = f"{lost:,} not found" + (f" ({said})" if said else "")
    return f"{without}, {images.failed:,} unreadable"


def _root(run: Run, data: DataAbout | None) -> str:
    parts = [quoted(run.backbone)]
    if run.latent_dim:
        parts.append(f"latents of {run.latent_dim:,} numbers")
    if data is not None and data.activation:
        parts.append(f"after {quoted(data.activation)}")
    if run.root_macs:
        parts.append(f"{run.root_macs / 1e9:.2f} GMAC a crop")
    return ", ".join(parts)


def _of_training(study: Study) -> Iterator[tuple[str, str]]:
    run = study.first
    yield "Scenario", _SCENARIOS[run.scenario]
    count = f"{run.tasks} task{'s' * (run.tasks > 1)}"
    yield (
        "Training",
        (
            f"{count}, {run.iters:,} iterations each, batch {run.batch_size}, "
            f"learning rate {run.lr:g}{_early(study)}"
        ),
    )
    if run.validation:
        yield "Put aside", f"{100 * run.validation:g} % of the training rows, for choosing"
    if run.evaluated_on == "validation":
        yield "Accuracies", "**of validation rows, not of test rows**"
    if run.precision != "fp32":
        yield "Matrix products", f"**{run.precision}**: their factors are rounded"
    yield "Protocol", _PROTOCOLS[run.protocol]
    yield "Seeds", by_value(study, _seeds)
    yield "Machine", by_value(study, _machine)


def _early(study: Study) -> str:
    patience = next((run.about.train.early_stopping for run in study.runs if run.about), 0)
    return f"; a task is left after {patience} checks without a better one" if patience else ""


def _seeds(run: Run) -> str:
    done = [seed.seed for seed in run.runs]
    text = ", ".join(map(str, done))
    asked = run.about.seeds if run.about and len(run.folders) == 1 else None
    missing = sorted(set(asked or ()) - set(done))
    return f"{text} (asked for, but not there: {', '.join(map(str, missing))})" if missing else text


def _machine(run: Run) -> str:
    if run.about is None or not run.about.machine():
        return NOT_RECORDED
    threads = run.about.threads
    used = f", {threads} thread{'s' * (threads > 1)} used" if threads else ""
    return quoted(run.about.machine() + used)


def by_value(study: Study, told: Callable[[Run], str]) -> str:
    """One value for all runs, or which have which."""
    having = _having(study.runs, told)
    if len(having) == 1:
        return next(iter(having))
    return "; ".join(f"{value} ({listed(names)})" for value, names in having.items())


def _having(runs: Sequence[Run], told: Callable[[Run], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(told(run), []).append(quoted(run.label))
    return found


def _unlike(study: Study) -> Iterator[Paragraph]:
    """In what runs differ that decides costs, or how they can be compared."""
    told = []
    if len(_having(study.runs, _machine)) > 1:
        told.append("on different machines (above)")
    names = {name for run in study.runs if run.about for name in run.about.versions}
    for name in sorted(names):
        having = _having(study.runs, lambda run, name=name: _version(run, name))  # type: ignore[misc]
        if len(having) > 1:
            each = ", ".join(f"{version} ({listed(of)})" for version, of in having.items())
            told.append(f"with different versions of {quoted(name)}: {each}")
    if told:
        yield Paragraph(
            f"**The runs were made {'; '.join(told)}.** Their costs are not comparable.", "warning"
        )
    if len(_having(study.runs, lambda run: str([seed.seed for seed in run.runs]))) > 1:
        yield Paragraph(
            "**Not all strategies were run with the same seeds**: their means are of different "
            "initialisations, and differences are taken over the seeds that both have.",
            "warning",
        )


def _version(run: Run, name: str) -> str:
    return quoted(run.about.versions.get(name, NOT_RECORDED)) if run.about else NOT_RECORDED


def versions(run: Run) -> str:
    """In a line, Markdown."""
    known = run.about.versions if run.about else {}
    return ", ".join(f"{quoted(k)} {quoted(v)}" for k, v in sorted(known.items())) or NOT_RECORDED


def _details(study: Study, prefix: str) -> Iterator[Block]:
    rows: list[tuple[str, ...]] = []
    exact: list[tuple[Value, ...]] = []
    for run in study.runs:
        options: dict[str, Any] = run.about.options if run.about else {}
        said = ", ".join(f"{quoted(k)} {quoted(as_text(v))}" for k, v in options.items())
        rows.append((quoted(run.label), said or ("none" if run.about else NOT_RECORDED)))
        exact += [(run.label, name, as_text(value)) for name, value in options.items()]
    yield Table(
        f"{prefix}options",
        "Options of the strategies",
        ("strategy", "options"),
        tuple(rows),
        Data(("strategy", "option", "value"), tuple(exact)),
        printed=False,
    )
    run = study.first
    yield Facts(
        (
            ("Cache", by_value(study, lambda run: quoted(_of(run, "cache") or NOT_RECORDED))),
            ("Its fingerprint", f"`{run.cache_fingerprint.replace('`', '')}`"),
            ("Digest of its content", f"`{run.cache_content.replace('`', '')}`"),
            ("Started", _started(study)),
            ("Versions", by_value(study, versions)),
        )
    )


def _started(study: Study) -> str:
    """The first run, and the last."""
    times = sorted(time for run in study.runs if (time := _of(run, "started")))
    ends = dict.fromkeys([*times[:1], *times[-1:]])
    return " to ".join(quoted(time) for time in ends) or NOT_RECORDED


def _of(run: Run, name: str) -> str:
    about: About | None = run.about
    return str(getattr(about, name) or "") if about else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
