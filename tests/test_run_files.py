"""What a training run writes: checkpoints through kills and damage, the log, the flat files."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cache.errors import Refused
from pipeline.checkpoints import Checkpoints, _digest
from pipeline.events import Events
from pipeline.run_files import (
    FILES,
    write_accuracy_matrix,
    write_curve,
    write_predictions,
)
from stages.train import metrics

SETTINGS = {"strategy": "lgr", "train": {"iters": 500, "lr": 1e-4, "tasks": None}}


def _state() -> dict[str, torch.Tensor]:
    """All kinds that strategies keep."""
    weight = torch.linspace(-1, 1, 12).reshape(3, 4)
    return {
        "top.weight": weight,
        "top.tied": weight,  # the same storage under two names
        "top.row": weight[1],  # a part of it
        "top.transposed": weight.T,  # not contiguous
        "parameter": torch.nn.Parameter(weight.sum(1)),
        "step": torch.tensor(7.0),
        "dropout": torch.Generator().manual_seed(3).get_state(),
        "rows": torch.tensor([2**40, -1]),
        "none": torch.empty(0, 4096),
        "flag": torch.tensor(True),
        "double": torch.tensor([1 / 3], dtype=torch.float64),
    }


def _assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert torch.equal(found[name], tensor), name


def _saved(folder: Path, learnt: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, SETTINGS)
    record = {"rows": [[0.1, None]], "a": 1 / 3}
    checkpoints.save(0, learnt, {"weight": torch.ones(2)}, _state(), record)
    return checkpoints


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    checkpoints = Checkpoints(folder, SETTINGS)
    assert checkpoints.latest(0) is None
    assert checkpoints.finished(0) is None
    assert not folder.exists()
    checkpoints.save(0, 1, {"weight": torch.zeros(2)}, {}, {})
    _saved(folder)
    found = Checkpoints(folder, SETTINGS).latest(0)
    assert found is not None
    assert found.learnt == 2
    assert list(found.record.items()) == [("rows", [[0.1, None]]), ("a", 1 / 3)]
    _assert_same(found.state, _state())
    assert Checkpoints(folder, SETTINGS).latest(1) is None
    # Its own memory: the next save replaces the file, and may do so in place some day.
    (folder / "seed-0" / "resume.safetensors").write_bytes(b"\0" * 10_000)
    _assert_same(found.state, _state())


def test_files_are_safetensors_as_others_read_them(tmp_path: Path) -> None:
    _saved(tmp_path)
    _assert_same(load_file(tmp_path / "seed-0" / "resume.safetensors"), _state())
    _assert_same(load_file(tmp_path / "seed-0" / "task-2.safetensors"), {"weight": torch.ones(2)})


def test_each_task_is_kept_but_one_state(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path, 1)
    _saved(tmp_path, 2)
    names = ["resume.safetensors", "task-1.safetensors", "task-2.safetensors"]
    assert sorted(p.name for p in (tmp_path / "seed-0").iterdir()) == names
    checkpoints.finish(0, {}, {})
    names[0] = "result.safetensors"
    assert sorted(p.name for p in (tmp_path / "seed-0").iterdir()) == names


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path)
    state = (tmp_path / "seed-0" / "resume.safetensors").read_bytes()
    entry = {"seed": 0, "bwt": None, "accuracy": 1 / 3, "also": {"z": 1, "a": [0.1]}}
    arrays = {"rows": np.array([5, 3]), "cut": np.arange(6)[::-2], "one": np.array(2.5)}
    checkpoints.finish(0, entry, arrays)
    # As if killed between the result and the removal of the state.
    (tmp_path / "seed-0" / "resume.safetensors").write_bytes(state)
    found = Checkpoints(tmp_path, SETTINGS).finished(0)
    assert found is not None
    assert json.dumps(found[0]) == json.dumps(entry)  # in the same order too
    assert found[1].keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[1][name].dtype == array.dtype
        np.testing.assert_array_equal(found[1][name], array, strict=True)
    assert not (tmp_path / "seed-0" / "resume.safetensors").exists()


@pytest.mark.parametrize(
    ("learnt", "state", "record"),
    [
        (0, {}, {}),
        (10**9, {}, {}),
        (1, {}, {"a": math.nan}),
        (1, {}, {"a": "x" * 9_000_000}),
        (1, {"a": torch.zeros(2, dtype=torch.complex64)}, {}),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(
    tmp_path: Path, learnt: int, state: dict[str, torch.Tensor], record: dict[str, Any]
) -> None:
    checkpoints = _saved(tmp_path)
    with pytest.raises(ValueError):
        checkpoints.save(0, learnt, {}, state, record)
    found = checkpoints.latest(0)
    assert found is not None
    assert found.learnt == 2


def test_files_have_the_umasks_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        _saved(tmp_path)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o640}


@contextmanager
def _no_room() -> Iterator[None]:
    """Files may have 10 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_the_checkpoint_before_stays(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path)
    with _no_room(), pytest.raises(OSError) as caught:
        checkpoints.save(0, 3, {}, {"big": torch.zeros(10_000)}, {})
    assert caught.value.errno == errno.EFBIG
    found = checkpoints.latest(0)
    assert found is not None
    assert found.learnt == 2
    assert not list(tmp_path.rglob("*.tmp"))


