"""Extract once, train k times: the part of the costs that the cache is for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from stages.report.figures import once as figure
from stages.report.figures.scale import duration, three
from stages.report.numbers.once import Once, Saved, once
from stages.report.page.document import Block, Data, Figure, Paragraph, Table, quoted
from stages.report.reading.runs import Study


def extract_once(study: Study, prefix: str) -> Iterator[Block]:
    found = once(study)
    if found is None:
        yield Paragraph(
            "Extract once, train k times: not estimated, for the seconds of stage one are not "
            "recorded or it is not known how many iterations were made.",
            "note",
        )
        return
    yield _figure(found, study, prefix)
    yield _table(found, prefix)


def _figure(found: Once, study: Study, prefix: str) -> Figure:
    ours, theirs = (
        found.in_all(found.runs, found.of_a_run(in_loop=way)[1], in_loop=way)
        for way in (False, True)
    )
    factor = three(theirs / ours)
    said = (
        f"The {found.runs} runs of this study and stage one take {duration(ours)}; with the root "
        f"in the loop they would take {duration(theirs)}, {factor} times as much."
    )
    return Figure(
        f"{prefix}extract-once",
        "Extract once, train k times (estimated)",
        f"{said} Estimated.",
        partial(figure.draw, found),
        f"**Estimated.** {said} {_how(found, study)}",
        _data(found),
    )


def _how(found: Once, study: Study) -> str:
    first = study.first
    crop = f"{duration(found.crop)} of finding faces, on both sides, " if found.crop else ""
    least = min(saved.break_even for saved in found.strategies)
    most = max(saved.break_even for saved in found.strategies)
    even = f"{least:.2g}" if f"{least:.2g}" == f"{most:.2g}" else f"{least:.2g} to {most:.2g}"
    return (
        f"Stage one, by the wall seconds of the processes that finished its caches: {crop}and "
        f"{duration(found.extract)} of extraction for {found.rows:,} images, "
        f"{three(1e3 * found.an_image)} ms each. In the loop a run passes the root as "
        f"the released code of LGR does: T · iterations · batch = {first.tasks} · {first.iters} · "
        f"{first.batch_size} current images, as many replayed ones for each task "
        "after the first with nr (twice with dgr and dgr+d), and the test images once; each pass "
        "is taken to cost what it cost in stage one. Line: the mean run; band: quickest to slowest "
        "strategy; mark: this study. Break-even: k = images of the cache / passes of a run = "
        f"{even} runs."
    )


def _table(found: Once, prefix: str) -> Table:
    return Table(
        f"{prefix}extract-once-runs",
        "With the cache, and with the root in the loop (estimated)",
        (
            "strategy",
            "root passes a run",
            "with the cache",
            "root in the loop",
            "times",
            "pays from run",
        ),
        tuple(_row(saved) for saved in found.strategies),
        _data(found),
        "Of one run, stage one aside. Passes: those that the run with the cache need not make.",
        printed=False,
    )


def _row(saved: Saved) -> tuple[str, ...]:
    return (
        quoted(saved.run.label),
        f"{saved.passes:,}",
        duration(saved.seconds),
        duration(saved.seconds_in_loop),
        three(saved.factor),
        f"{saved.break_even:.2g}",
    )


def _data(found: Once) -> Data:
    head = ("strategy", "n", "root_passes", "seconds", "seconds_in_loop", "break_even_runs")
    return Data(
        (*head, "crop_seconds", "extract_seconds", "rows"),
        tuple(
            (
                s.run.label, len(s.run.runs), s.passes, s.seconds, s.seconds_in_loop,
                s.break_even, found.crop, found.extract, found.rows,
            )
            for s in found.strategies
        ),
    )  # fmt: skip
