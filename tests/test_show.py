"""lgr-pipe show: one run in the terminal, finished or not."""

from __future__ import annotations

import json
import os
import pty
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from stages.report.terminal.letters import bar, sparkline
from tests.command import ENTRY
from tests.made_runs import Made, write_run, write_study
from tests.test_startup import imported

EVENTS: list[dict[str, Any]] = [
    {"event": "seed", "seconds": 0.1, "seed": 0, "steps_done": 0},
    {"event": "learning", "seconds": 0.2, "task": 1, "classes": [["anger"]]},
    {"event": "losses", "seconds": 1.0, "iteration": 500, "solver": 0.5, "generator": 0.7},
    {"event": "finished", "seconds": 9.0, "seed": 0, "average_accuracy": 0.8},
    {"event": "seed", "seconds": 9.1, "seed": 1, "steps_done": 0},
    {"event": "learning", "seconds": 9.2, "task": 1, "classes": [["anger"]]},
    {"event": "losses", "seconds": 10.0, "iteration": 500, "solver": 0.4, "generator": 0.7},
    {"event": "learnt", "seconds": 11.0, "task": 1, "wall_seconds": 2, "accuracy": 0.875},
    {"event": "learning", "seconds": 11.1, "task": 2, "classes": [["fear"]]},
    {"event": "losses", "seconds": 12.0, "iteration": 750, "solver": 0.25, "replay": 0.125},
]


def show(*words: object) -> Any:
    return CliRunner().invoke(app, ["show", *map(str, words)], env={"COLUMNS": "80"})


def said(*words: object) -> str:
    result = show(*words)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def refused(*words: object) -> str:
    result = show(*words)
    assert result.exit_code == 2
    assert not result.stdout
    assert "Traceback" not in result.output
    return str(result.stderr)


def unfinished(folder: Path, events: list[Any], about: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    lines = [json.dumps(event) for event in events]
    (folder / "log.jsonl").write_text("\n".join(lines) + '\n{"event": "lo')
    told = {
        "command": "lgr-pipe train --strategy lgr --cache c --out o --overwrite",
        "strategy": "lgr",
        "seeds": [0, 1, 2],
        "train": {"tasks": 4, "iters": 500},
    }
    (folder / "run.json").write_text(json.dumps(told | (about or {})))
    return folder


# --- finished ----------------------------------------------------------------------------


def test_json_has_the_figures_of_the_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "lgr", Made("lgr"))
    found = json.loads(said(run, "--json"))
    metrics = json.loads((run / "metrics.json").read_text())
    seeds = metrics["runs"]
    assert found["state"] == "finished"
    assert [entry["seed"] for entry in found["seeds"]] == [0, 1, 2]
    for key in ("average_accuracy", "forgetting", "bwt", "train_seconds"):
        values = [seed[key] for seed in seeds]
        assert [entry[key] for entry in found["seeds"]] == values
        assert found["mean"][key] == pytest.approx(statistics.fmean(values))
        assert found["sd"][key] == pytest.approx(statistics.stdev(values))
    cell = statistics.fmean(seed["accuracy_matrix"][2][1] for seed in seeds)
    assert found["accuracy_matrix"][2][1] == pytest.approx(cell)
    assert found["accuracy_on_learnt"][1]["mean"] == pytest.approx(
        statistics.fmean(statistics.fmean(seed["accuracy_matrix"][1][:2]) for seed in seeds)
    )
    recall = found["recall"][7]
    assert (recall["class"], recall["task"]) == ("neutral", 4)
    assert recall["recall"]["mean"] == pytest.approx(
        statistics.fmean(s["recall"][7] for s in seeds)
    )
    assert found["memory_bytes"] == seeds[0]["memory_bytes"]
    assert found["command"] == "lgr-pipe train --strategy lgr --cache c --out lgr"


def test_people_get_the_same_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "lgr", Made("lgr"))
    text, found = said(run), json.loads(said(run, "--json"))
    mean, sd = found["mean"]["average_accuracy"], found["sd"]["average_accuracy"]
    assert re.search(rf"^mean +{100 * mean:.2f} ", text, re.MULTILINE)
    assert re.search(rf"^± sd +{100 * sd:.2f} ", text, re.MULTILINE)
    row = [f"{100 * v:.1f}" for v in found["accuracy_matrix"][1]]
    assert re.search(rf"^after 2 +{row[0]} +{row[1]} +\({row[2]}\) +\({row[3]}\)$", text, re.M)
    assert "8 classes in 4 tasks" in " ".join(text.split())
    assert re.search(r"^scale: ▁ \d+ % to █ \d+ %", text, re.MULTILINE)
    assert re.search(r"^together +16\.369 MB$", text, re.MULTILINE)
    assert max(len(line) for line in text.splitlines() if not line.startswith("lgr")) <= 80
    assert "\x1b" not in text