_SAVER = """
import sys, torch
from pathlib import Path
from pipeline.checkpoints import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]), {"a": 1})
found = checkpoints.latest(0)
learnt = found.learnt if found else 0
while True:
    learnt += 1
    state = {name: torch.full((300_000,), learnt) for name in ("one", "two")}
    checkpoints.save(0, learnt, {"m": torch.tensor(learnt)}, state, {"was": learnt})
    print("saved", learnt, flush=True)
"""


def test_kill_in_the_middle_of_saving(tmp_path: Path) -> None:
    moments = random.Random(0)
    checkpoints = Checkpoints(tmp_path, {"a": 1})
    before = 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", _SAVER, str(tmp_path)],
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            text=True,
        ) as saver:
            assert saver.stdout is not None
            said = saver.stdout.readline()
            time.sleep(moments.uniform(0, 0.03))
            saver.kill()
            for line in saver.stdout:
                said = line
        found = checkpoints.latest(0)
        assert found is not None
        assert found.learnt >= int(said.removeprefix("saved ")) > before
        assert found.record == {"was": found.learnt}
        assert all((tensor == found.learnt).all() for tensor in found.state.values())
        for learnt in range(before + 1, found.learnt + 1):
            model = load_file(tmp_path / "seed-0" / f"task-{learnt}.safetensors")
            assert model["m"].item() == learnt
        before = found.learnt
    checkpoints.save(0, 1, {}, {}, {})
    assert not list(tmp_path.rglob("*.tmp"))


def _damages(whole: bytes) -> Iterator[bytes]:
    for size in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        yield whole[:size]
    yield whole + b"\0"
    yield (2**62).to_bytes(8, "little") + whole[8:]
    yield (9_000_000).to_bytes(8, "little") + b"{" * 9_000_000
    yield b"\x80\x04cos\nsystem\n(S'false'\ntR." * 10


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path)
    path = tmp_path / "seed-0" / "resume.safetensors"
    for damaged in _damages(path.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(Refused, match=r"resume\.safetensors is damaged.*without --resume"):
            checkpoints.latest(0)


def test_any_flipped_byte_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, SETTINGS)
    checkpoints.save(0, 2, {}, {"a": torch.ones(3), "b": torch.tensor(5)}, {"c": [1.5, "é"]})
    path = tmp_path / "seed-0" / "resume.safetensors"
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytes([whole[place] ^ 1 << place % 8])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        with pytest.raises(Refused, match="is damaged or no checkpoint"):
            checkpoints.latest(0)


def _rewrite(path: Path, text: str) -> None:
    """With another text in it and a digest that fits, as somebody might by hand."""
    tensors = load_file(path)
    save_file(tensors, path, metadata={"lgr-pipe": text, "digest": _digest(text, tensors)})


def _about(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["lgr-pipe"])
    return about


