"""The tables: what they show, what they do not mix, what they refuse to read."""

from __future__ import annotations

import csv
import doctest
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stages.report.numbers.columns
from cache.errors import Refused
from stages.report.reading.find import find_studies
from stages.report.reading.runs import Study
from stages.report.terminal.flat import curves_csv, table_csv
from stages.report.terminal.remarks import short_heading
from stages.report.terminal.table import markdown
from tests.command import Run

Changes = dict[str, Any]


def seed_run(strategy: str, seed: int, accuracy: float) -> dict[str, Any]:
    """As `train` writes it on a machine without a GPU; two tasks."""
    joint = strategy == "joint"
    return {
        "seed": seed,
        "accuracy_matrix": [[None, None] if joint else [0.9, 0.5], [0.8, 0.9]],
        "average_accuracy": accuracy,
        "average_incremental_accuracy": None if joint else 0.875,
        "forgetting": None if joint else 0.1,
        "bwt": None if joint else -0.1,
        "fwt": None,
        "macro_f1": 0.75,
        "also": {"scenario": "class", "average_accuracy": 0.4 + 0.2 * seed, "forgetting": None},
        "majority_floor": 0.5,
        "train_seconds": 2.0,
        "memory_bytes": {"generator": 1_000_000, "snapshots": 500_000},
        "macs_per_iteration": {"top": 2_000_000, "generator": 1_000_000, "root": 500_000},
        "resources": {
            "period_seconds": 0.1,
            "total": {
                "cpu_seconds": 3.0 + seed,
                "rss_peak_bytes": 700_000_000,
                "rss_growth_bytes": 2_500_000,
                "gpu_utilisation_percent": None,
                "gpu_memory_peak_bytes": None,
            },
        },
    }


def write(folder: Path, strategy: str, accuracies: list[float], **changes: Any) -> Path:
    """A metrics.json, of seeds 0, 1 and so on; `changes` are of its top level."""
    metrics = {
        "strategy": strategy,
        "dataset": "drawn",
        "backbone": "vgg16",
        "weights": "random (seed 0, calibrated)",
        "scenario": "task",
        "protocol": "corrected",
        "evaluated_on": "test",
        "validation": 0.0,
        "tasks": 2,
        "class_order": ["a", "b", "c"],
        "task_classes": [["a", "b"], ["c"]],
        "single_class_tasks": [1],
        "cache_fingerprint": "f",
        "cache_content": "c",
        "iters": 10,
        "batch_size": 4,
        "lr": 1e-4,
        "runs": [seed_run(strategy, seed, a) for seed, a in enumerate(accuracies)],
    }
    path = folder / strategy / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**metrics, **changes}))
    return path


def change(path: Path, edit: Callable[[Changes], None]) -> None:
    metrics = json.loads(path.read_text())
    edit(metrics)
    path.write_text(json.dumps(metrics))


def one(folder: Path) -> Study:
    (study,) = find_studies([folder])
    return study


