"""CIFAR-10 and CIFAR-100: every way in which they are pickled, and hostile pickles."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.datasets import read
from tests.replicas import (
    DUMPS,
    PLANES,
    Bomb,
    link_out,
    make_cifar10,
    make_cifar100,
    moved_below,
    published_pickle,
    put,
    refused,
)


@pytest.mark.parametrize("dump", DUMPS.values(), ids=DUMPS)
@pytest.mark.parametrize(("name", "make"), [("cifar10", make_cifar10), ("cifar100", make_cifar100)])
def test_cifar(
    tmp_path: Path,
    name: str,
    make: Callable[[Path, Callable[[Any], bytes]], Path],
    dump: Callable[[Any], bytes],
) -> None:
    dataset = read(name, make(tmp_path, dump))
    train = 100 if name == "cifar10" else 20
    found = Counter(s.split for s in dataset.samples)
    assert found == {"train": train * 4 // 5, "pretrain": train // 5, "test": 20}
    image = next(s for s in dataset.samples if s.id == "test/00007").image
    assert isinstance(image, np.ndarray)
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    assert (image == PLANES[7].reshape(3, 32, 32).transpose(1, 2, 0)).all()
    moved_below(tmp_path, name)


def test_cifar_stays_inside(tmp_path: Path) -> None:
    make_cifar10(tmp_path / "in")
    for name in ("batches.meta", "test_batch"):
        link_out(f"cifar-10-batches-py/{name}", "x")(tmp_path / "in")
        refused("cifar10", tmp_path / "in", f"cifar-10-batches-py/{name} is a link that leads out")
        (tmp_path / "in/cifar-10-batches-py" / name).unlink()
        make_cifar10(tmp_path / "in")


def test_cifar_names(tmp_path: Path) -> None:
    """As the file of names has them; that of CIFAR-10 is a pickle of protocol 0."""
    meta = make_cifar10(tmp_path) / "cifar-10-batches-py/batches.meta"
    names = [f"thing {k}" for k in range(10)]
    lines = "".join(f"S'{name}'\np{k}\na" for k, name in enumerate(names, 4))
    put(meta, f"(dp1\nS'num_cases_per_batch'\np2\nI10000\nsS'label_names'\np3\n(lp4\n{lines}s.")
    assert set(read("cifar10", tmp_path).classes) == set(names)
    for wrong in (
        names[:9],
        [*names[:9], 3],
        [*names[:9], "x" * 300],
        [*names[:9], "a\nb"],
        [*names[:9], names[0]],
    ):
        put(meta, published_pickle({"label_names": wrong}))
        refused("cifar10", tmp_path, "batches.meta")


class Global:
    """A function of numpy that does more than it should."""

    def __reduce__(self) -> Any:
        return np.load, ("x.npy",)


_NESTED = b")q\x00" + b"h\x00\x86q\x00" * 16
"""A tuple of twice a tuple of twice a tuple: at 60 levels it takes for ever to hash."""
_ARRAY = published_pickle({"labels": [0], "data": PLANES[:1]})


def _call(module_and_name: bytes, argument: bytes) -> bytes:
    return b"\x80\x02c" + module_and_name + b"\n(U" + bytes([len(argument)]) + argument + b"tR."


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_call(b"os\nsystem", b"touch fired"), "asks for 'os' 'system'"),
        (_call(b"posix\nmkdir", b"fired"), "asks for"),
        (_call(b"builtins\neval", b"open('fired', 'w')"), "asks for"),
        (_call(b"numpy.core\nmultiarray._reconstruct", b""), "asks for"),
        (pickle.dumps(Global(), 4), "asks for 'numpy"),
        (pickle.dumps({"data": Bomb(Path("fired"))}, 4), "asks for"),
        (b"\x80\x02cnumpy\nndarray\nN}U\x08__call__K\x01s\x86b.", "changes a function"),
        (b"\x80\x02(U\x0btouch firedios\nsystem\n.", "instruction INST"),
        (b"\x80\x02U\x01xQ.", "instruction BINPERSID"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "instruction NEWOBJ"),
        (b"\x80\x02Nr\xff\xff\xff\xff.", "more parts"),
        (b"\x80\x05\x96" + b"\xff" * 7 + b"\x00.", "no CIFAR file"),
        (b"\x80\x04)" + b"\x85" * 100_000 + b".", "more parts"),
        (b"\x80\x02}" + _NESTED + b"Ns.", "a key that is no text"),
        (b"\x80\x02}(U\x01aN" + _NESTED + b"Nu.", "a key that is no text"),
        (b"\x80\x02(" + _NESTED + b"Nd.", "a key that is no text"),
        (b"\x80\x04}\x94)\x94h\x01\x86\x94h\x02Ns.", "a key that is no text"),
        (b"\x80\x02}K\x01Ns.", "a key that is no text"),
        (b"\x80\x02}(K\x01s.", "takes more than there is"),
        (_ARRAY.replace(b"(U\x02u1K\x00K\x01tR", b")R"), "no bytes, row by row"),
        (_ARRAY.replace(b"J\x00\x0c\x00\x00t", b"K\x01" * 5000 + b"t"), "are (1, 1, 1"),
        (b"", "no CIFAR file"),
        (b"\x80\x02}", "no CIFAR file"),
        (b"\x80\x02].", "holds no dictionary"),
        (published_pickle({"labels": [0]}), "no array of pixels"),
        (published_pickle({"labels": [0], "data": b"x" * 3072}), "no array of pixels"),
        (
            published_pickle({"labels": [0], "data": PLANES[:1, :3071]}),
            "(1, 3071), expected (N, 3072)",
        ),
        (published_pickle({"labels": [0], "data": PLANES[0]}), "(3072,), expected (N, 3072)"),
        (published_pickle({"data": PLANES[:1]}), "no list labels of 1 numbers"),
        (published_pickle({"labels": [0, 1], "data": PLANES[:1]}), "no list labels of 1 numbers"),
        (published_pickle({"labels": [10], "data": PLANES[:1]}), "no class, expected 0 to 9"),
        (published_pickle({"labels": [-1], "data": PLANES[:1]}), "no class, expected 0 to 9"),
        (published_pickle({"labels": ["1"], "data": PLANES[:1]}), "no class, expected 0 to 9"),
        (pickle.dumps({"labels": [True], "data": PLANES[:1]}, 4), "no class"),
        (pickle.dumps({"labels": [0], "data": PLANES[:1].astype("f4")}, 4), "no bytes"),
        (pickle.dumps({"labels": [0], "data": PLANES[:1].astype(object)}, 4), "no bytes"),
        (pickle.dumps({"labels": [0] * 20, "data": np.asfortranarray(PLANES)}, 4), "no bytes"),
        (
            published_pickle({"labels": [0], "data": PLANES[:1]}).replace(
                b"J\x00\x0c", b"J\x01\x0c"
            ),
            "data",
        ),
    ],
)
def test_hostile_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, says: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    put(make_cifar10(tmp_path / "in") / "cifar-10-batches-py/data_batch_3", content)
    message = refused("cifar10", tmp_path / "in", says)
    assert "data_batch_3" in message
    assert len(message) < 600
    assert not list((tmp_path / "here").iterdir())
