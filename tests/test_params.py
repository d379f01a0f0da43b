"""Settings: precedence, and all mistakes at once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from cache.errors import Refused
from pipeline import stage_two
from pipeline.caches.match import Asked
from pipeline.params import (
    COMMAND_LINE,
    DatasetParams,
    ExtractParams,
    Params,
    PretrainParams,
    TrainParams,
    parse_seeds,
    resolve,
)
from stages.extract.pretrain import PretrainSettings
from tests.command import Run


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


def test_empty_sections_are_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("train:\ndataset:\n  name: ckplus\nstore:\npreset:\n")
    assert resolve(file, {"train": {"iters": None}}) == resolve(
        None, {"dataset": {"name": "ckplus"}}
    )


def test_a_mistake_is_not_hidden_by_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("train: 5\n")
    with pytest.raises(Refused, match=r"train: .*got 5"):
        resolve(file, {"train": {"iters": None}})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol", "paper"),
        ("validation", -0.1),
        ("validation", 1),
        ("validation", float("nan")),
        ("evaluate_on", "train"),
        ("early_stopping", -1),
        ("precision", "fp16"),
        ("period", 0),
        ("period", 61),
        ("resident", "swap"),
        ("resident_memory", 0),
    ],
)
def test_limits_of_training(field: str, value: object) -> None:
    with pytest.raises(Refused, match=rf"train\.{field}: .*\(got {value!r}\)"):
        resolve(None, {"train": {field: value}})


# Other than the defaults, all of them.
TRAIN = {
    "scenario": "class",
    "tasks": 2,
    "class_order": "7",
    "uneven": True,
    "iters": 3,
    "batch_size": 4,
    "lr": 0.5,
    "seeds": "5",
    "protocol": "released",
    "validation": 0.25,
    "evaluate_on": "validation",
    "early_stopping": 6,
    "precision": "bf16",
    "period": 0.75,
    "resident": "disk",
    "resident_memory": 64,
}
FLAGS = {"crops": "c", "weights": "w", "tensorboard": "t", "threads": 2}
CACHE = {"dataset": "rafdb", "backbone": "lenet"}


def _words(given: dict[str, Any]) -> list[str]:
    pairs = [(f"--{name.replace('_', '-')}", value) for name, value in given.items()]
    return [str(w) for name, value in pairs for w in ([name] if value is True else [name, value])]


def test_every_setting_of_training_has_an_option(here: Run) -> None:
    assert TRAIN.keys() == TrainParams.model_fields.keys()
    shown = yaml.safe_load(here("train", *_words(TRAIN), "--show-config").stdout)["train"]
    assert shown == TRAIN
    defaults = TrainParams().model_dump()
    assert not [name for name in TRAIN if shown[name] == defaults[name]]


def test_train_hands_over_what_it_is_given(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(stage_two, "train", lambda *given: calls.append(given))
    where = ["--strategy", "lr", "--cache", "latents", "--out", "runs"]
    given = {**TRAIN, **FLAGS, **CACHE, "buffer_size": 8, "device": "cpu"}
    words = [*where, *_words(given)]
    assert here("train", *words, "--resume").returncode == 0
    assert here("train", *words, "--overwrite").returncode == 0
    assert here("train", *where, "--device", "cpu").returncode == 0
    (params, *rest, how), (*_, other), (plain, *_, bare) = calls
    root = ExtractParams(backbone="lenet", weights="w")
    assert params == Params(
        train=TrainParams(**TRAIN), dataset=DatasetParams(name="rafdb"), extract=root
    )
    assert plain == Params()
    assert rest == ["lr", Path("latents"), Path("runs")]
    given = {"given": {"buffer-size": "8"}, "device": "cpu", **FLAGS}
    said = {"dataset.name": "rafdb", "extract.backbone": "lenet", "extract.weights": "w"}
    given["said"] = {name: Asked(value, COMMAND_LINE) for name, value in said.items()}
    paths = {"crops": Path("c"), "tensorboard": Path("t")}
    assert how == stage_two.TrainHow(**given | paths, resume=True)
    assert other == stage_two.TrainHow(**given | paths, overwrite=True)
    assert bare == stage_two.TrainHow({}, "cpu")


def test_defaults_of_pretraining_are_its_own() -> None:
    assert PretrainParams().model_dump() == asdict(PretrainSettings())


def test_defaults_of_training_change_nothing() -> None:
    train = TrainParams()
    assert (train.protocol, train.evaluate_on) == ("corrected", "test")
    assert (train.validation, train.early_stopping, train.period) == (0, 0, 0.1)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"evaluate_on": "validation"}, ["evaluate_on: validation cannot"]),
        ({"early_stopping": 3}, ["early_stopping: 3 cannot"]),
        (
            {"evaluate_on": "validation", "early_stopping": 3},
            ["evaluate_on: validation and early_stopping: 3 cannot"],
        ),
    ],
)
def test_validation_rows_are_needed(asked: dict[str, object], named: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        resolve(None, {"train": asked})
    for part in (*named, "--validation 0.1"):
        assert part in str(caught.value)
    assert "{" not in str(caught.value)  # no dump of all settings
    resolve(None, {"train": {**asked, "validation": 0.1}})


@pytest.mark.parametrize(
    "text",
    [
        "train: [",
        "- a list",
        "5",
        "train: {seeds: 2024-99-99}",  # YAML takes it for a day
        pytest.param("[" * 5000, id="deep"),
    ],
)
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
