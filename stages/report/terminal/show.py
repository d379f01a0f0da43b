"""One run in figures: what `lgr-pipe show` says, as a JSON object.

Fractions, seconds, bytes, exact.  An unfinished run has no figures yet: it is told how far it is.
"""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cache.errors import Refused
from cache.printable import printable
from stages.report.numbers.collapse import collapsed, verdicts
from stages.report.numbers.columns import BALANCED, COSTS, Column, results
from stages.report.numbers.learning import blocks, curve_spread, mean_matrix, outputs, recall_spread
from stages.report.numbers.replays import State, states
from stages.report.page.markup import plain
from stages.report.reading.about import About
from stages.report.reading.find import LOG, find, last_events, read_about, unfinished
from stages.report.reading.runs import METRICS, Run, Study
from stages.report.terminal.remarks import heading, of_study
from stages.report.terminal.table import Spread, spread

_LOG_LIMIT = 16_000_000
"""Bytes at the end of a log that are read: some hundred seeds."""
_LISTED = 20

Said = dict[str, Any]


def locate(folder: Path) -> Path:
    """The run that a folder is, or the only one right below it.

    Raises:
        Refused: there is no such folder, no run, or more than one.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "is not there"
        raise Refused(f"{folder} {what}: name the folder of a run, the --out of lgr-pipe train.")
    if _is_run(folder):
        return folder
    below = sorted(path for path in folder.iterdir() if path.is_dir() and _is_run(path))
    if len(below) == 1:
        return below[0]
    if not below:
        raise Refused(
            f"There is no run in {folder}: neither {METRICS} nor {LOG} in it or in a folder right "
            "below. Name the --out of lgr-pipe train; lgr-pipe report finds runs at any depth."
        )
    lines = [f"  lgr-pipe show {shlex.quote(str(path))}" for path in below[:_LISTED]]
    more = [f"  and {len(below) - _LISTED} more"] if len(below) > _LISTED else []
    raise Refused(
        "\n".join([f"{folder} holds {len(below)} runs: which one?", *lines, *more])
        + f"\nAll of them in one table: lgr-pipe report {shlex.quote(str(folder))}"
    )


def _is_run(folder: Path) -> bool:
    return (folder / METRICS).is_file() or (folder / LOG).is_file()


def about(folder: Path) -> Said:
    """Everything of the run in `folder`, as `locate` finds it.

    Raises:
        Refused: its metrics.json is damaged.
    """
    if not (folder / METRICS).is_file():
        return _unfinished(folder)
    found = find([folder])
    here = [
        run
        for study in found.studies
        for run in study.runs
        if folder.resolve() in {path.resolve() for path in run.folders}
    ]
    if not here:  # runs below it can be read, and its own cannot
        why = [out.why for out in found.left_out if out.folder.resolve() == folder.resolve()]
        raise Refused(f"{folder}: {why[0] if why else 'its figures cannot be read'}")
    return _finished(here[0], folder)


# --- finished ----------------------------------------------------------------------------


def columns(scenario: str) -> tuple[Column, ...]:
    """Measures of a seed, those of which there is most to say first.

    >>> columns("domain")[0].key
    'average_accuracy'
    """
    first, *others = results(scenario)
    return (first, *others, *([] if BALANCED in others else [BALANCED]), *COSTS)


def _finished(run: Run, folder: Path) -> Said:
    about = run.about or About()
    spreads = {column.key: spread(run, column.measure) for column in columns(run.scenario)}
    there, replayed = [seed.seed for seed in run.runs], states(run)
    return {
        "folder": str(folder),
        "state": "finished",
        "strategy": run.strategy,
        "heading": heading(run).replace("**", ""),
        "remarks": [line.replace("**", "") for line in of_study(Study((run,)), {})],
        "scenario": run.scenario,
        "seeds": [
            {"seed": seed.seed}
            | {column.key: column.measure(seed) for column in columns(run.scenario)}
            for seed in run.runs
        ],
        "mean": {key: value and value.mean for key, value in spreads.items()},
        "sd": {key: value and value.sd for key, value in spreads.items()},
        "majority_floor": run.runs[0].majority_floor,
        "accuracy_matrix": mean_matrix(run),
        "accuracy_on_learnt": [_spread(value) for value in curve_spread(run)],
        "recall": _recall(run),
        "memory_bytes": _memory(run),
        "replay": [_state(state) for state in replayed],
        "verdicts": [plain(paragraph.text) for paragraph in verdicts(run, replayed)],
        "replay_recorded": all(seed.replay is not None for seed in run.runs),
        "seeds_missing": [seed for seed in about.seeds or [] if seed not in there],
        "failed": _failed(last_events(folder / LOG, _LOG_LIMIT), there),
        "command": about.command,
        "machine": about.machine(),
        "versions": about.versions,
    }


def _spread(value: Spread | None) -> Said | None:
    return None if value is None else {"mean": value.mean, "sd": value.sd, "n": value.n}


def _recall(run: Run) -> list[Said] | None:
    """None: not recorded."""
    found = recall_spread(run)
    if found is None:
        return None
    names, tasks = outputs(run, len(found)), blocks(run, len(found))
    return [
        {
            "class": names[k],
            "task": next((block.task for block in tasks if block.start <= k < block.stop), None),
            "recall": _spread(value),
        }
        for k, value in enumerate(found)
    ]


def _memory(run: Run) -> dict[str, float]:
    """Mean over seeds, by kind."""
    kinds = dict.fromkeys(kind for seed in run.runs for kind in seed.memory_bytes)
    return {
        kind: sum(seed.memory_bytes.get(kind, 0) for seed in run.runs) / len(run.runs)
        for kind in kinds
    }


def _state(state: State) -> Said:
    return {
        "learnt": state.learnt,
        "kind": state.kind,
        "drawn": state.drawn,
        "variance_ratio": _spread(state.ratio),
        "collapsed": collapsed(state),
        "ncm_agreement": _spread(state.agreement),
        "ncm_agreement_real": _spread(state.agreement_real),
    }


# --- not finished ------------------------------------------------------------------------


def _unfinished(folder: Path) -> Said:
    """From its log, of which every line may be anybody's."""
    about = read_about(folder) or About()
    events = list(last_events(folder / LOG, _LOG_LIMIT))
    done = sorted({s for e in events if e.get("event") == "finished"
                   and (s := _count(e.get("seed"))) is not None})  # fmt: skip
    seed, task, learnt, losses, steps = _last(events)
    total = (about.train.tasks or 0) * (about.train.iters or 0)
    return {
        "folder": str(folder),
        "state": "unfinished",
        "strategy": about.strategy,
        "options": {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in about.options.items()
        },
        "seeds_asked": about.seeds,
        "seeds_done": done,
        "seed": None if seed in done else seed,
        "task": task,
        "tasks": about.train.tasks,
        "steps": steps,
        "steps_of_a_seed": total or None,
        "losses": losses,
        "learnt": learnt,
        "failed": _failed(events, done),
        "seconds_since_last_event": _age(folder / LOG),
        "command": about.command,
        "go_on": unfinished(folder).again,
        "machine": about.machine(),
    }