def test_a_collapsed_generator_is_called_so(tmp_path: Path) -> None:
    bad = said(write_run(tmp_path / "bad", Made("lgr", variance_ratio=0.04)))
    good = said(write_run(tmp_path / "good", Made("lgr", variance_ratio=0.6)))
    assert bad.count("COLLAPSED") == 3
    assert "lgr: the generator has collapsed." in bad
    assert "COLLAPSED" not in good
    states = json.loads(said(tmp_path / "bad", "--json"))["replay"]
    assert [(state["learnt"], state["collapsed"]) for state in states] == [
        (1, True), (2, True), (3, True),
    ]  # fmt: skip


def test_a_folder_with_one_run_is_that_run(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "lr", Made("lr"))
    (tmp_path / "runs" / "notes").mkdir()
    assert said(tmp_path / "runs").startswith(f"lr  {tmp_path / 'runs' / 'lr'}")


@pytest.mark.parametrize("made", [
    Made("joint"), Made("lgr", tasks=1), Made("lgr", (7,)),
    Made("none", recorded=False, about=None),
    Made("lgr", classes=tuple(f"class {k}" for k in range(100)), tasks=50, scenario="class"),
    Made("nr", scenario="domain"),
], ids=["joint", "one task", "one seed", "old", "fifty tasks", "domain"])  # fmt: skip
def test_any_run_can_be_shown(tmp_path: Path, made: Made) -> None:
    run = write_run(tmp_path / "run", made)
    text = said(run)
    json.loads(said(run, "--json"))
    assert "Seeds" in text
    assert ("± sd" in text) == (len(made.seeds) > 1)
    assert ("Accuracy over the tasks" in text) == (made.strategy != "joint" and made.tasks > 1)
    if made.about is None:
        assert "How it was made is not recorded" in text


def test_seeds_that_failed_or_are_missing_are_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "lgr", Made("lgr", (0, 1), about={"seeds": [0, 1, 2]}))
    failed = {"event": "failed", "seed": 2, "why": "no memory\x1b[2J"}
    (run / "log.jsonl").write_text(json.dumps(failed) + "\n")
    text = said(run)
    assert "Seeds asked for that are not there: 2" in text
    assert r"Seed 2 failed: no memory\x1b[2J" in text


def test_letters() -> None:
    assert sparkline([0.5, None, 0.75, 1.0], 0.5, 1.0) == "▁ ▅█"
    assert [bar(share, 2) for share in (0, 1 / 16, 0.5, 1)] == ["  ", "▏ ", "█ ", "██"]


# --- the terminal ------------------------------------------------------------------------


def at_a_terminal(run: Path, **env: str) -> str:
    mine, theirs = pty.openpty()
    usual = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "COLUMNS")}
    child = subprocess.Popen(
        [sys.executable, "-c", ENTRY, "show", run], stdout=theirs, stderr=theirs, stdin=theirs,
        env={**usual, "TERM": "xterm", **env},
    )  # fmt: skip
    os.close(theirs)
    found = b""
    try:
        while more := os.read(mine, 1 << 16):
            found += more
    except OSError:  # the other end is closed
        pass
    os.close(mine)
    assert child.wait(60) == 0, found
    return found.decode()


def test_colour_is_for_terminals_that_want_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "lgr", Made("lgr"))
    assert "\x1b[1;31mlgr: the generator has collapsed." in at_a_terminal(run)
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = at_a_terminal(run, **env)
        assert "COLLAPSED" in plain
        assert "\x1b" not in plain


def test_an_output_without_blocks_gets_ascii(tmp_path: Path) -> None:
    run = write_run(tmp_path / "lgr", Made("lgr", classes=("ärger", "joy", "fear", "calm")))
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, "show", run],
        capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    text = done.stdout.decode("ascii")
    assert re.search(r"^scale: 1 \d+ % to 8 \d+ %", text, re.MULTILINE)
    assert "?rger" in text
    assert "+- sd" in text
    assert "#" in text


