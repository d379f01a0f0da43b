"""What is forgotten: while tasks are learnt, which tasks, and which classes suffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stages.report.figures.matrices import SCALE
from stages.report.numbers.learning import drops, mean_matrix, spread_of
from stages.report.page.document import Block, Figure, Fold, Group, Paragraph, Section, quoted
from stages.report.reading.runs import JOINT, NONE, Run, Study
from stages.report.sections import forgetting_classes as classes
from stages.report.sections import forgetting_curves as over_time
from stages.report.sections.forgetting_curves import PANELS, chosen, over_seeds, percent
from stages.report.terminal.remarks import KEEPS_ALL
from stages.report.terminal.table import Spread

_MANY_RUNS, _MANY_CLASSES = 12, 20
"""From so many on figures of single strategies are closed at first, without numbers in cells."""
_BARS = 18
"""Rows and columns of a figure in which each strategy has one."""
_NO_LINES = "Joint, learnt all at once, has no such lines. "


def section(study: Study, prefix: str) -> Section | None:
    runs = chosen(study.runs, PANELS)
    many = len(study.runs) >= _MANY_RUNS or len(study.first.class_order) >= _MANY_CLASSES
    blocks: list[Block] = [*_lead(study)]
    if study.first.tasks > 1:
        blocks += _over_time(study, runs, prefix, many)
    blocks += _by_class(study, runs, prefix, many)
    return Section(f"{prefix}forgetting", "Forgetting", tuple(blocks))


def _over_time(study: Study, runs: Sequence[Run], prefix: str, many: bool) -> list[Block]:
    blocks: list[Block] = [over_time.over_tasks(study, prefix)]
    some = chosen(study.runs, _BARS)
    blocks += _also(over_time.forgetting_bars(study, some, prefix), _which(study, some))
    told = _which(study, runs)
    n = over_seeds(runs)
    seeds = "One seed." if n == "one seed" else f"Mean over {n}."
    learning = [run for run in runs if run.strategy != JOINT]
    within = over_time.limits_of(learning, study.floor)
    if learning:
        blocks += _group(
            "Accuracy of each task over time",
            "A line for each task, from when it was learnt: the darkest the first, yellow the "
            "last. Dotted: majority floor. "
            f"{'' if len(learning) == len(runs) else _NO_LINES}{seeds}{told}",
            [over_time.by_task(study, run, prefix, within) for run in learning],
            many,
        )
    blocks += _group(
        "R matrices",
        "R[i, j]: accuracy on task j after learning task i, per cent. Right of the stair the task "
        f"has not been learnt yet; {SCALE}. Empty: not evaluated. {seeds}{told}",
        [over_time.r_matrix(study, run, prefix, not many) for run in runs],
        many,
    )
    return blocks


def _by_class(study: Study, runs: Sequence[Run], prefix: str, many: bool) -> list[Block]:
    some = chosen(study.runs, _BARS)
    recall = classes.recall(study, some, prefix)
    tables = [classes.confusion(study, run, prefix, not many) for run in runs]
    figures = [figure for figure in tables if figure is not None]
    if recall is None and not figures:
        return [Paragraph("Recall and confusion of classes: not recorded in these runs.", "note")]
    blocks: list[Block] = _also(recall, _which(study, some))
    if figures:
        what = "output" if study.first.scenario == "domain" else "class"
        blocks += _group(
            "Confusion after the last task",
            f"Rows: true {what}; columns: answered, by the numbers beside the rows. Share of a "
            f"row, per cent; {SCALE}. Framed: tasks. Counts summed over {over_seeds(runs)}."
            f"{_which(study, runs)}",
            figures,
            many,
        )
    without = [quoted(run.label) for run, table in zip(runs, tables, strict=True) if table is None]
    if without:
        blocks.append(Paragraph(f"Confusion not recorded of {', '.join(without)}.", "note"))
    return blocks


def _group(title: str, about: str, figures: Sequence[Figure], many: bool) -> list[Block]:
    group = Group(tuple(figures))
    if many:
        return [Fold(title, (Paragraph(about), group))]
    return [Paragraph(f"**{title}.** {about}"), group]


def _also(figure: Figure | None, told: str) -> list[Block]:
    """Nothing, or the figure with more to its caption."""
    return [] if figure is None else [replace(figure, caption=figure.caption + told)]


def _which(study: Study, runs: Sequence[Run]) -> str:
    if len(runs) == len(study.runs):
        return ""
    return (
        f" Shown: the best of each strategy, then the most accurate, {len(runs)} of "
        f"{len(study.runs)} runs; `lgr-pipe show RUN` prints any of them."
    )


# --- in words ----------------------------------------------------------------------------


def _lead(study: Study) -> list[Paragraph]:
    if study.first.tasks < 2:
        return [Paragraph("One task is learnt: there is nothing that could be forgotten.")]
    known = {
        run.label: (run, value)
        for run in study.runs
        if (value := spread_of(seed.forgetting for seed in run.runs)) is not None
    }
    rivals = {name: found for name, found in known.items() if found[0].strategy not in KEEPS_ALL}
    if not rivals:
        return [Paragraph("Forgetting is not defined for any of these runs.", "note")]
    return [Paragraph(_most_and_least(rivals)), *_suffering(rivals)]


def _most_and_least(rivals: dict[str, tuple[Run, Spread]]) -> str:
    n = over_seeds([run for run, _ in rivals.values()])
    means = {name: round(value.mean, 9) for name, (_, value) in rivals.items()}
    most, least = max(means.values()), min(means.values())
    first = [name for name in means if means[name] == most]
    last = [name for name in means if means[name] == least]
    where = "accuracy on the tasks before the last one"
    if most <= 0:
        return (
            f"No strategy forgets on average: of {where}, {_names(first)} "
            f"{_do(first, 'loses')} {_points(rivals[first[0]][1])} ({n}; below 0 is a gain)."
        )
    told = f"{_names(first)} {_do(first, 'loses')} {_points(rivals[first[0]][1])} of {where}"
    if len(rivals) == 1 or most == least:
        return f"{told} ({n})."
    aside = ""
    if NONE in rivals and NONE not in first + last:
        aside = f" Without replay (none): {_points(rivals[NONE][1])}."
    return (
        f"{told}, the most; {_names(last)} {_points(rivals[last[0]][1])}, the least ({n}; runs "
        f"that keep all data aside).{aside}"
    )


def _points(value: Spread) -> str:
    """A difference of accuracies is not a per cent of one."""
    return f"{percent(value).removesuffix(' %')} points"


def _names(names: Sequence[str]) -> str:
    shown = [f"**{quoted(name)}**" for name in names[:5]]
    if len(names) > 5:
        return f"{', '.join(shown)} and {len(names) - 5} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _do(names: Sequence[str], verb: str) -> str:
    return verb if len(names) == 1 else verb.removesuffix("s")


def _suffering(rivals: dict[str, tuple[Run, Spread]]) -> list[Paragraph]:
    """The task that falls furthest, under the strategy that forgets most; and under how many
    strategies it is that task."""
    worst: dict[str, tuple[int, Spread]] = {}
    for name, (run, _) in rivals.items():
        fallen = [(task, value) for task, value in enumerate(drops(run)) if value is not None]
        if fallen:
            worst[name] = max(fallen, key=lambda found: found[1].mean)
    if not worst:
        return []
    name = max(worst, key=lambda label: rivals[label][1].mean)
    run, (task, value) = rivals[name][0], worst[name]
    if value.mean <= 0:
        return [Paragraph(f"No task falls below its best under {quoted(name)}.")]
    row = mean_matrix(run)[-1][task]
    end = "" if row is None else f", to {100 * row:.1f} % after the last task"
    same = sum(found[0] == task and found[1].mean > 0 for found in worst.values())
    also = " Under each of the others another task falls furthest."
    if same > 1:
        also = f" It is the task that falls furthest under {same} of {len(worst)} strategies."
    return [
        Paragraph(
            f"Under {quoted(name)} task {task + 1}{_classes(run, task)} suffers most: it falls by "
            f"{_points(value)} from its best{end}.{also if len(worst) > 1 else ''}"
        )
    ]


def _classes(run: Run, task: int) -> str:
    if run.task_classes is None:
        return ""
    names = [quoted(name) for name in run.task_classes[task]]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f" ({', '.join(names[:4])}{more})"
