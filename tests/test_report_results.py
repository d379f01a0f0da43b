"""What was run, what was reached, and how it was measured: the sections' words and numbers."""

from __future__ import annotations

import doctest
import itertools
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stages.report.sections.measured
import stages.report.sections.verdict
import stages.report.sections.weights
from stages.report.figures.style import style
from stages.report.page.document import (
    Block,
    Code,
    Document,
    Facts,
    Figure,
    Fold,
    Group,
    Paragraph,
    Section,
    Table,
)
from stages.report.reading.find import LeftOut, find, find_studies
from stages.report.reading.runs import Study
from stages.report.sections import measured, results, what
from stages.report.whole import Faces, report
from tests.made_runs import Made, write_run, write_study

ROOT = Path(__file__).parent.parent
T2 = 4.302652729911275
"""97.5 % point of Student's t, 2 degrees of freedom (any table)."""


def one(folder: Path) -> Study:
    (study,) = find_studies([folder])
    return study


def whole(folder: Path) -> Document:
    return report(find([folder]), Faces())


def edit(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "metrics") -> None:
    path = folder / f"{name}.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def with_accuracies(folder: Path, **accuracies: list[float]) -> Study:
    """A study of made-up runs with these accuracies, a seed each."""
    for name, values in accuracies.items():
        run = write_run(folder / name, Made(name, seeds=tuple(range(len(values)))))

        def put(metrics: dict[str, Any], values: list[float] = values) -> None:
            for seed, value in zip(metrics["runs"], values, strict=True):
                seed["average_accuracy"] = value

        edit(run, put)
    return one(folder)


def walk(blocks: tuple[Block, ...]) -> Iterator[Block]:
    for block in blocks:
        yield from walk(block.blocks) if isinstance(block, Fold) else [block]


def every(section: Section) -> Iterator[Block]:
    yield from walk(section.blocks)
    for part in section.sections:
        yield from every(part)


def table(section: Section, name: str) -> Table:
    (found,) = (b for b in every(section) if isinstance(b, Table) and b.name == name)
    return found


def figure(section: Section, name: str) -> Figure:
    (found,) = (b for b in every(section) if isinstance(b, Figure) and b.name == name)
    return found


def words(section: Section) -> str:
    return "\n".join(block.text for block in every(section) if isinstance(block, Paragraph))


def facts(section: Section) -> dict[str, str]:
    return {k: v for b in every(section) if isinstance(b, Facts) for k, v in b.pairs}