@pytest.mark.parametrize(
    "change",
    [
        {"learnt": "2"},
        {"learnt": True},
        {"learnt": 0},
        {"learnt": -1},
        {"learnt": 10**6},
        {"learnt": 10**400},
        {"learnt": None},
        {"record": []},
        {"kind": "task"},
        {"format": "lgr-pipe checkpoint 2"},
        {"strange": "\x1b[2J"},
    ],
)
def test_words_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    checkpoints = _saved(tmp_path)
    path = tmp_path / "seed-0" / "resume.safetensors"
    about = _about(path)
    _rewrite(path, json.dumps(about))
    assert checkpoints.latest(0) is not None  # the way of this test itself changes nothing
    _rewrite(path, json.dumps(about | change))
    with pytest.raises(Refused, match="is damaged or no checkpoint") as caught:
        checkpoints.latest(0)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "[" * 100_000, '{"learnt": 1' + "0" * 5000]
)
def test_other_texts_are_refused(tmp_path: Path, text: str) -> None:
    checkpoints = _saved(tmp_path)
    _rewrite(tmp_path / "seed-0" / "resume.safetensors", text)
    with pytest.raises(Refused, match="is damaged or no checkpoint"):
        checkpoints.latest(0)


def test_other_safetensors_are_refused(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path)
    path = tmp_path / "seed-0" / "resume.safetensors"
    text = json.dumps(_about(path))
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(Refused, match="is damaged or no checkpoint"):
        checkpoints.latest(0)
    odd = {"a": torch.zeros(2, dtype=torch.bfloat16)}
    save_file(odd, path, metadata={"lgr-pipe": text, "digest": ""})
    with pytest.raises(Refused, match="a dtype that is never written"):
        checkpoints.latest(0)


def test_a_damaged_result_is_refused(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path)
    checkpoints.finish(0, {"a": 1}, {"rows": np.arange(5)})
    path = tmp_path / "seed-0" / "result.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Refused, match=r"result\.safetensors is damaged"):
        checkpoints.finished(0)


def test_checkpoints_of_another_seed_or_run_are_refused(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path)
    (tmp_path / "seed-0").rename(tmp_path / "seed-1")
    with pytest.raises(Refused, match="other settings or seeds"):
        checkpoints.latest(1)
    (tmp_path / "seed-1").rename(tmp_path / "seed-0")
    with pytest.raises(Refused, match="other settings or seeds"):
        Checkpoints(tmp_path, SETTINGS | {"strategy": "lr"}).latest(0)


def test_other_settings_are_named(tmp_path: Path) -> None:
    Checkpoints(tmp_path, SETTINGS).refuse_other()  # nothing there yet
    _saved(tmp_path)
    Checkpoints(tmp_path, SETTINGS).refuse_other()
    asked = {"strategy": "lgr", "train": {"iters": 200, "lr": 1e-4, "tasks": [1]}, "z": "\x1b"}
    other = Checkpoints(tmp_path, asked)
    with pytest.raises(Refused) as caught:
        other.refuse_other()
    assert str(caught.value) == (
        f"{tmp_path} holds checkpoints of a run with other settings:\n"
        "  train.iters: expected 200, found 500\n"
        "  train.tasks: expected [1], found None\n"
        "  z: expected '\\x1b', found '(absent)'\n"
        "Use the settings that are found there, or start anew: --overwrite, not --resume."
    )
    with pytest.raises(Refused, match=r"train\.iters"):  # nor are they ever mixed
        other.save(1, 1, {}, {}, {})
    assert not (tmp_path / "seed-1").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b" " * 9_000_000,
        b'{"format": "lgr-pipe checkpoints 1", "settings": 1}',
        b'{"format": "lgr-pipe checkpoints 1", "settings": {"strategy": NaN}}',
        b'{"format": "lgr-pipe checkpoints 2", "settings": {}}',
    ],
)
def test_damaged_settings_are_refused(tmp_path: Path, content: bytes) -> None:
    checkpoints = _saved(tmp_path)
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(Refused, match=r"settings\.json is damaged.*without --resume"):
        checkpoints.refuse_other()


