"""The grid search: what is refused, what is run, what is kept, and what the table says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cache.errors import Refused
from cache.parts import Parts, Plan
from cache.reader import Cache
from cache.schema import Info, Manifest
from cache.writer import Content, publish
from pipeline import sweep as work
from pipeline.grid import Planned, Settings, parse_grids
from stages.report.sweep.points import Sweep, read_result
from tests.command import Run

ROOT = Path(__file__).parent.parent
CLASSES = ("a", "b", "c", "d")


def make_latents_of(out: Path, test_labels: int = 0) -> Manifest:
    """64 rows of 6 numbers, four classes; every fourth row is a test row, whose labels are
    turned by `test_labels`."""
    rng = np.random.default_rng(0)
    labels, split = np.arange(64) // 4 % 4, (np.arange(64) % 4 == 0).astype(np.uint8)
    rows = np.clip(labels[:, None] / 4 + rng.random((64, 6)) * 0.3, 0, 1).astype(np.float32)
    labels = np.where(split == 1, (labels + test_labels) % 4, labels).astype(np.int16)
    info = Info(dataset="d", backbone="b", weights="w", value_range=(0.0, 1.0))
    plan = Plan(
        kind="latents", settings={"kind": "latents"}, dtype="float32", row_shape=(6,), rows=64,
        unit_rows=64, store="zarr", classes=CLASSES, info=info,
    )  # fmt: skip
    parts = Parts(out, plan).start()
    parts.write(0, rows, {"first": 0})
    subjects = np.full(64, -1, dtype=np.int32)
    side = {"label": labels, "subject": subjects, "split": split}
    samples = [{"row": k, "id": f"{k}.png"} for k in range(64)]
    content = Content(side, samples, CLASSES, info, {"made": "now"})
    publish(parts, content, store="zarr", overwrite=False, shard_rows=64)
    with Cache(out) as cache:
        return cache.manifest


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "latents"
    make_latents_of(out)
    return out


# --- the grid ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "needs a grid"),
        (["iters"], "must look like"),
        (["=5"], "must look like"),
        (["iters="], "must look like"),
        (["iters=5,,6"], "must look like"),
        (["iters=5,5"], "a value twice"),
        (["iters=5", "--iters=6"], "given twice"),
        ([f"{name}={','.join(map(str, range(101)))}" for name in ("a", "b")], "10201 points"),
    ],
)
def test_what_is_no_grid(texts: list[str], said: str) -> None:
    with pytest.raises(Refused, match=said):
        parse_grids(texts)


SHARED = ("--strategy", "lgr+d", "--batch-size", "8", "--tasks", "2")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*SHARED, "--grid", "temperture=1,2"), "lgr+d has no option --temperture"),
        ((*SHARED, "--grid", "temperature=0,1"), "temperature must be above 0"),
        ((*SHARED, "--grid", "iters=3,0"), "train.iters"),
        ((*SHARED, "--grid", "iters=3,x"), "valid integer"),
        ((*SHARED, "--grid", "iters=3", "--nonsense", "1"), "has no option --nonsense"),
        ((*SHARED, "--grid", "lr=0.1,1e-1"), "are the same"),
        ((*SHARED, "--grid", "tasks=2,3"), "3 tasks"),
        ((*SHARED, "--grid", "seeds=0,1"), "give --seeds"),
        ((*SHARED, "--grid", "evaluate-on=validation,test"), "never looks at the test rows"),
        ((*SHARED, "--grid", "validation=0.1,0.2"), "different rows"),
        ((*SHARED, "--grid", "device=cpu,cuda"), "no setting of a run"),
        ((*SHARED, "--grid", "out=x,y"), "no setting of a run"),
        ((*SHARED, "--grid", "iters=3", "--evaluate-on", "test"), "never looks at the test rows"),
        ((*SHARED, "--grid", "iters=3", "--validation", "0"), "--validation 0.1"),
        ((*SHARED, "--grid", "iters=3", "--validation", "0.99"), "one side"),
        ((*SHARED, "--grid", "iters=3", "--resume"), "--resume is of no use"),
        ((*SHARED, "--grid", "strategy=lgr,lgr+d"), "Name one strategy"),
        (("--grid", "iters=3"), "Name one strategy"),
        (("--grid", "strategy=lgr,lgr+d", "--grid", "temperature=1,2"), "lgr has no option"),
        (("--grid", "strategy=lgr,lgr++"), "Unknown strategy"),
    ],
)
def test_refused_before_anything_runs(
    here: Run, cache: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = here("sweep", "--cache", cache, "--out", tmp_path / "s", *words)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "s").exists()


def test_names_are_readable_safe_and_unique() -> None:
    def planned(**options: Any) -> Planned:
        return Planned(options, Settings(strategy="s", train={}, options=options), [])

    points = [planned(iters=5, lr=0.0001), planned(order="../a;b"), planned(order=".._a_b")]
    points.append(planned(order="x" * 300))
    names = list(work._names(points, {}))
    assert names[0] == "iters=5,lr=0.0001"
    assert names[1] != names[2] == "order=.._a_b"
    assert len(set(names)) == 4
    assert all(len(name) < 130 and not set(name) & set("/;\\ ") for name in names)
    # Another point has the name already; the same settings have the name they had.
    known = {"iters=5,lr=0.0001": planned(iters=6).settings, "old": points[2].settings}
    again = list(work._names(points, known))
    assert again[0].startswith("iters=5,lr=0.0001~")
    assert again[2] == "old"


# --- the real thing, once ----------------------------------------------------------------


def test_a_sweep_of_real_runs_never_uses_a_test_row(
    here: Run, lgr_pipe: Run, cache: Path, tmp_path: Path
) -> None:
    """A point is a `train` run; the same settings on a cache whose test labels are all wrong
    give the same accuracies; run again, nothing is run."""
    out = tmp_path / "s"
    words = (*SHARED, "--seeds", "0-1", "--lr", "0.01")
    sweep = ("sweep", "--cache", cache, "--out", out, *words, "--grid", "iters=30")
    done = here(*sweep, "--validation", "0.25")
    assert done.returncode == 0, done.stderr
    assert "1/1 iters=30: validation accuracy" in done.stderr
    assert done.stdout.strip() == (out / "table.md").read_text().strip()
    assert "the test set was not looked at" in done.stdout
    assert sorted(p.name for p in out.iterdir()) == [
        "accuracy_memory.png", "accuracy_memory.svg", "points", "sweep.json", "table.csv",
        "table.md",
    ]  # fmt: skip
    make_latents_of(tmp_path / "wrong", test_labels=1)
    evaluation = ("--validation", "0.25", "--evaluate-on", "validation", "--threads", "1")
    train = ("train", "--cache", tmp_path / "wrong", "--out", tmp_path / "r", "--iters", "30")
    assert lgr_pipe(*train, *words, *evaluation).returncode == 0
    swept = json.loads((out / "points" / "iters=30" / "metrics.json").read_text())
    alone = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert swept["cache_content"] != alone["cache_content"]
    for a, b in zip(swept["runs"], alone["runs"], strict=True):
        assert a["accuracy_matrix"] == b["accuracy_matrix"]
        assert a["untrained_accuracy"] == b["untrained_accuracy"]
    # The same with the test rows shows that they would have made a difference.
    assert here(*train, *words, "--overwrite").returncode == 0
    other = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert [r["accuracy_matrix"] for r in other["runs"]] != [
        r["accuracy_matrix"] for r in alone["runs"]
    ]
    before = {path: path.stat().st_mtime_ns for path in (out / "points").rglob("*")}
    done = here(*sweep, "--validation", "0.25")
    assert (done.returncode, "1 of 1 points are there already" in done.stderr) == (0, True)
    assert before == {path: path.stat().st_mtime_ns for path in (out / "points").rglob("*")}
    done = here(*sweep, "--validation", "0.5")
    assert done.returncode == 2
    assert "validation: expected 0.5, found 0.25" in done.stderr


def test_help_is_light() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom pipeline.cli import app\n"
        "result = CliRunner().invoke(app, ['sweep', '--help'])\n"
        "heavy = {'torch', 'dlib', 'zarr', 'h5py', 'matplotlib'} & sys.modules.keys()\n"
        "sys.exit(f'{result.exit_code} {heavy}' if result.exit_code or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- resuming, with a stand-in for train -------------------------------------------------

STAND_IN = """
import json, pathlib, sys, time
settings = json.loads(sys.argv[1])
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
with open(sys.argv[2], "a") as trace:
    trace.write(out.name + (" resumed" if "--resume" in sys.argv else "") + "\\n")
