"""Presets against the paper, precedence, and settings that survive being shown."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from cache.errors import Refused
from pipeline import presets
from pipeline.params import resolve, trace
from pipeline.show_config import config_text
from stages import datasets, strategies
from stages.train.grouping import group_classes
from tests.command import Run

PAPER = {f"lgr-paper/{name}" for name in ("ckplus", "rafdb", "affectnet", "cifar10")} | {
    "lgr-paper/mnist",
    "lgr-paper/mnist-class",
}

# scenario, tasks, iterations, batch, learning rate, seeds
FACES = ("task", 4, 2000)
TRAIN = {
    "ckplus": (*FACES, 32, 1e-4, "2723,6831,9345"),
    "rafdb": (*FACES, 128, 1e-4, "6618,9599,9811"),
    "affectnet": (*FACES, 128, 1e-4, "1043,1855,5915"),
    "mnist": ("task", 5, 500, 128, 1e-3, "0-2"),
    "mnist-class": ("class", 10, 1000, 128, 1e-3, "0-2"),
    "cifar10": ("task", 5, 500, 128, 1e-3, "0-2"),
}
# buffer of nr and lr, units of dgr and lgr: Table I, and Table X of the supplement
SIZES = {"ckplus": (1500, 1000, 1600, 200), "mnist": (1000, 1000, 400, 128)}
SIZES |= {"rafdb": SIZES["ckplus"], "affectnet": SIZES["ckplus"]}
SIZES |= {"mnist-class": SIZES["mnist"], "cifar10": SIZES["mnist"]}

DIGITS = [tuple(pair) for pair in ("01", "23", "45", "67", "89")]
PAIRS = [
    ("neutral", "anger"),
    ("contempt", "disgust"),
    ("fear", "happiness"),
    ("sadness", "surprise"),
]
TASKS = {
    "ckplus": PAIRS,
    "affectnet": PAIRS,
    "rafdb": [
        ("neutral", "anger"),
        ("disgust", "fear"),
        ("happiness", "sadness"),
        ("surprise",),
    ],
    "mnist": DIGITS,
    "mnist-class": [(digit,) for digit in "0123456789"],
}


def test_the_papers_are_there() -> None:
    assert set(presets.names()) >= PAPER


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_can_be_used(name: str) -> None:
    from pipeline.stage_two import read_options

    params = resolve(None, {}, name)
    assert params.dataset.name in datasets.NAMES
    assert set(params.options) == set(params.strategies)
    for strategy in params.strategies:
        read_options(strategy, dict(params.options[strategy]))
    assert len(presets.load(name).source.splitlines()) == 1


@pytest.mark.parametrize("name", sorted(TRAIN))
def test_training_is_the_papers(name: str) -> None:
    params = resolve(None, {}, f"lgr-paper/{name}")
    train, options = params.train, params.options
    found = (train.scenario, train.tasks, train.iters, train.batch_size, train.lr, train.seeds)
    assert found == TRAIN[name]
    nr, lr, dgr, lgr = SIZES[name]
    assert options == {
        "none": {},
        "joint": {},
        "nr": {"buffer_size": nr},
        "lr": {"buffer_size": lr},
        "dgr": {"generator_units": dgr},
        "lgr": {"generator_units": lgr},
        "dgr+d": {"generator_units": dgr, "temperature": 2.0},
        "lgr+d": {"generator_units": lgr, "temperature": 2.0},
    }
    small = "mnist" in name or name == "cifar10"
    assert params.extract.backbone == ("lenet" if small else "vgg16")
    assert params.extract.activation == "sigmoid"
    assert (params.crop.size, params.crop.face_crop) == ((32, "off") if small else (100, "dlib"))
    assert (train.protocol, train.evaluate_on) == ("corrected", "test")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_tasks_are_the_published_ones(name: str) -> None:
    params = resolve(None, {}, f"lgr-paper/{name}")
    train = params.train
    classes = datasets.module(params.dataset.name).ABOUT.classes
    groups = group_classes(classes, train.tasks, train.class_order, uneven=train.uneven)
    assert groups == TASKS[name]


def test_rafdb_tasks_have_the_test_images_of_the_logs() -> None:
    counts = datasets.module("rafdb").ABOUT.published["test"]
    assert [sum(counts[c] for c in group) for group in TASKS["rafdb"]] == [842, 234, 1663, 329]


# (preset of the command line, params file, command line) -> lr of train, and who gave it
MNIST, CKPLUS = "lgr-paper/mnist", "lgr-paper/ckplus"
FILE, SAID = "train: {lr: 0.5}", {"train": {"lr": 0.25, "iters": None}}
PRECEDENCE = [
    (None, None, {}, 1e-4, None),
    (MNIST, None, {}, 1e-3, f"preset {MNIST}"),
    (None, f"preset: {MNIST}", {}, 1e-3, f"preset {MNIST}"),
    (CKPLUS, f"preset: {MNIST}", {}, 1e-4, f"preset {CKPLUS}"),
    (None, FILE, {}, 0.5, "p.yaml"),
    (MNIST, FILE, {}, 0.5, "p.yaml"),
    (None, f"preset: {MNIST}\n{FILE}", {}, 0.5, "p.yaml"),
    (None, None, SAID, 0.25, "command line"),
    (MNIST, None, SAID, 0.25, "command line"),
    (MNIST, f"preset: {CKPLUS}\n{FILE}", SAID, 0.25, "command line"),
]


@pytest.mark.parametrize(("preset", "text", "said", "lr", "source"), PRECEDENCE)
def test_precedence(
    preset: str | None,
    text: str | None,
    said: dict[str, Any],
    lr: float,
    source: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("p.yaml") if text is not None else None
    if file is not None:
        file.write_text(text or "")
    resolved = trace(file, said, preset)
    assert resolved.params.train.lr == lr
    assert resolved.sources.get(("train", "lr")) == source


def test_options_of_a_strategy_are_joined(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("options: {lgr: {z: 7}, lr: {buffer_size: 3}}\n")
    options = resolve(file, {}, MNIST).options
    assert options["lgr"] == {"generator_units": 128, "z": 7}
    assert options["lr"] == {"buffer_size": 3}
    assert options["nr"] == {"buffer_size": 1000}


def test_an_unknown_preset_is_refused(here: Run, tmp_path: Path) -> None:
    done = here("crop", "--preset", "lgr-paper/mnlst", "--out", tmp_path / "c")
    assert done.returncode == 2
    assert "no preset 'lgr-paper/mnlst'" in done.stderr
    for text in ("preset: ../x", "preset: [1]", "preset: 3"):
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(Refused, match=r"p\.yaml: preset must be one of .*lgr-paper/rafdb"):
            resolve(tmp_path / "p.yaml", {})
        resolve(tmp_path / "p.yaml", {}, MNIST)  # the command line's is taken


SHOWN = [
    ("crop", "--margin", "0.3", "--root", "my faces #1"),
    ("extract", "--weights", "a.safetensors"),
    ("pretrain", "--seed", "4"),
    ("train", "--no-uneven", "--seeds", "5"),
    ("train", "--strategy", "lgr+d", "--z", "7", "--iters", "3"),
    ("train", "--strategy", "none"),
]


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
@pytest.mark.parametrize("preset", [None, "lgr-paper/rafdb"])
def test_shown_settings_make_the_same_settings(
    words: tuple[str, ...], preset: str | None, here: Run, tmp_path: Path
) -> None:
    given = ("--preset", preset) if preset else ()
    first = here(*words, *given, "--show-config")
    assert (first.returncode, first.stderr) == (0, "")
    file = tmp_path / "shown.yaml"
    file.write_text(first.stdout)
    command = words[:3] if words[1] == "--strategy" else words[:1]
    again = here(*command, "--params", file, "--show-config")
    assert yaml.safe_load(again.stdout) == yaml.safe_load(first.stdout)
    assert resolve(file, {}).model_dump(mode="json") == yaml.safe_load(first.stdout)


def test_shown_settings_say_whose_they_are(here: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "preset: lgr-paper/mnist\nstore: hdf5\noptions: {lr: {buffer-policy: balanced}}"
    )
    words = ("train", "--strategy", "lr", "--buffer-size", "9", "--lr", "0.5", "--params", file)
    lines = here(*words, "--show-config").stdout.splitlines()
    for line in (
        "  lr: 0.5  # command line",
        "  iters: 500  # preset lgr-paper/mnist",
        f"store: hdf5  # {file}",
        "    buffer_size: 9  # command line",
        f"    buffer_policy: balanced  # {file}",
        "  uneven: false",
        "    generator_units: 400  # preset lgr-paper/mnist",
        f"# preset lgr-paper/mnist: {presets.load(MNIST).source}",
    ):
        assert line in lines


def test_a_strategy_is_shown_with_all_its_options(here: Run) -> None:
    for name in strategies.names():
        shown = yaml.safe_load(here("train", "--strategy", name, "--show-config").stdout)
        assert shown["options"] == {name: asdict(strategies.module(name).Options())}


@pytest.mark.parametrize("root", ["a: b", "# x", "no\nnewline", "off", "1e3", "-", "Gesichter ü"])
def test_any_path_survives(root: str, tmp_path: Path) -> None:
    (tmp_path / "line\nbreak.yaml").write_text(yaml.safe_dump({"dataset": {"root": root}}))
    resolved = trace(tmp_path / "line\nbreak.yaml", {"dataset": {"watch": root}})
    (tmp_path / "shown.yaml").write_text(config_text(resolved))
    assert resolve(tmp_path / "shown.yaml", {}) == resolved.params
    assert resolved.params.dataset.root == Path(root)


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (("crop",), "--out"),
        (("extract",), "--out"),
        (("pretrain",), "--out"),
        (("train", "--cache", "c", "--out", "o"), "--strategy"),
        (("train", "--strategy", "lr", "--out", "o"), "--cache"),
    ],
)
def test_what_is_required_still_is(words: tuple[str, ...], missing: str, here: Run) -> None:
    here(*words, "--show-config")  # that this leaves nothing behind
    done = here(*words)
    assert done.returncode == 2
    assert f"Missing option '{missing}'" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--strategy", "lr", "--z", "3"), "lr has no option --z"),
        (("train", "--strategy", "lri"), "Unknown strategy 'lri'"),
        (("extract", "--dtype", "int8"), "extract.dtype"),
        (("pretrain", "--iters", "0"), "pretrain.iters"),
        (("train", "--early-stopping", "2"), "--validation"),
    ],
)
def test_what_is_shown_is_checked(words: tuple[str, ...], said: str, here: Run) -> None:
    done = here(*words, "--show-config")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_resume_or_overwrite(here: Run, tmp_path: Path) -> None:
    words = ("train", "--strategy", "lr", "--cache", tmp_path, "--out", tmp_path / "o")
    done = here(*words, "--resume", "--overwrite")
    assert done.returncode == 2
    assert "give one of them" in done.stderr
    assert not (tmp_path / "o").exists()
