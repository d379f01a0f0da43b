"""What is recorded of the replays: figures against others' arithmetic, and learning as without."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.train import components
from stages.train.loop import Progress, run
from stages.train.recorder import REAL, REPLAYED, Looked, Recorder
from stages.train.replayed import PICTURES, THROUGH_ROOT, Replayed
from stages.train.scenario import Name, Scenario, make_scenario
from stages.train.strategy import Images
from stages.train.view import Data
from tests.world import ALL, make_images, make_method, make_setup, make_world

NAMES = ("task", "class", "domain")
REPLAYS = ("dgr", "dgr+d", "lgr", "lgr+d", "lr", "nr")


class Plays:
    """A strategy that gives what it was made with, in parts of 7 rows."""

    def __init__(self, rows: Replayed) -> None:
        self._rows = rows

    def replayed(self, count: int, stream: torch.Generator) -> Iterator[Replayed]:
        del stream
        all_ = self._rows
        for at in range(0, min(count, len(all_.latents)), 7):
            span = slice(at, min(at + 7, count))
            tasks = None if all_.tasks is None else all_.tasks[span]
            yield Replayed(all_.kind, all_.latents[span], all_.answers[span], tasks)


def make_three(name: Name, dim: int = 5) -> tuple[Data, Scenario]:
    """Three tasks of two classes, of unequal size, far from the origin."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(6), [20, 9, 14, 4, 12, 7])
    latents = rng.normal(0, 0.4, (len(labels), dim)) + 50 + rng.normal(0, 0.3, (6, dim))[labels]
    rows, groups = np.arange(len(labels)), [("a", "b"), ("c", "d"), ("e", "f")]
    is_test = rows % 4 == 3
    scenario = make_scenario(name, "abcdef", labels, rows[~is_test], rows[is_test], groups)
    targets = torch.from_numpy(scenario.targets)
    return Data(torch.from_numpy(latents.astype(np.float32)), targets), scenario


def drawn(scenario: Scenario, kind: str, rows: int = 40, dim: int = 5) -> Replayed:
    rng = np.random.default_rng(5)
    latents = torch.from_numpy(rng.normal(50, 1.3, (rows, dim)).astype(np.float32))
    if kind == "stored":
        tasks = rng.integers(0, 2, rows)
        starts = np.array([task.columns.start for task in scenario.tasks])
        answers = starts[tasks] + rng.integers(0, 2, rows)
        of = torch.from_numpy(tasks)
        return Replayed("stored", latents, torch.from_numpy(answers)[:, None], of)
    heads = [(0, 2), (2, 4)] if scenario.name == "task" else [(0, scenario.tasks[1].columns.stop)]
    columns = [torch.from_numpy(rng.integers(low, high, rows)) for low, high in heads]
    return Replayed("generated", latents, torch.stack(columns, 1))


