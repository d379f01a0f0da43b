"""Nothing that is done to a cache or a scratch folder gives wrong values, a traceback or a hang.

Bytes of every file are changed, and the values in every JSON file; what seals them is made anew, as
a stranger would do it.  FUZZ_EXAMPLES=20000 python -m pytest tests/test_fuzz.py  tries longer.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import selectors
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cache.digest import file_digest, text_digest
from cache.fingerprint import canonical_json, fingerprint
from cache.parts import Parts, Plan
from cache.schema import MANIFEST, PROVENANCE, SAMPLES, Column, Info, content_digest
from stages.extract.crop import rows_digest
from tests.test_cache_verify import files_of, make

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
PATIENCE = 30  # seconds for one example


def fuzz(examples: int) -> Any:
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


class Victim:
    """tests/fuzz_reader.py at work."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._unharmed: dict[Path, list[str]] = {}

    def unharmed(self, path: Path) -> list[str]:
        """What it says of a cache to which nothing has been done yet."""
        if path not in self._unharmed:
            self._unharmed[path] = self.ask("read", path)
            assert not any(said.startswith("refused") for said in self._unharmed[path])
        return self._unharmed[path]

    def ask(self, word: str, path: Path) -> list[str]:
        """Fails where it raises anything but Refused, dies, or does not answer."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz_reader"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
                env={**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word} {path}\n")
        self._process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if selector.select(PATIENCE) else "hang"
        if not line or line == "hang":
            self.close()
            raise AssertionError(f"it does not answer in {PATIENCE} s" if line else "it crashed")
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        outcomes: list[str] = answer["outcomes"]
        return outcomes

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    made = Victim()
    yield made
    made.close()


@contextlib.contextmanager
def changed(file: Path, data: bytes) -> Iterator[None]:
    good = file.read_bytes()
    file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(good)


# bytes

Change = Callable[[bytes], bytes]


@st.composite
def byte_changes(draw: Callable[..., Any]) -> Change:
    """One to three of: flip, truncate, insert, swap, duplicate, zero; at any places."""
    steps = draw(st.lists(st.tuples(
        st.sampled_from(["flip", "truncate", "insert", "swap", "duplicate", "zero", "ones"]),
        st.floats(0, 1), st.integers(1, 64), st.binary(min_size=1, max_size=8),
    ), min_size=1, max_size=3))  # fmt: skip

    def change(data: bytes) -> bytes:
        for how, place, count, blob in steps:
            at = int(place * max(0, len(data) - 1))
            before, here, after = data[:at], data[at : at + count], data[at + count :]
            data = {
                "flip": before + bytes(b ^ blob[0] for b in here[:1]) + here[1:] + after,
                "truncate": before,
                "insert": before + blob + here + after,
                "swap": before + after[:count] + here + after[count:],
                "duplicate": before + here + here + after,
                "zero": before + bytes(len(here)) + after,
                "ones": before + b"\xff" * len(here) + after,
            }[how]
        return data

    return change


@pytest.fixture(scope="module", params=["zarr", "hdf5"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("fuzz") / "c", str(request.param))


@fuzz(110)
@given(which=st.floats(0, 0.999), change=byte_changes())
def test_changed_bytes(victim: Victim, whole: Path, which: float, change: Change) -> None:
    """The values are right or refused, and verify finds whatever is not as it was."""
    good = victim.unharmed(whole)
    files = files_of(whole)
    file = files[int(which * len(files))]
    data = change(file.read_bytes())
    same = data == file.read_bytes()
    with changed(file, data):
        found = victim.ask("read", whole)
    assert found[0] == good[0] or found[0].startswith("refused: ")
    assert same or found[1].startswith("refused: ")


# values

NASTY: list[Any] = [
    None, True, -1, 0, 1, 7, 2**31, 2**63, 10**40, -0.5, 1e308, float("nan"), float("inf"), "", "a",
    "x" * 5000, "\x00", "\x1b[2J", "\ud800", "../../etc/passwd", "/etc/passwd", "nan", "zarr",
    "hdf5", "object", "float64", "|O", [], {}, [[]], [1, 2, 3], ["a"] * 50, {"a": {"b": None}},
    json.loads("[" * 70 + "]" * 70),
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside: list[tuple[Any, ...]] = [path] if path else []
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        inside.append((*path, key))
        if isinstance(value[key], dict | list):
            inside += _places(value[key], (*path, key))[1:]
    return inside


@st.composite
def value_changes(draw: Callable[..., Any]) -> Callable[[Any], Any]:
    """One or two values of a JSON tree replaced, left out, added or exchanged."""
    steps = draw(st.lists(st.tuples(
        st.floats(0, 0.999), st.floats(0, 0.999),
        st.sampled_from(["replace", "replace", "delete", "add", "exchange", "repeat"]),
        st.sampled_from(NASTY),
    ), min_size=1, max_size=2))  # fmt: skip

    def change(tree: Any) -> Any:
        tree = copy.deepcopy(tree)
        for one, two, how, nasty in steps:
            places = _places(tree)
            if not places:
                break
            *way, last = places[int(one * len(places))]
            holder = tree
            for key in way:
                holder = holder[key]
            if how == "replace":
                holder[last] = copy.deepcopy(nasty)
            elif how == "delete":
                del holder[last]
            elif how == "add" and isinstance(holder, dict):
                holder[f"{last}_"] = copy.deepcopy(nasty)
            elif how == "repeat" and isinstance(holder[last], list):
                holder[last] = holder[last] * 3
            else:
                *way, other = places[int(two * len(places))]
                there = tree
                for key in way:
                    there = there[key]
                holder[last], there[other] = copy.deepcopy((there[other], holder[last]))
        return tree

    return change


Tree = Callable[[Any], Any]


def sealed(said: Any) -> Any:
    """A manifest with all its own digests in order, as far as there can be."""
    with contextlib.suppress(Exception):
        said["fingerprint"] = fingerprint(said["settings"])
        columns = {k: Column.model_validate(v) for k, v in said["columns"].items()}
        said["content"] = content_digest(columns)
    with contextlib.suppress(Exception):
        rest = {k: v for k, v in said.items() if k != "digest"}
        said["digest"] = text_digest(canonical_json(rest))
    return said


def _write(file: Path, said: Any) -> None:
    file.write_text(json.dumps(said, indent=1) + "\n")


@fuzz(110)
@given(change=value_changes())
def test_a_changed_manifest(victim: Victim, whole: Path, change: Tree) -> None:
    good = victim.unharmed(whole)
    file = whole / MANIFEST
    with changed(file, file.read_bytes()):
        _write(file, sealed(change(json.loads(file.read_text()))))
        found = victim.ask("read", whole)
    assert found[0] == good[0] or found[0].startswith("refused: ")


@fuzz(60)
@given(row=st.integers(0, 19), change=value_changes())
def test_a_changed_table(victim: Victim, whole: Path, row: int, change: Tree) -> None:
    good = victim.unharmed(whole)
    table = [json.loads(line) for line in (whole / SAMPLES).read_text().splitlines()]
    table[row] = change(table[row])
    with (
        changed(whole / SAMPLES, "".join(f"{json.dumps(r)}\n" for r in table).encode()),
        changed(whole / MANIFEST, (whole / MANIFEST).read_bytes()),
    ):
        said = json.loads((whole / MANIFEST).read_text())
        _write(whole / MANIFEST, sealed({**said, "samples_digest": file_digest(whole / SAMPLES)}))
        found = victim.ask("read", whole)
    assert found[0] == good[0] or found[0].startswith("refused: ")


@fuzz(30)
@given(change=value_changes())
def test_a_changed_provenance(victim: Victim, whole: Path, change: Tree) -> None:
    good = victim.unharmed(whole)
    file = whole / PROVENANCE
    with changed(file, file.read_bytes()):
        said = change(json.loads(file.read_text()))
        with contextlib.suppress(Exception):
            listed = {k: v for k, v in said.items() if k != "digest"}
            said["digest"] = text_digest(canonical_json(listed))
        _write(file, said)
        assert victim.ask("read", whole)[0] == good[0]


@fuzz(110)
@given(column=st.sampled_from(["latents", "label", "digest"]), change=value_changes())
def test_a_changed_zarr_json(victim: Victim, arrays: Path, column: str, change: Tree) -> None:
    good = victim.unharmed(arrays)
    file = arrays / "data.zarr" / column / "zarr.json"
    with changed(file, file.read_bytes()):
        _write(file, change(json.loads(file.read_text())))
        found = victim.ask("read", arrays)
    assert found[0] == good[0] or found[0].startswith("refused: ")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("fuzz") / "c", "zarr")


# scratch folders

PIXELS = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
RIGHT = blake3(PIXELS.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scratch folder of two units of crops, all done; what it is for would lie beside it."""
    lines = [
        {"row": k, "id": f"{k}", "label": "ab"[k % 2], "subject": "", "split": "train", "file": "-"}
        for k in range(6)
    ]
    dataset = {"name": "d", "digest": rows_digest(lines)}
    plan = Plan(
        kind="crops", settings={"kind": "crops", "dataset": dataset}, dtype="uint8",
        row_shape=(8, 8, 3), rows=6, unit_rows=3, store="hdf5", classes=("a", "b"),
        info=Info(dataset="d"),
    )  # fmt: skip
    parts = Parts(tmp_path_factory.mktemp("fuzz") / "good" / "c", plan).start(lines)
    note = {"status": [1, 2, 4], "box": [[0, 0, 8, 8]] * 3, "reason": ["", "no face", ""]}
    for unit in plan.units:
        parts.write(unit, PIXELS[3 * unit : 3 * unit + 3], note)
    return parts.scratch


