"""One run for a terminal: the same as `show.about`, in lines."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from cache.printable import printable
from stages.report.numbers.collapse import COLLAPSED
from stages.report.numbers.columns import Column
from stages.report.terminal.letters import BLOCKS, Terminal, bar, fitted, sparkline, table
from stages.report.terminal.show import Said, columns

_BAR = 24
"""Letters of a whole bar."""
_STILL = 600
"""Seconds without an event after which a run is hardly still at work."""
_PLAIN = str.maketrans(
    {
        "±": "+-",
        "▲": "^",
        "▼": "v",
        "–": "-",
        "·": "|",
        "→": "->",
        "×": "x",
        "“": '"',
        "”": '"',
        "…": "...",
    }
)


def text(said: Said, terminal: Terminal) -> str:
    parts = _unfinished(said, terminal) if said["state"] == "unfinished" else _run(said, terminal)
    lines = "\n\n".join("\n".join(part) for part in parts if part)
    return lines if terminal.blocks else lines.translate(_PLAIN)


def _run(said: Said, terminal: Terminal) -> list[list[str]]:
    return [
        _head(said, terminal),
        _seeds(said, terminal),
        _matrix(said, terminal),
        _over_tasks(said, terminal),
        _recall(said, terminal),
        _memory(said, terminal),
        _replay(said, terminal),
        _made(said, terminal),
    ]


def _head(said: Said, terminal: Terminal) -> list[str]:
    title = f"{said['strategy']}  {printable(said['folder'])}"
    lines = [terminal.paint(title, "bold"), *textwrap.wrap(said["heading"], terminal.width)]
    for remark in said["remarks"]:
        lines += textwrap.wrap(remark, terminal.width)
    missing = ", ".join(map(str, said["seeds_missing"]))
    if missing:
        lines.append(terminal.paint(f"Seeds asked for that are not there: {missing}", "red"))
    return lines + _failures(said, terminal)


def _failures(said: Said, terminal: Terminal) -> list[str]:
    return [
        terminal.paint(line, "red")
        for failure in said["failed"]
        for line in textwrap.wrap(
            f"Seed {failure['seed']} failed: {failure['why']}", terminal.width
        )
    ]


# --- tables ------------------------------------------------------------------------------


def _seeds(said: Said, terminal: Terminal) -> list[str]:
    """Seeds in rows; what does not fit beside stands below.  A column without any value is left
    out."""
    seeds = said["seeds"]
    there = [
        column
        for column in columns(said["scenario"])
        if any(seed[column.key] is not None for seed in seeds)
    ]
    several = len(seeds) > 1
    body = [*seeds, *([said["mean"], said["sd"]] if several else [])]
    names = [str(seed["seed"]) for seed in seeds]
    first = ["seed", *names, *(["mean", "± sd"] if several else [])]
    cells = [[c.heading, *(_cell(c, row.get(c.key)) for row in body)] for c in there]
    lines = table(first, cells, terminal)
    floor = f"majority floor: {100 * said['majority_floor']:.2f} %"
    about = f"{len(seeds)} seeds, mean and sample sd" if several else "one seed, no spread"
    return [terminal.paint("Seeds", "bold"), *lines, terminal.paint(f"{about}; {floor}", "faint")]


def _cell(column: Column, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{round(value * column.scale, column.digits) + 0.0:.{column.digits}f}"


def _matrix(said: Said, terminal: Terminal) -> list[str]:
    """R; what is not learnt yet is in brackets."""
    matrix = said["accuracy_matrix"]
    if len(matrix) < 2:
        return []
    first = ["", *(f"after {i}" for i in range(1, len(matrix) + 1))]
    cells = [
        [f"task {j + 1}", *(_accuracy(row[j], learnt=j <= i) for i, row in enumerate(matrix))]
        for j in range(len(matrix))
    ]
    title = terminal.paint("Accuracy on each task after learning each, %", "bold")
    aside = f"{_over(said)}; in brackets: not learnt yet; –: not evaluated"
    return [title, *table(first, cells, terminal), terminal.paint(aside, "faint")]


def _accuracy(value: float | None, learnt: bool) -> str:
    shown = "–" if value is None else f"{100 * value:.1f}"
    return f"{shown} " if learnt or value is None else f"({shown})"


def _over(said: Said) -> str:
    n = len(said["seeds"])
    return f"mean over {n} seeds" if n > 1 else "one seed"


# --- pictures in letters -----------------------------------------------------------------


def _over_tasks(said: Said, terminal: Terminal) -> list[str]:
    matrix = said["accuracy_matrix"]
    mean = [value and value["mean"] for value in said["accuracy_on_learnt"]]
    if len(matrix) < 2 or sum(value is not None for value in mean) < 2:
        return []
    rows = {"learnt so far": mean}
    for j in range(len(matrix)):
        rows[f"task {j + 1}"] = [row[j] if j <= i else None for i, row in enumerate(matrix)]
    known = [value for row in rows.values() for value in row if value is not None]
    low, high = math.floor(10 * min(known)) / 10, math.ceil(10 * max(known)) / 10
    high = max(high, low + 0.1)
    levels = BLOCKS if terminal.blocks else "12345678"
    wide = max(map(len, rows))
    lines = []
    for name, row in rows.items():
        shown = sparkline(fitted(row, terminal.width - wide - 24), low, high, levels)
        lines.append(f"{name.ljust(wide)}  {shown}  {_from_to(row)}")
    ends = f"{levels[0]} {100 * low:.0f} % to {levels[-1]} {100 * high:.0f} %"
    return [
        terminal.paint("Accuracy over the tasks", "bold"),
        *lines,
        terminal.paint(f"scale: {ends}; {_over(said)}", "faint"),
    ]


def _from_to(row: Sequence[float | None]) -> str:
    known = [value for value in row if value is not None]
    if not known:
        return ""
    last = f"{100 * known[-1]:.1f} %"
    return f"{100 * known[0]:.1f} → {last}" if len(known) > 1 else last


def _recall(said: Said, terminal: Terminal) -> list[str]:
    title = terminal.paint("Recall of each class after the last task", "bold")
    if said["recall"] is None:
        return [title, "not recorded"]
    names = [printable(entry["class"])[:25] for entry in said["recall"]]
    wide = max(map(len, names))
    lines, before = [], None
    for name, entry in zip(names, said["recall"], strict=True):
        task, value = entry["task"], entry["recall"]
        group = f"task {task}" if task is not None and task != before else ""
        before = task
        room = max(4, min(_BAR, terminal.width - wide - 34))
        shown = "undefined: no rows"
        if value is not None:
            sd = "" if value["sd"] is None else f" ± {100 * value['sd']:.1f}"
            shown = f"{bar(value['mean'], room, terminal.blocks)}  {100 * value['mean']:.1f}{sd} %"
        lines.append(f"{group.ljust(8)}{name.ljust(wide)}  {shown}")
    return [title, *lines]


# --- what it keeps and replays -----------------------------------------------------------


def _memory(said: Said, terminal: Terminal) -> list[str]:
    kinds = said["memory_bytes"]
    rows = [*kinds.items(), *([("together", sum(kinds.values()))] if len(kinds) > 1 else [])]
    title = terminal.paint("Kept between tasks", "bold")
    if not rows:
        return [title, "nothing"]
    wide = max(len(kind) for kind, _ in rows)
    return [title, *(f"{kind.ljust(wide)}  {size / 1e6:10.3f} MB" for kind, size in rows)]


def _replay(said: Said, terminal: Terminal) -> list[str]:
    title = terminal.paint("What is replayed", "bold")
    if not said["replay"]:
        return [title, "nothing" if said["replay_recorded"] else "not recorded"]
    states = said["replay"]
    first = ["after", *(str(state["learnt"]) for state in states)]
    cells = [
        ["kind", *(str(state["kind"]) for state in states)],
        ["drawn", *(str(state["drawn"]) for state in states)],
        ["variance ratio", *map(_ratio, states)],
        ["agrees %", *(_pm(state["ncm_agreement"], 100, 1) for state in states)],
        ["real rows %", *(_pm(state["ncm_agreement_real"], 100, 1) for state in states)],
    ]
    about = (
        "After: tasks learnt. Variance ratio: of replayed latents to real ones; 1 is as varied, "
        f"below {COLLAPSED:g} is called collapsed. Agrees: answers that name the nearest real "
        "class mean; real rows: the same of real latents."
    )
    lines = [title, *table(first, cells, terminal)]
    lines += [terminal.paint(line, "faint") for line in textwrap.wrap(about, terminal.width)]
    for verdict in said["verdicts"]:
        lines += [terminal.paint(line, "red") for line in textwrap.wrap(verdict, terminal.width)]
    return lines


def _ratio(state: Said) -> str:
    shown = _pm(state["variance_ratio"], 1, 3)
    return f"{shown} COLLAPSED" if state["collapsed"] else shown


def _pm(value: Any, scale: float, digits: int) -> str:
    if value is None:
        return "–"
    sd = "" if value["sd"] is None else f" ± {scale * value['sd']:.{digits}f}"
    return f"{scale * value['mean']:.{digits}f}{sd}"


def _made(said: Said, terminal: Terminal) -> list[str]:
    """The command stays in one line, to be copied."""
    lines = []
    if said["command"]:
        lines += [terminal.paint("Made by", "bold"), said["command"]]
    if said["machine"]:
        version = said["versions"].get("lgr-pipe")
        who = f"lgr-pipe {version} on {said['machine']}" if version else f"on {said['machine']}"
        lines += [terminal.paint(line, "faint") for line in textwrap.wrap(who, terminal.width)]
    return lines or ["How it was made is not recorded: it has no run.json."]


# --- not finished ------------------------------------------------------------------------


def _unfinished(said: Said, terminal: Terminal) -> list[list[str]]:
    name = f"{said['strategy']}  " if said["strategy"] else ""
    title = terminal.paint(f"{name}{printable(said['folder'])}: not finished", "bold")
    rows = {"seeds done": _done(said), "now at": _now(said)}
    learnt = said["learnt"]
    if learnt and learnt["accuracy"] is not None:
        rows["learnt"] = f"task {learnt['task']}, accuracy so far {100 * learnt['accuracy']:.1f} %"
    losses = [f"{printable(name)} {value:.4g}" for name, value in said["losses"].items()]
    rows["last losses"] = ", ".join(losses) or "none yet"
    age = said["seconds_since_last_event"]
    if age is not None:
        aside = "; it may still be at work" if age < _STILL else ""
        rows["last event"] = f"{_ago(age)} ago{aside}"
    wide = max(map(len, rows))
    lines = [f"{name.ljust(wide)}  {value}" for name, value in rows.items() if value]
    go_on = said["go_on"] or "not known: it has no run.json; the same train command with --resume"
    return [
        [title, *lines, *_failures(said, terminal)],
        [terminal.paint("Go on with", "bold"), go_on],
    ]


def _done(said: Said) -> str:
    done, asked = said["seeds_done"], said["seeds_asked"]
    of = f" of {len(asked)}" if asked else ""
    which = f" ({', '.join(map(str, done[:20]))}{', …' * (len(done) > 20)})" if done else ""
    return f"{len(done)}{of}{which}"


def _now(said: Said) -> str:
    if said["seed"] is None:
        return "between seeds" if said["seeds_done"] else "before the first seed"
    parts = [f"seed {said['seed']}"]
    if said["task"] is not None:
        of = f" of {said['tasks']}" if said["tasks"] else ""
        parts.append(f"task {said['task']}{of}")
    steps, total = said["steps"], said["steps_of_a_seed"]
    if steps:
        share = f" of {total:,} ({100 * min(steps / total, 1.0):.0f} %)" if total else ""
        parts.append(f"iteration {steps:,}{share}")
    return ", ".join(parts)


def _ago(seconds: float) -> str:
    for size, word in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"
