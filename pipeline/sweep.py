"""A grid search: one `train` run for each point, several at once, resumable, one table at the end.

    DIR/
        sweep.json                 what was swept: each point's name and settings
        points/NAME/               as `train` writes it
        points/NAME.log            what that run said
        table.md, table.csv, accuracy_memory.svg and .png; with two numeric options grid.*

A point is known by its settings: a grid that grows or shrinks finds what it has.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache.errors import CacheExistsError, Refused
from cache.files import write_json, write_text
from cache.fingerprint import differences, short
from cache.memory import available_memory
from cache.schema import Manifest, read_manifest
from pipeline.console import bars, say
from pipeline.grid import Planned, Settings
from pipeline.how import Dask, cores
from pipeline.jobs import Ended, Job, Memory, interruptible, last_words, run_jobs
from pipeline.params import deciding
from pipeline.run_files import CHECKPOINTS
from stages.report.reading.runs import METRICS
from stages.report.sweep import points as report
from stages.report.sweep.points import Point, Result, Sweep, Value

RECORD, POINTS, RUN = "sweep.json", "points", "run.json"
_RECORD_LIMIT = 256_000_000  # bytes; a larger file is not read
_LONGEST_NAME = 100
_SHOWN_FAILURES = 5
_IMPORTS = 1_000_000_000
"""Bytes that a run takes before it has read anything."""


@dataclass(frozen=True)
class SweepHow:
    """What decides no figure."""

    jobs: int
    """Runs at once, at most."""
    estimate: int
    """Bytes that a run needs, as long as none has been measured."""
    command: tuple[str, ...]
    """What `train`'s options are put behind."""
    tensorboard: Path | None = None
    overwrite: bool = False
    dask: Dask | None = None
    """None: on this machine."""
    device: str = "cpu"
    """auto, cpu or cuda."""


