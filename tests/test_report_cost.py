"""The section on costs: numbers against metrics.json by hand, fronts and estimates against
hand-worked ones, figures of whatever shape of study, files that nobody should trust."""

from __future__ import annotations

import doctest
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

import stages.report.figures.scale
import stages.report.sections.cost_parts
from cache.errors import Refused
from stages.report.figures import over_time, pareto
from stages.report.figures.pareto import Dot
from stages.report.figures.style import look, style
from stages.report.numbers.once import once, passes_in_loop
from stages.report.page.document import Document, Figure, Paragraph, Section, Table
from stages.report.page.walk import check, figures, tables
from stages.report.reading.find import find_studies
from stages.report.reading.hosts import hosts
from stages.report.reading.runs import Study
from stages.report.reading.series import Sample, read_series, series_of
from stages.report.sections.cost import section
from tests.made_runs import Made, write_run, write_study

CLASSES = tuple(f"{'c' * 25}{k}" for k in range(20))
ALL = ("none", "nr", "lr", "dgr", "lgr", "dgr+d", "lgr+d", "cumulative", "joint")


def _study(folder: Path) -> Study:
    (study,) = find_studies([folder])
    return study


def _section(folder: Path) -> Section:
    made = section(_study(folder), "")
    assert made is not None
    check(Document("", (), (made,)))
    return made


def _figures(made: Section) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(Document("", (), (made,)))}


def _tables(made: Section) -> dict[str, Table]:
    return {table.name: table for table in tables(Document("", (), (made,)))}


def _said(made: Section) -> str:
    return "\n".join(block.text for block in made.blocks if isinstance(block, Paragraph))


def _column(block: Figure | Table, name: str) -> dict[Any, Any]:
    assert block.data is not None
    at = block.data.head.index(name)
    return {row[0]: row[at] for row in block.data.rows}


def _drawn(figure: Figure) -> Any:
    with style():
        drawn = figure.draw()
        drawn.draw_without_rendering()
    assert drawn.get_size_inches()[0] <= 5.6
    return drawn


# --- the section -------------------------------------------------------------------------


def test_numbers_are_those_of_metrics_json(tmp_path: Path) -> None:
    write_study(tmp_path, *ALL)
    made = _section(tmp_path)
    against, phases = _figures(made)["accuracy-seconds"], _figures(made)["time-parts"]
    kept, costs = _figures(made)["kept-parts"], _tables(made)["cost-seed"]
    for name in ALL:
        seeds = json.loads((tmp_path / name / "metrics.json").read_text())["runs"]
        seconds = [seed["train_seconds"] for seed in seeds]
        assert math.isclose(_column(against, "train_seconds_mean")[name], sum(seconds) / 3)
        assert math.isclose(_column(costs, "train_seconds_sd")[name], statistics.stdev(seconds))
        accuracy = [seed["average_accuracy"] for seed in seeds]
        assert math.isclose(_column(against, "accuracy_mean")[name], sum(accuracy) / 3)
        solver = [seed["resources"]["phases"]["solver"]["wall_seconds"] for seed in seeds]
        assert math.isclose(_column(phases, "solver_seconds")[name], sum(solver) / 3)
        generator = seeds[0]["memory_bytes"].get("generator", 0)
        assert _column(kept, "generator_bytes")[name] == generator
    assert costs.rows[0][0] == "none"
    assert "all data" in costs.rows[-1]  # joint: not 0 MB
    assert "not measured" in _figures(made)["accuracy-cpu"].caption  # energy


def test_every_figure_is_drawn_and_told(tmp_path: Path) -> None:
    write_study(tmp_path, *ALL)
    found = _figures(_section(tmp_path))
    assert list(found) == [
        "accuracy-memory", "accuracy-seconds", "accuracy-cpu", "kept-parts", "time-parts",
        "extract-once", "over-time",
    ]  # fmt: skip
    for figure in found.values():
        _drawn(figure)
        assert figure.data is not None
        assert figure.data.rows
        assert figure.caption
        assert any(digit in figure.alt for digit in "123456789")
    words = [t.get_text() for t in _drawn(found["accuracy-memory"]).axes[0].texts]
    assert {"none", "lgr", "dgr+d", "cumulative (all data)"} <= set(words)
    assert any(text.startswith("joint (all data), 89.") for text in words)  # no mark at 0 MB
    assert any("majority floor 50.0 %" in text for text in words)