def table(text: str, title: str) -> list[list[str]]:
    """The first table below a title, as cells."""
    lines = text[text.index(f"*{title}*") :].splitlines()[2:]
    rows = [line for line in lines[: lines.index("")] if not line.startswith("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]


def cells(text: str, title: str, strategy: str) -> list[str]:
    (row,) = (row for row in table(text, title) if row[0].split(" †")[0] == strategy)
    return row


def results(text: str, strategy: str) -> list[str]:
    return cells(text, "Results", strategy)


def costs(text: str, strategy: str) -> list[str]:
    return cells(text, "Cost per seed", strategy)


def test_results(tmp_path: Path) -> None:
    write(tmp_path, "none", [0.8, 0.9])
    write(tmp_path, "lr", [0.7])
    write(tmp_path, "joint", [0.95, 0.97])
    text = markdown([one(tmp_path)])
    assert table(text, "Results")[0] == [
        "strategy", "n", "accuracy % ▲", "class-incremental % ▲", "avg. incr. % ▲",
        "forgetting % ▼", "BWT % ▲", "FWT % ▲", "macro-F1 % ▲",
    ]  # fmt: skip
    assert results(text, "none") == [
        "none", "2", "**85.00 ± 7.07**", "50.00 ± 14.14", "87.50 ± 0.00", "10.00 ± 0.00",
        "-10.00 ± 0.00", "–", "75.00 ± 0.00",
    ]  # fmt: skip
    assert results(text, "lr")[:4] == ["lr", "1", "[70.00]", "40.00"]
    assert results(text, "joint")[2:7] == ["96.00 ± 1.41", "50.00 ± 14.14", "–", "–", "–"]
    assert results(text, "majority floor") == ["majority floor", "", "50.00", *[""] * 6]
    order = [row[0].split(" †")[0] for row in table(text, "Results")]
    assert order == ["strategy", "majority floor", "none", "lr", "joint"]
    assert "root is random" in text
    assert "task 2 (c) has a single class**: it is always answered right" in text


def test_order_is_none_replay_cumulative_joint(tmp_path: Path) -> None:
    for name in ("joint", "nr", "cumulative", "dgr+d", "none"):
        write(tmp_path, name, [0.8])
    assert [run.strategy for run in one(tmp_path).runs] == [
        "none", "dgr+d", "nr", "cumulative", "joint",
    ]  # fmt: skip


def test_costs_on_a_machine_without_a_gpu(tmp_path: Path) -> None:
    write(tmp_path, "none", [0.8, 0.9])
    text = markdown([one(tmp_path)])
    assert dict(zip(*table(text, "Cost per seed"), strict=True)) == {
        "strategy": "none",
        "n": "2",
        "training s ▼": "2.0 ± 0.0",
        "CPU s ▼": "3.5 ± 0.7",
        "peak RSS MB ▼": "700 ± 0",
        "RSS growth MB ▼": "2.5 ± 0.0",
        "GPU use %": "",
        "GPU memory MB ▼": "",
        "kept memory MB ▼": "1.5",
        "MMAC / iteration ▼": "3.5",
    }
    assert "each 0.1 s" in text


def test_costs_with_a_gpu(tmp_path: Path) -> None:
    path = write(tmp_path, "none", [0.8])

    def measured(metrics: Changes) -> None:
        total = metrics["runs"][0]["resources"]["total"]
        total |= {"gpu_utilisation_percent": 41.5, "gpu_memory_peak_bytes": 3_000_000_000}

    change(path, measured)
    assert costs(markdown([one(tmp_path)]), "none")[6:8] == ["42", "3000"]


def test_a_dash_is_for_accuracies_that_are_undefined_only(tmp_path: Path) -> None:
    path = write(tmp_path, "none", [0.8])
    change(path, lambda metrics: metrics["runs"][0].update(macs_per_iteration={}))
    text = markdown([one(tmp_path)])
    assert results(text, "none")[7] == "–"
    assert costs(text, "none")[-1] == ""


def test_files_of_older_runs_have_empty_cells(tmp_path: Path) -> None:
    path = write(tmp_path, "none", [0.8])
    newer = ("average_incremental_accuracy", "macro_f1", "also", "macs_per_iteration", "resources")

    def strip(metrics: Changes) -> None:
        for name in ("protocol", "evaluated_on", "validation", "task_classes"):
            del metrics[name]
        for name in newer:
            del metrics["runs"][0][name]

    change(path, strip)
    text = markdown([one(tmp_path)])
    assert results(text, "none")[3:] == ["", "", "10.00", "-10.00", "–", ""]
    assert costs(text, "none")[2:] == ["2.0", "", "", "", "", "", "1.5", ""]
    assert "sampled" not in text
    assert "task 2 has a single class" in text


def test_no_minus_zero(tmp_path: Path) -> None:
    path = write(tmp_path, "none", [0.8])
    path.write_text(path.read_text().replace('"bwt": -0.1', '"bwt": -1e-9'))
    assert results(markdown([one(tmp_path)]), "none")[6] == "0.00"


def test_none_and_joint_are_always_there(tmp_path: Path) -> None:
    write(tmp_path, "lgr", [0.7], weights="ImageNet (IMAGENET1K_V1)", single_class_tasks=[])
    text = markdown([one(tmp_path)])
    assert results(text, "none")[2] == results(text, "joint")[2] == "not run"
    assert [row[0] for row in table(text, "Cost per seed")] == ["strategy", "lgr"]
    for word in ("random", "single class", "†", "Difference from none"):
        assert word not in text


def test_what_is_not_better_than_none_is_marked(tmp_path: Path) -> None:
    """lr: differences .01, .03, -.01: mean .01, sd .02, half 4.3027 * .02 / sqrt(3) = .0497.
    sure: .1 each; joint: .1, .1, .13: mean .11, sd .01732, half .04303.  worse: -.1 each."""
    none = [0.5, 0.6, 0.7]
    write(tmp_path, "none", none)
    write(tmp_path, "lr", [0.51, 0.63, 0.69])
    write(tmp_path, "sure", [a + 0.1 for a in none])
    write(tmp_path, "worse", [a - 0.1 for a in none])
    write(tmp_path, "joint", [0.6, 0.7, 0.83])
    text = markdown([one(tmp_path)])
    marked = [row[0] for row in table(text, "Results") if "†" in row[0]]
    assert marked == ["lr †", "worse †"]
    assert (
        "over 3 seeds, with its 95 % interval: lr +1.00 [-3.97, +5.97] †, "
        "sure +10.00 [+10.00, +10.00], worse -10.00 [-10.00, -10.00] †, joint +11.00 [+6.70, "
        "+15.30]." in text
    )


def test_pairs_are_of_one_seed(tmp_path: Path) -> None:
    """lr has other seeds in another order: only 2 and 1 are in both."""
    write(tmp_path, "none", [0.5, 0.6, 0.7])
    path = write(tmp_path, "lr", [0.8, 0.7, 0.1])

    def renumber(metrics: Changes) -> None:
        for run, seed in zip(metrics["runs"], (2, 1, 9), strict=True):
            run["seed"] = seed

    change(path, renumber)
    study = one(tmp_path)
    assert "over 2 seeds, with its 95 % interval: lr +10.00 [+10.00, +10.00]." in markdown([study])
    (row,) = (r for r in _read(table_csv([study])) if r["strategy"] == "lr")
    assert row["over_none_n"] == "2"
    assert float(row["over_none_mean"]) == pytest.approx(0.1)


def test_one_seed_shows_nothing(tmp_path: Path) -> None:
    write(tmp_path, "none", [0.5])
    write(tmp_path, "lr", [0.9])
    text = markdown([one(tmp_path)])
    assert "Not compared with none, which takes two seeds of both: lr." in text
    assert "†" not in text
    (row,) = (r for r in _read(table_csv([one(tmp_path)])) if r["strategy"] == "lr")
    assert (row["over_none_mean"], row["over_none_n"]) == ("", "1")


def test_joint_and_cumulative_do_not_compete(tmp_path: Path) -> None:
    write(tmp_path, "none", [0.5])
    write(tmp_path, "cumulative", [0.9])
    write(tmp_path, "joint", [0.9])
    text = markdown([one(tmp_path)])
    found = [results(text, name)[2] for name in ("none", "cumulative", "joint")]
    assert found == ["**50.00**", "90.00", "90.00"]
    assert "joint and cumulative see all tasks again" in text


@pytest.mark.parametrize(
    ("scenario", "column", "warning"),
    [
        ("task", "class-incremental % ▲", "it is always answered right"),
        ("class", "task-incremental % ▲", "always right task-incrementally"),
        ("domain", "avg. incr. % ▲", "there is nothing to choose in it"),
    ],
)
def test_scenarios(tmp_path: Path, scenario: str, column: str, warning: str) -> None:
    """Domain-incrementally the logits answer nothing else: there is no second column."""
    write(tmp_path, "none", [0.5], scenario=scenario)
    text = markdown([one(tmp_path)])
    assert table(text, "Results")[0][3] == column
    assert f"{scenario}-incremental, 3 classes in 2 tasks" in text
    assert f"task 2 (c) has a single class**: {'it is ' * (scenario == 'class')}" in text
    assert warning in text


def test_several_single_class_tasks(tmp_path: Path) -> None:
    alone = {"task_classes": [["a"], ["b"], ["c"]], "tasks": 3, "class_order": ["a", "b", "c"]}
    for name, tasks in (("some", [0, 2]), ("all", [0, 1, 2])):
        path = write(tmp_path / name, "none", [0.5], **alone, single_class_tasks=tasks)
        square = [[0.5] * 3] * 3
        change(path, lambda m, r=square: m["runs"][0].update(accuracy_matrix=r))  # type: ignore[misc]
    some, every = (markdown([one(tmp_path / name)]) for name in ("some", "all"))
    assert "tasks 1 (a), 3 (c) have a single class**: they are always answered right" in some
    assert "all tasks have a single class**" in every


def test_the_heading_says_what_was_unusual(tmp_path: Path) -> None:
    write(tmp_path / "a", "none", [0.5])
    write(tmp_path / "b", "none", [0.5], evaluated_on="validation", validation=0.25)
    write(tmp_path / "c", "none", [0.5], validation=0.25)
    write(tmp_path / "d", "none", [0.5], protocol="released")
    write(tmp_path / "e", "none", [0.5], precision="bf16")
    heads = [markdown([one(tmp_path / name)]).splitlines()[0] for name in "abcde"]
    assert heads[0] == (
        "**drawn, vgg16, weights: random (seed 0, calibrated)** · task-incremental, 3 classes in 2 "
        "tasks · 10 iterations a task, batch 4, learning rate 0.0001"
    )
    assert heads[1] == f"{heads[0]} · **accuracies of validation rows** (25 % of the training rows)"
    assert heads[2] == f"{heads[0]} · 25 % of the training rows put aside for choosing"
    assert heads[3] == f"{heads[0]} · **released protocol**"
    assert heads[4] == f"{heads[0]} · **bf16 products**"
    assert short_heading(one(tmp_path / "e").first).endswith("2 tasks, bf16 products")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dataset", "rafdb"),
        ("backbone", "resnet18"),
        ("weights", "ImageNet"),
        ("scenario", "class"),
        ("protocol", "released"),
        ("evaluated_on", "validation"),
        ("validation", 0.1),
        ("iters", 20),
        ("batch_size", 8),
        ("lr", 0.1),
        ("precision", "bf16"),
        ("class_order", ["b", "a", "c"]),
        ("task_classes", [["a"], ["b", "c"]]),
        ("cache_fingerprint", "g"),
        ("cache_content", "d"),
    ],
)
def test_studies_are_never_in_one_table(tmp_path: Path, field: str, value: object) -> None:
    """Each gets its own, and what differs is said: in the heading, or below it."""
    write(tmp_path / "1", "none", [0.8])
    write(tmp_path / "1", "lr", [0.7])
    write(tmp_path / "2", "lr", [0.6], **{field: value})
    studies = find_studies([tmp_path])
    assert [[run.strategy for run in study.runs] for study in studies] == [["none", "lr"], ["lr"]]
    text = markdown(studies)
    assert text.startswith("2 studies")
    first, second = text.split("*Results*")[1:]
    assert "70.00" in first
    assert "60.00" not in first
    assert "60.00" in second
    above = [_above_results(part) for part in text.split("*Results*")[:2]]
    assert above[0] != above[1]
    hidden = {
        "class_order": "class order `b,a,c`",
        "task_classes": "task classes `a;b,c`",
        "cache_fingerprint": "cache fingerprint `g`",
        "cache_content": "cache content `d`",
    }
    if field in hidden:
        assert f"are not comparable with these**, of {hidden[field]}." in above[1]
    else:
        assert "not comparable with these" not in text
    rows = _read(table_csv(studies))
    assert [(row["study"], row["strategy"]) for row in rows if row["n"] == "1"] == [
        ("1", "none"), ("1", "lr"), ("2", "lr"),
    ]  # fmt: skip
    assert len({row["study"] for row in _read(curves_csv(studies))}) == 2


