"""`dvc repro`, small: everything once, nothing twice, and only what a change concerns."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cache.errors import Refused
from pipeline.params import resolve

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(
    not (BIN / "dvc").exists() or not (BIN / "lgr-pipe").exists(),
    reason="needs the dvc extra and the installed lgr-pipe command beside this Python",
)

BACKBONES = ("mobilenet_v2", "resnet18")
LATENT, IMAGE = ("none", "lr"), ("nr",)
"""Of the strategies that are shipped: each takes seconds to start."""


def _dvc(folder: Path, *words: str, fails: bool = False) -> str:
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, timeout=900, check=False
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + (done.stderr if fails else "")


def _ran(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def _change(project: Path, strategy: str, **options: Any) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["options"][strategy] |= options
    path.write_text(yaml.safe_dump(params))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A project after its first `dvc repro`, and the stages that this ran."""
    project = tmp_path_factory.mktemp("dvc") / "a folder with spaces"
    project.mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, project)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["draw"]["per_class"] = 12
    params["backbones"] = list(BACKBONES)
    assert set(LATENT) <= set(params["strategies"])
    assert set(IMAGE) <= set(params["image_strategies"])
    params["strategies"], params["image_strategies"] = list(LATENT), list(IMAGE)
    params["train"].update(iters=3, seeds="0-1", batch_size=8)
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    _dvc(project, "git", "init", "-q")
    _dvc(project, "dvc", "init", "-q")
    _dvc(project, "dvc", "config", "core.analytics", "false")
    shutil.copytree(ROOT / ".dvc" / "plots", project / ".dvc" / "plots")
    return project, _ran(_dvc(project, "dvc", "repro"))


@pytest.fixture
def project(first: tuple[Path, set[str]]) -> Path:
    return first[0]


def test_everything_runs_once(first: tuple[Path, set[str]]) -> None:
    project, ran = first
    extracts = {f"extract@{backbone}" for backbone in BACKBONES}
    trains = {f"train@{backbone}-{name}" for backbone in BACKBONES for name in LATENT}
    trains |= {f"train-images@{backbone}-{name}" for backbone in BACKBONES for name in IMAGE}
    assert ran == {"draw", "crop", "report"} | extracts | trains
    table = (project / "runs" / "report" / "table.md").read_text()
    for backbone in BACKBONES:
        assert f"**drawn, {backbone}, weights: random" in table
    for name in (*LATENT, *IMAGE):
        assert len(re.findall(rf"^\| {name} ", table, re.MULTILINE)) == 2 * len(BACKBONES)
    again = _dvc(project, "dvc", "repro")
    assert not _ran(again)
    assert "up to date" in again
    status = _dvc(project, "git", "status", "--short", "--untracked-files=all")
    assert "data/" not in status
    assert "runs/" not in status


def test_an_option_concerns_its_strategy_and_the_report(project: Path) -> None:
    _change(project, "lr", buffer_size=7)
    assert _ran(_dvc(project, "dvc", "repro")) == {
        *(f"train@{backbone}-lr" for backbone in BACKBONES),
        "report",
    }


def test_latents_are_enough_for_what_works_on_latents(project: Path) -> None:
    """As after `dvc pull data/latents/resnet18`; nr says that it misses the crops."""
    aside = project.parent / "aside"
    (project / "data" / "drawn").rename(aside)
    (project / "data" / "crops").rename(aside / "crops")
    try:
        _change(project, "lr", buffer_size=8)
        _change(project, "nr", buffer_size=8)
        stage = "train@resnet18-lr"
        assert _ran(_dvc(project, "dvc", "repro", "-s", stage)) == {stage}
        said = _dvc(project, "dvc", "repro", "-s", "train-images@resnet18-nr", fails=True)
        assert "crops" in said
    finally:
        (aside / "crops").rename(project / "data" / "crops")
        aside.rename(project / "data" / "drawn")