@pytest.mark.parametrize(
    ("strategies", "same"),
    [
        (("none", "lgr"), {"seeds": (0,)}),
        (("lgr",), {}),
        (("joint",), {}),
        (("none", "lgr", "joint"), {"recorded": False, "about": None}),
        (("none", "lr", "joint"), {"tasks": 1}),
        (("none", "lgr"), {"scenario": "class", "classes": CLASSES}),
    ],
    ids=["one seed", "one strategy", "joint alone", "old", "one task", "many classes"],
)  # fmt: skip
def test_odd_studies(tmp_path: Path, strategies: tuple[str, ...], same: dict[str, Any]) -> None:
    write_study(tmp_path, *strategies, **same)
    made = _section(tmp_path)
    for figure in _figures(made).values():
        _drawn(figure)
    if same.get("recorded") is False:
        assert "extract-once" not in _figures(made)
        assert _said(made).count("not recorded") == 3
    if same.get("seeds") == (0,):
        assert "one seed, no spread" in _figures(made)["accuracy-memory"].caption
        assert "no spread to judge by" in _said(made)


def test_sixty_variants_whose_names_mean_something_elsewhere(tmp_path: Path) -> None:
    for k in range(60):
        options = {"note": f"$x_{k}$ |*{k}*", "z": k}
        write_run(tmp_path / str(k), Made("lgr", seeds=(0,), options=options, level=0.4 + k / 120))
    made = _section(tmp_path)
    for figure in _figures(made).values():
        drawn = _drawn(figure)
        assert drawn.get_size_inches()[1] < 16
    assert len(_figures(made)["accuracy-memory"].alt) < 2000
    assert all(r"\*" in row[0] for row in _tables(made)["cost-seed"].rows)


def test_resources_that_were_not_measured(tmp_path: Path) -> None:
    write_study(tmp_path, "none", "lgr", "lr")
    path = tmp_path / "lr" / "metrics.json"
    metrics = json.loads(path.read_text())
    for seed in metrics["runs"]:
        seed["resources"] = None
    path.write_text(json.dumps(metrics))
    found = _figures(_section(tmp_path))
    assert "Not measured: lr" in found["accuracy-cpu"].caption
    assert "lr" in _column(found["accuracy-seconds"], "train_seconds_mean")
    assert "Not recorded: lr" in found["time-parts"].caption
    for figure in found.values():
        _drawn(figure)


def test_figures_of_the_largest_and_smallest_values(tmp_path: Path) -> None:
    """What the file's form allows must not break a figure."""
    seconds = iter((0.0, 5e-324, 1e15))
    for name in ("none", "lgr", "lr"):
        path = write_run(tmp_path / name, Made(name)) / "metrics.json"
        metrics, value = json.loads(path.read_text()), next(seconds)
        for seed in metrics["runs"]:
            seed["train_seconds"] = value
            seed["memory_bytes"] = {"own": 0 if name == "none" else 2**63 - 1}
            for cost in (seed["resources"]["total"], seed["resources"]["phases"]["solver"]):
                cost["wall_seconds"] = cost["cpu_seconds"] = value
        path.write_text(json.dumps(metrics))
    for figure in _figures(_section(tmp_path)).values():
        _drawn(figure)
        assert len(figure.alt) < 2000


# --- in words ----------------------------------------------------------------------------


def test_the_cheapest_that_is_as_good(tmp_path: Path) -> None:
    """Accuracies by hand: lgr+d is best, lr within its spread and five times as quick, lgr not."""
    levels = {"none": (0.5, 0.5, 0.5), "lgr": (0.7, 0.71, 0.7)}
    levels |= {"lgr+d": (0.90, 0.92, 0.88), "lr": (0.88, 0.93, 0.86)}
    for name, accuracies in levels.items():
        path = write_run(tmp_path / name, Made(name)) / "metrics.json"
        metrics = json.loads(path.read_text())
        for seed, accuracy in zip(metrics["runs"], accuracies, strict=True):
            seed["average_accuracy"] = accuracy
            seed["train_seconds"] = {"none": 2.0, "lr": 3.0}.get(name, 15.0)
        path.write_text(json.dumps(metrics))
    said = _said(_section(tmp_path))
    assert "**lgr+d** is the highest of those that compete, 90.00 %. It takes 7.5 times the" in said
    assert "includes 0): lr. Of these **lr** is the quickest, 3.00 s of training against" in said
    assert "keeps 1.64 MB against 16.4 MB" in said