def _above_results(text: str) -> str:
    """From the last heading on."""
    lines = text.splitlines()
    last = max(k for k, line in enumerate(lines) if ", weights: " in line)
    return "\n".join(lines[last:]).strip()


def test_two_runs_of_one_strategy_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "first", "none", [0.8])
    write(tmp_path / "second", "none", [0.9])
    with pytest.raises(Refused, match="both runs of none"):
        find_studies([tmp_path])
    assert len(find_studies([tmp_path / "first", tmp_path / "first" / "none"])) == 1  # no second


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no finished runs"):
        find_studies([tmp_path])
    with pytest.raises(Refused, match="no folder"):
        find_studies([tmp_path / "nowhere"])


def _seed(**changes: Any) -> Callable[[Changes], None]:
    return lambda metrics: metrics["runs"][0].update(changes)


def _total(**changes: Any) -> Callable[[Changes], None]:
    return lambda metrics: metrics["runs"][0]["resources"]["total"].update(changes)


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.clear(),
        lambda m: m.update(runs=[]),
        lambda m: m.update(strategy="a | b"),
        lambda m: m.update(scenario="other"),
        lambda m: m.update(evaluated_on="train"),
        lambda m: m.update(lr=float("inf")),
        lambda m: m.update(single_class_tasks=[2]),
        lambda m: m.update(single_class_tasks=[-1]),
        lambda m: m.update(task_classes=[["a"]]),
        lambda m: m.update(dataset="x" * 1000),
        lambda m: m.update(runs=m["runs"] * 2),
        _seed(average_accuracy=1.5),
        _seed(average_accuracy=float("nan")),
        _seed(forgetting=-2),
        _seed(accuracy_matrix=[[0.5]]),
        _seed(accuracy_matrix=[[0.5, 0.5], [0.5]]),
        _seed(memory_bytes={"buffer": -1}),
        _seed(memory_bytes={"a,b\n": 1}),
        _seed(memory_bytes={f"k{chr(97 + k)}": 1 for k in range(20)}),
        _seed(macs_per_iteration={"top": 1 << 80}),
        _seed(train_seconds=float("inf")),
        _total(gpu_utilisation_percent=101),
        _total(cpu_seconds=float("nan")),
    ],
)
def test_strange_files_are_refused(tmp_path: Path, edit: Callable[[Changes], None]) -> None:
    path = write(tmp_path, "none", [0.8])
    find_studies([tmp_path])
    change(path, edit)
    with pytest.raises(Refused, match=r"metrics.json is not what lgr-pipe train writes \("):
        find_studies([tmp_path])


