"""What must be said above and below the tables, so that nobody reads more into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from stages.report.numbers.columns import ALSO
from stages.report.numbers.paired import Paired
from stages.report.reading.runs import CUMULATIVE, JOINT, Run, Study

FLOOR = "majority floor"
MARK = "†"
KEEPS_ALL = (CUMULATIVE, JOINT)
"""They see again what continual learning may not: they do not compete."""


def heading(run: Run) -> str:
    """What was run, in a line; of any run of a study."""
    parts = [
        f"**{run.dataset}, {run.backbone}, weights: {run.weights}**",
        f"{run.scenario}-incremental, {len(run.class_order)} classes in {run.tasks} tasks",
        f"{run.iters} iterations a task, batch {run.batch_size}, learning rate {run.lr:g}",
    ]
    aside = f"{100 * run.validation:g} % of the training rows"
    if run.evaluated_on == "validation":
        parts.append(f"**accuracies of validation rows** ({aside})")
    elif run.validation:
        parts.append(f"{aside} put aside for choosing")
    if run.precision != "fp32":
        parts.append(f"**{run.precision} products**")
    if run.protocol == "released":
        parts.append("**released protocol**")
    return " · ".join(parts)


def short_heading(run: Run) -> str:
    """The same for the legend of a figure."""
    words = [run.dataset, run.backbone, f"{run.scenario}-incremental, {run.tasks} tasks"]
    words += ["validation rows"] * (run.evaluated_on == "validation")
    words += [f"{run.precision} products"] * (run.precision != "fp32")
    words += ["released protocol"] * (run.protocol == "released")
    return ", ".join(words)


def apart(study: Study, studies: Iterable[Study]) -> list[str]:
    """Why this is another study than those with the same heading, if there are any."""
    mine = study.first.study()
    twins = [
        other.first.study() for other in studies if heading(other.first) == heading(study.first)
    ]
    known = dict.fromkeys(name for study in (mine, *twins) for name in study)  # by run.json, or not
    names = [name for name in known if any(mine.get(name) != twin.get(name) for twin in twins)]
    if not names:
        return []
    said = "; ".join(f"{name.replace('_', ' ')} `{_value(mine.get(name))}`" for name in names)
    return [f"**Other runs of this heading are not comparable with these**, of {said}."]


def _value(value: object) -> str:
    """Classes are shown as --class-order takes them: a,b;c,d."""
    if isinstance(value, list):
        tasks = [",".join(one) for one in value if isinstance(one, list)]
        return ";".join(tasks) if tasks else ",".join(value)
    return "not recorded" if value is None else str(value)


def of_study(study: Study, compared: Mapping[str, Paired]) -> list[str]:
    """What holds for this study alone."""
    lines = [_comparison(compared)] if compared else []
    if study.first.weights.startswith("random"):
        lines.append(
            "**The root is random, not pre-trained**: compare strategies, "
            "not levels with published ones."
        )
    if study.first.single_class_tasks:
        lines.append(_single_class(study.first))
    return lines


def _comparison(compared: Mapping[str, Paired]) -> str:
    known = {name: found for name, found in compared.items() if found.n > 1}
    unknown = [name for name, found in compared.items() if found.n < 2]
    parts = []
    if known:
        said = ", ".join(
            f"{name} {100 * d.mean:+.2f} [{100 * d.lower:+.2f}, {100 * d.upper:+.2f}]"
            f"{'' if d.better else f' {MARK}'}"
            for name, d in known.items()
        )
        seeds = sorted({found.n for found in known.values()})
        over = "-".join(str(n) for n in dict.fromkeys([seeds[0], seeds[-1]]))
        parts.append(
            f"Difference from none in points of accuracy, seed by seed over {over} seeds, with "
            f"its 95 % interval: {said}."
        )
    if any(not found.better for found in known.values()):
        parts.append(
            f"{MARK} not better than none beyond the spread: the interval includes 0 or lies "
            "below it."
        )
    if unknown:
        parts.append(
            f"Not compared with none, which takes two seeds of both: {', '.join(unknown)}."
        )
    return " ".join(parts)


def single_classes(run: Run) -> str:
    """Tasks in which there is nothing to choose, with their class where it is recorded:
    "4 (neutral)"."""
    alone = run.single_class_tasks
    if run.task_classes is None:
        return ", ".join(str(index + 1) for index in alone)
    return ", ".join(f"{index + 1} ({','.join(run.task_classes[index])})" for index in alone)


def _single_class(run: Run) -> str:
    several = len(run.single_class_tasks) > 1
    who = f"task{'s' * several} {single_classes(run)} ha{'ve' if several else 's'} a single class"
    if len(run.single_class_tasks) == run.tasks:
        who = "all tasks have a single class"
    it = "they are" if several else "it is"
    if run.scenario == "task":
        effect = f"{it} always answered right and raise{'' if several else 's'} every accuracy, "
        return f"**Warning: {who}**: {effect}the floor's too."
    if run.scenario == "class":
        return (
            f"**Warning: {who}**: {it} answered among all classes seen, but always right "
            "task-incrementally."
        )
    return f"**Warning: {who}**: there is nothing to choose in {'them' if several else 'it'}."


def general(studies: Sequence[Study]) -> list[str]:
    """How the tables are to be read."""
    runs = [run for study in studies for run in study.runs]
    cumulative = any(run.strategy == CUMULATIVE for run in runs)
    aside = (
        "joint and cumulative see all tasks again and do not compete"
        if cumulative
        else "joint sees all tasks at once and does not compete"
    )
    also = sorted({ALSO[run.scenario] for run in runs if run.scenario in ALSO})
    others = " and ".join(f"{name}-incremental" for name in also)
    judged = f"{others}: the same logits, judged in that scenario. " if also else ""
    return [
        "Mean ± sample standard deviation over n seeds. Accuracy: mean over tasks after the last "
        f"one, best in bold, second in [braces]; {aside}. {judged}avg. incr.: mean over steps of "
        f"the accuracy on the tasks learnt so far. {FLOOR}: the best constant answer.",
        "Training: wall time of learning. CPU: all threads, evaluation included. RSS: resident "
        "memory of the process, its peak and its growth since training began. GPU: mean use, peak "
        f"memory of the whole device. {sampling(runs)}Kept memory: between tasks. MMAC: 1e6 "
        "multiply-accumulates, a training step counted as three forward passes. 1 MB = 1e6 bytes. "
        "A cell is empty where nothing was measured.",
    ]


def sampling(runs: Sequence[Run]) -> str:
    """How often, and what that means; ends in a space."""
    periods = sorted({s.resources.period_seconds for r in runs for s in r.runs if s.resources})
    if not periods:
        return ""
    each = "-".join(f"{period:g}" for period in dict.fromkeys([periods[0], periods[-1]]))
    return f"Memory and GPU were sampled each {each} s: a peak is the highest sample. "
