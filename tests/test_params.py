"""Settings: precedence, and all mistakes at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.errors import Refused
from pipeline.params import parse_seeds, resolve


def test_command_line_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("train: {iters: 10, lr: 0.5}\nstore: hdf5\n")
    params = resolve(file, {"train": {"iters": 20, "lr": None}, "store": None})
    assert (params.train.iters, params.train.lr, params.train.batch_size) == (20, 0.5, 128)
    assert params.store == "hdf5"


def test_all_mistakes_are_named(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("train: {iters: -1, batchsize: 3, seeds: 2-x}\nstore: csv\n")
    with pytest.raises(Refused) as caught:
        resolve(file, {})
    for part in ("train.iters", "train.batchsize: there is no such setting", "2-x", "store"):
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ["train: [", "- a list", "5"])
def test_no_settings_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(Refused):
        resolve(tmp_path / "p.yaml", {})
    with pytest.raises(Refused, match="cannot be read"):
        resolve(tmp_path / "nowhere.yaml", {})


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-2", [0, 1, 2]), ("5", [5]), ("7,3", [7, 3]), ("0-1,9", [0, 1, 9])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-3", "2-1", "1,1", "0-2,1"])
def test_what_are_no_seeds(text: str) -> None:
    with pytest.raises(ValueError, match="seeds must"):
        parse_seeds(text)
