"""Data sets, shards, retries and the paper's MNIST run, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import zarr
from PIL import Image

from cache.reader import Cache
from tests.command import Run
from tests.replicas import make_ckplus, make_mnist


def _ok(done: object) -> str:
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    return str(done.stdout) + str(done.stderr)  # type: ignore[attr-defined]


def test_datasets_are_listed_with_what_one_needs(here: Run) -> None:
    text = _ok(here("datasets"))
    for word in (
        "ckplus", "rafdb", "affectnet", "mnist", "fashion-mnist", "cifar10", "cifar100", "folder",
        "drawn", "12,271 train, 3,068 test", "88,021 train, 4,000 test", "list_patition_label.txt",
        "ask for it", "--split-seed",
    ):  # fmt: skip
        assert word in text


def test_check_counts_and_its_exit_code_says_if_all_is_there(here: Run, tmp_path: Path) -> None:
    done = here("datasets", "check", "ckplus", "--root", make_ckplus(tmp_path / "ck"))
    assert done.returncode == 1
    assert "1308" in done.stdout
    assert "published" in done.stdout


def test_a_faulty_set_goes_all_the_way(here: Run, tmp_path: Path) -> None:
    """CK+ with sequences without labels and an empty image: said, and no person in both splits."""
    root = make_ckplus(tmp_path / "ck")
    frames = sorted(root.rglob("*.png"))
    for frame in frames[1:]:
        Image.new("RGB", (64, 48), "grey").save(frame)
    text = _ok(here("crop", "--dataset", "ckplus", "--root", root, "--out", tmp_path / "c",
                    "--face-crop", "off", "--size", "32"))  # fmt: skip
    assert "Note: sequences without a label, left out: 10" in text
    assert "--status failed" in text
    with Cache(tmp_path / "c") as cache:
        assert cache.manifest.info.images["failed"] == 1
        subjects = cache.side("subject")
        train, test = (set(subjects[cache.split_rows(s)].tolist()) for s in ("train", "test"))
        assert train
        assert test
        assert not train & test


def test_shards_and_finalize_equal_a_single_run(here: Run, drawn: Path, tmp_path: Path) -> None:
    """Crops and latents by three jobs, one of them late; other store, same content."""
    words = ("extract", "--dataset", "drawn", "--root", drawn, "--backbone", "resnet18",
             "--weights", "random", "--face-crop", "off", "--workers", "1")  # fmt: skip
    _ok(here(*words, "--out", tmp_path / "one" / "r"))
    out = tmp_path / "jobs" / "r"
    many = (*words, "--limit", "90")
    _ok(here(*many, "--out", tmp_path / "ninety" / "r"))
    first = _ok(here(*many, "--out", out, "--shard", "1/2"))
    assert "Shard 1/2 is done: 0 latents made" in first
    done = here("extract", "finalize", "--out", out)
    assert done.returncode == 2
    assert "1 of 1 units of latents are missing (0)" in done.stderr
    assert "finalize" in _ok(here(*many, "--out", out, "--shard", "0/2"))
    assert not out.exists()
    for said, says in (
        (("--backbone", "vgg16"), "backbone: expected 'vgg16', found 'resnet18'"),
        (("--size", "64"), "crop.size: expected 64, found 100"),
        (("--dataset", "folder"), "dataset.name: expected 'folder', found 'drawn'"),
        (("--crops", drawn), "no unfinished work on crops"),
    ):
        refused = here("extract", "finalize", "--out", out, *said)
        assert refused.returncode == 2
        assert says in " ".join(refused.stderr.split())
    _ok(here("extract", "finalize", "--out", out, "--store", "hdf5"))
    assert sorted(p.name for p in out.parent.iterdir()) == ["crops", "r"]
    assert "finished already" in _ok(here("extract", "finalize", "--out", out))
    with Cache(out) as jobs, Cache(tmp_path / "ninety" / "r") as one:
        assert jobs.manifest.content == one.manifest.content
        assert jobs.manifest.store == "hdf5"
        assert jobs.manifest.rows == 90


def test_retry_failed(here: Run, folder: Path, tmp_path: Path) -> None:
    broken = folder / "calm" / "broken.png"
    good = (folder / "calm" / "0.png").read_bytes()
    broken.write_bytes(good[:50])
    out, crops = tmp_path / "c" / "resnet18", tmp_path / "c" / "crops"
    words = ("extract", "--root", folder, "--backbone", "resnet18", "--weights", "random",
             "--out", out)  # fmt: skip
    _ok(here(*words))
    listed = _ok(here("cache", "samples", crops, "--status", "failed"))
    assert listed.count("\n") == 1
    assert "calm/broken.png" in listed
    assert "Error" in listed
    rows = json.loads(here("cache", "samples", crops, "--status", "failed", "--json").stdout)
    assert [row["id"] for row in rows] == ["calm/broken.png"]
    text = _ok(here(*words, "--retry-failed"))
    assert "unchanged: nothing to retry" in text
    assert "nothing to do" in text
    broken.write_bytes(good)
    assert here(*words).returncode == 2  # another data set now, which is said
    (folder / "calm" / "1.png").write_bytes(good)
    refused = here(*words, "--retry-failed")
    assert refused.returncode == 2
    assert "calm/1.png: changed, and had not failed" in refused.stderr


def test_retried_latents_are_those_of_a_whole_run(here: Run, folder: Path, tmp_path: Path) -> None:
    broken = folder / "calm" / "broken.png"
    broken.write_bytes(b"")
    words = ("extract", "--root", folder, "--backbone", "resnet18", "--weights", "random", "--out")
    _ok(here(*words, tmp_path / "a" / "r"))
    broken.write_bytes((folder / "tense" / "2.png").read_bytes())
    text = _ok(here(*words, tmp_path / "a" / "r", "--retry-failed"))
    assert "made by an earlier run" in text
    _ok(here(*words, tmp_path / "b" / "r"))
    for name in ("crops", "r"):
        with Cache(tmp_path / "a" / name) as again, Cache(tmp_path / "b" / name) as whole:
            assert again.manifest.content == whole.manifest.content
            assert again.manifest.fingerprint == whole.manifest.fingerprint
    other = here(*words[:3], "--backbone", "alexnet", "--weights", "random", "--out",
                 tmp_path / "a" / "r", "--retry-failed")  # fmt: skip
    assert other.returncode == 2
    assert "root.backbone" in other.stderr


def test_retry_replaces_only_latents_of_the_crops_that_it_mended(
    here: Run, folder: Path, drawn: Path, tmp_path: Path
) -> None:
    root = ("--backbone", "resnet18", "--weights", "random", "--face-crop", "off")
    mine = tmp_path / "mine"
    _ok(here("extract", "--dataset", "drawn", "--root", drawn, *root, "--limit", "20",
             "--out", mine / "r"))  # fmt: skip
    before = (mine / "r" / "manifest.json").read_bytes()
    broken = folder / "calm" / "broken.png"
    broken.write_bytes(b"")
    other = tmp_path / "other" / "crops"
    _ok(here("crop", "--root", folder, "--face-crop", "off", "--out", other))
    broken.write_bytes((folder / "calm" / "0.png").read_bytes())
    done = here("extract", "--root", folder, *root, "--crops", other, "--out", mine / "r",
                "--retry-failed")  # fmt: skip
    assert done.returncode == 2
    assert (mine / "r" / "manifest.json").read_bytes() == before


def test_settings_that_decide_nothing_are_not_compared(
    here: Run, drawn: Path, tmp_path: Path
) -> None:
    """face_crop: off, as YAML reads it, with a margin that then means nothing."""
    params = tmp_path / "p.yaml"
    params.write_text("crop: {margin: 0.3, size: 40, face_crop: off}\n")
    words = ("crop", "--dataset", "drawn", "--root", drawn, "--params", params, "--limit", "16")
    _ok(here(*words, "--shard", "0/1", "--out", tmp_path / "c"))
    _ok(here("crop", "finalize", "--params", params, "--out", tmp_path / "c"))
    assert here("crop", "--dataset", "drawn", "--root", drawn, "--face-crop", "box", "--out",
                tmp_path / "b").returncode == 2  # fmt: skip


def test_the_papers_mnist_run(here: Run, tmp_path: Path) -> None:
    """pretrain -> extract -> train -> report, on digits in miniature."""
    root, caches = make_mnist(tmp_path / "mnist"), tmp_path / "caches"
    weights = caches / "lenet.safetensors"
    text = _ok(here("pretrain", "--dataset", "mnist", "--root", root, "--out", weights,
                    "--iters", "5"))  # fmt: skip
    assert "mnist (pretrain split)" in text
    assert here("pretrain", "--crops", caches / "crops", "--out", weights).returncode == 2
    _ok(here("extract", "--dataset", "mnist", "--root", root, "--backbone", "lenet",
             "--weights", weights, "--out", caches / "lenet"))  # fmt: skip
    with Cache(caches / "lenet") as cache:
        info = cache.manifest.info
        assert cache.bulk().shape[1] == 128
        assert len(cache.split_rows("pretrain")) > 0
    assert info.trained_on is not None
    assert info.trained_on.rows > 0
    assert set(info.trained_on.names) <= set("0123456789")
    text = _ok(here("train", "--strategy", "lgr", "--cache", caches / "lenet", "--tasks", "2",
                    "--uneven", "--iters", "2", "--batch-size", "4", "--seeds", "0",
             "--out", tmp_path / "runs"))  # fmt: skip
    assert "the root was trained on mnist (pretrain split)" in text
    assert "lenet" in _ok(here("report", tmp_path / "runs"))


def test_backbones_are_listed_with_their_cost(here: Run) -> None:
    text = _ok(here("backbones"))
    assert "117,479,232     3.06" in text
    assert "93,048" in text
    more = _ok(here("backbones", "--backbone", "convnext_tiny", "--layer", "avgpool"))
    assert " 768 " in more


def test_the_readmes_lines_open_both_stores(crops: Path, here: Run, tmp_path: Path) -> None:
    """Run as they stand in the README, next to caches of these names."""
    for store in ("zarr", "hdf5"):
        _ok(here("extract", "--crops", crops, "--backbone", "resnet18", "--weights", "random",
                 "--store", store, "--out", tmp_path / store))  # fmt: skip
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    lines = "import h5py" + readme.split("```python\nimport h5py")[1].split("```")[0]
    lines = lines.replace("caches/vgg16/data.zarr", str(tmp_path / "zarr" / "data.zarr"))
    lines = lines.replace("caches/vgg16/data.h5", str(tmp_path / "hdf5" / "data.h5"))
    assert str(tmp_path) in lines
    found: dict[str, object] = {"zarr": zarr, "h5py": h5py, "print": lambda _: None}
    exec(lines, found)
    with Cache(tmp_path / "zarr") as cache:
        assert np.array_equal(np.asarray(found["latents"]), cache.bulk())
        assert np.array_equal(np.asarray(found["labels"]), cache.side("label"))