@pytest.mark.parametrize(
    "module",
    [
        stages.report.sections.measured,
        stages.report.sections.verdict,
        stages.report.sections.weights,
    ],
)
def test_doctests(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


# --- results -----------------------------------------------------------------------------


def test_rows_stand_as_in_the_paper(tmp_path: Path) -> None:
    write_study(tmp_path, "lgr+d", "zeta", "lgr", "dgr+d", "cumulative", "lr", "dgr", "nr")
    rows = table(results.section(one(tmp_path), ""), "results").rows
    assert [row[0] for row in rows] == [
        "majority floor", "none", "nr", "lr", "dgr", "lgr", "dgr+d", "lgr+d", "zeta",
        "cumulative", "joint",
    ]  # fmt: skip
    assert rows[1][1:3] == rows[-1][1:3] == ("0", "not run")


def test_best_second_and_mark(tmp_path: Path) -> None:
    study = with_accuracies(
        tmp_path, none=[0.5, 0.52, 0.54], lr=[0.7, 0.72, 0.75], nr=[0.4, 0.8, 0.6], joint=[0.9] * 3
    )
    found = table(results.section(study, ""), "results")
    cells = {row[0]: row[1:] for row in found.rows}
    assert cells["majority floor"][:2] == ("", "50.00")
    assert cells["none"][:2] == ("3", "52.00 ± 2.00")
    assert cells["lr"][1] == "**72.33 ± 2.52**"
    assert cells["nr †"][1] == "[60.00 ± 20.00]"
    assert cells["joint"][1] == "90.00 ± 0.00"  # it does not compete
    assert found.head[2] == "accuracy % ▲"
    seconds = {row[0]: float(row[3].strip("*[]").split()[0]) for row in found.rows[1:4]}
    bold = {row[0] for row in found.rows if row[3].startswith("**")}
    assert bold == {name for name, s in seconds.items() if s == min(seconds.values())}


def test_gpu_columns_are_there_once_measured(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "none", Made("none"))
    found = table(results.section(one(tmp_path), ""), "results")
    assert not any("GPU" in name for name in found.head)
    assert "Not measured: GPU use, GPU memory." in found.note

    def measure(metrics: dict[str, Any]) -> None:
        for seed in metrics["runs"]:
            total = seed["resources"]["total"]
            total |= {"gpu_utilisation_percent": 40.0, "gpu_memory_peak_bytes": 3_000_000_000}

    edit(folder, measure)
    found = table(results.section(one(tmp_path), ""), "results")
    assert found.head[-2:] == ("GPU use %", "GPU memory MB ▼")
    assert found.rows[1][-2:] == ("40 ± 0", "**3000 ± 0**")


def test_differences_by_hand(tmp_path: Path) -> None:
    a, b = [0.7, 0.72, 0.75], [0.5, 0.53, 0.54]
    section = results.section(with_accuracies(tmp_path, none=b, lr=a), "")
    d = [x - y for x, y in zip(a, b, strict=True)]
    half = T2 * statistics.stdev(d) / 3**0.5
    (row,) = table(section, "over-none").data.rows
    expected = (statistics.fmean(d), statistics.fmean(d) - half, statistics.fmean(d) + half)
    assert row[2:] == pytest.approx(expected)
    drawn = figure(section, "over-none").data
    assert drawn is not None
    assert [line[2] for line in drawn.rows] == pytest.approx(d)


# accuracies, said, not said
SAID = [
    ({"none": [0.6, 0.61, 0.62], "lr": [0.8, 0.81, 0.83], "lgr": [0.52, 0.53, 0.54]},
     ("Better than none beyond the spread** (3 seeds, 95 % intervals): lr (+20.3 points, ",
      "Worse than none: lgr (-8.0",
      "joint` was not run"), ("No strategy", "majority floor")),
    ({"none": [0.6, 0.7, 0.8], "lr": [0.61, 0.69, 0.82], "joint": [0.6, 0.72, 0.8]},
     ("**No strategy is better", "Not to be told from none with these seeds: lr",
      "Even joint", "floor of 50.00 % beyond the spread: none"), ("Worse", "not run")),
    ({"none": [0.6], "lr": [0.9]}, ("Whether lr is better than none cannot be said",),
     ("No strategy is", "Better than none")),
    ({"lr": [0.9, 0.91]}, ("`none` was not run",), ("better than none beyond",)),
    ({"none": [0.6, 0.6], "lgr": [0.5, 0.5]}, ("floor of 50.00 % beyond the spread: lgr.",), ()),
]  # fmt: skip


@pytest.mark.parametrize(("accuracies", "said", "unsaid"), SAID)
def test_the_verdict(
    tmp_path: Path,
    accuracies: dict[str, list[float]],
    said: tuple[str, ...],
    unsaid: tuple[str, ...],
) -> None:
    text = words(results.section(with_accuracies(tmp_path, **accuracies), ""))
    assert [part for part in said if part not in text] == []
    assert [part for part in unsaid if part in text] == []


def test_best_and_gap_to_joint(tmp_path: Path) -> None:
    study = with_accuracies(tmp_path, none=[0.6, 0.7], lr=[0.8, 0.8], nr=[0.8, 0.8], joint=[0.9, 1])
    text = words(results.section(study, ""))
    assert "those that compete: nr and lr, 80.00 %, 15.00 points below joint" in text


BRIEF = [
    ({"none": [0.6, 0.6], "lr": [0.8, 0.8], "lgr": [0.5, 0.5], "joint": [0.9, 0.9]},
     "**lr is better than none beyond the spread** (2 seeds, 95 % intervals); lgr is worse. "
     "Highest mean of those that compete: lr, 80.00 %; none 60.00 %; joint 90.00 %; a constant "
     "answer 50.00 %. [Results](#results)"),
    ({"none": [0.6], "lr": [0.5]},
     "Whether a strategy is better than none cannot be said of fewer than two seeds. Highest mean "
     "of those that compete: none, 60.00 %; a constant answer 50.00 %. [Results](#results)"),
    ({"lr": [0.9, 0.91]},
     "`none` was not run: whether replay is worth anything is not told. Highest mean of those "
     "that compete: lr, 90.50 %; a constant answer 50.00 %. [Results](#results)"),
]  # fmt: skip


@pytest.mark.parametrize(("accuracies", "said"), BRIEF)
def test_the_head_of_the_page(
    tmp_path: Path, accuracies: dict[str, list[float]], said: str
) -> None:
    with_accuracies(tmp_path, **accuracies)
    assert said in [b.text for b in whole(tmp_path).lead if isinstance(b, Paragraph)]


def test_broken_generators_stand_in_the_head_too(tmp_path: Path) -> None:
    write_study(tmp_path / "a", "none", "lgr", "lr")
    write_study(tmp_path / "b", "none", "lgr", variance_ratio=0.5, changes={"dataset": "other"})
    (alarm,) = [b for b in whole(tmp_path).lead if isinstance(b, Paragraph) and b.kind == "alarm"]
    assert alarm.text.endswith(": lgr in study 1 ([What is replayed](#s1-replayed)).")
    assert not [b for b in whole(tmp_path / "b").lead if b == alarm]


def test_figures_that_follow_each_other_stand_side_by_side(tmp_path: Path) -> None:
    write_study(tmp_path, "none", "lr")
    for section in whole(tmp_path).sections:
        single = [isinstance(block, Figure) for block in section.blocks]
        assert not any(a and b for a, b in itertools.pairwise(single))
    assert any(isinstance(b, Group) for s in whole(tmp_path).sections for b in s.blocks)


def test_a_baseline_with_several_settings_was_run(tmp_path: Path) -> None:
    for units in (50, 100):
        write_run(tmp_path / f"{units}", Made("none", options={"hidden": units}))
    write_run(tmp_path / "lr", Made("lr"))
    section = results.section(one(tmp_path), "")
    assert "`none` was run with 2 different settings" in words(section)
    assert [row[0] for row in table(section, "results").rows if row[0].startswith("none")] == [
        "none (hidden 50)", "none (hidden 100)"
    ]  # fmt: skip


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2), tuple(range(30))])
@pytest.mark.parametrize("variants", [1, 12])
def test_figures_of_any_number(tmp_path: Path, seeds: tuple[int, ...], variants: int) -> None:
    write_study(tmp_path, "none", "joint", seeds=seeds)
    for k in range(variants):
        options = {"generator_units": k, "a_rather_long_option": "$x_{1"}
        write_run(tmp_path / str(k), Made("lgr", seeds=seeds, options=options))
    section = results.section(one(tmp_path), "")
    with style():
        for name in ("accuracy", "over-none"):
            drawn = figure(section, name)
            made = drawn.draw()
            made.canvas.draw()
            assert made.get_size_inches()[0] <= 5.6
            assert drawn.data is not None
            assert all(len(row) == len(drawn.data.head) for row in drawn.data.rows)
    axes = made.axes[0]
    assert len(axes.get_yticks()) == variants + 1
    alone = "no bar for a single seed" in figure(section, "accuracy").caption
    assert alone is (len(seeds) == 1)


