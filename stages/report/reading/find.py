"""Find runs below folders, and put together only what belongs together.

What cannot be shown is left out with its reason; nothing is averaged over runs that differ in
anything but the seed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cache.errors import Refused
from cache.plain import read_plain, refuse_strange_file
from cache.printable import printable
from stages.report.reading.about import RUN, About, as_text
from stages.report.reading.runs import CUMULATIVE, JOINT, METRICS, NONE, Run, Study

LOG, CHECKPOINTS = "log.jsonl", "checkpoints"

_LIMIT = 64_000_000
"""Bytes; a larger file is not read."""
_TAIL = 64_000
"""Bytes at the end of a log that are looked at."""
_DEEPEST = 50
"""Folders within folders that are looked into."""
_MOST_SHOWN = 5
"""Mistakes of a file that are told."""


@dataclass(frozen=True)
class LeftOut:
    """A folder of which nothing is shown."""

    folder: Path
    why: str
    again: str = ""
    """The command that finishes it, where it is known."""


@dataclass(frozen=True)
class Found:
    studies: tuple[Study, ...]
    """At least one, in the order of the paths of their first runs."""
    left_out: tuple[LeftOut, ...]


def find(folders: Sequence[Path]) -> Found:
    """All runs at or below the folders.

    Runs that differ in more than the strategy and its options belong to different studies.  Runs
    of one strategy with other options are variants of it; such with equal settings and other
    seeds are one run.

    Raises:
        Refused: nothing that can be shown, or two runs that claim the same seed of the same
            strategy with the same settings.
    """
    paths = _paths(folders)
    runs: list[Run] = []
    finished = {path.parent.resolve() for path in paths}
    left_out = [
        unfinished(folder) for folder in _begun(folders) if folder.resolve() not in finished
    ]
    for path in paths:
        try:
            runs.append(_read(path))
        except _StrangeError as error:
            left_out.append(LeftOut(path.parent, str(error)))
    if not runs:
        raise Refused(_nothing(folders, left_out))
    studies: list[list[Run]] = []
    for run in runs:
        for study in studies:
            if study[0].study() == run.study():
                study.append(run)
                break
        else:
            studies.append([run])
    made = tuple(Study(tuple(sorted(_labelled(_united(study)), key=_place))) for study in studies)
    return Found(made, tuple(sorted(left_out, key=lambda out: out.folder)))


def find_studies(folders: Sequence[Path]) -> list[Study]:
    """As `find`, without what is left out."""
    return list(find(folders).studies)


# --- what belongs together ---------------------------------------------------------------


def _united(runs: Sequence[Run]) -> list[Run]:
    """Seeds of one strategy with one set of options become one run."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps([run.strategy, _options(run)], sort_keys=True), []).append(run)
    return [_one(group) for group in groups.values()]


def _one(runs: Sequence[Run]) -> Run:
    owner: dict[int, Run] = {}
    for run in runs:
        for seed in run.runs:
            other = owner.setdefault(seed.seed, run)
            if other is not run:
                raise Refused(
                    f"{other.folders[0]} and {run.folders[0]} are both runs of {run.strategy} with "
                    f"seed {seed.seed}, and equal in data, tasks, training and options: which one "
                    "belongs in the table? Name folders that hold only one of them: "
                    "lgr-pipe report FOLDER ..."
                )
    seeds = sorted((seed for run in runs for seed in run.runs), key=lambda seed: seed.seed)
    folders = tuple(folder for run in runs for folder in run.folders)
    return runs[0].model_copy(update={"runs": seeds, "folders": folders})


def _options(run: Run) -> dict[str, Any]:
    return dict(run.about.options) if run.about else {}


def _labelled(runs: Sequence[Run]) -> Iterator[Run]:
    """Variants of a strategy are told apart by the options in which they differ."""
    for strategy in dict.fromkeys(run.strategy for run in runs):
        variants = [run for run in runs if run.strategy == strategy]
        known = {name for run in variants for name in _options(run)}
        differing = sorted(
            name for name in known if len({repr(_options(run).get(name)) for run in variants}) > 1
        )
        for number, run in enumerate(sorted(variants, key=partial(_by_value, differing))):
            mine = _options(run)
            said = ", ".join(
                f"{name} {as_text(mine[name]) if name in mine else 'not recorded'}"
                for name in differing
            )
            label = f"{strategy} ({said})" if said else strategy
            yield run.model_copy(update={"label": label, "variant": number})


def _by_value(names: Sequence[str], run: Run) -> list[tuple[bool, float, str]]:
    """Numbers by their size, before words."""
    values = [_options(run).get(name) for name in names]
    return [
        (False, float(v), "") if isinstance(v, int | float) else (True, 0.0, str(v)) for v in values
    ]


