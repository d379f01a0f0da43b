"""train and sweep take no other cache than their settings ask for, and say what differs."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cache.care.convert import convert
from cache.errors import CacheDamagedError
from cache.files import write_json
from cache.reader import Cache
from cache.schema import MANIFEST, Manifest, read_manifest
from pipeline.caches.match import Asked, compare_crops, compare_root, said, said_by
from pipeline.params import trace
from tests.command import Run
from tests.making import nothing

ROOT = Path(__file__).parent.parent

TRUE: dict[str, dict[str, Any]] = {
    "dataset": {"name": "drawn", "root": "elsewhere", "split_seed": None},
    "crop": {
        "margin": 0.2, "size": 100, "upsample": 1, "face_crop": "dlib", "on_missing": "whole",
        "smallest_face": 0.0,
    },
    "extract": {
        "backbone": "mobilenet_v2", "layer": "avgpool", "weights": "random", "weights_seed": 0,
        "activation": "sigmoid", "normalize": "none", "dtype": "float32",
    },
    "train": {"iters": 2, "tasks": 4, "seeds": "0"},
}  # fmt: skip
"""What the session's latents were made with, all of it."""
FALSE = [
    ("dataset.name", "ckplus", "drawn"),
    ("dataset.limit", 20, "96 rows"),
    ("crop.margin", 0.4, 0.2),
    ("crop.size", 64, 100),
    ("crop.upsample", 0, 1),
    ("crop.face_crop", "off", "dlib"),
    ("crop.on_missing", "drop", "whole"),
    ("crop.smallest_face", 0.5, 0.0),
    ("extract.backbone", "vgg16", "mobilenet_v2"),
    ("extract.layer", "classifier.1", "avgpool"),
    ("extract.weights", "imagenet", "random"),
    ("extract.weights_seed", 7, 0),
    ("extract.activation", "none", "sigmoid"),
    ("extract.normalize", "imagenet", "none"),
    ("extract.dtype", "float16", "float32"),
]


def _params(folder: Path, *changes: tuple[str, Any]) -> Path:
    settings = {name: dict(section) for name, section in TRUE.items()}
    for name, value in changes:
        section, _, key = name.partition(".")
        settings[section][key] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def _train(here: Run, cache: Path, out: Path, *words: object) -> tuple[int, str]:
    done = here("train", "--strategy", "none", "--cache", cache, "--out", out, "--device", "cpu",
                *words)  # fmt: skip
    return done.returncode, done.stderr


def _strip(cache: Path, to: Path) -> Path:
    """The cache as one was that kept nothing of its crops."""
    shutil.copytree(cache, to)
    old = read_manifest(cache)
    late = {"crops": None, "dataset_options": None}
    bare = old.model_copy(update={"info": old.info.model_copy(update=late)}).sealed()
    dumped = bare.model_dump(mode="json")
    assert not late.keys() & dumped["info"].keys()  # its digest is of what it had then
    write_json(to / MANIFEST, dumped)
    return to


