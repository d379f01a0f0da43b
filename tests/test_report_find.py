"""Which runs stand in one table, which are left out, and what is said of those."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cache.errors import Refused
from stages.report.reading.find import Found, find
from stages.report.reading.runs import Study
from stages.report.terminal.machine import as_json
from stages.report.terminal.remarks import apart
from tests.command import Run
from tests.made_runs import Made, write_run, write_study


def one(found: Found) -> Study:
    (study,) = found.studies
    return study


def labels(study: Study) -> list[str]:
    return [run.label for run in study.runs]


def begun(folder: Path, *events: dict[str, Any], **about: Any) -> Path:
    """What is left of a run that never finished."""
    write_run(folder, Made("lgr", about=about))
    (folder / "metrics.json").unlink()
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_variants_stand_beside_each_other(tmp_path: Path) -> None:
    write_run(tmp_path / "none", Made("none"))
    for units in (200, 400):
        options = {"generator_units": units, "z": 100}
        write_run(tmp_path / f"lgr{units}", Made("lgr", options=options))
    study = one(find([tmp_path]))
    assert labels(study) == ["none", "lgr (generator_units 200)", "lgr (generator_units 400)"]
    assert [run.variant for run in study.runs] == [0, 0, 1]
    assert {run.strategy for run in study.runs[1:]} == {"lgr"}


def test_variants_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for units in (1000, 200, 30):
        write_run(tmp_path / f"lgr{units}", Made("lgr", options={"generator_units": units}))
    found = [label.split()[-1] for label in labels(one(find([tmp_path])))]
    assert found == ["30)", "200)", "1000)"]


def test_an_option_that_one_does_not_have(tmp_path: Path) -> None:
    write_run(tmp_path / "new", Made("lgr", options={"pool": 5}))
    write_run(tmp_path / "old", Made("lgr"))
    assert labels(one(find([tmp_path]))) == ["lgr (pool 5)", "lgr (pool not recorded)"]


def test_seeds_that_were_run_apart_are_one_run(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "a" / "whole", Made("lr", seeds=(0, 1, 2)))
    for seed in (2, 0, 1):
        write_run(tmp_path / "b" / f"lr-{seed}", Made("lr", seeds=(seed,)))
    (apart,) = one(find([tmp_path / "b"])).runs
    (together,) = one(find([tmp_path / "a"])).runs
    assert apart.runs == together.runs
    assert together.folders == (whole,)
    assert len(apart.folders) == 3


def test_a_seed_that_two_claim_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", Made("lr", seeds=(0, 1)))
    write_run(tmp_path / "b", Made("lr", seeds=(1, 2), level=0.5))
    with pytest.raises(Refused, match=r"are both runs of lr with seed 1.*Name folders"):
        find([tmp_path])


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"cache_content": "blake3:11"}, {}),
        ({"task_classes": [["a"]] * 4}, {}),
        ({"iters": 7}, {}),
        ({"protocol": "released"}, {}),
        ({}, {"versions": {"lgr-pipe": "0.2.0"}}),
        ({}, {"train": {"early_stopping": 3}}),
    ],
)
def test_contradictory_runs_get_tables_of_their_own(
    tmp_path: Path, changes: dict[str, Any], about: dict[str, Any]
) -> None:
    write_run(tmp_path / "a", Made("none"))
    write_run(tmp_path / "b", Made("lr", changes=changes, about=about))
    assert [labels(study) for study in find([tmp_path]).studies] == [["none"], ["lr"]]


def test_another_version_of_a_library_is_no_other_study(tmp_path: Path) -> None:
    write_run(tmp_path / "a", Made("none"))
    versions = {"lgr-pipe": "0.1.0", "torch": "9.9"}
    write_run(tmp_path / "b", Made("lr", about={"versions": versions}))
    assert labels(one(find([tmp_path]))) == ["none", "lr"]


def test_a_failed_seed_is_told_and_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "none", Made("none"))
    command = "lgr-pipe train --strategy lgr --out lgr --overwrite"
    failed = begun(
        tmp_path / "lgr",
        {"event": "finished", "seed": 0},
        {"event": "failed", "seed": 1, "why": "Training diverged: lower --lr."},
        command=command,
    )
    found = find([tmp_path])
    assert labels(one(found)) == ["none"]
    (out,) = found.left_out
    assert out.folder == failed
    assert out.why == "seed 1 failed: Training diverged: lower --lr."
    assert out.again == "lgr-pipe train --strategy lgr --out lgr --resume"


def test_a_half_finished_run(tmp_path: Path) -> None:
    write_run(tmp_path / "none", Made("none"))
    begun(tmp_path / "lgr", {"event": "seed", "seed": 0}, {"event": "finished", "seed": 0})
    (out,) = find([tmp_path]).left_out
    assert out.why == "not finished: 1 of 3 seeds done"


def test_a_log_that_was_cut_or_is_none(tmp_path: Path) -> None:
    write_run(tmp_path / "none", Made("none"))
    log = begun(tmp_path / "lgr") / "log.jsonl"
    log.write_bytes(b'\xff\x00[[[\n{"event": "finished", "se')
    (out,) = find([tmp_path]).left_out
    assert out.why == "not finished"


def test_a_file_that_is_none_of_ours_does_not_hide_the_others(tmp_path: Path) -> None:
    write_study(tmp_path, "none", "lr")
    (tmp_path / "lr" / "metrics.json").write_text('{"strategy": "lr"}')
    found = find([tmp_path])
    assert labels(one(found)) == ["none"]
    assert "is not what lgr-pipe train writes (dataset: Field required" in found.left_out[0].why


def test_nothing_but_unfinished_runs_is_refused(tmp_path: Path) -> None:
    begun(tmp_path / "lgr", {"event": "finished", "seed": 0})
    with pytest.raises(Refused, match=r"no run in .* that can be shown.*1 of 3 seeds done"):
        find([tmp_path])


def test_a_strange_run_json_hides_no_figure(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "none", Made("none"))
    (folder / "run.json").write_text("[" * 100_000)
    assert one(find([tmp_path])).first.about is None


def test_what_a_file_says_of_its_own_place_is_not_believed(tmp_path: Path) -> None:
    lies = {"label": "joint", "folders": ["/etc"], "variant": 7, "about": {"command": "rm"}}
    folder = write_run(tmp_path / "none", Made("none", changes=lies, about=None))
    run = one(find([tmp_path])).first
    assert (run.label, run.folders, run.variant, run.about) == ("none", (folder,), 0, None)


def test_json(tmp_path: Path, lgr_pipe: Run) -> None:
    write_study(tmp_path, "none", "lr", seeds=(0, 1))
    begun(tmp_path / "lgr", command="lgr-pipe train --out x")
    found = json.loads(lgr_pipe("report", tmp_path, "--json").stdout)
    assert found == as_json(find([tmp_path]))
    (rows,) = found["studies"]
    assert [row["strategy"] for row in rows] == ["majority floor", "none", "lr", "joint"]
    accuracies = [seed["average_accuracy"] for seed in _metrics(tmp_path / "lr")["runs"]]
    assert rows[2]["average_accuracy_mean"] == pytest.approx(sum(accuracies) / 2)
    assert found["left_out"][0]["again"] == "lgr-pipe train --out x --resume"


def _metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def test_what_is_no_plain_file_is_never_opened(tmp_path: Path) -> None:
    """A pipe would be waited for without end, a device read without end."""
    write_study(tmp_path, "none", "lr", "joint")
    for name, file in (("lr", "metrics.json"), ("none", "run.json"), ("joint", "log.jsonl")):
        (tmp_path / name / file).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name / file)
    for name, target in (("zero", "/dev/zero"), ("circle", "metrics.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").symlink_to(target)
    begun(tmp_path / "begun")
    (tmp_path / "begun" / "log.jsonl").unlink()
    os.mkfifo(tmp_path / "begun" / "log.jsonl")
    found = find([tmp_path])
    assert sorted(label for study in found.studies for label in labels(study)) == ["joint", "none"]
    why = {out.folder.name: out.why for out in found.left_out}
    assert why.keys() == {"lr", "zero", "circle", "begun"}
    assert all("is no plain file" in why[name] for name in ("lr", "zero", "circle"))
    assert why["begun"] == "not finished"


def test_folders_without_end(tmp_path: Path) -> None:
    write_run(tmp_path / "none", Made("none"))
    (tmp_path / "none" / "again").symlink_to(tmp_path)
    here = Path.cwd()
    os.chdir(tmp_path)
    for _ in range(1200):  # deeper than Python's stack, longer than a path may be
        Path("deep").mkdir()
        os.chdir("deep")
    os.chdir(here)
    assert labels(one(find([tmp_path]))) == ["none"]
    subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)  # rmtree's stack ends too


def test_mistakes_are_not_counted_to_the_end(tmp_path: Path) -> None:
    """Each would take a hundred times the room of what it is about."""
    write_run(tmp_path / "none", Made("none"))
    write_run(tmp_path / "lr", Made("lr", changes={"class_order": [1] * 300_000}))
    (left,) = find([tmp_path]).left_out
    assert "class_order.0: Input should be a valid string" in left.why
    assert "more" not in left.why


def test_runs_with_and_without_run_json_are_told_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", Made("none", about=None))
    write_run(tmp_path / "b", Made("lr", about={"versions": {"lgr-pipe": "0.1.0"}}))
    studies = find([tmp_path]).studies
    for study in studies:
        (said,) = apart(study, studies)
        assert "version" in said
