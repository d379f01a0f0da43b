"""MNIST and Fashion-MNIST: their files, damaged ones, and fetching, which CIFAR shares."""

from __future__ import annotations

import gzip
import re
import struct
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stages.datasets import arrays, module, read
from stages.datasets.check import check, text
from tests.replicas import DIGITS, PIXELS, idx, link_out, make_mnist, moved_below, refused


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_mnist(tmp_path: Path, name: str, folder: str, packed: bool) -> None:
    dataset = read(name, make_mnist(tmp_path, folder, packed))
    assert dataset.classes == module(name).ABOUT.classes
    assert Counter(s.split for s in dataset.samples) == {"train": 100, "pretrain": 20, "test": 20}
    by_id = {s.id: s for s in dataset.samples}
    image = by_id["train/00017"].image
    assert isinstance(image, np.ndarray)
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    assert (image[2:30, 2:30] == PIXELS[17][..., None]).all()
    assert image.sum() == 3 * int(PIXELS[17].sum())
    assert by_id["test/00013"].label == dataset.classes[3]
    other = read(name, tmp_path, split_seed=1)
    assert [s.split for s in other.samples] != [s.split for s in dataset.samples]
    moved_below(tmp_path, name)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("train-images-idx3", idx(PIXELS)[:-1], "promises 94080 bytes, less came"),
        ("train-images-idx3", idx(PIXELS) + b"x", "promises 94080 bytes, more came"),
        ("train-images-idx3", idx(PIXELS)[:10], "ends within its header"),
        ("train-images-idx3", b"", "ends within its header"),
        ("train-images-idx3", idx(DIGITS) + bytes(9), "begins with 00000801, expected 00000803"),
        ("train-images-idx3", idx(PIXELS[:, :27]), "items are (27, 28), expected (28, 28)"),
        ("train-images-idx3", struct.pack(">4I", 0x803, 2**32 - 1, 28, 28), "4294967295 items"),
        ("train-images-idx3", struct.pack(">4I", 0x803, 100_001, 28, 28), "100001 items"),
        ("train-labels-idx1", struct.pack(">2I", 0x801, 100_001) + bytes(100_001), "100001 items"),
        ("train-images-idx3", idx(PIXELS[:0]), "promises 0 items"),
        ("train-labels-idx1", idx(DIGITS[:119]), "has 120 images"),
        ("train-labels-idx1", idx(DIGITS + 1), "has the label 10, expected 0 to 9"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_idx(tmp_path: Path, file: str, content: bytes, says: str, packed: bool) -> None:
    path = make_mnist(tmp_path, packed=packed) / f"MNIST/raw/{file}-ubyte{'.gz' * packed}"
    path.write_bytes(gzip.compress(content) if packed else content)
    refused("mnist", tmp_path, says)


def test_damaged_gzip(tmp_path: Path) -> None:
    path = make_mnist(tmp_path, packed=True) / "MNIST/raw/t10k-images-idx3-ubyte.gz"
    for content in (path.read_bytes()[:-20], b"no gzip", b"\x1f\x8b\x08" + b"\xff" * 40):
        path.write_bytes(content)
        refused("mnist", tmp_path, "t10k-images-idx3-ubyte.gz is no IDX file")


def test_a_small_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = make_mnist(tmp_path, packed=True) / "MNIST/raw/train-images-idx3-ubyte.gz"
    header = gzip.compress(struct.pack(">4I", 0x803, 100_000, 28, 28))
    path.write_bytes(header + 10 * gzip.compress(bytes(10_000_000), 1))
    tracemalloc.start()
    refused("mnist", tmp_path, "promises 78400000 bytes, more came")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_stays_inside(tmp_path: Path, packed: bool) -> None:
    make_mnist(tmp_path / "in", packed=packed)
    link_out(f"MNIST/raw/t10k-labels-idx1-ubyte{'.gz' * packed}", "x")(tmp_path / "in")
    refused("mnist", tmp_path / "in", "is a link that leads out")


SMALL = ("mnist", "fashion-mnist", "cifar10", "cifar100")


@pytest.mark.parametrize("name", SMALL)
def test_nothing_is_fetched_unasked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(*what: object) -> None:
        asked.append(what)
        raise OSError("no network")

    monkeypatch.setattr(arrays, "_fetch", fetch)
    message = refused(name, tmp_path, "Use --download to fetch them")
    assert not asked
    assert "train" in message or "data_batch_5" in message
    message = refused(name, tmp_path / "new", "OSError: no network", download=True)
    assert "Put these files there by hand: " in message
    assert len(asked) == 1


def test_what_is_fetched_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_fetch", lambda _, root: make_mnist(root))
    fetched = read("mnist", tmp_path / "new", download=True)
    monkeypatch.setattr(arrays, "_fetch", lambda *_: pytest.fail("all is there"))
    assert read("mnist", tmp_path / "new", download=True) == fetched


@pytest.mark.parametrize("kind", ["CIFAR10", "CIFAR100", "MNIST", "FashionMNIST"])
def test_fetching_runs_no_reader_of_pickles(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision has the addresses and checksums that we rely on; nothing is fetched here."""
    from torchvision import datasets

    asked: list[str] = []
    monkeypatch.setattr(
        "torchvision.datasets.utils.download_and_extract_archive",
        lambda url, *_, **given: asked.append(f"{url} {given['md5']}"),
    )
    monkeypatch.setattr(getattr(datasets, kind), "__init__", lambda *_, **__: pytest.fail("reads"))
    arrays._fetch(kind, tmp_path / "new")
    assert len(asked) == (4 if "MNIST" in kind else 1)
    assert all(re.fullmatch(r"https?://\S+gz [0-9a-f]{32}", line) for line in asked)


def test_another_server_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    asked: list[str] = []

    def fetch(url: str, folder: str, **_: str) -> None:
        asked.append(folder)
        if "good" not in url:
            raise RuntimeError("no such file")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", fetch)
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["https://bad/", "https://good/"])
    arrays._fetch("MNIST", tmp_path)
    assert asked == [str(tmp_path / "MNIST/raw")] * 8
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["https://bad/", "https://worse/"])
    refused("mnist", tmp_path, "https://worse/: no such file", download=True)


MNIST = Path(__file__).parent.parent.parent / "shared/data/mnist"


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"MNIST is not in {MNIST}")
def test_mnist_as_published() -> None:
    done = check("mnist", MNIST)
    assert done.ok, text(done)
    assert Counter(s.split for s in done.dataset.samples) == {
        "train": 50_000,
        "pretrain": 10_000,
        "test": 10_000,
    }