class _Record(BaseModel):
    """sweep.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["lgr-pipe sweep 1"] = "lgr-pipe sweep 1"
    cache: dict[str, str]
    """Fingerprint and content."""
    varied: list[str]
    """Options that were ever in a grid here."""
    points: dict[str, Settings] = Field(max_length=1_000_000)
    """By name."""


def default_jobs(device: str, threads: int) -> int:
    """One a core; a GPU, whose memory nobody watches here, is not shared unasked."""
    return 1 if device == "cuda" else max(1, cores() // threads)


def estimate(latents: int, crops: Path | None) -> int:
    """Bytes that a run needs, as long as none has been measured: its data, `latents` those that
    are in memory, and its imports.

    Raises:
        Refused: no cache at `crops`.
    """
    need = _IMPORTS + latents
    if crops is not None:
        manifest = read_manifest(crops)
        need += math.prod(manifest.columns[manifest.bulk].shape)
    return need


def _names(points: Sequence[Planned], known: dict[str, Settings]) -> dict[str, Planned]:
    """Each point by the name that its settings have here, or else by a new one."""
    by_key = {settings.key: name for name, settings in known.items()}
    named: dict[str, Planned] = {}
    for point in points:
        text = ",".join(f"{name}={report.shown(value)}" for name, value in point.options.items())
        name = re.sub(r"[^A-Za-z0-9._+=,-]", "_", text)[:_LONGEST_NAME]
        if name != text or name in known:
            name = f"{name}~{short(point.settings.key)}"
        named[by_key.get(point.settings.key, name)] = point
    return named


# --- the folder --------------------------------------------------------------------------


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """The folder, made if need be, for this process; its end, however it comes, sets it free.

    Raises:
        Refused: it holds other things, or another sweep is at work in it.
    """
    there = [path.name for path in out.iterdir()] if out.is_dir() else []
    if RECORD not in there and not all(name.endswith(".tmp") for name in there):
        raise CacheExistsError(f"{out} exists already and is no sweep: choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"Another sweep is at work in {out}: wait for it.") from None
        except OSError:
            pass  # a file system without locks for folders, such as NFS
        yield
    finally:
        os.close(handle)


def _read_record(out: Path) -> _Record | None:
    path = out / RECORD
    if not path.exists():
        return None
    try:
        if path.stat().st_size > _RECORD_LIMIT:
            raise ValueError(f"it is larger than {_RECORD_LIMIT} bytes")
        record = _Record.model_validate(json.loads(path.read_bytes()))
        for name in record.points:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=,~-]{0,200}", name):
                raise ValueError(f"{name[:100]!r} is no name of a point")
        return record
    except (ValidationError, ValueError, RecursionError) as error:
        lines = " ".join(str(error).splitlines()[:3])
        raise Refused(
            f"{path} is not what lgr-pipe sweep writes: {lines}. Choose another --out."
        ) from None


def _refuse_other(out: Path, record: _Record, wanted: _Record) -> None:
    """Only what was in a grid may differ from what was swept here before."""
    free = {*record.varied, *wanted.varied}
    lines = differences(wanted.cache, record.cache, "cache ")
    known = {settings.strategy: settings for settings in record.points.values()}
    for settings in {settings.strategy: settings for settings in wanted.points.values()}.values():
        same = settings.strategy in known  # or else the options are others by right
        found = known.get(settings.strategy) or next(iter(known.values()), settings)
        a, b = settings.flat(options=same), found.flat(options=same)
        fixed = (a.keys() | b.keys()) - free
        lines += differences({n: a.get(n) for n in fixed}, {n: b.get(n) for n in fixed})
    if lines:
        shown = "\n  ".join(dict.fromkeys(lines))
        raise Refused(
            f"{out} holds a sweep with other settings:\n  {shown}\n"
            "Choose another --out, or add --overwrite to start anew."
        )


def _begin(
    out: Path, points: Sequence[Planned], cache: Manifest, overwrite: bool
) -> dict[str, Planned]:
    """The points by name, after sweep.json has been written."""
    record = _read_record(out)
    if record is not None and overwrite:
        for name in record.points:
            shutil.rmtree(out / POINTS / name, ignore_errors=True)
            (out / POINTS / f"{name}.log").unlink(missing_ok=True)
        record = None
    named = _names(points, record.points if record else {})
    wanted = _Record(
        cache={"fingerprint": cache.fingerprint, "content": cache.content},
        varied=sorted(points[0].options),
        points={name: point.settings for name, point in named.items()},
    )
    if record is not None:
        _refuse_other(out, record, wanted)
        both = {**record.points, **wanted.points}
        varied = sorted({*record.varied, *wanted.varied})
        wanted = wanted.model_copy(update={"points": both, "varied": varied})
    write_json(out / RECORD, wanted.model_dump())
    (out / POINTS).mkdir(exist_ok=True)
    return named


def _finished(folder: Path, point: Planned, cache: Manifest) -> Result | None:
    """The result of a point that needs no run.

    Raises:
        Refused: there is a result, but of another run.
    """
    if not (folder / METRICS).exists():
        return None
    run = report.read_json(folder / RUN)
    wanted = {
        **point.settings.model_dump(),
        "cache_fingerprint": cache.fingerprint,
        "cache_content": cache.content,
    }
    found = {name: run.get(name) for name in wanted}
    if isinstance(found["train"], dict):
        found["train"] = deciding(found["train"])
    lines = differences(wanted, found)
    if lines:
        shown = "\n  ".join(lines)
        raise Refused(
            f"{folder} holds a run with other settings:\n  {shown}\n"
            "Remove that folder, or add --overwrite to start all anew."
        )
    return report.read_result(folder / METRICS)


# --- the work ----------------------------------------------------------------------------


def sweep(points: Sequence[Planned], cache: Manifest, out: Path, how: SweepHow) -> Sweep:
    """Run what is not there yet, and write table and figures.

    Raises:
        Refused: `out` is taken, or holds a sweep with other settings.
    """
    with _alone(out):
        named = _begin(out, points, cache, how.overwrite)
        done = {name: _finished(out / POINTS / name, p, cache) for name, p in named.items()}
        results = {name: result for name, result in done.items() if result is not None}
        todo = {name: point for name, point in named.items() if name not in results}
        memory = Memory(how.estimate, available_memory)
        for result in results.values():
            memory.measured(result.rss_peak or 0)
        if results:
            say(f"{len(results)} of {len(named)} points are there already.")
        failures = _run(todo, len(named), out, how, memory, results)
        found = Sweep(
            tuple(
                Point(point.options, results.get(name), failures.get(name, ""))
                for name, point in named.items()
            ),
            _fixed(points),
        )
        _write(found, out)
    _say_end(found, failures, out)
    return found


def _run(
    todo: dict[str, Planned],
    total: int,
    out: Path,
    how: SweepHow,
    memory: Memory,
    results: dict[str, Result],
) -> dict[str, str]:
    """Fills `results`; returns what the failed points said."""
    failures: dict[str, str] = {}
    with bars() as shown, interruptible():
        tick = shown.add("sweep", total, "points", before=len(results))

        def ended(one: Ended) -> None:
            name = one.job.name
            tick(1)
            try:
                if one.code:
                    raise Refused(last_words(one))
                results[name] = report.read_result(out / POINTS / name / METRICS)
                memory.measured(results[name].rss_peak or one.rss_peak_bytes)
                what = _in_short(results[name])
            except Refused as error:
                failures[name] = str(error)
                what = f"failed: {error}"
            if not sys.stderr.isatty():
                count = len(results) + len(failures)
                say(f"{count}/{total} {name}: {what} ({one.seconds:.1f} s)")

        if how.dask is not None:
            _run_on_dask(how.dask, todo, out.absolute(), how, ended)
        else:
            jobs = [_job(name, point, out, how) for name, point in todo.items()]
            run_jobs(jobs, most=how.jobs, memory=memory, ended=ended)
    return failures


def _run_on_dask(
    dask: Dask,
    todo: dict[str, Planned],
    out: Path,
    how: SweepHow,
    ended: Callable[[Ended], None],
) -> None:
    from pipeline.cluster.jobs import run_jobs_on

    jobs = [(name, partial(_job, name, point, out, how)) for name, point in todo.items()]
    marker = out / RECORD
    run_jobs_on(dask, jobs, marker=marker, device=how.device, workers=how.jobs, ended=ended)


def _job(name: str, point: Planned, out: Path, how: SweepHow) -> Job:
    folder = out / POINTS / name
    words = [*how.command, *point.words, "--out", str(folder)]
    if (folder / CHECKPOINTS).exists():
        words.append("--resume")
    if how.tensorboard is not None:
        words += ["--tensorboard", str(how.tensorboard / name)]
    return Job(name, tuple(words), out / POINTS / f"{name}.log")


def _in_short(result: Result) -> str:
    spread = result.accuracy
    sd = "" if spread.sd is None else f" ± {100 * spread.sd:.2f}"
    return f"validation accuracy {100 * spread.mean:.2f}{sd} %, {result.memory / 1e6:.1f} MB kept"


def _fixed(points: Sequence[Planned]) -> dict[str, Value]:
    """Settings that all points share, by the names that they have on the command line."""
    first, *others = (point.settings.flat() for point in points)
    return {
        name: value
        for name, value in first.items()
        if name not in (*points[0].options, "evaluate-on")
        and all(name in other and other[name] == value for other in others)
    }


def _write(found: Sweep, out: Path) -> None:
    from stages.report.sweep.figure import draw

    write_text(out / "table.md", report.markdown(found))
    write_text(out / "table.csv", report.csv_text(found))
    draw(found, out)


def _say_end(found: Sweep, failures: dict[str, str], out: Path) -> None:
    for name, said in list(failures.items())[:_SHOWN_FAILURES]:
        say(f"Failed: {name}: {said}")
    if failures:
        more = len(failures) - _SHOWN_FAILURES
        rest = f" {more} more are in the table." if more > 0 else ""
        say(
            f"{len(failures)} of {len(found.points)} points failed.{rest} What they said is in "
            f"{out / POINTS}/*.log; the same command tries them again."
        )
    say(f"Table and figures are in {out}.")
