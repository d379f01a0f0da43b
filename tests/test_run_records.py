"""What a run's folder tells of the run: from its start on, and of what is replayed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from safetensors import safe_open

from cache.schema import read_manifest
from pipeline import run_about
from pipeline.replay_file import check_shown, write_replay
from tests.command import Run
from tests.test_runs import World, events_of, make_vectors, metrics_of, ok, refused, table, world

__all__ = ["world"]  # the fixture


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("vectors")
    return World(root / "none", make_vectors(root / "latents"))


def run_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


def read_replay(out: Path) -> tuple[dict[str, str], dict[str, Any]]:
    with safe_open(out / "replay.safetensors", framework="numpy") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


# --- run.json -------------------------------------------------------------------------------


def test_a_run_that_fails_has_said_what_it_was(here: Run, vectors: World, tmp_path: Path) -> None:
    out = tmp_path / "r"
    refused(here(*vectors.words("lr", out, "--lr", "1e30", "--seeds", "4-5")), "diverged")
    assert sorted(path.name for path in out.iterdir()) == ["log.jsonl", "run.json"]
    said, last = run_of(out), events_of(out)[-1]
    assert (said["strategy"], said["seeds"], said["train"]["lr"]) == ("lr", [4, 5], 1e30)
    assert (last["event"], last["seed"]) == ("failed", 4)
    assert "Training diverged" in last["why"]
    ok(here(*vectors.words("lr", out)))  # nothing was finished that could be lost
    assert run_of(out)["seeds"] == [0, 1]
    assert "failed" not in {event["event"] for event in events_of(out)}


def test_a_seed_that_fails_later_leaves_the_others(
    here: Run, vectors: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything that goes wrong is in the log, and what was finished is kept."""
    from stages.train import recorder

    look = recorder.Recorder.look

    def fails(self: recorder.Recorder, *words: Any) -> Any:
        if self.seed == 1:
            raise ValueError("no more \x1b[2J" + "x" * 600)
        return look(self, *words)

    out = tmp_path / "r"
    with monkeypatch.context() as patch:
        patch.setattr(recorder.Recorder, "look", fails)
        with pytest.raises(ValueError, match="no more"):
            here(*vectors.words("lr", out))
    assert not (out / "metrics.json").exists()
    event = events_of(out)[-1]
    assert (event["event"], event["seed"]) == ("failed", 1)
    assert event["why"].startswith("ValueError: no more \\x1b[2Jxxx")
    assert len(event["why"]) < 600
    kept = (out / "checkpoints" / "seed-0" / "result.safetensors").read_bytes()
    ok(here(*vectors.words("lr", out, "--resume")))
    assert (out / "checkpoints" / "seed-0" / "result.safetensors").read_bytes() == kept
    assert [entry["seed"] for entry in metrics_of(out)["runs"]] == [0, 1]


