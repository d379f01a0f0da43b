"""The paper's numbers: as printed, beside ours, with what is known of them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

import stages.report.reading.published as module
from stages.report.page.document import Facts, Fold, Paragraph, Section, Table
from stages.report.reading.find import find_studies
from stages.report.reading.published import STRATEGIES, published
from stages.report.reading.runs import Study
from stages.report.sections.published import section
from tests.made_runs import FACES, Made, write_run

SEVEN = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
EIGHT = ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
MIB = 1_048_576


def study(
    folder: Path,
    dataset: str,
    backbone: str,
    *strategies: str,
    classes: tuple[str, ...] = EIGHT,
    tasks: int = 4,
    scenario: str = "task",
    **changes: object,
) -> Study:
    same = {"dataset": dataset, "backbone": backbone, "weights": "ImageNet (IMAGENET1K_V1)"}
    for name in strategies:
        made = Made(
            name, classes=classes, tasks=tasks, scenario=scenario, changes={**same, **changes}
        )
        write_run(folder / name, made)
    (found,) = find_studies([folder])
    return found


def made(found: Study) -> Section:
    out = section(found, "")
    assert out is not None
    return out


def words(out: Section) -> str:
    told = [block.text for block in out.blocks if isinstance(block, Paragraph)]
    facts = [pair for block in out.blocks if isinstance(block, Facts) for pair in block.pairs]
    return "\n".join([*told, *(f"{topic}: {text}" for topic, text in facts)])


def accuracies(out: Section) -> dict[str, tuple[str, ...]]:
    (table,) = (block for block in out.blocks if isinstance(block, Table))
    return {row[0]: row[1:] for row in table.rows}


# --- the file ----------------------------------------------------------------------------

# Typed from the paper's tables: accuracy %, training s, RAM MiB, CPU s, GPU use %, GPU MiB.
PRINTED = [
    ("ckplus", "vgg16", "lgr", "II", (92.03, 827.80, 2807.11, 924.10, 19.07, 2354.00)),
    ("rafdb", "vgg16", "lgr+d", "III", (86.91, 1182.37, 2845.07, 1197.15, 36.01, 4314.00)),
    ("affectnet", "vgg16", "dgr+d", "IV", (69.41, 6124.80, 2894.28, 6274.24, 20.37, 8204.00)),
    ("affectnet", "resnet18", "nr", "V", (61.36, 5068.93, 3254.08, 5218.62, 3.00, 4990.67)),
    ("ckplus", "alexnet", "nr", "S-I", (98.19, 661.17, 2802.47, 758.71, 3.91, 3916.00)),
    ("ckplus", "mobilenet_v2", "lr", "S-II", (82.37, 678.17, 2760.72, 775.46, 5.73, 1329.33)),
    ("rafdb", "resnet18", "dgr", "S-VI", (80.10, 1225.70, 2798.86, 1228.59, 41.95, 5248.00)),
    ("mnist", "lenet", "lgr", "S-XI", (99.13, 61.36, 2315.89, 90.55, 10.52, 955.00)),
    ("cifar10", "lenet", "lgr+d", "S-XII", (72.71, 104.30, 3481.04, 159.38, 11.88, 993.00)),
]
MEASURES = (
    ("average_accuracy", 100), ("train_seconds", 1), ("rss_peak_bytes", 1 / MIB),
    ("cpu_seconds", 1), ("gpu_utilisation_percent", 1), ("gpu_memory_peak_bytes", 1 / MIB),
)  # fmt: skip


@pytest.mark.parametrize(("dataset", "backbone", "strategy", "table", "printed"), PRINTED)
def test_the_figures_are_the_printed_ones(
    dataset: str, backbone: str, strategy: str, table: str, printed: tuple[float, ...]
) -> None:
    tasks = 4 if dataset in ("ckplus", "rafdb", "affectnet") else 5
    entry = module._all()[dataset, backbone, "task", tasks]
    found = [scale * entry.values[strategy, name].mean for name, scale in MEASURES]
    assert found == pytest.approx(printed, abs=1e-5)
    assert entry.table == table
    assert (entry.values[strategy, "average_accuracy"].sd is None) is (dataset == "cifar10")


def test_every_table_is_complete() -> None:
    rows = list(csv.DictReader(Path(module.__file__).with_name("published.csv").open()))
    tables = Counter((r["dataset"], r["backbone"], r["scenario"], r["tasks"]) for r in rows)
    assert len(tables) == 16
    assert set(tables.values()) == {36}  # six strategies, six measures
    assert {row["strategy"] for row in rows} == set(STRATEGIES)
    assert {row["metric"] for row in rows} == {name for name, _ in MEASURES}
    for row in rows:
        assert float(row["value"]) > 0
        assert row["n"] == "3"
        if row["metric"] == "average_accuracy":
            assert float(row["value"]) <= 1
            assert row["sd"] == "" or 0 <= float(row["sd"]) < 0.1


# --- beside ours -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "backbone", "tasks", "scenario"),
    [
        ("drawn", "vgg16", 4, "task"),
        ("ckplus", "resnet50", 4, "task"),
        ("ckplus", "vgg16", 2, "task"),
        ("rafdb", "vgg16", 4, "class"),
    ],
)
def test_nothing_is_said_where_nothing_corresponds(
    tmp_path: Path, dataset: str, backbone: str, tasks: int, scenario: str
) -> None:
    found = study(tmp_path, dataset, backbone, "none", tasks=tasks, scenario=scenario)
    assert published(found.first) is None
    assert section(found, "") is None


def test_ours_theirs_and_the_difference(tmp_path: Path) -> None:
    found = study(tmp_path, "rafdb", "vgg16", "none", "lgr", classes=SEVEN)
    out = made(found)
    rows = accuracies(out)
    ours = sum(seed.average_accuracy for seed in found.runs[1].runs) / 3
    assert rows["lgr"][1] == "83.33 ± 0.23"
    assert rows["lgr"][2] == f"{100 * ours - 83.33:+.2f}"
    assert rows["none"][1:] == ("–", "")
    assert rows["nr"] == ("not run", "79.52 ± 2.30", "")
    assert rows["majority floor"][1] == "80.10"
    assert list(rows) == [
        "majority floor", "none", "nr", "lr", "dgr", "lgr", "dgr+d", "lgr+d", "joint",
    ]  # fmt: skip
    assert "Table III" in words(out)


def test_costs_in_one_unit(tmp_path: Path) -> None:
    out = made(study(tmp_path, "ckplus", "vgg16", "lgr"))
    (fold,) = (block for block in out.blocks if isinstance(block, Fold))
    said, table = fold.blocks
    assert isinstance(said, Paragraph)
    assert isinstance(table, Table)
    assert "other machines" in said.text
    assert "245 times" in said.text
    shown = {row[1]: row[2:] for row in table.rows}
    assert shown["peak RAM MB"] == ("650 ± 0", "2943", "-2293")  # 2807.11 MiB
    assert shown["GPU memory MB"] == ("–", "2468", "")  # not measured here
    assert {row[0] for row in table.rows} == {"lgr"}
    exact = {row[1]: row for row in table.data.rows}
    assert exact["rss_peak_bytes"][5] == round(2807.11 * MIB)


# --- caveats -----------------------------------------------------------------------------

# data set, root, classes, strategies, in it, not in it
KNOWN = [
    ("rafdb", "vgg16", SEVEN, ("lr",), ("80.10 %", "NR 79.52, LR 79.69", "73.46",
     "first task's head", "single class"), ("dropout", "CK+'s test images", "84.73")),
    ("rafdb", "resnet18", SEVEN, ("lgr",), ("DGR 80.10, LGR 80.10, DGR+d 80.10",
     "statistics of each batch"), ("first task's head", "73.46")),
    ("ckplus", "alexnet", EIGHT, ("lgr",), ("dropout (0.5)", "none 84.73 %", "test images"),
     ("first task's head", "constant answer gets", "single class")),
    ("ckplus", "vgg16", EIGHT, ("lgr+d",), ("70.97 %",), ("dropout", "statistics of each")),
    ("affectnet", "mobilenet_v2", EIGHT, ("dgr",), ("exactly 50.0 %", "none 64.72"), ("CK+",)),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "backbone", "classes", "run", "there", "absent"), KNOWN)
def test_only_what_concerns_these_runs_is_told(
    tmp_path: Path,
    dataset: str,
    backbone: str,
    classes: tuple[str, ...],
    run: tuple[str, ...],
    there: tuple[str, ...],
    absent: tuple[str, ...],
) -> None:
    text = words(made(study(tmp_path, dataset, backbone, *run, classes=classes)))
    assert [part for part in there if part not in text] == []
    assert [part for part in absent if part in text] == []


def test_the_released_buffer_has_the_fault_too(tmp_path: Path) -> None:
    text = words(made(study(tmp_path, "ckplus", "vgg16", "lr", protocol="released")))
    assert "ours repeat that" in text


def test_settings_that_differ_are_told(tmp_path: Path) -> None:
    own = {"classes": FACES, "precision": "tf32"}
    text = words(made(study(tmp_path, "ckplus", "vgg16", "none", "lgr", **own)))
    assert "iterations a task 500, published 2,000" in text
    assert "tf32 products, published fp32" in text
    assert "test rows 288, published 264" in text
    assert "tasks anger, happiness; sadness, surprise" in text
    assert "batch" not in text.split("settings differ")[1].split("\n")[0]
    assert "Levels are not comparable" not in text


def test_equal_settings_are_no_warning(tmp_path: Path) -> None:
    found = study(
        tmp_path, "ckplus", "vgg16", "none", iters=2000,
        task_train_rows=[300, 300, 300, 143], task_test_rows=[93, 47, 57, 67],
    )  # fmt: skip
    assert "settings differ" not in words(made(found))


def test_a_random_root_reaches_other_levels(tmp_path: Path) -> None:
    text = words(made(study(tmp_path, "ckplus", "vgg16", "lgr", weights="random (seed 0)")))
    assert "**Levels are not comparable**" in text
    assert "weights random (seed 0), published ImageNet" in text


def test_options_are_compared(tmp_path: Path) -> None:
    changes = {"dataset": "ckplus", "backbone": "vgg16", "weights": "ImageNet"}
    write_run(
        tmp_path / "lr",
        Made("lr", classes=EIGHT, options={"buffer_size": 100}, changes=changes),
    )
    (found,) = find_studies([tmp_path])
    assert "lr: buffer size 100, published 1000" in words(made(found))
