"""`lgr-pipe report` as it is typed: mistakes, what it writes over, what is on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import Run
from tests.made_runs import write_study


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_study(tmp_path / "runs", "none", "lr")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--compare"], "--compare takes two folders"),
        (["--compare", "runs"], "--compare takes two folders"),
        (["--compare", "runs", "runs", "runs"], "--compare takes two folders"),
        (["nowhere"], "no folder nowhere"),
        (["runs/lr/run.json"], "no folder runs/lr/run.json"),
        (["runs", "--show-faces"], "name it with --out"),
        (["runs", "--crops", "x"], "name it with --out"),
        (["runs", "--crops", "x", "--out", "new"], "no cache at x"),
        (["runs", "--out", "https://host/new"], "only local folders"),
        (["runs", "--out", "runs/lr/run.json"], "is no folder: name one for the report"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(
    here: Run, runs: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(runs.parent)
    done = here("report", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in runs.parent.iterdir()] == ["runs"]


@pytest.mark.parametrize("name", ["table.csv", "curves.csv", "table.md"])
def test_a_file_of_others_stays(here: Run, runs: Path, name: str) -> None:
    out = runs.parent / "out"
    out.mkdir()
    (out / name).write_text("mine")
    done = here("report", str(runs), "--out", str(out))
    assert done.returncode == 2
    assert "no report is known to have written it" in done.stderr
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: "mine"}


def test_a_report_below_the_runs_is_made_again(here: Run, tmp_path: Path) -> None:
    write_study(tmp_path / "runs", "none", recorded=False, seeds=(0,), tasks=1, about=None)
    out = tmp_path / "runs" / "report"
    first = here("report", tmp_path / "runs", "--out", out)
    assert first.returncode == 0, first.stderr
    for path in (out / ".report-files.json", out / "report.html", out / "report.md"):
        path.unlink()  # as earlier versions left it: tables alone
    for name in ("tables", "figures"):
        (out / name).rename(tmp_path / name)
    again = here("report", tmp_path / "runs", "--out", out)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout


@pytest.mark.parametrize("compare", [[], ["--compare"]])
def test_json_is_all_that_is_on_stdout(here: Run, runs: Path, compare: list[str]) -> None:
    broken = runs / "bro\udcffken"
    broken.mkdir()
    (broken / "metrics.json").write_text("{}")
    folders = [str(runs)] * (1 + len(compare))
    done = here("report", *compare, *folders, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert json.loads(done.stdout)
    if compare:
        assert done.stderr.count("Left out: ") == 2