def test_different_machines_are_warned_of(tmp_path: Path) -> None:
    write_study(tmp_path, "none", "lgr")
    write_run(tmp_path / "lr", Made("lr", about={"processor": "Another | one"}))
    made = _section(tmp_path)
    (warning,) = [b for b in made.blocks if isinstance(b, Paragraph) and b.kind == "warning"]
    assert "not comparable" in warning.text
    assert r"Another \| one" in warning.text
    write_study(tmp_path / "same", "none", "lgr", about={"processor": None})
    study = _study(tmp_path / "same")
    assert len(hosts(study.runs)) == 1
    assert not any("machines" in p for p in _said(_section(tmp_path / "same")).split("\n"))


# --- the front ---------------------------------------------------------------------------


def _dot(label: str, cost: float, accuracy: float, *, rival: bool = True) -> Dot:
    return Dot(label, label, look(label), cost, None, accuracy, None, rival)


def test_front_by_hand() -> None:
    dots = [
        _dot("dear", 9.0, 80.0), _dot("worse", 5.0, 69.9), _dot("free", 0.0, 60.0),
        _dot("good", 4.0, 70.0), _dot("twin", 4.0, 70.0), _dot("all", 1.0, 99.0, rival=False),
        _dot("no better", 8.0, 70.0),
    ]  # fmt: skip
    assert [dot.label for dot in pareto.front(dots)] == ["free", "good", "twin", "dear"]


# --- extract once ------------------------------------------------------------------------


def test_extract_once_by_hand(tmp_path: Path) -> None:
    """960 images in 24 s are 25 ms each; 4 tasks of 500 iterations of 32, 288 test rows."""
    write_study(tmp_path, "lgr", "nr", "dgr")
    study = _study(tmp_path)
    passes = {run.label: passes_in_loop(run) for run in study.runs}
    assert passes == {"lgr": 64_288, "nr": 64_288 + 48_000, "dgr": 64_288 + 96_000}
    found = once(study)
    assert found is not None
    (lgr,) = [saved for saved in found.strategies if saved.run.label == "lgr"]
    seconds = statistics.fmean(s.resources.total.wall_seconds for s in lgr.run.runs)  # type: ignore[union-attr, misc]
    assert math.isclose(lgr.seconds, seconds)
    assert math.isclose(lgr.seconds_in_loop, seconds + 64_288 * 0.025)
    assert math.isclose(lgr.break_even, 960 / 64_288)
    # There both sides cost the same, faces found once on each.
    cached = found.in_all(lgr.break_even, lgr.seconds, in_loop=False)
    assert math.isclose(cached, found.in_all(lgr.break_even, lgr.seconds_in_loop, in_loop=True))
    assert math.isclose(found.in_all(2, 10.0, in_loop=False), 30 + 24 + 20)
    figure = _figures(_section(tmp_path))["extract-once"]
    assert figure.caption.startswith("**Estimated.**")
    assert "The 9 runs of this study" in figure.caption
    assert "0.015 runs" in figure.caption


def test_as_the_released_runs_of_ckplus(tmp_path: Path) -> None:
    """Published: 256 k images pass the root with lr and lgr, 448 k with nr, 640 k with dgr."""
    same = {"iters": 2000, "task_test_rows": None}
    write_study(tmp_path, "lr", "nr", "dgr", changes=same)
    passes = {run.label: passes_in_loop(run) for run in _study(tmp_path).runs}
    assert passes == {"lr": 256_000, "nr": 448_000, "dgr": 640_000}


def test_passes_that_a_run_makes_itself_are_not_saved(tmp_path: Path) -> None:
    path = write_run(tmp_path / "dgr", Made("dgr")) / "metrics.json"
    metrics = json.loads(path.read_text())
    for seed in metrics["runs"]:
        seed["macs_per_iteration"]["root"] = 32 * metrics["root_macs"]
    path.write_text(json.dumps(metrics))
    found = once(_study(tmp_path))
    assert found is not None
    assert found.strategies[0].passes == 64_288 + 96_000 - 48_000


