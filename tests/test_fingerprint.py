"""Which settings make which cache: all that decides the content, nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.fingerprint import canonical_json, differences, fingerprint
from stages.datasets import read
from stages.datasets.sample import Dataset
from stages.extract.backbones import Tap
from stages.extract.latents import RootSettings, latent_settings
from stages.extract.weights import Weights
from tests.making import crop_work


def test_golden_vector() -> None:
    """If this changes, every cache in the world is orphaned: raise SCHEMA."""
    settings = {"b": [1, 2.5, None, True], "a": {"y": "ä", "x": "1"}}
    assert canonical_json(settings) == '{"a":{"x":"1","y":"\\u00e4"},"b":[1,2.5,null,true]}'
    assert fingerprint(settings) == "blake2b:133ab8a20f811c0c00ec74c316134201ae247d34"


def test_types_are_kept_apart() -> None:
    keys = [fingerprint({"v": v}) for v in (1, 1.0, True, "1", None, [1])]
    assert len(set(keys)) == len(keys)


def test_nan_has_no_fingerprint() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint({"v": float("nan")})


def test_differences_name_the_field() -> None:
    expected = {"crop": {"size": 100, "margin": 0.2}, "kind": "crops"}
    found = {"crop": {"size": 96, "margin": 0.2}, "kind": "crops", "more": 1}
    assert differences(expected, found) == [
        "crop.size: expected 100, found 96",
        "more: expected '(absent)', found 1",
    ]
    assert differences(expected, expected) == []


def test_crops_depend_on_images_labels_and_cropping_only(drawn: Path, tmp_path: Path) -> None:
    def key(root: Path, **settings: Any) -> str:
        return fingerprint(crop_work(read("drawn", root), **settings).fingerprinted)

    reference = key(drawn)
    moved = shutil.copytree(drawn, tmp_path / "moved")
    assert key(moved) == reference
    lines = (moved / "labels.csv").read_text().splitlines()
    (moved / "labels.csv").write_text("\n".join([lines[0], *sorted(lines[1:], reverse=True)]))
    assert key(moved) == reference  # another order of listing
    changes: list[dict[str, Any]] = [
        {"margin": 0.3}, {"size": 96}, {"upsample": 0}, {"face_crop": "off"},
        {"face_crop": "box"}, {"on_missing": "center"}, {"on_missing": "drop"},
        {"smallest_face": 0.5},
    ]  # fmt: skip
    assert len({reference, *(key(drawn, **changed) for changed in changes)}) == 9
    picture = moved / lines[1].split(",")[0]
    good = picture.read_bytes()
    picture.write_bytes(good + b"\0")
    assert key(moved) != reference
    picture.unlink()
    picture.write_bytes(good)
    assert key(moved) == reference
    (moved / "labels.csv").write_text("\n".join(lines).replace(",anger,", ",fear,", 1))
    assert key(moved) != reference


def test_what_does_not_decide_does_not_count(folder: Path) -> None:
    """Without a search its settings mean nothing; without stated boxes these mean nothing."""

    def key(dataset: Dataset, **settings: Any) -> str:
        return fingerprint(crop_work(dataset, **settings).fingerprinted)

    plain = read("folder", folder)
    boxed = replace(plain, samples=tuple(replace(s, box=(1, 2, 30, 40)) for s in plain.samples))
    off = {"face_crop": "off"}
    assert key(plain, **off) == key(
        plain, **off, margin=0.5, upsample=0, on_missing="drop", smallest_face=0.5
    )
    assert key(plain) == key(boxed)
    assert key(plain, face_crop="box") != key(boxed, face_crop="box")
    assert key(plain, face_crop="box") == key(plain, face_crop="box", upsample=0)


def test_latents_depend_on_crops_root_and_type() -> None:
    tap = Tap("mobilenet_v2", "avgpool")
    weights = Weights(None, {"kind": "file", "sha256": "0"}, "", (tap, "a file", 0))
    base = RootSettings(tap)

    def key(settings: RootSettings, w: Weights = weights, crops: str = "blake2b:x") -> str:
        return fingerprint(latent_settings(crops, settings, w))

    others = [
        replace(base, tap=Tap("resnet18", "avgpool")),
        replace(base, tap=Tap("mobilenet_v2", "features.18")),
        replace(base, activation="none"),
        replace(base, normalize="imagenet"),
        replace(base, dtype="float16"),
    ]
    keys = [key(base), *(key(other) for other in others), key(base, crops="blake2b:y")]
    keys.append(key(base, replace(weights, fingerprinted={"kind": "file", "sha256": "1"})))
    assert len(set(keys)) == len(keys)
    assert latent_settings("blake2b:x", base, weights)["crops"] == "blake2b:x"