def by_hand(
    data: Data, scenario: Scenario, learnt: int, replayed: Replayed
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """The figures, a row at a time, and the nearest class of each replayed row."""
    x = data.latents.numpy().astype(np.float64)
    classes = [
        (task.index, task.columns.start + k, name)
        for task in scenario.tasks[:learnt]
        for k, name in enumerate(task.classes)
    ]
    of_class = [
        [r for r in scenario.tasks[t].train_rows if scenario.targets[r] == output]
        for t, output, _ in classes
    ]

    def nearest(row: NDArray[np.float64], among: list[int], without: int = -1) -> int:
        """Of the classes; `without` leaves a row out of the means."""
        means = [x[[r for r in of_class[c] if r != without]].mean(0) for c in among]
        return among[int(np.argmin([((row - mean) ** 2).sum() for mean in means]))]

    def rivals(output: int) -> list[int]:
        if scenario.name != "task":
            return list(range(len(classes)))
        (task,) = {t for t, o, _ in classes if o == output}
        return [c for c, (t, _, _) in enumerate(classes) if t == task]

    labels = dict.fromkeys((name for *_, name in classes), 0)
    agreeing, closest = [], []
    for row, answers in enumerate(replayed.answers.tolist()):
        latent = replayed.latents[row].numpy().astype(np.float64)
        closest.append(nearest(latent, list(range(len(classes)))))
        for answer in answers:
            task = None if replayed.tasks is None else int(replayed.tasks[row])
            means = [c for c, (t, o, _) in enumerate(classes) if o == answer and task in (None, t)]
            labels[classes[nearest(latent, means)][2]] += 1
            agreeing.append(classes[nearest(latent, rivals(answer))][1] == answer)
    real = [
        classes[nearest(x[r], rivals(output), r)][1] == output
        for (_, output, _), rows in zip(classes, of_class, strict=True)
        for r in rows
    ]
    rows = np.concatenate(of_class)
    fake = replayed.latents.numpy().astype(np.float64)
    figures = {
        "learnt": learnt,
        "kind": replayed.kind,
        "drawn": len(fake),
        "variance_ratio": np.trace(np.cov(fake.T)) / np.trace(np.cov(x[rows].T)),
        "labels": labels,
        "ncm_agreement": np.mean(agreeing),
        "ncm_agreement_real": np.mean(real),
    }
    return figures, np.array(closest)


@pytest.mark.parametrize("kind", ["generated", "stored"])
@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_counted_by_hand(name: Name, kind: str) -> None:
    data, scenario = make_three(name)
    replayed = drawn(scenario, kind)
    looked = Recorder(data, scenario, seed=0).look(Plays(replayed), 2)
    assert looked is not None
    wanted, nearest = by_hand(data, scenario, 2, replayed)
    for key, value in wanted.items():
        assert looked.figures[key] == (pytest.approx(value, abs=2e-6) if value else value), key
    assert 0.1 < looked.figures["ncm_agreement"] < 0.9 < 1 > looked.figures["ncm_agreement_real"]
    heads = 2 if (name, kind) == ("task", "generated") else 1
    assert sum(looked.figures["labels"].values()) == 40 * heads
    assert looked.shown is not None
    of_drawn = looked.shown["label"][looked.shown["generated"] == 1]
    if kind == "generated":
        np.testing.assert_array_equal(of_drawn, nearest)
    else:
        starts = np.array(scenario.starts) - [task.columns.start for task in scenario.tasks]
        assert replayed.tasks is not None
        stored = replayed.answers[:, 0].numpy() + starts[replayed.tasks.numpy()]
        np.testing.assert_array_equal(of_drawn, stored)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_collapsed_generator_has_little_variance(share: float) -> None:
    """Real rows drawn towards their mean: the ratio is the square of how far."""
    data, scenario = make_three("class")
    rows = np.concatenate([task.train_rows for task in scenario.tasks[:2]])
    real = data.latents[torch.from_numpy(rows)]
    drawn = real.mean(0) + share * (real - real.mean(0))
    answers = torch.zeros(len(rows), 1, dtype=torch.int64)
    looked = Recorder(data, scenario, seed=0).look(Plays(Replayed("generated", drawn, answers)), 2)
    assert looked is not None
    assert looked.figures["variance_ratio"] == pytest.approx(share**2, abs=1e-5)
    assert looked.figures["labels"] == {"a": len(rows), "b": 0, "c": 0, "d": 0}


def test_a_diverged_generator_is_counted_and_lies_nowhere() -> None:
    data, scenario = make_three("class")
    replayed = drawn(scenario, "generated")
    bad = replayed.latents.clone()
    bad[3], bad[9, 1], bad[20:30] = torch.nan, torch.inf, -torch.inf
    looked = Recorder(data, scenario, seed=0).look(
        Plays(Replayed("generated", bad, replayed.answers)), 2
    )
    assert looked is not None
    assert looked.figures["drawn"] == sum(looked.figures["labels"].values()) == 40
    assert looked.shown is not None
    assert np.isfinite(looked.shown["points"]).all()
    assert looked.shown["generated"].sum() == 28
    known = torch.isfinite(bad).all(1)
    half = Replayed("generated", bad[known], replayed.answers[known])
    wanted, _ = by_hand(data, scenario, 2, half)
    for key in ("variance_ratio", "ncm_agreement"):
        assert looked.figures[key] == pytest.approx(wanted[key], abs=2e-6)
    nothing = Replayed("generated", bad[20:30], replayed.answers[20:30])
    looked = Recorder(data, scenario, seed=0).look(Plays(nothing), 2)
    assert looked is not None
    assert looked.figures["variance_ratio"] is looked.figures["ncm_agreement"] is None


def test_a_head_of_one_class_agrees_with_nothing() -> None:
    data, _ = make_three("task")
    labels = data.targets.numpy()
    groups = [("a",), ("b",), ("c", "d", "e", "f")]
    rows = np.arange(len(labels))
    scenario = make_scenario("task", "abcdef", labels, rows, rows, groups)
    answers = torch.tensor([[0, 1]] * 40)
    replayed = Replayed("generated", drawn(scenario, "stored").latents, answers)
    looked = Recorder(data, scenario, seed=0).look(Plays(replayed), 2)
    assert looked is not None
    assert looked.figures["ncm_agreement"] is looked.figures["ncm_agreement_real"] is None
    assert looked.figures["labels"] == {"a": 40, "b": 40}


@pytest.mark.parametrize("shape", [(30, 9), (9, 30)])
def test_components_are_those_of_numpy(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 4, shape[1])
    x -= x.mean(0)
    found = components.fit(torch.from_numpy(x).float(), 4)
    _, sizes, axes = np.linalg.svd(x, full_matrices=False)
    axes = axes[:4].T * np.sign(axes[:4].T[np.abs(axes[:4].T).argmax(0), range(4)])
    np.testing.assert_allclose(found.axes, axes, atol=1e-5)
    np.testing.assert_allclose(found.explained, (sizes**2 / (sizes**2).sum())[:4], atol=1e-6)
    np.testing.assert_allclose(found.scores(torch.from_numpy(x).float()), x @ axes, atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (1, 4)])