def test_run_json_tells_machine_data_and_when(here: Run, vectors: World, tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    ok(here(*vectors.words("none", tmp_path / "r", "--validation", "0.25", "--seeds", "3,1")))
    said = run_of(tmp_path / "r")
    assert said["seeds"] == [3, 1]
    assert before <= datetime.fromisoformat(said["started"]) <= datetime.now(UTC)
    assert said["memory_bytes"] == psutil.virtual_memory().total
    assert said["processor"]
    assert said["gpu"] is said["crops"] is None
    assert said["data"] == {
        "classes": {
            name: {"train": 6, "test": 4, "validation": 2}
            for name in metrics_of(tmp_path / "r")["class_order"]
        },
        "subjects": None,
        "images": None,
        "face_crop": None,
        "pretrained": False,
        "trained_on": None,
        "side": None,
        "activation": None,
    }


def test_classes_that_are_left_out_are_not_counted(here: Run, world: World, tmp_path: Path) -> None:
    words = ("--class-order", "sad,calm;glad,proud", "--seeds", 0)
    ok(here(*world.words("none", tmp_path / "r", "--tasks", 2, *words)))
    data = run_of(tmp_path / "r")["data"]
    rows = {"train": 8, "test": 3, "validation": 0}
    assert data["classes"] == dict.fromkeys(("sad", "calm", "glad", "proud"), rows)
    assert list(data["classes"]) == ["sad", "calm", "glad", "proud"]
    assert data["images"]["whole"] == 66
    assert (data["face_crop"], data["side"], data["activation"]) == ("off", 32, "sigmoid")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Xeon 5\nmodel name\t: other\n", "Xeon 5"),
        ("model name\t:\nHardware : x\n", None),
        (None, None),
    ],
)
def test_the_name_of_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, name: str | None
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(run_about, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(run_about.platform, "processor", lambda: "")
    monkeypatch.setattr(run_about.platform, "machine", lambda: "riscv")
    assert run_about.processor() == (name or "riscv")


def _made(world: World) -> tuple[float, float]:
    """Seconds that the provenance of crops and latents tells."""
    folders = (world.crops, world.latents)
    found = [json.loads((p / "provenance.json").read_text())["seconds"] for p in folders]
    return found[0], found[1]


def _stage_one(here: Run, world: World, out: Path, *words: object) -> dict[str, Any]:
    ok(here(*world.words("none", out, "--iters", 1, "--seeds", 0, *words)))
    found: dict[str, Any] = run_of(out)["stage_one"]
    assert "wall seconds of the process that finished each cache" in found.pop("measured")
    return found


def test_stage_one_is_what_the_provenance_tells(here: Run, world: World, tmp_path: Path) -> None:
    crop, extract = _made(world)
    rows = {"rows": 66, "crop_rows": 66}
    wanted = {"crop_seconds": crop, "extract_seconds": extract, **rows}
    assert _stage_one(here, world, tmp_path / "beside") == wanted
    assert run_of(tmp_path / "beside")["crops"] == str(world.crops)
    apart = World(world.crops, tmp_path / "deep" / "er" / "latents")
    shutil.copytree(world.latents, apart.latents)
    named = _stage_one(here, apart, tmp_path / "named", "--crops", world.crops)
    assert named == wanted
    unknown = {**wanted, "crop_seconds": None, "crop_rows": None}
    assert _stage_one(here, apart, tmp_path / "unknown") == unknown
    shutil.copytree(world.latents, tmp_path / "deep" / "er" / "crops")  # no crops
    assert _stage_one(here, apart, tmp_path / "other") == unknown
    (apart.latents / "provenance.json").write_text("{}\n")
    none = {**unknown, "extract_seconds": None}
    assert _stage_one(here, apart, tmp_path / "damaged") == none


def test_crops_that_were_made_with_the_latents_are_not_counted_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(world.latents)
    told = {world.crops: ("now", 8.0), world.latents: ("now", 9.0)}

    def tell(place: Path) -> dict[str, Any]:
        return dict(zip(("made", "seconds"), told[place], strict=True))

    monkeypatch.setattr(run_about, "read_provenance", tell)
    found = run_about.stage_one(world.latents, manifest, world.crops)
    assert (found["crop_seconds"], found["extract_seconds"]) == (None, 9.0)
    assert "together, in extract_seconds" in found["measured"]
    told[world.crops] = ("before", 8.0)
    found = run_about.stage_one(world.latents, manifest, world.crops)
    assert (found["crop_seconds"], found["extract_seconds"]) == (8.0, 9.0)
    assert "together" not in found["measured"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(3, 3.0), (0.5, 0.5), (True, None), ("3", None), (-1, None), (1e15, None), (None, None)],
)
def test_seconds_of_a_stranger(value: Any, seconds: float | None) -> None:
    assert run_about._seconds({"seconds": value}) == seconds


# --- replay.safetensors ---------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_what_is_replayed_is_in_the_folder(
    here: Run, vectors: World, tmp_path: Path, scenario: str
) -> None:
    out = tmp_path / "r"
    ok(here(*vectors.words("lgr+d", out, "--scenario", scenario, "--seeds", "6,2")))
    metrics = metrics_of(out)
    for entry in metrics["runs"]:
        first, second = entry["replay"]
        assert (first["learnt"], second["learnt"]) == (1, 2)
        heads = 2 if scenario == "task" else 1
        assert sum(second["labels"].values()) == heads * second["drawn"] == heads * 500
        assert list(second["labels"]) == metrics["class_order"][:4]
    about, arrays = read_replay(out)
    assert about == {
        "format": "lgr-pipe replay", "seed": "6", "learnt": "2", "kind": "generated",
    }  # fmt: skip
    assert arrays["points"].shape == (532, 6)
    assert arrays["points"].dtype == np.float32
    assert arrays["generated"].tolist() == [0] * 32 + [1] * 500
    assert np.bincount(arrays["label"][:32]).tolist() == [8, 8, 8, 8]
    assert arrays["explained"].sum() == pytest.approx(1, abs=1e-5)
    real = arrays["points"][:32].astype(np.float64)
    np.testing.assert_allclose(real.mean(0), 0, atol=1e-5)
    variances = real.var(0) / real.var(0).sum()
    np.testing.assert_allclose(variances, arrays["explained"], atol=1e-4)