def _last(
    events: Iterable[Said],
) -> tuple[int | None, int | None, Said | None, dict[str, float], int | None]:
    """Seed, task, what was learnt last, last losses, iterations done: of the last seed begun."""
    seed, task, learnt, steps, before = None, None, None, None, 0
    losses: dict[str, float] = {}
    for event in events:
        kind = event.get("event")
        if kind == "seed":
            seed, before = _count(event.get("seed")), _count(event.get("steps_done")) or 0
            task, learnt, losses, steps = None, None, {}, before
        elif _count(event.get("seed", seed)) != seed:
            continue  # of a seed that is learnt at the same time
        elif kind == "learning":
            task = _count(event.get("task"))
        elif kind == "losses":
            losses = _losses(event)
            steps = before + (_count(event.get("iteration")) or 0)
        elif kind == "learnt":
            accuracy = _number(event.get("accuracy"))
            learnt = {"task": _count(event.get("task")), "accuracy": accuracy}
    return seed, task, learnt, losses, steps


def _losses(event: Said) -> dict[str, float]:
    found = {}
    for name, value in event.items():
        number = _number(value)
        known = name in ("seconds", "iteration", "seed") or not re.fullmatch(r"[a-z_ ]{1,32}", name)
        if number is not None and not known:
            found[name] = number
    return found


def _failed(events: Iterable[Said], done: Iterable[int]) -> list[Said]:
    """The last failure of each seed that is not done."""
    failures = {}
    for event in events:
        seed = _count(event.get("seed"))
        if event.get("event") == "failed" and seed is not None and seed not in done:
            failures[seed] = printable(event.get("why"))[:500]
    return [{"seed": seed, "why": why} for seed, why in failures.items()]


def _count(value: object) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 2**63 else None  # type: ignore[operator, return-value]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 and math.isfinite(value) else None


def _age(path: Path) -> float | None:
    try:
        return round(max(0.0, time.time() - path.stat().st_mtime), 1)
    except OSError:
        return None