@pytest.mark.parametrize(
    "content", [b"", b"[1", b"[]", b"[" * 100_000, b'"\xff"', b'{"a": ' + b"1" * 5000 + b"}"]
)
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(Refused, match="not what lgr-pipe train writes"):
        find_studies([tmp_path])


def test_a_huge_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "metrics.json").open("wb") as file:
        file.truncate(65_000_000)
    with pytest.raises(Refused, match="larger than"):
        find_studies([tmp_path])
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "metrics.json").mkdir()
    with pytest.raises(Refused, match="not what lgr-pipe train writes"):
        find_studies([tmp_path])


def test_nothing_reaches_the_terminal_that_it_would_act_upon(tmp_path: Path) -> None:
    write(tmp_path, "none", [0.8], dataset="a\x1b[31m\nb", task_classes=[["a"], ["\x9b2J"]])
    study = one(tmp_path)
    text = markdown([study]) + table_csv([study]) + curves_csv([study])
    assert "a\\x1b[31m\\nb" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def _read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_table_csv(tmp_path: Path) -> None:
    write(tmp_path, "none", [0.8, 0.9])
    rows = _read(table_csv([one(tmp_path)]))
    assert [row["strategy"] for row in rows] == ["majority floor", "none", "joint"]
    floor, none, joint = rows
    assert float(floor["average_accuracy_mean"]) == 0.5
    assert (none["n"], joint["n"]) == ("2", "0")
    expected = {
        "average_accuracy_mean": 0.85,
        "average_accuracy_sd": 0.1 / 2**0.5,
        "also_average_accuracy_mean": 0.5,
        "macro_f1_mean": 0.75,
        "train_seconds_mean": 2.0,
        "cpu_seconds_mean": 3.5,
        "rss_peak_bytes_mean": 7e8,
        "memory_bytes_mean": 1.5e6,
        "memory_bytes_generator_mean": 1e6,
        "memory_bytes_snapshots_mean": 5e5,
        "macs_per_iteration_mean": 3.5e6,
        "macs_per_iteration_root_mean": 5e5,
    }
    assert {name: float(none[name]) for name in expected} == pytest.approx(expected)
    for name in ("fwt_mean", "gpu_utilisation_percent_mean", "gpu_memory_peak_bytes_mean"):
        assert none[name] == ""
    assert all(row["also_scenario"] == "class" for row in rows)
    assert all(row["single_class_tasks"] == "2 (c)" for row in rows)
    assert all(row["task_classes"] == "a,b;c" for row in rows)