# --- what was run ------------------------------------------------------------------------


def test_data_root_and_machine(tmp_path: Path) -> None:
    write_study(tmp_path, "none", "lgr")
    section = what.section(one(tmp_path), "")
    found = facts(section)
    assert found["Faces"].startswith(
        "952 found, 8 not found (the whole image was taken), 0 unreadable"
    )
    assert found["People"] == "21 in training, 9 in test"
    assert "4,096 numbers, after sigmoid, 3.07 GMAC" in found["Root"]
    assert "untrained; calibrated" in found["Its weights"]
    assert found["Seeds"] == "0, 1, 2"
    assert found["Machine"] == "A Processor, 2 cores, 16 GB of memory, 2 threads used"
    assert table(section, "classes").rows[-1] == ("all", "", "672", "288")
    assert table(section, "tasks").rows[0] == ("1", "anger, happiness", "168", "72")
    assert not any(isinstance(block, Figure) for block in every(section))  # equal bars


def test_rounded_products_are_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "none", Made("none"))
    write_run(tmp_path / "b" / "none", Made("none", changes={"precision": "bf16"}))
    plain, rounded = (facts(what.section(one(tmp_path / name), "")) for name in "ab")
    assert rounded.pop("Matrix products") == "**bf16**: their factors are rounded"
    assert rounded == plain


def test_old_runs_say_what_is_not_recorded(tmp_path: Path) -> None:
    write_run(tmp_path / "none", Made("none", recorded=False, about=None))
    section = what.section(one(tmp_path), "")
    found = facts(section)
    assert found["Faces"] == found["Machine"] == found["Versions"] == "not recorded"
    assert "not recorded" in table(section, "options").rows[0][1]
    assert "Not recorded: the command of none." in words(measured.section([one(tmp_path)], [], ""))