def _finished(victim: Victim, work: Path, change: Callable[[Path], object]) -> str:
    """`change` is done to a copy of the scratch folder, which is then published."""
    out = work.parents[1] / "tried" / "c"
    shutil.rmtree(out.parent, ignore_errors=True)
    copied = shutil.copytree(work, out.parent / work.name)
    change(copied)
    return victim.ask("finish", out)[0]


def test_what_is_unharmed_is_right(victim: Victim, work: Path, arrays: Path) -> None:
    assert _finished(victim, work, lambda _: None) == RIGHT
    assert victim.unharmed(arrays)[1] == "whole"


@fuzz(100)
@given(which=st.floats(0, 0.999), change=byte_changes())
def test_changed_bytes_of_work(victim: Victim, work: Path, which: float, change: Change) -> None:
    def harm(scratch: Path) -> None:
        files = files_of(scratch)
        file = files[int(which * len(files))]
        file.write_bytes(change(file.read_bytes()))

    found = _finished(victim, work, harm)
    assert found == RIGHT or found.startswith("refused: ")


@fuzz(100)
@given(name=st.sampled_from(["plan.json", "records/00001.json", SAMPLES]), change=value_changes())
def test_changed_values_of_work(victim: Victim, work: Path, name: str, change: Tree) -> None:
    def harm(scratch: Path) -> None:
        file = scratch / name
        if name == SAMPLES:
            table = [json.loads(line) for line in file.read_text().splitlines()]
            file.write_text("".join(f"{json.dumps(row)}\n" for row in _rows(change(table))))
        else:
            _write(file, change(json.loads(file.read_text())))

    found = _finished(victim, work, harm)
    assert found == RIGHT or found.startswith("refused: ")


def _rows(table: Any) -> list[Any]:
    return table if isinstance(table, list) else [table]