def test_what_replays_nothing_says_so(here: Run, vectors: World, tmp_path: Path) -> None:
    """A file all the same: DVC wants each output of a stage."""
    for strategy in ("none", "joint"):
        ok(here(*vectors.words(strategy, tmp_path / strategy)))
        assert [entry["replay"] for entry in metrics_of(tmp_path / strategy)["runs"]] == [[], []]
        about, arrays = read_replay(tmp_path / strategy)
        assert (about["kind"], about["learnt"]) == ("none", "0")
        assert {len(array) for array in arrays.values()} == {0}
    ok(here(*vectors.words("lr", tmp_path / "one", "--tasks", 1)))
    assert read_replay(tmp_path / "one")[0]["kind"] == "none"


def test_resources_have_a_line_for_each_sample(here: Run, vectors: World, tmp_path: Path) -> None:
    ok(here(*vectors.words("lgr+d", tmp_path / "r", "--period", "0.01", "--iters", 60)))
    lines = table(tmp_path / "r" / "resources.csv")
    runs = metrics_of(tmp_path / "r")["runs"]
    for entry in runs:
        mine = [line for line in lines if line["seed"] == str(entry["seed"])]
        assert 5 < len(mine) <= 200
        total = entry["resources"]["total"]
        highest = max(int(line["rss_bytes"]) for line in mine if line["phase"] != "record")
        assert highest == total["rss_peak_bytes"]
        spent = total["wall_seconds"] + entry["resources"]["record"]["wall_seconds"]
        assert 0.5 * spent < float(mine[-1]["seconds"]) <= spent + 0.01
        assert {line["gpu_memory_bytes"] for line in mine} == {""}
    assert {line["phase"] for line in lines} <= {
        "load", "replay", "solver", "generator", "evaluation", "record", "other",
    }  # fmt: skip


def shown() -> dict[str, Any]:
    return {
        "points": np.ones((3, 2), dtype=np.float32),
        "generated": np.array([0, 0, 1], dtype=np.uint8),
        "label": np.array([0, 5, 2], dtype=np.int16),
        "explained": np.array([0.7, 0.2], dtype=np.float32),
        "images": np.zeros((1, 4, 4, 3), dtype=np.uint8),
        "image_labels": np.array([2], dtype=np.int16),
        "real_rows": np.array([70], dtype=np.int64),
    }


def test_a_replay_is_written_as_others_read_it(tmp_path: Path) -> None:
    states = [{"learnt": 1, "kind": "stored"}, {"learnt": 2, "kind": "generated"}]
    check_shown(shown(), 6)
    write_replay(tmp_path / "replay.safetensors", 3, states, shown())
    about, arrays = read_replay(tmp_path)
    assert about == {
        "format": "lgr-pipe replay", "seed": "3", "learnt": "2", "kind": "generated",
    }  # fmt: skip
    assert arrays.keys() == shown().keys()
    for name, array in shown().items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)
    again = (tmp_path / "replay.safetensors").read_bytes()
    write_replay(tmp_path / "replay.safetensors", 3, states, shown())
    assert (tmp_path / "replay.safetensors").read_bytes() == again


MISFITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no label": lambda s: s.pop("label"),
    "no explained": lambda s: s.pop("explained"),
    "strange": lambda s: s.update(more=np.zeros(3)),
    "double points": lambda s: s.update(points=s["points"].astype(np.float64)),
    "flat points": lambda s: s.update(points=s["points"][:, 0]),
    "fewer points": lambda s: s.update(points=s["points"][:2]),
    "endless points": lambda s: s.update(points=s["points"] * np.inf),
    "a class too many": lambda s: s.update(label=s["label"] + 1),
    "a negative class": lambda s: s.update(label=s["label"] - 1),
    "many points": lambda s: s.update({
        k: np.repeat(s[k], 600, 0) for k in ("points", "generated", "label")}),
    "many axes": lambda s: s.update({
        "points": np.ones((3, 99), np.float32), "explained": np.ones(99, np.float32)}),
    "many images": lambda s: s.update({
        k: np.repeat(s[k], 25, 0) for k in ("images", "image_labels", "real_rows")}),
    "wide images": lambda s: s.update(images=np.zeros((1, 4, 5, 3), np.uint8)),
    "grey images": lambda s: s.update(images=np.zeros((1, 4, 4, 1), np.uint8)),
    "an image of an unknown class": lambda s: s.update(image_labels=s["image_labels"] + 9),
    "a row of no cache": lambda s: s.update(real_rows=-s["real_rows"]),
    "rows without images": lambda s: s.pop("images"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_a_replay_that_does_not_fit_is_refused(name: str) -> None:
    found = shown()
    MISFITS[name](found)
    with pytest.raises((LookupError, ValueError)):
        check_shown(found, 6)


def test_nothing_replayed_fits() -> None:
    check_shown({}, 6)
    found = shown()
    del found["real_rows"]  # crops were not at hand
    check_shown(found, 6)