def test_rows_that_are_all_the_same_have_no_components(shape: tuple[int, int]) -> None:
    found = components.fit(torch.zeros(shape), 50)
    assert not found.axes.any()
    assert not found.explained.any()
    assert found.axes.shape == (shape[1], min(shape))


def record(name: str, scenario_name: Name, seed: int = 0, *, look: bool = True) -> Any:
    """(weights, R, replay, shown) of a run."""
    data, scenario = make_world(scenario_name)
    method = make_method(name, make_setup(scenario, iters=25, seed=seed))
    recorder = Recorder(data, scenario, seed, np.arange(240) + 1000)
    outcome = run(method, data, scenario, **({"look": recorder.look} if look else {}))
    return deepcopy(method.state()), outcome.accuracy_matrix, outcome.replay, outcome.shown


@pytest.mark.parametrize("scenario", NAMES)
@pytest.mark.parametrize("name", ALL)
def test_looking_changes_nothing_that_is_learnt(name: str, scenario: Name) -> None:
    with_, matrix, replay, shown = record(name, scenario)
    without, other, *nothing = record(name, scenario, look=False)
    assert nothing == [[], {}]
    assert with_.keys() == without.keys()
    assert all(torch.equal(with_[key], without[key]) for key in with_)
    np.testing.assert_array_equal(matrix, other)
    assert [state["learnt"] for state in replay] == ([1] if name in REPLAYS else [])
    assert bool(shown) == (name in REPLAYS)
    if name not in REPLAYS:
        return
    (state,) = replay
    stored = name in ("lr", "nr")
    assert state["kind"] == ("stored" if stored else "generated")
    assert set(state["labels"]) == {"a", "b"}
    assert state["drawn"] == (
        96 if stored else THROUGH_ROOT if name.startswith("dgr") else REPLAYED
    )
    assert 0.8 < state["variance_ratio"] < 1.3 if stored else 0 < state["variance_ratio"] < 5
    if stored:  # all rows of the first task are in the buffer
        assert state["variance_ratio"] == pytest.approx(1, abs=1e-5)
    again = record(name, scenario)
    assert again[2] == replay
    assert all(np.array_equal(again[3][key], shown[key]) for key in shown)
    if not stored:
        assert record(name, scenario, seed=1)[2] != replay