@pytest.mark.parametrize(
    "about",
    [
        {"stage_one": None},
        {"stage_one": {"extract_seconds": None, "rows": 960}},
        {"stage_one": {"extract_seconds": 24.0, "rows": 0}},
        {"train": {"early_stopping": 5}},
    ],
)
def test_not_estimated_where_it_is_not_known(tmp_path: Path, about: dict[str, Any]) -> None:
    write_study(tmp_path, "lgr", about=about)
    assert once(_study(tmp_path)) is None
    assert "Extract once, train k times: not estimated" in _said(_section(tmp_path))


# --- over time ---------------------------------------------------------------------------


def _sample(seconds: float, cpu: float | None, **more: Any) -> Sample:
    return Sample(seed=0, seconds=seconds, phase="solver", cpu_seconds=cpu, **more)


def test_processor_use_by_hand() -> None:
    samples = [_sample(0, 0), _sample(2, 3), _sample(4, 3), _sample(4, 3.5), _sample(5, None)]
    assert over_time.processor(samples) == [None, 150, 0, None, None]
    assert over_time.processor([]) == []


def test_gpu_where_there_is_one(tmp_path: Path) -> None:
    path = write_run(tmp_path / "lgr", Made("lgr")) / "resources.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line[:-1] + "40,1000000" for line in lines[1:])]))
    axes = _drawn(_figures(_section(tmp_path))["over-time"]).axes
    titles = {a.get_title(loc="left") for a in axes} - {""}
    assert titles == {"RSS (MB)", "CPU (% of a core)", "GPU use (%)", "GPU memory (MB)"}


def test_series_of_the_first_seed_wherever_it_lies(tmp_path: Path) -> None:
    write_run(tmp_path / "a", Made("lgr", seeds=(1,)))
    write_run(tmp_path / "b", Made("lgr", seeds=(0,)))
    samples = series_of(_study(tmp_path).runs[0])
    assert samples is not None
    assert {sample.seed for sample in samples} == {0}
    (tmp_path / "b" / "resources.csv").unlink()
    assert series_of(_study(tmp_path).runs[0]) is None


HEAD = "seed,seconds,phase,rss_bytes,cpu_seconds\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its first line"),
        ("a,b\n1,2\n", "its first line"),
        (HEAD + "0,nan,solver,1,1\n", "line 2, seconds"),
        (HEAD + "0,1,<b>,1,1\n", "line 2, phase"),
        (HEAD + "0,1,solver,-1,1\n", "line 2, rss_bytes"),
        (HEAD + "0,1,solver,1,1\n0,1,solver,1e40,1\n", "line 3, rss_bytes"),
        (HEAD + "0,2,solver,1,1\n0,1,solver,1,1\n", "seconds go back"),
        (HEAD + "0,1,solver,1,9\n0,2,solver,1,1\n", "CPU seconds go back"),
        (HEAD + "0,1,solver,1,1\n" * 1001, "more than 1000 lines"),
        (HEAD + "0,1," + "x" * 600 + ",1,1\n", "more than 500 characters"),
        (HEAD + '0,1,"solver\n', "unexpected end"),
        ("\0", "not what lgr-pipe train writes"),
    ],
)
def test_strange_series_are_refused_and_told(tmp_path: Path, text: str, said: str) -> None:
    write_study(tmp_path, "none", "lgr")
    path = tmp_path / "lgr" / "resources.csv"
    path.write_text(text)
    with pytest.raises(Refused, match="not what lgr-pipe train writes") as refused:
        read_series(path)
    assert said in str(refused.value)
    made = _section(tmp_path)  # and the rest is shown
    assert "lgr: " in _said(made)
    assert "Not recorded: lgr" in _figures(made)["over-time"].caption


def test_empty_cells_were_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "resources.csv"
    path.write_text(HEAD + "0,1,solver,,\n0,1.5,load,5,0.25\n")
    first, second = read_series(path)
    assert (first.rss_bytes, first.cpu_seconds) == (None, None)
    assert (second.rss_bytes, second.cpu_seconds) == (5, 0.25)


def test_examples_in_docstrings() -> None:
    for module in (stages.report.figures.scale, stages.report.sections.cost_parts):
        result = doctest.testmod(module)
        assert result.attempted
        assert not result.failed
