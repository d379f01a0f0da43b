"""The section on forgetting: figures from R and from the last answers, whatever a study has."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.report.figures import curves, matrices
from stages.report.figures.style import WIDTH, png, style, svg
from stages.report.figures.words import apart
from stages.report.numbers import learning
from stages.report.page.document import Block, Figure, Fold, Group, Paragraph, Section
from stages.report.reading.find import find
from stages.report.reading.runs import Run, Study
from stages.report.sections.forgetting import section
from tests.made_runs import Made, write_run, write_study

R = [[0.9, 0.5, 0.5], [0.6, 0.8, 0.5], [0.7, 0.5, 1.0]]
"""Worked by hand: curve 0.9, (0.6 + 0.8) / 2, (0.7 + 0.5 + 1.0) / 3; task 1 falls from 0.9 to
0.7, task 2 from 0.8 to 0.5; forgetting (0.2 + 0.3) / 2, BWT (-0.2 - 0.3) / 2."""
CONFUSION = [[7, 3, 0, 0, 0, 0], [3, 7, 0, 0, 0, 0], [0, 0, 5, 5, 0, 0],
             [0, 0, 5, 5, 0, 0], [0, 0, 0, 0, 10, 0], [0, 0, 0, 0, 0, 10]]  # fmt: skip


def study(folder: Path) -> Study:
    (found,) = find([folder]).studies
    return found


def change(folder: Path, **seed: Any) -> None:
    """In all seeds of the runs below."""
    for path in folder.rglob("metrics.json"):
        metrics = json.loads(path.read_text())
        for entry in metrics["runs"]:
            entry |= seed
        path.write_text(json.dumps(metrics))


def by_hand(folder: Path, seeds: tuple[int, ...] = (0, 1)) -> Study:
    write_run(folder / "lgr", Made("lgr", seeds, classes=tuple("abcdef"), tasks=3))
    change(folder, accuracy_matrix=R, forgetting=0.25, bwt=-0.25, confusion=CONFUSION,
           recall=[0.7, 0.7, 0.5, 0.5, 1.0, 1.0], average_accuracy=2.2 / 3)  # fmt: skip
    return study(folder)


def walk(blocks: tuple[Block, ...]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Fold):
            yield from walk(block.blocks)
        if isinstance(block, Group):
            yield from block.figures


def figures(made: Section | None) -> dict[str, Figure]:
    assert made is not None
    return {block.name: block for block in walk(made.blocks) if isinstance(block, Figure)}


def words(made: Section | None) -> str:
    assert made is not None
    return "\n".join(block.text for block in walk(made.blocks) if isinstance(block, Paragraph))


def rows(figure: Figure) -> list[dict[str, Any]]:
    assert figure.data is not None
    return [dict(zip(figure.data.head, row, strict=True)) for row in figure.data.rows]


# --- numbers -----------------------------------------------------------------------------


def test_numbers_of_r_worked_by_hand(tmp_path: Path) -> None:
    run = by_hand(tmp_path).first
    assert learning.curve(run.runs[0]) == pytest.approx([0.9, 0.7, 2.2 / 3])
    assert [d and d.mean for d in learning.drops(run)] == [
        pytest.approx(0.2),
        pytest.approx(0.3),
        None,
    ]
    assert learning.mean_matrix(run) == [pytest.approx(row) for row in R]
    counts = learning.summed_confusion(run)
    assert counts == [[2 * n for n in row] for row in CONFUSION]
    assert learning.shares([[3, 1], [0, 0]]) == [[0.75, 0.25], [None, None]]


def test_a_drop_is_from_the_best_since_the_task_was_met(tmp_path: Path) -> None:
    """Before task 2 was learnt it was answered better by luck: that was not learnt, nor lost."""
    by_hand(tmp_path)
    change(tmp_path, accuracy_matrix=[[0.9, 1.0, 0.5], [0.95, 0.8, 0.5], [0.7, 0.85, 1.0]])
    found = learning.drops(study(tmp_path).first)
    assert [d and round(d.mean, 9) for d in found] == [0.25, -0.05, None]


def test_the_data_is_what_the_runs_say(tmp_path: Path) -> None:
    made = figures(section(by_hand(tmp_path), "s2-"))
    assert set(made) == {"s2-over-tasks", "s2-forgetting-bars", "s2-by-task-lgr", "s2-r-matrix-lgr",
                         "s2-recall", "s2-confusion-lgr"}  # fmt: skip
    last = rows(made["s2-over-tasks"])
    mine = [row["accuracy_mean"] for row in last if row["strategy"] == "lgr"]
    assert mine == pytest.approx([0.9, 0.7, 2.2 / 3])
    assert [row["n"] for row in last if row["strategy"] == "lgr"] == [2, 2, 2]
    (bar, _) = rows(made["s2-forgetting-bars"])
    assert bar == {"strategy": "lgr", "seed": 0, "forgetting": 0.25, "bwt": -0.25,
                   "forgetting_task_1": pytest.approx(0.2),
                   "forgetting_task_2": pytest.approx(0.3)}  # fmt: skip
    cells = {(r["learnt"], r["task"]): r["accuracy_mean"] for r in rows(made["s2-r-matrix-lgr"])}
    assert cells == {(i + 1, j + 1): v for i, row in enumerate(R) for j, v in enumerate(row)}
    wrong = {(r["true"], r["answered"]): r["rows"] for r in rows(made["s2-confusion-lgr"])}
    assert wrong["a", "b"] == 6
    assert ("a", "c") not in wrong


def test_the_sentence_names_the_most_the_least_and_the_task(tmp_path: Path) -> None:
    write_study(tmp_path, "none", "lr", "joint", classes=tuple("abcdef"), tasks=3)
    by_hand(tmp_path, (0, 1, 2))
    change(tmp_path / "none", forgetting=0.1)
    change(tmp_path / "lr", forgetting=-0.01)
    said = words(section(study(tmp_path), ""))
    assert "**lgr** loses 25.0 ± 0.0 points of accuracy" in said
    assert "**lr** -1.0 ± 0.0 points, the least (3 seeds" in said
    assert "Without replay (none): 10.0 ± 0.0 points." in said
    assert "Under lgr task 2 (c, d) suffers most: it falls by 30.0 ± 0.0 points" in said
    assert "to 50.0 % after the last task" in said


def test_where_nothing_is_forgotten_it_says_so(tmp_path: Path) -> None:
    write_study(tmp_path, "none", "lr")
    change(tmp_path, forgetting=0.0)
    assert "No strategy forgets on average" in words(section(study(tmp_path), ""))


def test_of_many_variants_the_best_of_each_strategy_is_shown(tmp_path: Path) -> None:
    for k in range(20):
        write_run(tmp_path / f"none-{k}", Made("none", options={"hidden": k}))
    write_run(tmp_path / "lr", Made("lr", level=0.5))
    found = section(study(tmp_path), "")
    assert found is not None
    (recall,) = [b for b in found.blocks if isinstance(b, Figure) and b.name == "recall"]
    assert recall.data is not None
    shown = {row[0] for row in recall.data.rows}
    assert "lr" in shown
    assert len(shown) == 18


def test_the_floor_ends_where_the_table_has_it(tmp_path: Path) -> None:
    """Of the tasks learnt so far: one constant a task, or one for all classes."""
    for name, floors in (("task", [0.5, 0.6, 0.7]), ("class", [0.5, 0.25, 0.7 / 3])):
        end = statistics.fmean([0.5, 0.7, 0.9]) if name == "task" else 0.7 / 3
        each = [0.5, 0.7, 0.9] if name == "task" else [0.5, 0.4, 0.7]
        write_run(tmp_path / name, Made("lgr", classes=tuple("abcdef"), tasks=3, scenario=name))
        change(tmp_path / name, majority_floor=end, majority_floor_by_task=each)
        found = study(tmp_path / name)
        assert learning.floors(found.first) == pytest.approx(floors)
        assert learning.floors(found.first)[-1] == pytest.approx(found.floor)


# --- any study ---------------------------------------------------------------------------

ODD: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "nine": (("none", "lgr", "lgr+d", "dgr", "dgr+d", "lr", "nr", "cumulative", "joint"), {}),
    "one seed": (("lgr",), {"seeds": (3,)}),
    "one task": (("none", "joint"), {"tasks": 1}),
    "joint alone": (("joint",), {}),
    "ten tasks": (("lgr", "joint"), {"classes": tuple("abcdefghij"), "tasks": 10}),
    "hundred classes": (
        ("lgr",),
        {"classes": tuple(f"class {k}" for k in range(100)), "tasks": 20, "scenario": "class"},
    ),
    "long names": (
        ("none", "lgr"),
        {"classes": tuple(f"$a class_{k}$ of *20* letters" for k in range(20)), "tasks": 5},
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_every_figure_of_any_study_is_drawn(tmp_path: Path, name: str) -> None:
    strategies, same = ODD[name]
    write_study(tmp_path, *strategies, **same)
    made = section(study(tmp_path), "")
    assert made is not None
    for figure in figures(made).values():
        with style():
            drawn = figure.draw()
            assert drawn.get_figwidth() <= WIDTH + 1e-6, figure.name
            assert svg(drawn).count("<svg") == 1
        assert figure.alt
        assert figure.data is not None
        assert figure.data.rows


def test_a_figure_is_equal_each_time(tmp_path: Path) -> None:
    for figure in figures(section(by_hand(tmp_path), "")).values():
        with style():
            assert png(figure.draw()) == png(figure.draw())
            assert svg(figure.draw()) == svg(figure.draw())


def test_one_task_has_nothing_to_forget(tmp_path: Path) -> None:
    write_study(tmp_path, "none", "joint", tasks=1)
    made = section(study(tmp_path), "")
    assert "nothing that could be forgotten" in words(made)
    assert set(figures(made)) == {"recall", "confusion-none", "confusion-joint"}


def test_old_runs_have_what_they_recorded(tmp_path: Path) -> None:
    write_study(tmp_path, "none", "lgr")
    change(tmp_path / "lgr", recall=None, confusion=None, majority_floor_by_task=None)
    made = section(study(tmp_path), "")
    assert "Confusion not recorded of lgr." in words(made)
    assert "Not recorded of lgr." in figures(made)["recall"].caption
    change(tmp_path, recall=None, confusion=None)
    made = section(study(tmp_path), "")
    assert "not recorded in these runs" in words(made)
    assert "over-tasks" in figures(made)


def test_shared_outputs_are_called_by_their_classes(tmp_path: Path) -> None:
    write_study(tmp_path, "lgr", scenario="domain")
    change(tmp_path, recall=[0.5, 0.75], confusion=[[1, 1], [1, 3]])
    made = section(study(tmp_path), "")
    names = [row["class"] for row in rows(figures(made)["recall"])]
    assert names == [
        "1: anger, sadness, disgust, contempt",
        "2: happiness, surprise, fear, neutral",
    ]
    assert "true output" in words(made)
    with style():
        figures(made)["confusion-lgr"].draw()


def test_seeds_that_differ_in_their_outputs_are_not_averaged(tmp_path: Path) -> None:
    found = by_hand(tmp_path)
    seeds = list(found.first.runs)
    seeds[1] = seeds[1].model_copy(update={"recall": [0.5] * 3, "confusion": [[1] * 3] * 3})
    run = found.first.model_copy(update={"runs": seeds})
    assert learning.recall_spread(run) is None
    assert learning.summed_confusion(run) is None


def test_a_study_of_many_runs_stays_small(tmp_path: Path) -> None:
    """Figures of single runs are closed and few; those of all name all."""
    write_study(tmp_path, "none", "joint", seeds=(0,))
    for units in range(30):
        options = {"generator_units": units}
        made = Made("lgr", (0,), options=options, level=0.6 + units / 100)
        write_run(tmp_path / f"lgr-{units}", made)
    found = section(study(tmp_path), "")
    assert found is not None
    folded = [block for block in found.blocks if isinstance(block, Fold)]
    assert [fold.title for fold in folded] == [
        "Accuracy of each task over time", "R matrices", "Confusion after the last task",
    ]  # fmt: skip
    assert len(figures(found)) < 45
    said = words(found)
    assert "12 of 32 runs" in said
    strategies = {row["strategy"] for row in rows(figures(found)["over-tasks"])}
    assert len(strategies) == 33  # the floor too
    best = {f.title for f in figures(found).values() if f.name.startswith("r-matrix")}
    assert {"none", "joint", r"lgr (generator\_units 29)"} <= best
    assert r"lgr (generator\_units 0)" not in best


# --- drawing -----------------------------------------------------------------------------


def test_cells_are_as_bright_as_their_share() -> None:
    import matplotlib
    import numpy as np

    heat = matrices.Heat([[0.0, 1.0], [None, 0.5]], ["a", "b"], ["c", "d"], (0.4, 0.4))
    with style():
        axes = matrices.draw(heat).axes[0]
    (image,) = axes.images
    shown = image.to_rgba(image.get_array())
    high, wide = shown.shape[0] // 4, shown.shape[1] // 4
    colours = matplotlib.colormaps["cividis"]
    assert np.allclose(shown[high, wide], colours(0.0), atol=0.01)
    assert np.allclose(shown[high, 3 * wide], colours(1.0), atol=0.01)
    assert np.allclose(shown[3 * high, 3 * wide], colours(0.5), atol=0.01)
    assert shown[3 * high, wide][3] == 0  # nothing was measured: nothing is there
    assert [text.get_text() for text in axes.texts] == ["0", "100", "50"]


def test_names_at_the_ends_of_lines_do_not_collide() -> None:
    wished = [50.0, 50.1, 50.2, 90.0]
    placed = apart(wished, 4.0, 45.0, 100.0)
    order = sorted(placed)
    assert all(b - a >= 4.0 - 1e-9 for a, b in itertools.pairwise(order))
    assert placed[3] == 90.0
    assert placed.index(order[0]) == 0
    full = apart([1.0] * 5, 10.0, 0.0, 8.0)  # no room: as far apart as there is
    assert sorted(full) == pytest.approx([0.0, 2.0, 4.0, 6.0, 8.0])


def test_a_task_is_drawn_from_when_it_was_learnt() -> None:
    with style():
        axes = curves.by_task([[0.9, 0.6], [0.5, 0.8]], 0.5, (45.0, 100.0)).axes[0]
    tasks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in tasks] == [[1, 2], [2]]
    assert [list(line.get_ydata()) for line in tasks] == [pytest.approx([90, 60]), [80]]


def test_runs_without_r_above_the_last_row(tmp_path: Path) -> None:
    """Joint: a level at the end, no forgetting."""
    write_study(tmp_path, "none", "joint")
    found: Run | None = study(tmp_path).run_of("joint")
    assert found is not None
    assert [value is None for value in learning.curve_spread(found)] == [True, True, True, False]
    bars = figures(section(study(tmp_path), ""))["forgetting-bars"]
    assert "Undefined of joint." in bars.caption