def test_clear_removes_its_own_and_nothing_else(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    checkpoints = _saved(folder)
    _saved(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    (folder / "seed-0" / ".resume.safetensors.0123456789ab.tmp").write_bytes(b"half")
    (folder / "seed-7").symlink_to(elsewhere / "seed-0")
    (folder / "seed-0" / "task-9.safetensors").symlink_to(elsewhere / "settings.json")
    checkpoints.clear()
    assert not folder.exists()
    assert sorted(elsewhere.rglob("*")) == before
    checkpoints.clear()  # nothing to do

    _saved(folder)
    (folder / "seed-0" / "notes.txt").write_text("mine")
    (folder / "seed-x").mkdir()
    checkpoints.clear()
    left = sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
    assert left == ["seed-0", "seed-0/notes.txt", "seed-x"]
    Checkpoints(folder, {"other": 1}).save(0, 1, {}, {}, {})  # starts anew

    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    with pytest.raises(Refused, match="symbolic link"):
        Checkpoints(link, SETTINGS).clear()
    assert sorted(elsewhere.rglob("*")) == before


def test_the_same_object_saves_again_after_clear(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path / "checkpoints")
    checkpoints.clear()
    checkpoints.save(0, 1, {}, {}, {})
    found = checkpoints.latest(0)
    assert found is not None
    assert found.learnt == 1


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_a_log_has_an_event_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("of an earlier run\n")
    with Events(path) as events:
        events.write("start", path="a\udcff\n\u2028", tasks=(1, 2))
        assert len(_lines(path)) == 1  # there at once
        events.write("loss", values={"a": math.nan, "b": [math.inf, -math.inf, 0.5]}, n=3)
        events.scalar("accuracy", 0.5, 1)  # nobody asked for it
        with pytest.raises(ValueError, match="its own"):
            events.write("step", seconds=1)
    first, second = _lines(path)
    assert list(first) == ["event", "seconds", "path", "tasks"]
    assert first | {"seconds": 0} == {
        "event": "start",
        "seconds": 0,
        "path": "a\udcff\n\u2028",
        "tasks": [1, 2],
    }
    assert second["values"] == {"a": None, "b": [None, None, 0.5]}
    assert 0 <= first["seconds"] <= second["seconds"] < 60


@pytest.mark.parametrize("torn", ["", '{"event": "c', "x" * 200_000], ids=len)
@pytest.mark.parametrize("whole", ["", '{"event": "a"}\n{"event": "b"}\n' * 10_000], ids=len)
def test_a_resumed_log_goes_on_after_its_last_whole_line(
    tmp_path: Path, whole: str, torn: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(whole + torn)
    with Events(path, resume=True) as events:
        events.write("resumed")
    before, _, last = path.read_text().removesuffix("\n").rpartition("\n")
    assert before == whole.removesuffix("\n")
    assert json.loads(last)["event"] == "resumed"


def test_a_log_that_was_never_begun_can_be_resumed(tmp_path: Path) -> None:
    with Events(tmp_path / "log.jsonl", resume=True) as events:
        events.write("start")
    assert len(_lines(tmp_path / "log.jsonl")) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_is_heard_of(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError) as caught, Events(path) as events:
        events.write("start")
    assert caught.value.errno == errno.ENOSPC


def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "board"
    with Events(tmp_path / "log.jsonl", tensorboard=folder) as events:
        events.scalar("seed 0/accuracy", 0.75, 1)
        events.scalar("seed 0/accuracy", 0.5, 2)
    found = module.EventAccumulator(str(folder))
    found.Reload()
    points = [(point.step, point.value) for point in found.Scalars("seed 0/accuracy")]
    assert points == [(1, 0.75), (2, 0.5)]


def test_without_tensorboard_it_is_said_before_anything_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    path = tmp_path / "log.jsonl"
    path.write_text("of an earlier run\n")
    with pytest.raises(Refused, match=r"pip install 'lgr-pipe\[tensorboard\]'"):
        Events(path, tensorboard=tmp_path / "board")
    assert path.read_text() == "of an earlier run\n"
    with Events(path):  # not asked for, not needed
        pass


RUNS: list[dict[str, Any]] = [
    {
        "seed": 0,
        "untrained_accuracy": [0.5, None],
        "accuracy_matrix": [[1.0, None], [0.1, 0.25]],
        "also": {"scenario": "task", "accuracy_matrix": [[1.0, 0.5], [0.75, 1 / 3]]},
    },
    {
        "seed": 3,  # joint: the last row only
        "untrained_accuracy": [None, None],
        "accuracy_matrix": [[None, None], [1, 0]],
        "also": None,
    },
    {"seed": 4, "untrained_accuracy": [0.0], "accuracy_matrix": [[0.5]]},
]


def test_accuracy_matrix(tmp_path: Path) -> None:
    path = tmp_path / "accuracy_matrix.csv"
    write_accuracy_matrix(path, RUNS, "class")
    assert path.read_text() == (
        "seed,scenario,learnt,task,accuracy\n"
        "0,class,0,1,0.5\n"
        "0,class,1,1,1.0\n"
        "0,class,2,1,0.1\n"
        "0,class,2,2,0.25\n"
        "0,task,1,1,1.0\n"
        "0,task,1,2,0.5\n"
        "0,task,2,1,0.75\n"
        "0,task,2,2,0.3333333333333333\n"
        "3,class,2,1,1\n"
        "3,class,2,2,0\n"
        "4,class,0,1,0.0\n"
        "4,class,1,1,0.5\n"
    )


def test_curve(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    write_curve(path, RUNS)
    assert path.read_text() == (
        "seed,learnt,accuracy\n"
        "0,1,1.0\n"
        "0,2,0.175\n"
        "3,2,0.5\n"
        "4,1,0.5\n"
    )  # fmt: skip


def test_the_curves_mean_is_the_average_incremental_accuracy(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).random((5, 5))
    run = {"seed": 0, "accuracy_matrix": matrix.tolist()}
    write_curve(tmp_path / "curve.csv", [run])
    curve = np.loadtxt(tmp_path / "curve.csv", delimiter=",", skiprows=1)
    assert curve[:, 2].mean() == pytest.approx(metrics.average_incremental_accuracy(matrix))


CLASSES = ("anger", "fear, or so", 'the "calm"')


def _answers(**changes: Any) -> dict[str, Any]:
    columns = {"rows": [17, 4], "tasks": [0, 1], "targets": [0, 2], "answers": [1, 2]} | changes
    return {name: np.array(column) for name, column in columns.items()}


def test_predictions(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, {0: _answers(also=[0, 1]), 5: _answers()}, CLASSES)
    assert path.read_text() == (
        "seed,row,task,target,answer,also\n"
        '0,17,1,anger,"fear, or so",anger\n'
        '0,4,2,"the ""calm""","the ""calm""","fear, or so"\n'
        '5,17,1,anger,"fear, or so",\n'
        '5,4,2,"the ""calm""","the ""calm""",\n'
    )


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("answers", [0, 3]),
        ("answers", [-1, 0]),
        ("also", [0, 3]),
        ("targets", [0]),
        ("tasks", [-1, 0]),
        ("rows", [[1], [2]]),
        ("rows", 1),
        ("targets", [0.0, 1.0]),
    ],
)
def test_answers_that_do_not_fit_are_refused(tmp_path: Path, name: str, column: Any) -> None:
    path = tmp_path / "predictions.csv"
    with pytest.raises(Refused, match="seed 6 are not whole"):
        write_predictions(path, {6: _answers(**{name: column})}, CLASSES)
    with pytest.raises(Refused, match="seed 6 are not whole"):
        write_predictions(path, {6: {}}, CLASSES)
    assert not path.exists()


def test_the_names_of_all_files() -> None:
    named = {"accuracy_matrix.csv", "curve.csv", "predictions.csv", "resources.csv"}
    rest = {"metrics.json", "run.json", "replay.safetensors", "log.jsonl", "checkpoints"}
    assert set(FILES) == named | rest
