"""The table and the figures of a grid search, and what is best in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.report.figures.labels import label
from stages.report.sweep.figure import draw
from stages.report.sweep.points import Point, Result, Sweep, csv_text, front, markdown

Pairs = list[tuple[dict[str, Any], Result | None]]


def result(accuracies: list[float], memory: int, strategy: str = "lgr") -> Result:
    runs = [
        {
            "average_accuracy": accuracy,
            "majority_floor": 0.5,
            "train_seconds": 2.0 + k,
            "memory_bytes": {"generator": memory - 1, "snapshots": 1} if memory else {},
            "resources": {"total": {"rss_peak_bytes": 700_000_000 + k * 10**7}},
        }
        for k, accuracy in enumerate(accuracies)
    ]
    found = {
        "strategy": strategy, "dataset": "drawn", "backbone": "vgg16", "weights": "random (seed 0)",
        "evaluated_on": "validation", "task_test_rows": [30, 10], "runs": runs,
    }  # fmt: skip
    return Result.model_validate(found)


def sweep_of(pairs: Pairs, **fixed: Any) -> Sweep:
    points = (Point(options, one, "" if one else "Error: `x` | y") for options, one in pairs)
    return Sweep(tuple(points), {"strategy": "lgr", **fixed})


def names(pairs: list[tuple[Point, Result]]) -> list[Any]:
    return [point.options["n"] for point, _ in pairs]


def test_front_by_hand() -> None:
    """b costs more than a and is no better, c and d are equal, e costs more than they do and is
    worse, f has failed."""
    sizes = {"a": (10, 0.6), "b": (20, 0.6), "c": (20, 0.7), "d": (20, 0.7), "e": (30, 0.69)}
    pairs: Pairs = [({"n": name}, result([acc], size)) for name, (size, acc) in sizes.items()]
    found = sweep_of([*pairs, ({"n": "f"}, None), ({"n": "g"}, result([0.9], 40))])
    assert names(front(found.rivals)) == ["a", "c", "d", "g"]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_front_is_what_nothing_dominates(pairs: list[tuple[int, int]]) -> None:
    rivals = [(Point({"n": k}, None), result([a / 4], m)) for k, (m, a) in enumerate(pairs)]
    expected = [
        k
        for k, (m, a) in enumerate(pairs)
        if not any(n <= m and b >= a and (n, b) != (m, a) for n, b in pairs)
    ]
    assert sorted(names(front(rivals))) == expected


def test_joint_does_not_compete() -> None:
    joint = ({"strategy": "joint"}, result([0.99], 0, "joint"))
    found = sweep_of([joint, ({"strategy": "lr"}, result([0.8], 10, "lr"))])
    assert [point.options["strategy"] for point, _ in front(found.rivals)] == ["lr"]
    assert "**80.00**" in markdown(found)
    assert "do not compete" in markdown(found)
    assert "**99.00**" in markdown(sweep_of([joint]))


# The table below is wider than a line of code may be: its columns, one a line.
HEADINGS = (
    "| units ", "| n ", "| validation accuracy % ▲ ", "| front ", "| majority floor % ",
    "| memory MB ▼ ", "| peak RSS MB ▼ ", "| training s ▼ |",
)  # fmt: skip
RULES = "|------:|--:|------------------------:|------:|-----------------:|------------:|"
ROWS = (
    ("   200", " 2", "            80.00 ± 1.41", "     ◆", "            50.00", "        16.4"),
    ("   400", " 1", "               **85.00**", "     ◆", "            50.00", "        30.0"),
    ("   800", " 1", "                   82.00", "      ", "            50.00", "        60.0"),
    ("  1600", " 0", "                  failed", "      ", "                 ", "            "),
)
RIGHT = (
    "           710 |    2.5 ± 0.7 |",
    "             – |          2.0 |",
    "           700 |          2.0 |",
    "               |              |",
)


def test_table_by_hand() -> None:
    bare = result([0.85], 30_000_000)
    bare.runs[0].resources = None
    found = sweep_of(
        [
            ({"units": 200}, result([0.79, 0.81], 16_400_000)),
            ({"units": 400}, bare),
            ({"units": 800}, result([0.82], 60_000_000)),
            ({"units": 1600}, None),
        ],
        iters=500,
        lr=0.0001,
    )
    heading, table, *paragraphs = markdown(found).strip().split("\n\n")
    assert heading == (
        "**drawn, vgg16, weights: random (seed 0)** · strategy lgr · iters 500 · lr 0.0001"
    )
    lines = table.splitlines()
    assert lines[0] == "".join(HEADINGS)
    assert lines[1] == RULES + "--------------:|-------------:|"
    assert lines[2:] == [
        f"|{' |'.join(left)} |{right}" for left, right in zip(ROWS, RIGHT, strict=True)
    ]
    assert "sample standard deviation over n seeds" in paragraphs[0]
    assert paragraphs[1].startswith("**The root is random")
    assert paragraphs[2:4] == ["**Failed:**", "- 1600: `Error: 'x' | y`"]
    assert paragraphs[4:] == [
        "These are accuracies on 40 validation rows, for choosing; the test set was not looked at."
    ]


def test_csv_by_hand() -> None:
    bare = result([0.85], 30_000_000)
    bare.runs[0].resources = None
    first = ({"units": 200}, result([0.79, 0.81], 16_400_000))
    lines = csv_text(sweep_of([first, ({"units": 400}, bare), ({"units": 1600}, None)])).split("\n")
    assert lines[0] == (
        "units,n,validation_accuracy_mean,validation_accuracy_sd,front,majority_floor,"
        "memory_bytes,rss_peak_bytes,train_seconds_mean,train_seconds_sd,error"
    )
    values = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert float(values["validation_accuracy_sd"]) == pytest.approx(0.0141421356)
    assert values["rss_peak_bytes"] == "710000000"
    assert lines[2] == "400,1,0.85,,1,0.5,30000000.0,,2.0,,"
    assert lines[3] == "1600,0,,,,,,,,,Error: `x` | y"


def test_early_stopping_is_told() -> None:
    one: Pairs = [({"units": 200}, result([0.8], 1))]
    assert "flatter" not in markdown(sweep_of(one, **{"early-stopping": 0}))
    assert "flatter" in markdown(sweep_of(one, **{"early-stopping": 3}))


def test_no_point_finished() -> None:
    text = markdown(sweep_of([({"units": 1}, None), ({"units": 2}, None)]))
    assert "failed" in text
    assert "on validation rows" in text


def grid(**values: Any) -> Iterator[dict[str, Any]]:
    for combined in itertools.product(*values.values()):
        yield dict(zip(values, combined, strict=True))


ONE, BOTH = ["accuracy_memory"], ["accuracy_memory", "grid"]
TWO: Pairs = [(o, result([0.8, 0.7], o["z"])) for o in grid(z=(1, 2), iters=(1, 20))]
MANY: Pairs = [(o, result([0.8], o["z"])) for o in grid(z=range(1, 15), iters=range(1, 16))]
THREE = grid(strategy=("lgr", "lgr+d", "joint"), z=(1, 2, 3), iters=(1, 2))
CASES: dict[str, tuple[Pairs, list[str]]] = {
    "one point, no memory": ([({"lr": 0.1}, result([0.8], 0))], ONE),
    "all failed": ([({"lr": 0.1}, None)], []),
    "along one": ([(o, result([0.7], 10 ** o["z"])) for o in grid(z=(1, 2, 9))], ONE),
    "two numbers": (TWO, BOTH),
    "too many to label": (MANY, BOTH),
    "three": ([(o, result([0.8], o["z"], o["strategy"])) for o in THREE], BOTH),
    "words": ([(o, result([0.8], 7)) for o in grid(strategy="abcdefgh", protocol="uv")], ONE),
}


@pytest.mark.parametrize("name", CASES)
def test_figures(tmp_path: Path, name: str) -> None:
    pairs, stems = CASES[name]
    written = draw(sweep_of(pairs), tmp_path)
    expected = [f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")]
    assert [path.name for path in written] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
    for path in written:
        assert path.read_bytes().startswith(b"<?xml" if path.suffix == ".svg" else b"\x89PNG")


def test_figures_are_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        draw(sweep_of(TWO), tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_labels_do_not_lie_upon_each_other() -> None:
    """Twelve points close together: each is labelled, no text upon a text or a mark."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    marks = [(1 + 0.02 * (k % 4), 0.5 + 0.01 * k, 0.03) for k in range(12)]
    axes.plot([x for x, _, _ in marks], [y for _, y, _ in marks], "o", markersize=7)
    axes.set(xlim=(0, 2), ylim=(0, 1))
    label(figure, axes, [(mark, f"{k}00, 1000") for k, mark in enumerate(marks)], marks)
    renderer = canvas.get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    assert len(boxes) == 12
    spots = [axes.transData.transform((x, y)) for x, y, _ in marks]
    inside = axes.get_window_extent(renderer)
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])
        assert not any(box.contains(*spot) for spot in spots)
        assert inside.contains(box.x0, box.y0)
        assert inside.contains(box.x1, box.y1)