(out / "checkpoints").mkdir(parents=True, exist_ok=True)
time.sleep(float(sys.argv[4]))
if settings["options"]["fails"]:
    sys.exit("Note: this and that.\\nError: it did\\nnot work.")
n = settings["options"]["n"]
cache = json.loads(sys.argv[3])
(out / "run.json").write_text(json.dumps({**settings, **cache}))
run = {"average_accuracy": n / 10, "majority_floor": 0.5, "train_seconds": 1.0,
       "memory_bytes": {"buffer": n}}
metrics = {"strategy": "s", "dataset": "d", "backbone": "b", "weights": "w",
           "evaluated_on": "validation", "task_test_rows": [4, 4], "runs": [run]}
(out / "metrics.json").write_text(json.dumps(metrics))
"""

Stand = Callable[..., Sweep]


def make_points(
    manifest: Manifest, trace: Path, ns: list[int], *, z: int = 1, fails: int = 0, slow: int = 0
) -> list[Planned]:
    points = []
    for n in ns:
        options = {"n": n, "z": z, "fails": n == fails}
        settings = Settings(strategy="s", train={"seeds": "0"}, options=options)
        cache = {"cache_fingerprint": manifest.fingerprint, "cache_content": manifest.content}
        words = [json.dumps(settings.model_dump()), str(trace), json.dumps(cache)]
        words.append("60" if n == slow else "0")
        points.append(Planned({"n": n}, settings, words))
    return points


def how_with(jobs: int = 2, **changes: Any) -> work.SweepHow:
    return work.SweepHow(
        jobs=jobs, estimate=1, command=(sys.executable, "-S", "-c", STAND_IN), **changes
    )


@pytest.fixture
def stand(cache: Path, tmp_path: Path) -> Stand:
    """A sweep whose runs are stand-ins; what was run is in trace.txt."""
    with Cache(cache) as opened:
        manifest = opened.manifest

    def sweep(ns: list[int], **changes: Any) -> Sweep:
        how = {name: changes.pop(name) for name in ("jobs", "overwrite") if name in changes}
        points = make_points(manifest, tmp_path / "trace.txt", ns, **changes)
        return work.sweep(points, manifest, tmp_path / "s", how_with(**how))

    return sweep


def ran(tmp_path: Path) -> list[str]:
    """What was run since the last call, sorted."""
    trace = tmp_path / "trace.txt"
    lines = trace.read_text().splitlines() if trace.exists() else []
    trace.unlink(missing_ok=True)
    return sorted(lines)


def test_a_grid_may_grow_and_shrink(stand: Stand, tmp_path: Path) -> None:
    stand([1, 2, 3])
    assert ran(tmp_path) == ["n=1", "n=2", "n=3"]
    found = stand([2, 3, 4])
    assert ran(tmp_path) == ["n=4"]
    assert [point.options["n"] for point in found.points] == [2, 3, 4]
    stand([1, 4])
    assert ran(tmp_path) == []


def test_other_settings_are_refused_and_overwritten(stand: Stand, tmp_path: Path) -> None:
    stand([1, 2])
    table = (tmp_path / "s" / "table.md").read_bytes()
    with pytest.raises(Refused, match="z: expected 5, found 1"):
        stand([1, 2], z=5)
    assert (tmp_path / "s" / "table.md").read_bytes() == table
    ran(tmp_path)
    stand([2], z=5, overwrite=True)
    assert ran(tmp_path) == ["n=2"]
    assert sorted(p.name for p in (tmp_path / "s" / "points").iterdir()) == ["n=2", "n=2.log"]


def test_another_cache_is_refused(stand: Stand, tmp_path: Path) -> None:
    stand([1])
    record = json.loads((tmp_path / "s" / "sweep.json").read_text())
    record["cache"]["content"] = "blake3:other"
    (tmp_path / "s" / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(Refused, match="cache content: expected"):
        stand([1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record["points"].update({"../x": record["points"]["n=1"]}), "no name"),
        (lambda record: record.update(format="other"), "is not what lgr-pipe sweep writes"),
        (lambda record: record.pop("cache"), "is not what lgr-pipe sweep writes"),
    ],
)
def test_a_record_that_lies(
    stand: Stand, tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    stand([1])
    record = json.loads((tmp_path / "s" / "sweep.json").read_text())
    change(record)
    (tmp_path / "s" / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(Refused, match=said):
        stand([1], overwrite=True)


def test_a_result_of_another_run_is_not_taken(stand: Stand, tmp_path: Path) -> None:
    stand([1])
    run = tmp_path / "s" / "points" / "n=1" / "run.json"
    found = json.loads(run.read_text())
    run.write_text(json.dumps({**found, "options": {**found["options"], "z": 7}}))
    with pytest.raises(Refused, match=r"options\.z: expected 1, found 7"):
        stand([1])


def test_results_of_test_rows_are_not_taken(stand: Stand, tmp_path: Path) -> None:
    stand([1])
    path = tmp_path / "s" / "points" / "n=1" / "metrics.json"
    path.write_text(path.read_text().replace('"validation"', '"test"'))
    with pytest.raises(Refused, match="evaluated_on"):
        read_result(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.json")
    with pytest.raises(Refused, match="is no plain file"):
        read_result(tmp_path / "metrics.json")


def test_a_folder_with_other_things_is_left_alone(stand: Stand, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").write_text("dear")
    with pytest.raises(Refused, match="is no sweep"):
        stand([1], overwrite=True)
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["thesis.txt"]


def test_one_that_fails_does_not_stop_the_others(
    stand: Stand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = stand([1, 2, 3], fails=2, jobs=1)
    assert ran(tmp_path) == ["n=1", "n=2", "n=3"]
    assert [point.error for point in found.points] == ["", "Error: it did not work.", ""]
    err = " ".join(capsys.readouterr().err.split())
    assert "Failed: n=2: Error: it did not work." in err
    assert "1 of 3 points failed" in err
    table = (tmp_path / "s" / "table.md").read_text()
    assert [line.split()[1:6:2] for line in table.splitlines()[4:7]] == [
        ["1", "1", "10.00"],
        ["2", "0", "failed"],
        ["3", "1", "**30.00**"],
    ]
    assert "- 2: `Error: it did not work.`" in table
    assert "Note: this and that." in (tmp_path / "s" / "points" / "n=2.log").read_text()
    stand([1, 2, 3], fails=2)  # the same again: only it is tried, from its checkpoint
    assert ran(tmp_path) == ["n=2 resumed"]


SWEEP_IN_A_PROCESS = """
import json, sys
from pathlib import Path
from cache.reader import Cache
from pipeline import sweep as work
from tests.test_sweep import how_with, make_points
with Cache(Path(sys.argv[1])) as cache:
    manifest = cache.manifest