def _place(run: Run) -> tuple[int, str, int]:
    last = (CUMULATIVE, JOINT)
    name = run.strategy
    return (last.index(name) + 1 if name in last else -(name == NONE), name, run.variant)


# --- what there is -----------------------------------------------------------------------


def _paths(folders: Sequence[Path]) -> list[Path]:
    """Each metrics.json once, though folders may lie in each other."""
    paths: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise Refused(f"There is no folder {folder}.")
        for path in _below(folder, METRICS):
            paths.setdefault(os.path.realpath(path), path)
    return list(paths.values())


def _begun(folders: Sequence[Path]) -> list[Path]:
    """Folders in which train has begun something."""
    found: dict[Path, Path] = {}
    for folder in folders:
        for path in _below(folder, LOG):
            found.setdefault(path.parent.resolve(), path.parent)
    return list(found.values())


def _below(folder: Path, name: str) -> list[Path]:
    """All that are called so, sorted.  Links to folders are not followed, for they can go in a
    circle; what cannot be listed is passed over."""
    found = []
    for place, inside, files in os.walk(folder):
        if name in files or name in inside:
            found.append(Path(place, name))
        if len(Path(place).parts) - len(folder.parts) >= _DEEPEST:
            inside.clear()
    return sorted(found)


def _nothing(folders: Sequence[Path], left_out: Sequence[LeftOut]) -> str:
    names = ", ".join(str(folder) for folder in folders)
    if left_out:
        told = "; ".join(f"{out.folder}: {out.why}" for out in left_out[:_MOST_SHOWN])
        return f"There is no run in {names} that can be shown. {told}"
    return (
        f"There are no finished runs in {names}: no {METRICS} in it or below. "
        "Make one: lgr-pipe train --strategy NAME --cache PATH --out DIR"
    )


def unfinished(folder: Path) -> LeftOut:
    """How far a run without results is, and the command that goes on with it."""
    about = read_about(folder)
    events = list(last_events(folder / LOG))
    failed = [event for event in events if event.get("event") == "failed"]
    finished = {str(e.get("seed")) for e in events if e.get("event") == "finished"}
    asked = f" of {len(about.seeds)}" if about and about.seeds else ""
    why = f"not finished: {len(finished)}{asked} seeds done" if events else "not finished"
    if failed:
        last = failed[-1]
        why = f"seed {last.get('seed')} failed: {last.get('why')}"
    again = ""
    if about is not None and about.command:
        again = about.command.replace(" --overwrite", "")
        again += "" if "--resume" in again else " --resume"
    return LeftOut(folder, printable(why)[:500], again)


def last_events(path: Path, most: int = _TAIL) -> Iterator[dict[str, Any]]:
    """Those in the last `most` bytes of a log, which may be anybody's."""
    try:
        size = refuse_strange_file(path, sys.maxsize)
        with path.open("rb") as file:
            file.seek(max(0, size - most))
            lines = file.read(most).split(b"\n")
    except (Refused, OSError):
        return
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # cut where the reading began, or where the run was killed
        if isinstance(event, dict):
            yield event


# --- reading -----------------------------------------------------------------------------


class _StrangeError(Exception):
    """A file that is not what train writes."""


def _read(path: Path) -> Run:
    try:
        run = Run.model_validate(_json(path))
    except ValidationError as error:
        raise _strange("; ".join(_sentences(error))) from None
    except (Refused, ValueError, RecursionError) as error:
        raise _strange(str(error)) from None
    return run.model_copy(
        update={"folders": (path.parent,), "about": read_about(path.parent), "label": run.strategy}
    )


def read_about(folder: Path) -> About | None:
    """None: there is none, or it is not what train writes; no figure depends on it."""
    try:
        return About.model_validate(_json(folder / RUN))
    except (Refused, ValueError, RecursionError):
        return None


def _json(path: Path) -> Any:
    return json.loads(read_plain(path, _LIMIT))


def _sentences(error: ValidationError) -> list[str]:
    lines = []
    for mistake in error.errors(include_url=False)[:_MOST_SHOWN]:
        where = ".".join(str(part) for part in mistake["loc"]) or "the file"
        lines.append(f"{where}: {mistake['msg']}")
    if error.error_count() > _MOST_SHOWN:
        lines.append(f"and {error.error_count() - _MOST_SHOWN} more")
    return lines


def _strange(why: str) -> _StrangeError:
    return _StrangeError(
        f"{METRICS} is not what lgr-pipe train writes ({printable(why)[:500]}). "
        "Run train again, or name only folders of its runs."
    )