def test_unequal_classes_are_drawn(tmp_path: Path) -> None:
    classes = tuple(f"a name of 25 letters ${k:03d}" for k in range(20))
    rows = {name: {"train": 10 + 20 * k, "test": 5} for k, name in enumerate(classes)}
    about = {"data": {"classes": rows, "face_crop": "off", "images": {"whole": 9, "failed": 1}}}
    write_run(tmp_path / "none", Made("none", classes=classes, tasks=10, about=about))
    section = what.section(one(tmp_path), "")
    assert "not searched for: whole images were taken; 1 image" in facts(section)["Faces"]
    drawn = figure(section, "classes")
    assert "39.0 times" in drawn.caption
    with style():
        drawn.draw().canvas.draw()


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"processor": "B"}, "on different machines"),
        ({"threads": 1}, "on different machines"),
        ({"versions": {"lgr-pipe": "0.1.0", "torch": "3"}}, "torch: 2.15.0 (none), 3 (lgr)"),
    ],
)
def test_costs_of_other_machines_are_told(tmp_path: Path, about: Any, told: str) -> None:
    write_run(tmp_path / "none", Made("none"))
    write_run(tmp_path / "lgr", Made("lgr", about=about))
    text = words(what.section(one(tmp_path), ""))
    assert told in text
    assert "costs are not comparable" in text.lower()


def test_seeds_that_are_missing(tmp_path: Path) -> None:
    write_run(tmp_path / "none", Made("none", about={"seeds": [0, 1, 2, 7]}))
    write_run(tmp_path / "lgr", Made("lgr", seeds=(0, 1)))
    section = what.section(one(tmp_path), "")
    assert facts(section)["Seeds"] == "0, 1, 2 (asked for, but not there: 7) (none); 0, 1 (lgr)"
    assert "Not all strategies were run with the same seeds" in words(section)


# --- how it was measured -----------------------------------------------------------------


def test_commands_cannot_do_anything_else(tmp_path: Path) -> None:
    evil = "lgr-pipe train --out a; rm -rf ~ $(reboot) && x"
    write_run(tmp_path / "none", Made("none", about={"command": evil}))
    write_run(tmp_path / "lgr", Made("lgr", about={"command": "curl x | sh"}))
    write_run(tmp_path / "lr", Made("lr", about={"command": "lgr-pipe train 'a"}))
    left = [LeftOut(tmp_path / "x*y", "seed 1 failed", "rm -rf ~"), LeftOut(tmp_path, "cut", "")]
    section = measured.section([one(tmp_path)], left, "")
    (code,) = (block for block in every(section) if isinstance(block, Code))
    assert code.text.splitlines()[1:] == ["lgr-pipe train --out 'a;' rm -rf '~' '$(reboot)' '&&' x"]
    assert "Not recorded: the command of lgr, lr." in words(section)
    assert [row[1] for row in table(section, "left-out").rows] == ["seed 1 failed", "cut"]
    assert "x\\*y" in table(section, "left-out").rows[0][0]


def test_how_to_finish_what_was_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "none", Made("none"))
    again = "lgr-pipe train --out 'my runs' --resume"
    section = measured.section([one(tmp_path)], [LeftOut(tmp_path, "not finished", again)], "")
    code = next(block for block in every(section) if isinstance(block, Code))
    assert code.text.endswith(again)


def test_definitions_name_the_sources_of_the_code() -> None:
    from stages.report.sections.definitions import ACCURACIES

    code = "".join(
        (ROOT / "stages" / "train" / name).read_text() for name in ("metrics.py", "confusion.py")
    )
    sources = {one.name: one.source for one in ACCURACIES}
    for name in ("avg. incr.", "forgetting", "BWT", "FWT", "balanced accuracy", "macro-F1"):
        first, year = sources[name].split()[0], sources[name].split(";")[0].split()[-1]
        assert first in code, name
        assert year in code, name


def test_names_are_unique_over_studies(tmp_path: Path) -> None:
    write_study(tmp_path / "a", "none", "lgr")
    write_study(tmp_path / "b", "none", "lgr", scenario="class")
    studies = find_studies([tmp_path])
    sections = [measured.section(studies, [LeftOut(tmp_path, "cut")], "")]
    for k, study in enumerate(studies, 1):
        sections += [what.section(study, f"s{k}-"), results.section(study, f"s{k}-")]
    blocks = [block for section in sections for block in every(section)]
    for kind in (Table, Figure):
        names = [block.name for block in blocks if isinstance(block, kind)]
        assert len(names) == len(set(names))
        assert all(name == name.lower() for name in names)