def test_images_are_kept_with_real_ones_of_the_same_tasks() -> None:
    _, _, _, shown = record("dgr", "class")
    assert shown["images"].shape == (PICTURES, 2, 2, 3)
    assert shown["images"].dtype == np.uint8
    assert shown["images"].std() > 5
    assert (
        shown["image_labels"].tolist()
        == shown["label"][shown["generated"] == 1][:PICTURES].tolist()
    )
    _, scenario = make_world("class")
    assert set(shown["real_rows"] - 1000) <= set(scenario.tasks[0].train_rows)
    assert len(set(shown["real_rows"])) == PICTURES
    _, _, _, of_latents = record("lgr", "class")
    assert set(of_latents) == {"points", "generated", "label", "explained"}


@pytest.mark.parametrize("colours", [1, 3])
def test_pictures_are_the_pixels_that_a_root_reads(colours: int) -> None:
    crops = torch.randint(256, (5, 4, 4, 3), generator=torch.Generator().manual_seed(0))
    crops = crops.to(torch.uint8)
    if colours == 1:
        crops = crops[..., :1].expand(-1, -1, -1, 3)
    planes = crops.permute(0, 3, 1, 2)[:, :colours].float() / 255
    images = Images(4, colours * 16, lambda x: x, lambda x: x, 0)
    assert torch.equal(images.pictures(planes.flatten(1)), crops)
    out_of_range = images.pictures(torch.tensor([[-3.0, 3.0] * (colours * 8)]))
    assert set(out_of_range.flatten().tolist()) == {0, 255}


def test_a_strategy_of_ones_own_need_not_be_looked_at() -> None:
    data, scenario = make_three("task")
    assert Recorder(data, scenario, seed=0).look(object(), 1) is None
    empty = Replayed("stored", torch.empty(0, 5), torch.empty(0, 1))
    assert Recorder(data, scenario, seed=0).look(Plays(empty), 1) is None


def test_the_last_state_is_drawn_and_none_comes_after_it() -> None:
    data, scenario = make_three("task")
    recorder = Recorder(data, scenario, seed=0)

    latents, nought = torch.ones(9, 5), torch.zeros(9, dtype=torch.int64)

    def look(learnt: int) -> Looked | None:
        return recorder.look(Plays(Replayed("stored", latents, nought[:, None], nought)), learnt)

    first, second, third = (look(learnt) for learnt in (1, 2, 3))
    assert first is not None
    assert first.shown is None
    assert second is not None
    assert second.shown is not None
    assert third is None


@pytest.mark.parametrize(("dim", "rows"), [(64, REAL), (8192, 512)])
def test_what_is_looked_at_is_bounded(dim: int, rows: int) -> None:
    labels = np.arange(2400) % 4
    everything = np.arange(2400)
    scenario = make_scenario(
        "class", "abcd", labels, everything, everything, [("a", "b"), ("c", "d")]
    )
    targets = torch.from_numpy(scenario.targets)
    latents = torch.rand(2400, dim, generator=torch.Generator().manual_seed(0))
    asked: list[int] = []

    class Watched(Data):
        def read(self, rows: Tensor) -> Tensor:
            asked.append(len(rows))
            return super().read(rows)

    replayed = Replayed("generated", latents, torch.zeros(2400, 1, dtype=torch.int64))
    looked = Recorder(Watched(latents, targets), scenario, seed=0).look(Plays(replayed), 1)
    assert looked is not None
    assert asked == [rows]
    assert looked.figures["drawn"] == REPLAYED
    assert looked.shown is not None
    assert looked.shown["points"].shape == (rows + REPLAYED, 50)


def test_stored_crops_are_few_for_each_costs_a_pass_of_the_root() -> None:
    data, scenario = make_world("class", rows=900)
    passes: list[int] = []
    images = make_images()

    def root(pixels: Tensor) -> Tensor:
        passes.append(len(pixels))
        return images.root(pixels)

    counted = Images(images.side, images.size, images.pixels, root, images.macs)
    method = make_method("nr", make_setup(scenario, iters=2, images=counted))
    kept = Progress()
    run(method, data, scenario, progress=kept, look=Recorder(data, scenario, 0).look)
    before = sum(passes)
    passes.clear()
    again = make_method("nr", make_setup(scenario, iters=2, images=counted))
    run(again, data, scenario)
    assert before - sum(passes) == kept.replay[0]["drawn"] == THROUGH_ROOT