here = Path(sys.argv[2])
points = make_points(manifest, here / "trace.txt", [1, 2, 3, 4], slow=3)
how = how_with(jobs=1)
entry = "from pipeline.jobs import end_with_parent; end_with_parent()\\n" + how.command[3]
command = (sys.executable, "-c", entry)
work.sweep(points, manifest, here / "s", work.SweepHow(1, 1, command))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_in_the_middle_and_run_again(
    stand: Stand, cache: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """No run outlives the sweep, and what was finished is not run again."""
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEP_IN_A_PROCESS, str(cache), str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    trace = tmp_path / "trace.txt"
    wait_for(lambda: trace.exists() and "n=3" in trace.read_text(), process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 1
    with pytest.raises(Refused, match="Another sweep is at work"):
        stand([1])
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert process.returncode == -how if how is signal.SIGKILL else process.returncode != 0
    assert how is signal.SIGKILL or "KeyboardInterrupt" in err
    assert ran(tmp_path) == ["n=1", "n=2", "n=3"]
    stand([1, 2, 3, 4])
    assert ran(tmp_path) == ["n=3 resumed", "n=4"]


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not there() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)


def test_how_many_and_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "cores", lambda: 8)
    assert [work.default_jobs("cpu", threads) for threads in (1, 3, 16)] == [8, 2, 1]
    assert work.default_jobs("cuda", 1) == 1
    assert work.estimate(64 * 6 * 4, None) == 1_000_000_000 + 64 * 6 * 4