def test_the_cache_that_was_asked_for(here: Run, latents: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(latents, tmp_path / "moved" / "there")
    code, text = _train(here, moved, tmp_path / "run", "--params", _params(tmp_path))
    assert code == 0, text
    assert "not compared" not in text


@pytest.mark.parametrize(("name", "asked", "is_"), FALSE, ids=[name for name, *_ in FALSE])
def test_each_field_is_compared(
    here: Run, latents: Path, tmp_path: Path, name: str, asked: Any, is_: Any
) -> None:
    file = _params(tmp_path, (name, asked))
    code, text = _train(here, latents, tmp_path / "run", "--params", file)
    assert code == 2
    lines = [line.strip() for line in text.splitlines() if "expected" in line]
    shown = is_ if name in ("dataset.limit", "extract.weights") else repr(is_)
    assert lines == [f"{name}: expected {asked!r} ({file}), found {shown}"]
    assert str(latents) in text
    assert "--cache" in text
    assert not (tmp_path / "run").exists()


def test_all_fields_that_differ_at_once(here: Run, latents: Path, tmp_path: Path) -> None:
    changes = [(name, asked) for name, asked, _ in FALSE]
    file = _params(tmp_path, *changes)
    code, text = _train(here, latents, tmp_path / "run", "--params", file)
    assert code == 2
    named = {line.split(":")[0].strip() for line in text.splitlines() if ": expected" in line}
    assert named == {name for name, _ in changes}


def test_options_override_the_file(here: Run, latents: Path, tmp_path: Path) -> None:
    """As in dvc.yaml, where extract.* is of all backbones and --backbone of one."""
    odd = [("dataset.name", "ckplus"), ("extract.backbone", "vgg16"), ("extract.weights", "x")]
    words = ("--params", _params(tmp_path, *odd), "--dataset", "drawn", "--weights", "random")
    code, text = _train(here, latents, tmp_path / "run", *words, "--backbone", "mobilenet_v2")
    assert code == 0, text
    code, text = _train(here, latents, tmp_path / "again", *words, "--backbone", "resnet18")
    assert code == 2
    assert "extract.backbone: expected 'resnet18' (command line), found 'mobilenet_v2'\n" in text


def test_a_preset_says_too(here: Run, latents: Path, tmp_path: Path) -> None:
    code, text = _train(here, latents, tmp_path / "run", "--preset", "lgr-paper/ckplus")
    assert code == 2
    assert "dataset.name: expected 'ckplus' (preset lgr-paper/ckplus), found 'drawn'" in text
    assert "extract.backbone: expected 'vgg16' (preset lgr-paper/ckplus)" in text


def test_what_nobody_said_is_not_compared(here: Run, latents: Path, tmp_path: Path) -> None:
    code, text = _train(here, latents, tmp_path / "run", "--iters", "2")
    assert code == 0, text
    assert said(trace(None, {}).params) == {}
    asked = said_by(trace(_params(tmp_path), {"extract": {"backbone": "vgg16", "layer": None}}))
    assert asked.keys() == {
        "dataset.name", *(f"crop.{key}" for key in TRUE["crop"]),
        *(f"extract.{key}" for key in TRUE["extract"]),
    }  # fmt: skip
    assert asked["extract.backbone"] == Asked("vgg16", "command line")
    assert asked["extract.layer"] == Asked("avgpool", str(tmp_path / "params.yaml"))


def test_shipped_settings_ask_for_what_they_make() -> None:
    """No mere default among them, and nothing that is the matrix's."""
    asked = said_by(trace(ROOT / "params.yaml", {}))
    assert {name: value for name, (value, _) in asked.items()} == {
        "dataset.name": "drawn", "crop.margin": 0.2, "crop.size": 100, "extract.weights": "random",
    }  # fmt: skip


def test_sweep_refuses_before_any_run(here: Run, latents: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    words = ("--grid", "iters=1,2", "--cache", latents, "--out", out, "--device", "cpu")
    done = here("sweep", "--strategy", "none", *words,
                "--params", _params(tmp_path, ("crop.margin", 0.4)))  # fmt: skip
    assert done.returncode == 2
    assert "crop.margin: expected 0.4" in done.stderr
    assert not out.exists()
    done = here("sweep", "--strategy", "none", *words, "--backbone", "vgg16")
    assert done.returncode == 2
    assert "extract.backbone: expected 'vgg16' (command line)" in done.stderr
    assert not out.exists()


def test_a_cache_that_does_not_say(here: Run, latents: Path, crops: Path, tmp_path: Path) -> None:
    """Made before caches kept it: known fields are compared, the others are named."""
    old = _strip(latents, tmp_path / "old")
    code, text = _train(here, old, tmp_path / "a", "--params", _params(tmp_path))
    assert code == 0, text
    assert "not compared: crop.margin, crop.size, crop.upsample" in " ".join(text.split())
    wrong = _params(tmp_path, ("crop.margin", 0.4), ("dataset.name", "ckplus"))
    code, text = _train(here, old, tmp_path / "b", "--params", wrong)
    assert code == 2
    assert "dataset.name: expected 'ckplus'" in text
    assert "crop.margin" not in text
    code, text = _train(here, old, tmp_path / "b", "--params", wrong, "--crops", crops)
    assert code == 2
    assert "crop.margin: expected 0.4" in text  # as the crops say


def test_latents_keep_what_their_crops_were(latents: Path, crops: Path, tmp_path: Path) -> None:
    wanted = read_manifest(crops).settings
    assert read_manifest(latents).info.crops == wanted
    other = tmp_path / "h"
    convert(latents, other, "hdf5", overwrite=False, made="now", tick=nothing)
    assert read_manifest(other).info.crops == wanted


def test_a_manifest_cannot_lie_about_its_crops(latents: Path, tmp_path: Path) -> None:
    shutil.copytree(latents, tmp_path / "lie")
    old = read_manifest(latents)
    assert old.info.crops is not None
    crops = {**old.info.crops, "crop": {**old.info.crops["crop"], "margin": 0.9}}
    info = old.info.model_copy(update={"crops": crops})
    lie: Manifest = old.model_copy(update={"info": info}).sealed()
    write_json(tmp_path / "lie" / MANIFEST, lie.model_dump(mode="json"))
    with pytest.raises(CacheDamagedError, match="settings of its crops"):
        Cache(tmp_path / "lie")


def test_info_shows_it(here: Run, latents: Path, tmp_path: Path) -> None:
    shown = " ".join(here("cache", "info", latents).stdout.split())
    assert "made of crops face_crop dlib, size 100, margin 0.2" in shown
    old = _strip(latents, tmp_path / "old")
    assert "made of crops settings not kept" in " ".join(here("cache", "info", old).stdout.split())


SEEDS = {"dataset": {"name": "drawn", "rows": 40}, "crop": {"face_crop": "off", "size": 32}}


@pytest.mark.parametrize(
    ("asked", "options", "differing", "unknown"),
    [
        ({"dataset.split_seed": 1}, {"split_seed": 1}, [], []),
        ({"dataset.split_seed": 1}, {"split_seed": 2}, ["found 2"], []),
        ({"dataset.split_seed": 1}, None, [], ["dataset.split_seed"]),
        ({"dataset.max_per_class": 15_000}, {}, ["found None"], []),  # drawn knows no such thing
        ({"dataset.limit": 40}, {"limit": 40}, [], []),
        ({"dataset.limit": 40}, {}, [], []),
        ({"dataset.limit": 60}, {}, [], []),  # there are only 40 images
        ({"dataset.limit": 60}, {"limit": 40}, ["found 40"], []),
        ({"dataset.limit": 30}, None, ["found 40 rows"], []),
        ({"dataset.limit": 60}, None, [], ["dataset.limit"]),
        ({"crop.margin": 0.7, "crop.size": 32}, {}, [], []),  # off: no margin
        ({"crop.margin": 0.7, "crop.face_crop": "dlib"}, {}, ["found 'off'"], []),
    ],
)
def test_options_of_a_data_set(
    asked: dict[str, Any], options: Any, differing: list[str], unknown: list[str]
) -> None:
    found = compare_crops({k: Asked(v) for k, v in asked.items()}, SEEDS, options)
    assert found.unknown == unknown
    assert len(found.differing) == len(differing)
    for line, end in zip(found.differing, differing, strict=True):
        assert line.endswith(end)


def test_a_default_of_the_data_set_is_no_difference() -> None:
    rows = {"dataset": {"name": "affectnet", "rows": 40}, "crop": {}}
    assert not compare_crops({"dataset.max_per_class": Asked(15_000)}, rows, {}).differing
    assert compare_crops({"dataset.max_per_class": Asked(10)}, rows, {}).differing


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ("imagenet", True),
        ("IMAGENET1K_V1", True),
        ("IMAGENET1K_V2", False),
        ("random", False),
        ("nowhere.pt", False),
    ],
)
def test_weights_by_name(asked: str, fits: bool) -> None:
    weights = {"kind": "imagenet", "member": "ResNet18_Weights.IMAGENET1K_V1", "sha256": "f37"}
    root = {"backbone": "resnet18", "layer": "avgpool", "weights": weights}
    found = compare_root({"extract.weights": Asked(asked, "x")}, {"root": root, "dtype": "float32"})
    assert (found.differing == []) == fits
    if not fits:
        assert "found imagenet, ResNet18_Weights.IMAGENET1K_V1" in found.differing[0]


def test_weights_from_a_file(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.pt", tmp_path / "other.pt"
    mine.write_bytes(b"mine")
    other.write_bytes(b"other")
    sha = hashlib.sha256(b"mine").hexdigest()
    root = {"backbone": "lenet", "layer": "fc0", "weights": {"kind": "file", "sha256": sha}}

    def compared(path: Path) -> Any:
        return compare_root({"extract.weights": Asked(str(path), "x")}, {"root": root})

    assert (compared(mine).differing, compared(mine).unknown) == ([], [])
    assert sha in compared(other).differing[0]
    assert compared(tmp_path / "gone.pt").unknown == ["extract.weights"]
    assert compared(Path("random")).differing