def test_what_an_interrupted_run_has_left_is_no_obstacle(project: Path) -> None:
    """DVC takes the results away before a stage runs; checkpoints and log are not its own."""
    run = project / "runs" / "study" / "resnet18" / "none"
    for path in run.iterdir():
        if path.suffix in (".json", ".csv", ".safetensors"):
            path.unlink()
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "log.jsonl"]
    stage = "train@resnet18-none"
    assert _ran(_dvc(project, "dvc", "repro", "-f", "-s", stage)) == {stage}
    assert (run / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("backbones: [vgg16, vgg16]", "backbones: a name is there twice"),
        ('backbones: [""]', "backbones: a name is empty"),
        ("strategies: [lr, none, lr]", "strategies: a name is there twice"),
        ("image_strategies: [ner]", "image_strategies: there is no strategy 'ner'"),
    ],
)
def test_lists_that_make_no_stages(tmp_path: Path, line: str, mistake: str) -> None:
    (tmp_path / "params.yaml").write_text(line)
    with pytest.raises(Refused, match=mistake):
        resolve(tmp_path / "params.yaml", {})


def test_metrics_and_plots(project: Path) -> None:
    shown = json.loads(_dvc(project, "dvc", "metrics", "show", "--json"))[""]["data"]
    runs = {f"runs/study/{backbone}/{name}" for backbone in BACKBONES for name in (*LATENT, *IMAGE)}
    assert set(shown) == {f"{run}/metrics.json" for run in runs}
    assert all("average_accuracy_mean" in metrics["data"] for metrics in shown.values())
    plots = json.loads(_dvc(project, "dvc", "plots", "show", "--json"))["data"]
    assert set(plots) == {"accuracy over tasks", *(f"{run}/predictions.csv" for run in runs)}
    (curves,) = plots["accuracy over tasks"]
    values = curves["content"]["data"]["values"]
    assert {value["strategy"] for value in values} == {*LATENT, *IMAGE}
    assert len({value["study"] for value in values}) == len(BACKBONES)
    assert "<DVC_METRIC" not in json.dumps(curves["content"])
    (confusion,) = plots["runs/study/resnet18/nr/predictions.csv"]
    assert {"target", "answer"} <= confusion["content"]["data"]["values"][0].keys()


@pytest.fixture(scope="module")
def shared(first: tuple[Path, set[str]]) -> tuple[Path, Path, Path]:
    """README, "Sharing": a project that was pushed, the remote, and a fresh clone."""
    project = first[0]
    remote, clone = project.parent / "team remote", project.parent / "clone"
    _dvc(project, "dvc", "repro")
    _dvc(project, "dvc", "remote", "add", "--default", "team", str(remote))
    _dvc(project, "dvc", "push")
    _dvc(project, "git", "add", "--all")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    _dvc(project, "git", *who, "commit", "-q", "-m", "Everything")
    _dvc(project, "git", "clone", "-q", str(project), str(clone))
    return project, remote, clone


def _hashes(project: Path, out: str, below: str = "") -> set[str]:
    """MD5 of the files of a folder that DVC keeps: of all, or of those below a name in it."""
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    (listing,) = {
        entry["md5"]
        for stage in lock["stages"].values()
        for entry in stage.get("outs", ())
        if entry["path"] == out
    }
    stored = project / ".dvc" / "cache" / "files" / "md5" / listing[:2] / listing[2:]
    files = {file["relpath"]: file["md5"] for file in json.loads(stored.read_text())}
    found = {md5 for name, md5 in files.items() if name.startswith(below)}
    assert found
    return found


def test_a_remote_holds_latents_and_no_crop(shared: tuple[Path, Path, Path]) -> None:
    project, remote, _ = shared
    there = {path.parent.name + path.name for path in remote.rglob("*") if path.is_file()}
    for backbone in BACKBONES:
        assert _hashes(project, f"data/latents/{backbone}") <= there
    # Labels, splits and subjects are the same bytes in both; pixels, ids and boxes are not.
    for name in ("data.zarr/crops/", "data.zarr/box/c", "samples.jsonl", "manifest.json"):
        assert not _hashes(project, "data/crops", name) & there


def test_a_colleague_trains_on_what_was_pulled(shared: tuple[Path, Path, Path]) -> None:
    """One backbone's latents, no image, no crop: the same figures."""
    project, _, clone = shared
    _dvc(clone, "dvc", "pull", "data/latents/resnet18")
    assert [p.name for p in (clone / "data").iterdir()] == ["latents"]
    assert [p.name for p in (clone / "data" / "latents").iterdir()] == ["resnet18"]
    stage = "train@resnet18-lr"
    assert _ran(_dvc(clone, "dvc", "repro", "-f", "-s", stage)) == {stage}
    for name in ("predictions.csv", "accuracy_matrix.csv"):
        run = Path("runs/study/resnet18/lr") / name
        assert (clone / run).read_bytes() == (project / run).read_bytes()
    assert not (clone / "data" / "crops").exists()
