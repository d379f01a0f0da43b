"""What interrupted and killed commands have left below a folder, and taking it away.

    .NAME.work-<fingerprint>.<rows>.<schema>      unfinished work: goes when nobody touches it
    .NAME.work-....done-<random>                  finished, was being deleted
    .NAME.{convert,export,import,repair}-<random> locked while it is at work
    .NAME[.work-...].replaced-<random>            an old NAME: goes only where there is a new one
    .FILE.<random>.tmp                            a file that was never whole

A name is not enough: what goes holds nothing but what lgr-pipe puts there.
Links are not followed and nothing outside the folder is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cache.beside import WORDS, held
from cache.errors import Refused
from cache.find import DEEPEST
from cache.parts import PLAN
from cache.printable import printable
from cache.progress import work_in
from cache.schema import CACHE_NAMES, MANIFEST, MANIFEST_LIMIT, SAMPLES, parse_json, read_manifest
from cache.share.export_npy import claim as npy_claim

QUIET = 3600.0
"""Seconds without a change after which what nobody needs is left over."""

_KEY = r"work-[0-9a-f]{12}\.\d+\.\d+"
_WORK = rf"\.(?P<out>.+)\.{_KEY}"
_ASIDE = rf"(?:{_WORK}\.replaced-[0-9a-f]{{8}}|\.(?P<plain>.+)\.replaced-[0-9a-f]{{12}})"
_WORD = "|".join(WORDS)
_MAKING = rf"\.(?P<out>.+)\.(?P<word>{_WORD})-[0-9a-f]{{12}}"
_DONE = rf"\.(?P<out>.+)\.(?:work|{_WORD}|replaced)-.+\.done-[0-9a-f]{{8}}"
_KINDS = (("done", _DONE), ("aside", _ASIDE), ("work", _WORK), ("making", _MAKING))
_ALIKE = rf"\..+\.(?:work|{_WORD}|replaced|done)-.*"
_TEMPORARY = r"\..+\.[0-9a-f]{12}\.tmp"

_CACHE = CACHE_NAMES
_NPY = r"[a-z_]+\.npy|samples\.jsonl|export\.json|README\.txt"
_PART = (
    r"plan\.json|samples\.jsonl|published|state\.npy|\.state\.npy\.\d+|parts(?:/\d+\.npy)?"
    rf"|records(?:/\d+\.json)?|cache-[0-9a-f]{{8}}(?:/(?:{_CACHE}))?"
)
_MADE = rf"(?:\.samples_jsonl|/(?:{_CACHE}|{_NPY}))?"  # after NAME


@dataclass(frozen=True)
class Verdict:
    """On one thing that is, or looks like, a leftover."""

    path: Path
    goes: bool
    why: str
    bytes: int = 0
    """Room that comes free: files that have another name elsewhere free none."""
    age: float = 0.0
    """Seconds since anything in it changed."""


@dataclass
class _Inside:
    """What was found in a folder."""

    files: int = 0
    bytes: int = 0
    changed: float = 0.0
    names: set[str] = field(default_factory=set)
    """At its top."""
    foreign: str = ""
    """The first that lgr-pipe does not put there."""


def collect(root: Path, older_than: float, now: float | None = None) -> Iterator[Verdict]:
    """Look at everything below `root` that has a leftover's name; nothing is changed.

    Args:
        older_than: seconds after which unfinished work is given up; 0: all of it.
        now: seconds since the epoch.
    """
    now = time.time() if now is None else now
    for folder, names, files in os.walk(root):
        here = Path(folder)
        for name in sorted([*names, *files]):
            verdict = _judge(here / name, older_than, now)
            if verdict is not None:
                yield verdict
        deep = len(here.relative_to(root).parts) >= DEEPEST
        names[:] = [] if deep else sorted(n for n in names if _look_into(here / n))


def _look_into(path: Path) -> bool:
    try:
        cache = (path / MANIFEST).is_file() and (path / SAMPLES).exists()
    except OSError:
        return False
    return not (path.name.startswith(".") or cache)


def _judge(path: Path, older_than: float, now: float) -> Verdict | None:
    """None: it has another name."""
    name = path.name
    file = re.fullmatch(_TEMPORARY, name, re.DOTALL)
    if not file and not re.fullmatch(_ALIKE, name, re.DOTALL):
        return None
    try:
        said = path.lstat()
        if file:
            return _temporary(path, said, older_than, now)
        if not stat.S_ISDIR(said.st_mode):
            return Verdict(path, False, "left alone: it is a file or a link, no folder")
        return _folder(path, older_than, now)
    except FileNotFoundError:  # finished or deleted meanwhile
        return None
    except (OSError, Refused) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Verdict(path, False, f"left alone: {printable(why)}")


def _temporary(path: Path, said: os.stat_result, older_than: float, now: float) -> Verdict | None:
    age = now - said.st_mtime
    if not stat.S_ISREG(said.st_mode):
        return None
    if age < min(QUIET, older_than):
        return Verdict(path, False, "kept: perhaps being written", _freed(said), age)
    return Verdict(path, True, "a file that was never finished", _freed(said), age)


def _folder(path: Path, older_than: float, now: float) -> Verdict:
    matches = {kind: re.fullmatch(pattern, path.name, re.DOTALL) for kind, pattern in _KINDS}
    kind, match = next(((k, m) for k, m in matches.items() if m), ("", None))
    if match is None:
        return Verdict(path, False, "left alone: lgr-pipe gives no such name")
    inside = _inside(path, _ours(kind, _name(match)))
    age = now - inside.changed
    if inside.foreign:
        what = (
            f"left alone: it holds {printable(inside.foreign)}, which lgr-pipe does not put there"
        )
        return Verdict(path, False, what, inside.bytes, age)
    goes, why, left = True, "", True
    if kind == "done":
        why = "finished, its deletion was interrupted"
    elif kind == "aside":
        goes, why = _replaced(path, path.with_name(_name(match)))
    elif kind == "making":
        goes, why = _making(path, match["word"], match["out"])
    else:
        goes, why, left = _work(path, inside)
    if goes and older_than and age < (min(QUIET, older_than) if left else older_than):
        goes, why = False, f"kept: {why}, but touched lately"
    return Verdict(path, goes, why, inside.bytes, age)


def _name(match: re.Match[str]) -> str:
    """What it is to be, or was."""
    found = match.groupdict()
    return str(found["out"] or found["plain"])


def _ours(kind: str, out: str) -> re.Pattern[str]:
    """What lgr-pipe puts into a folder of this kind for the cache or export of the name `out`."""
    made = re.escape(out) + _MADE
    inside = {
        "work": _PART,
        "done": rf"{_PART}|{_CACHE}|{_NPY}|{made}",
        "making": rf"{_CACHE}|{made}|\.crops\.{_KEY}(?:/(?:{_PART}))?",
        "aside": rf"{_CACHE}|{_NPY}",
    }
    return re.compile(rf"(?:{inside[kind]})|(?:.+/)?{_TEMPORARY}", re.DOTALL)


def _inside(folder: Path, ours: re.Pattern[str]) -> _Inside:
    """Everything in a folder, links not followed; stops at the first thing that is foreign."""
    found = _Inside(changed=folder.lstat().st_mtime)
    waiting = [""]
    while waiting and not found.foreign:
        here = waiting.pop()
        with os.scandir(folder / here) as entries:
            for entry in entries:
                name = f"{here}/{entry.name}" if here else entry.name
                said = entry.stat(follow_symlinks=False)
                is_folder = stat.S_ISDIR(said.st_mode)
                plain = is_folder or stat.S_ISREG(said.st_mode)
                if not plain or not ours.fullmatch(name) or name.count("/") > DEEPEST:
                    found.foreign = name
                    break
                found.names |= set() if here else {name}
                found.changed = max(found.changed, said.st_mtime)
                if is_folder:
                    waiting.append(name)
                else:
                    found.files += 1
                    found.bytes += _freed(said)
    return found


def _freed(said: os.stat_result) -> int:
    return said.st_size if said.st_nlink == 1 else 0


def _replaced(path: Path, out: Path) -> tuple[bool, str]:
    name = printable(out.name)
    if _finished(out) or npy_claim(out) is not None:
        return True, f"an old {name}, replaced by that which is there now"
    return False, (
        f"kept: {name} is not there, so this is the only one. To have it back: "
        f"mv {printable(path.name)} {name}"
    )


def _finished(out: Path) -> str:
    """The fingerprint of the finished cache; empty where there is none."""
    try:
        return read_manifest(out).fingerprint
    except (Refused, OSError):
        return ""


def _making(path: Path, word: str, out: str) -> tuple[bool, str]:
    what = f"{word} of {printable(out)}"
    with held(path, unsure=True) as free:
        return (True, f"{what}, killed") if free else (False, f"kept: {what}, at work now")


def _work(path: Path, inside: _Inside) -> tuple[bool, str, bool]:
    """(goes, why, nobody needs it however new it is)"""
    if PLAN not in inside.names:
        if not inside.files:
            return True, "work that was killed before it began", True
        return False, f"left alone: it has no {PLAN}", False
    work = work_in(path)
    if work is None:
        version = _version(path / PLAN)
        if version is None:
            return False, f"left alone: its {PLAN} is none of lgr-pipe's", False
        return (
            True,
            f"unfinished work that this version cannot go on with (schema {version})",
            False,
        )
    name = printable(work.out.name)
    if _finished(work.out) == work.plan.fingerprint:
        return True, f"the finished {name} is there already", True
    how_far = f"{work.done} of {work.total} units"
    return True, f"unfinished {work.plan.kind} for {name}, {how_far}", False


def _version(plan: Path) -> int | None:
    """The schema that a plan says, if it is one."""
    if plan.stat().st_size > MANIFEST_LIMIT:
        return None
    try:
        said = parse_json(plan.read_bytes())
    except ValueError:
        return None
    if not isinstance(said, dict) or not {"kind", "settings", "store"} <= said.keys():
        return None
    version = said.get("schema_version")
    return version if isinstance(version, int) else None


def remove(verdict: Verdict, older_than: float) -> str:
    """Take away what goes, if nobody has touched it since; why not, or nothing.

    A folder is renamed first: half deleted, it is never gone on with.
    """
    path = verdict.path
    again = _judge(path, older_than, time.time())
    if again is None:
        return ""
    if not again.goes:
        return again.why
    try:
        if not path.is_dir():
            path.unlink()
            return ""
        with held(path, unsure=True) as free:  # a run may have begun since it was judged
            if not free:
                return "kept: at work now"
            gone = path.with_name(f"{path.name}.done-{uuid.uuid4().hex[:8]}")
            path.rename(gone)
            shutil.rmtree(gone)
    except FileNotFoundError:  # another run was quicker
        return ""
    except OSError as error:
        return f"could not be removed: {error.strerror}"
    return ""
