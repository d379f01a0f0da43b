"""A cache root on the command line: two projects, one cache; what is not whole."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cache.care.verify import verify
from cache.errors import Refused
from cache.fingerprint import short
from cache.root import Root
from cache.schema import read_manifest
from tests.command import Run
from tests.making import make_cache, nothing

SETTINGS = ("--dataset", "drawn", "--face-crop", "off", "--size", "32", "--limit", "48",
            "--backbone", "lenet", "--weights", "random", "--device", "cpu")  # fmt: skip
CROPPING = SETTINGS[:-6]
SHARD = "data.zarr/latents/c/0/0"
TRAIN = ("train", "--strategy", "none", "--iters", "2", "--tasks", "4", "--seeds", "0",
         "--device", "cpu")  # fmt: skip


def _ok(done: object, code: int = 0) -> str:
    assert done.returncode == code, done.stderr  # type: ignore[attr-defined]
    return str(done.stderr)  # type: ignore[attr-defined]


def _tree(folder: Path) -> dict[str, int]:
    """Every file and when it was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def images(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(drawn, tmp_path_factory.mktemp("images") / "drawn"))


@pytest.fixture(scope="module")
def first(here: Run, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A root, and the latents that an extraction into it has made."""
    root = tmp_path_factory.mktemp("shared") / "root"
    done = here("extract", *SETTINGS, "--root", images, "--cache-root", root)
    _ok(done)
    assert done.stdout.count("\n") == 1
    return root, Path(done.stdout.strip())


@pytest.fixture
def root(first: tuple[Path, Path], tmp_path: Path) -> Path:
    """A root with one latent cache and its crops, to spoil."""
    return Path(shutil.copytree(first[0], tmp_path / "root"))


def test_layout_is_keyed_by_fingerprint(first: tuple[Path, Path]) -> None:
    root, latents = first
    manifest = read_manifest(latents)
    crops = root / "crops" / f"drawn-{short(str(manifest.settings['crops']))}"
    assert latents == root / "latents" / "drawn" / f"lenet-{short(manifest.fingerprint)}"
    assert read_manifest(crops).fingerprint == manifest.settings["crops"]
    found = [p.relative_to(root) for p in root.rglob("*") if len(p.relative_to(root).parts) < 4]
    assert not [p for p in found if p.name.startswith(".")]
    assert not verify(latents, nothing).faults
    assert not verify(crops, nothing).faults


def test_a_second_project_finds_it(
    here: Run, first: tuple[Path, Path], drawn: Path, tmp_path: Path
) -> None:
    """Images in another folder, other workers and batches, another store: nothing is made."""
    root, latents = first
    before = _tree(root)
    how = ("--workers", "2", "--batch-size", "32", "--store", "hdf5")
    done = here("extract", *SETTINGS, "--root", drawn, "--cache-root", root, *how)
    assert "nothing is made" in _ok(done)
    assert "kept as zarr" in done.stderr
    assert done.stdout == f"{latents}\n"
    cropped = here("crop", *CROPPING, "--root", drawn, "--cache-root", root)
    assert "nothing is made" in _ok(cropped)
    assert _tree(root) == before
    out = tmp_path / "run"
    _ok(here(*TRAIN, "--cache", done.stdout.strip(), "--out", out))
    assert (out / "metrics.json").is_file()


def test_by_the_environment(
    here: Run, first: tuple[Path, Path], drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, latents = first
    monkeypatch.setenv("LGR_PIPE_CACHE_ROOT", str(root))
    assert here("extract", *SETTINGS, "--root", drawn).stdout == f"{latents}\n"
    assert str(latents) in here("cache", "ls").stdout


def test_crops_are_shared_by_backbones(here: Run, root: Path, drawn: Path) -> None:
    crops = _tree(root / "crops")
    words = ["resnet18" if word == "lenet" else word for word in SETTINGS]
    done = here("extract", *words, "--root", drawn, "--cache-root", root)
    _ok(done)
    assert _tree(root / "crops") == crops
    assert Path(done.stdout.strip()).name.startswith("resnet18-")
    changed = here("extract", *words, "--size", "40", "--root", drawn, "--cache-root", root)
    assert Path(_ok(changed) and changed.stdout.strip()) != Path(done.stdout.strip())
    assert len(list((root / "crops").iterdir())) == 2


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_a_match_is_copied_to_out(
    here: Run, first: tuple[Path, Path], drawn: Path, tmp_path: Path, store: str
) -> None:
    root, latents = first
    before, out = _tree(root), tmp_path / "data" / "lenet"
    words = ("extract", *SETTINGS, "--root", drawn, "--cache-root", root, "--store", store)
    done = here(*words, "--out", out)
    assert "is a copy of it" in _ok(done)
    assert done.stdout == f"{out}\n"
    copy, source = read_manifest(out), read_manifest(latents)
    assert (copy.content, copy.fingerprint, copy.store) == (
        source.content, source.fingerprint, store
    )  # fmt: skip
    assert not verify(out, nothing).faults
    assert sorted(p.name for p in out.parent.iterdir()) == ["lenet"]  # crops stay in the root
    assert all(p.stat().st_nlink == 1 for p in out.rglob("*") if p.is_file())
    assert "nothing to do" in _ok(here(*words, "--out", out))
    assert _tree(root) == before


def test_what_is_made_elsewhere_is_put_into_the_root(
    here: Run, first: tuple[Path, Path], drawn: Path, tmp_path: Path
) -> None:
    """As in a DVC project: crop --out, then extract --crops --out."""
    root, crops, out = tmp_path / "root", tmp_path / "data" / "crops", tmp_path / "data" / "lenet"
    share = ("--cache-root", root, "--root", drawn)
    _ok(here("crop", *CROPPING, *share, "--out", crops))
    said = _ok(here("extract", *SETTINGS, *share, "--crops", crops, "--out", out))
    assert "A copy for other projects" in said
    for made in (crops, out):
        manifest = read_manifest(made)
        place = Root(root).place(manifest)
        assert str(place.relative_to(root)) in {
            str(p.relative_to(first[0])) for p in first[0].rglob("*")
        }
        assert read_manifest(place).content == manifest.content
        assert not verify(place, nothing).faults
    assert not [p for p in root.rglob("*") if p.name.startswith(".")]


def test_a_root_that_cannot_take_it_is_no_failure(here: Run, drawn: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out" / "crops"
    root.mkdir()
    (root / "crops").write_text("no folder")
    done = here("crop", *CROPPING, "--root", drawn, "--cache-root", root, "--out", out)
    assert "was not put into the cache root" in _ok(done)
    assert done.stdout == f"{out}\n"
    assert not verify(out, nothing).faults


def _spoil(path: Path, how: str) -> None:
    if how == "manifest":
        text = (path / "manifest.json").read_text()
        (path / "manifest.json").write_text(text.replace('"rows"', '"rowz"', 1))
    elif how == "other":
        shutil.rmtree(path)
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    elif how == "shard":
        (path / SHARD).unlink()
    else:
        shutil.rmtree(path)
        make_cache(path, "zarr", np.zeros((6, 3), dtype=np.float32))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("manifest", "it is damaged"),
        ("shard", "is missing"),
        ("other", "something else is there"),
        ("swapped", "move it away"),
    ],
)
def test_a_match_that_is_not_whole_is_never_used(
    here: Run, root: Path, drawn: Path, tmp_path: Path, how: str, says: str
) -> None:
    (latents,) = (root / "latents" / "drawn").iterdir()
    _spoil(latents, how)
    words = ("extract", *SETTINGS, "--root", drawn, "--cache-root", root)
    for more in ((), ("--out", tmp_path / "out")):
        done = here(*words, *more)
        assert says in " ".join(_ok(done, 2).split())
        assert str(latents) in done.stderr
        assert done.stdout == ""
    assert not (tmp_path / "out").exists()
    if how in ("manifest", "shard"):
        done = here(*words, "--overwrite")
        assert done.stdout == f"{latents}\n", done.stderr
        assert not verify(latents, nothing).faults


def test_a_flipped_byte_is_not_copied(here: Run, root: Path, drawn: Path, tmp_path: Path) -> None:
    (latents,) = (root / "latents" / "drawn").iterdir()
    shard = latents / SHARD
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 3] ^= 1
    shard.write_bytes(bytes(raw))
    out = tmp_path / "data" / "lenet"
    done = here("extract", *SETTINGS, "--root", drawn, "--cache-root", root, "--out", out)
    assert str(latents) in _ok(done, 2)
    assert not out.exists()
    assert not list(out.parent.iterdir())


def test_two_at_once_make_one(drawn: Path, lgr_pipe: Run, tmp_path: Path) -> None:
    """Both with --out, so that both come to put theirs into the root."""
    root = tmp_path / "root"

    def run(name: str) -> str:
        words = ("extract", *SETTINGS, "--root", drawn, "--cache-root", root)
        return _ok(lgr_pipe(*words, "--out", tmp_path / name / "lenet"))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, ("a", "b")))
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]
    (latents,) = (root / "latents" / "drawn").iterdir()
    for path in (latents, tmp_path / "a" / "lenet", tmp_path / "b" / "lenet"):
        assert not verify(path, nothing).faults
        assert read_manifest(path).content == read_manifest(latents).content


def test_the_slower_of_two_leaves_no_trace(first: tuple[Path, Path], tmp_path: Path) -> None:
    """The root gets the cache between the look and the rename."""
    root = Root(tmp_path / "root")
    source = first[1]
    place = root.place(read_manifest(source))

    def tick(_: int) -> None:
        if not place.exists():
            shutil.copytree(source, place)

    assert root.put(source, made="now", tick=tick) is None
    assert [p.name for p in place.parent.iterdir()] == [place.name]


def test_shards_find_their_place(here: Run, drawn: Path, first: tuple[Path, Path],
                                 tmp_path: Path) -> None:  # fmt: skip
    root = tmp_path / "root"
    words = ("extract", *SETTINGS, "--root", drawn, "--cache-root", root)
    done = here(*words, "--shard", "0/1")
    assert done.stdout == ""
    place = root / first[1].relative_to(first[0])
    assert f"finalize --out {place}" in _ok(done)
    assert "--out" in _ok(here("extract", "finalize", "--cache-root", root), 2)
    _ok(here("extract", "finalize", "--out", place, "--cache-root", root))
    assert read_manifest(place).content == read_manifest(first[1]).content
    assert here(*words).stdout == f"{place}\n"


def test_what_it_needs(here: Run, drawn: Path, tmp_path: Path) -> None:
    for command in ("crop", "extract"):
        said = _ok(here(command, "--root", drawn), 2)
        assert "Missing option '--out'" in said
        assert "--cache-root" in said
    words = ("extract", *SETTINGS, "--root", drawn, "--cache-root", tmp_path, "--retry-failed")
    assert "--retry-failed" in _ok(here(*words), 2)
    (tmp_path / "file").write_text("")
    words = ("extract", *SETTINGS, "--root", drawn, "--cache-root", tmp_path / "file")
    assert "is no folder" in _ok(here(*words), 2)


# --- train ------------------------------------------------------------------------------


def test_train_takes_the_only_one_that_fits(here: Run, root: Path, tmp_path: Path) -> None:
    words = (*TRAIN, "--cache-root", root, "--out", tmp_path / "run")
    (latents,) = (root / "latents" / "drawn").iterdir()
    assert f"Cache: {latents}" in _ok(here(*words))
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["cache_fingerprint"] == read_manifest(latents).fingerprint

    said = _ok(here(*words, "--backbone", "vgg16", "--dataset", "ckplus"), 2)
    assert "extract.backbone: expected 'vgg16' (command line), found 'lenet'" in said
    assert "dataset.name: expected 'ckplus' (command line), found 'drawn'" in said
    assert str(latents) in said


def test_train_asks_where_several_fit(here: Run, root: Path, drawn: Path, tmp_path: Path) -> None:
    other = ("--size", "32", "--limit", "40")
    _ok(here("extract", *SETTINGS, *other, "--root", drawn, "--cache-root", root))
    words = (*TRAIN, "--cache-root", root, "--out", tmp_path / "run")
    said = _ok(here(*words), 2)
    paths = list((root / "latents" / "drawn").iterdir())
    assert len(paths) == 2
    assert all(str(path) in said for path in paths)
    assert "--cache" in said
    assert "face_crop off, size 32" in said
    assert not (tmp_path / "run").exists()
    params = tmp_path / "params.yaml"
    params.write_text("dataset: {limit: 40}\n")
    said = _ok(here(*words, "--params", params))
    (fitting,) = (path for path in paths if read_manifest(path).rows == 40)
    assert f"Cache: {fitting}" in said


def test_train_with_nothing_there(here: Run, tmp_path: Path) -> None:
    words = (*TRAIN, "--out", tmp_path / "run")
    said = _ok(here(*words), 2)
    assert "Missing option '--cache'" in said
    assert "--cache-root" in said
    assert "no latent caches" in _ok(here(*words, "--cache-root", tmp_path / "nowhere"), 2)


def test_damaged_ones_are_told(here: Run, root: Path, tmp_path: Path) -> None:
    (latents,) = (root / "latents" / "drawn").iterdir()
    _spoil(latents, "manifest")
    said = _ok(here(*TRAIN, "--cache-root", root, "--out", tmp_path / "run"), 2)
    assert str(latents) in said
    assert "manifest" in said


def test_images_find_their_crops(here: Run, root: Path, tmp_path: Path) -> None:
    words = ["nr" if word == "none" else word for word in TRAIN]
    _ok(here(*words, "--cache-root", root, "--out", tmp_path / "run"))
    shutil.rmtree(root / "crops")
    said = _ok(here(*words, "--cache-root", root, "--out", tmp_path / "again"), 2)
    assert "--crops PATH" in said


@pytest.mark.parametrize("name", ["../../up", "/etc", "", "a/b", "a\n", "."])
def test_a_strangers_name_is_no_path(first: tuple[Path, Path], name: str) -> None:
    manifest = read_manifest(first[1])
    odd = manifest.model_copy(update={"info": manifest.info.model_copy(update={"dataset": name})})
    with pytest.raises(Refused, match="no name"):
        Root(first[0]).place(odd)
    with pytest.raises(Refused, match="no fingerprint"):
        Root(first[0]).crops("drawn", name)