def test_curves_csv(tmp_path: Path) -> None:
    """1/i sum_{j<=i} R[i, j]; joint has learnt nothing before it has learnt all."""
    write(tmp_path, "none", [0.8, 0.9])
    write(tmp_path, "joint", [0.9])
    rows = _read(curves_csv([one(tmp_path)]))
    assert {row["study"] for row in rows} == {"drawn, vgg16, task-incremental, 2 tasks"}
    found = [(r["strategy"], r["seed"], r["learnt"], float(r["accuracy"])) for r in rows]
    assert found == [
        ("none", "0", "1", 0.9),
        ("none", "0", "2", pytest.approx(0.85)),
        ("none", "1", "1", 0.9),
        ("none", "1", "2", pytest.approx(0.85)),
        ("joint", "0", "2", pytest.approx(0.85)),
    ]


def test_the_command_reads_what_train_writes(here: Run, latents: Path, tmp_path: Path) -> None:
    """Two scenarios below one folder: two tables, and the files say the same."""
    small = ("--cache", latents, "--iters", 2, "--batch-size", 8, "--seeds", "0-1", "--tasks", 4)
    for scenario in ("task", "class"):
        out = tmp_path / "runs" / scenario
        words = ("--scenario", scenario, "--out", out, "--strategy", "none")
        assert here("train", *small, *words).returncode == 0
    done = here("report", tmp_path / "runs", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (tmp_path / "report" / "table.md").read_text().strip()
    assert done.stdout.count("*Results*") == 2
    assert "drawn, mobilenet_v2" in done.stdout
    rows = _read((tmp_path / "report" / "table.csv").read_text())
    ours = [row for row in rows if row["strategy"] == "none"]
    for row, scenario in zip(ours, ("class", "task"), strict=True):
        metrics = json.loads((tmp_path / "runs" / scenario / "metrics.json").read_text())
        assert row["scenario"] == scenario
        assert float(row["average_accuracy_mean"]) == metrics["average_accuracy_mean"]
    curves = _read((tmp_path / "report" / "curves.csv").read_text())
    by_train = _read((tmp_path / "runs" / "task" / "curve.csv").read_text())
    ours = [
        row for row in curves if row["study"] == "drawn, mobilenet_v2, task-incremental, 4 tasks"
    ]
    assert [
        {name: row[name] for name in ("seed", "learnt", "accuracy")} for row in ours
    ] == by_train


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(stages.report.numbers.columns)
    assert result.attempted
    assert not result.failed