def test_it_starts_without_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "lgr", Made("lgr"))
    found = imported(tmp_path, "show", run)
    assert not found & {"torch", "dlib", "matplotlib", "zarr", "h5py", "sklearn"}


# --- not finished ------------------------------------------------------------------------


def test_an_unfinished_run_tells_how_far_it_is(tmp_path: Path) -> None:
    run = unfinished(tmp_path / "lgr", EVENTS)
    text, found = said(run), json.loads(said(run, "--json"))
    assert found["state"] == "unfinished"
    assert found["seeds_done"] == [0]
    assert found["losses"] == {"solver": 0.25, "replay": 0.125}
    assert found["learnt"] == {"task": 1, "accuracy": 0.875}
    assert "1 of 3 (0)" in text
    assert "seed 1, task 2 of 4, iteration 750 of 2,000 (38 %)" in text
    assert "solver 0.25, replay 0.125" in text
    assert "task 1, accuracy so far 87.5 %" in text
    assert "\nlgr-pipe train --strategy lgr --cache c --out o --resume" in text


def test_steps_go_on_after_a_resume(tmp_path: Path) -> None:
    resumed = [{"event": "seed", "seconds": 0.1, "seed": 1, "steps_done": 500},
               {"event": "losses", "seconds": 0.2, "iteration": 50, "solver": 0.1}]  # fmt: skip
    found = json.loads(said(unfinished(tmp_path / "lgr", [*EVENTS, *resumed]), "--json"))
    assert found["steps"] == 550
    assert found["steps_of_a_seed"] == 2000


def test_a_failed_seed_is_told(tmp_path: Path) -> None:
    events = [*EVENTS, {"event": "failed", "seconds": 13.0, "seed": 1, "why": "disk full"}]
    run = unfinished(tmp_path / "lgr", events)
    assert "Seed 1 failed: disk full" in said(run)
    assert json.loads(said(run, "--json"))["failed"] == [{"seed": 1, "why": "disk full"}]


STRANGE: list[Any] = [
    [], 7, {"event": []}, {"event": "seed", "seed": "x\x1b[2J", "steps_done": -1},
    {"event": "seed", "seed": 10**400, "steps_done": 10**400}, {"event": "learning", "task": {}},
    {"event": "losses", "iteration": None, "solver": float("nan"), "a\x1b]0;b": 1.0},
    {"event": "losses", "iteration": 1, "solver": 10**400, "replay": float("inf")},
    {"event": "learnt", "task": None, "accuracy": "all"}, {"event": "failed", "seed": 1},
    {"event": "finished", "seed": [1]},
]  # fmt: skip


@pytest.mark.parametrize("about", [{}, {"options": {"z": float("nan")}}, {"train": {"tasks": 0}}])
def test_a_strange_log_is_no_traceback(tmp_path: Path, about: dict[str, Any]) -> None:
    run = unfinished(tmp_path / "lgr", STRANGE, about)
    (run / "log.jsonl").write_bytes((run / "log.jsonl").read_bytes() + b"\n\xff\xfe[[[[" * 50)
    text = said(run)
    assert "not finished" in text
    assert "\x1b" not in text
    json.loads(said(run, "--json"))


def test_before_the_first_event(tmp_path: Path) -> None:
    run = tmp_path / "lgr"
    run.mkdir()
    (run / "log.jsonl").touch()
    text = said(run)
    assert "before the first seed" in text
    assert "it has no run.json" in text


# --- mistakes ----------------------------------------------------------------------------


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    assert "is not there" in refused(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "is no folder" in refused(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "There is no run in" in refused(tmp_path / "empty")


def test_several_runs_are_listed(tmp_path: Path) -> None:
    write_study(tmp_path / "my runs", "lr", "nr")
    text = refused(tmp_path / "my runs")
    assert "holds 2 runs: which one?" in text
    assert f"lgr-pipe show '{tmp_path}/my runs/lr'" in text
    assert "lgr-pipe report" in text


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, '{"runs": NaN}'])
def test_a_damaged_file_is_told(tmp_path: Path, content: str) -> None:
    run = write_run(tmp_path / "lr", Made("lr"))
    write_run(run / "deeper", Made("nr"))  # is not taken for it
    (run / "metrics.json").write_text(content)
    assert "metrics.json is not what lgr-pipe train writes" in refused(run)
