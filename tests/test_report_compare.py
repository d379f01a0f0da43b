"""Two sets of runs: differences against hand-worked and published numbers, what belongs together,
what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import Refused
from stages.report.compare import compare, comparison_json
from stages.report.figures.style import style
from stages.report.numbers.differences import Difference, holm, of_independent, of_pairs
from stages.report.numbers.paired import paired
from stages.report.page.document import Document, Facts, Paragraph
from stages.report.page.markdown import markdown
from stages.report.page.walk import check, figures, sections, tables
from stages.report.reading.find import find_studies
from tests.made_runs import Made, write_run, write_study


def _compare(a: Path, b: Path) -> Document:
    document = compare(find_studies([a]), find_studies([b]), (a.name, b.name))
    check(document)
    for figure in figures(document):
        with style():
            figure.draw().draw_without_rendering()
    return document


def _rows(document: Document, name: str) -> dict[str, dict[str, Any]]:
    found = comparison_json(document)["tables"][name]
    json.dumps(found, allow_nan=False)
    return {row["strategy"]: row for row in found}


def _said(document: Document) -> str:
    blocks = [*document.lead, *(b for s in sections(document) for b in s.blocks)]
    texts = [block.text for block in blocks if isinstance(block, Paragraph)]
    facts = [f"{k}: {v}" for block in blocks if isinstance(block, Facts) for k, v in block.pairs]
    return "\n".join([*texts, *facts])


def _set(folder: Path, key: str, values: tuple[float, ...]) -> None:
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    for seed, value in zip(metrics["runs"], values, strict=True):
        seed[key] = value
    path.write_text(json.dumps(metrics))


# --- differences -------------------------------------------------------------------------


# Hours of sleep gained with two drugs (Student 1908), and what R 4 prints for
# t.test(extra ~ group, sleep), with the sign of ours.
SLEEP = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
MORE_SLEEP = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_against_what_r_prints() -> None:
    """Welch: 17.776 degrees of freedom; paired: 9."""
    welch = of_independent(SLEEP, MORE_SLEEP)
    pairs = of_pairs(dict(enumerate(SLEEP)), dict(enumerate(MORE_SLEEP)))
    for found, lower, upper, p in (
        (welch, -0.2054832, 3.3654832, 0.07939),
        (pairs, 0.7001142, 2.4598858, 0.002833),
    ):
        assert found.lower is not None
        assert found.upper is not None
        assert found.p is not None
        assert math.isclose(found.mean, 1.58)
        assert math.isclose(found.lower, lower, abs_tol=1e-6)
        assert math.isclose(found.upper, upper, abs_tol=1e-6)
        assert math.isclose(found.p, p, rel_tol=1e-3)
    assert not welch.excludes_nought
    assert pairs.excludes_nought


def test_welch_by_hand() -> None:
    """Equal variances of equal numbers: 2 (n - 1) = 4 degrees, whose t is 2.776 in any table."""
    found = of_independent([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    half = 2.7764 * math.sqrt(1 / 3 + 1 / 3)
    assert found.mean == 3
    assert found.lower is not None
    assert found.upper is not None
    assert math.isclose(found.lower, 3 - half, abs_tol=1e-4)
    assert math.isclose(found.upper, 3 + half, abs_tol=1e-4)
    assert found.excludes_nought


def test_welch_when_one_side_does_not_vary() -> None:
    """Then the degrees of freedom are those of the other: 2, t 4.303."""
    found = of_independent([5.0, 5.0, 5.0], [4.0, 5.0, 6.0])
    assert found.upper is not None
    assert math.isclose(found.upper, 4.3027 / math.sqrt(3), abs_tol=1e-4)


def test_values_that_do_not_vary() -> None:
    for of in (of_independent, lambda a, b: of_pairs(dict(enumerate(a)), dict(enumerate(b)))):
        same, other = of([0.7] * 3, [0.7] * 3), of([16.0] * 3, [8.0] * 3)
        assert (same.mean, same.excludes_nought, same.p) == (0, False, 1)
        assert (other.mean, other.lower, other.upper, other.p) == (-8, -8, -8, 0)
        assert other.excludes_nought


def test_pairs_are_of_common_seeds() -> None:
    found = of_pairs({0: 0.5, 1: 0.6, 2: 0.9}, {1: 0.7, 2: 0.95, 7: 0.1})
    expected = paired([0.7, 0.95], [0.6, 0.9])
    assert (found.mean, found.lower, found.upper) == (expected.mean, expected.lower, expected.upper)
    assert found.n == 2


def test_too_few_have_no_interval() -> None:
    for found in (of_independent([0.5], [0.7, 0.8]), of_pairs({0: 0.5}, {0: 0.75})):
        assert math.isclose(found.mean, 0.25)
        assert (found.lower, found.upper, found.p) == (None, None, None)
        assert not found.excludes_nought


VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=6)


@given(VALUES, VALUES)
def test_swapped(a: list[float], b: list[float]) -> None:
    there, back = of_independent(a, b), of_independent(b, a)
    assert there.lower is not None
    assert there.upper is not None
    assert back.lower is not None
    assert there.lower <= there.mean <= there.upper
    assert math.isclose(back.lower, -there.upper, abs_tol=1e-12)
    assert there.excludes_nought == back.excludes_nought


def test_holm_by_hand() -> None:
    """m = 4: 0.01 <= 0.05 / 4, 0.016 <= 0.05 / 3, but 0.03 > 0.05 / 2, which ends it."""

    def of(p: float | None) -> Difference:
        return Difference(1.0, None, None, p, "paired", 3, 1.0)

    ps = (0.04, 0.01, None, 0.03, 0.016)
    assert holm([of(p) for p in ps]) == [False, True, False, False, True]
    assert holm([]) == []


# --- what belongs together ---------------------------------------------------------------


def test_equal_studies_are_paired_by_seed(tmp_path: Path) -> None:
    write_study(tmp_path / "a", "none", "lgr", "lr")
    write_study(tmp_path / "b", "none", "lgr", "joint")
    _set(tmp_path / "a" / "lgr", "average_accuracy", (0.50, 0.60, 0.70))
    _set(tmp_path / "b" / "lgr", "average_accuracy", (0.60, 0.71, 0.79))
    document = _compare(tmp_path / "a", tmp_path / "b")
    rows = _rows(document, "compare-average-accuracy")
    assert list(rows) == ["none", "lgr"]
    # d = .10, .11, .09: mean .1, sd .01, half 4.3027 * .01 / sqrt(3)
    assert math.isclose(rows["lgr"]["difference"], 0.1)
    assert math.isclose(rows["lgr"]["lower"], 0.1 - 0.024841, abs_tol=1e-5)
    assert (rows["lgr"]["how"], rows["lgr"]["seeds"], rows["lgr"]["holm"]) == ("paired", 3, 1)
    assert rows["none"]["difference"] == 0
    said = _said(document)
    assert "the same data, tasks, training and version" in said
    assert "in 1 of 2 strategies: lgr +10.00 (+7.52 to +12.48) points" in said
    assert "Only in A: lr." in said
    assert "Only in B: joint." in said
    table = next(t for t in tables(document) if t.name == "compare-average-accuracy")
    assert table.rows[1][3] == "**+10.00 (+7.52 to +12.48)** ‡"
    assert {t.name for t in tables(document)} >= {
        "compare-forgetting", "compare-train-seconds", "compare-cpu-seconds",
        "compare-rss-peak-bytes", "compare-memory-bytes", "compare-macro-f1",
    }  # fmt: skip


def test_the_same_runs_differ_in_nothing(tmp_path: Path) -> None:
    write_study(tmp_path / "a", "none", "lgr")
    document = _compare(tmp_path / "a", tmp_path / "a")
    for table in tables(document):
        assert not any("**" in cell or "‡" in cell for row in table.rows for cell in row)
    assert "No accuracy differs" in _said(document)


def test_other_settings_are_told_and_seeds_still_paired(tmp_path: Path) -> None:
    write_study(tmp_path / "a", "none", changes={"iters": 500})
    write_study(tmp_path / "b", "none", changes={"iters": 2000})
    document = _compare(tmp_path / "a", tmp_path / "b")
    assert "iters: A 500, B 2000" in _said(document)
    assert comparison_json(document)["differing"] == {"compared": {"iters": "A 500, B 2000"}}
    assert "questions asked" not in _said(document)
    assert _rows(document, "compare-average-accuracy")["none"]["how"] == "paired"


def test_another_cache_is_compared_as_independent_samples(tmp_path: Path) -> None:
    write_study(tmp_path / "a", "none")
    write_study(
        tmp_path / "b", "none", changes={"backbone": "resnet18", "cache_content": "blake3:01"}
    )
    document = _compare(tmp_path / "a", tmp_path / "b")
    assert "backbone: A vgg16, B resnet18" in _said(document)
    assert "Welch's" in _said(document)
    assert _rows(document, "compare-average-accuracy")["none"]["how"] == "independent"


def test_other_tasks_are_warned_of(tmp_path: Path) -> None:
    write_study(tmp_path / "a", "none", tasks=4)
    write_study(tmp_path / "b", "none", tasks=2)
    said = _said(_compare(tmp_path / "a", tmp_path / "b"))
    assert "Data or tasks differ" in said
    assert "tasks: A 4, B 2" in said


def test_several_studies_before_and_after_a_version(tmp_path: Path) -> None:
    for side, version in (("a", "0.1.0"), ("b", "0.2.0")):
        about = {"versions": {"lgr-pipe": version}}
        for backbone in ("vgg16", "alexnet"):
            changes = {"backbone": backbone, "cache_content": f"blake3:{backbone}"}
            write_study(tmp_path / side / backbone, "none", about=about, changes=changes)
    write_study(tmp_path / "a" / "odd", "none", changes={"iters": 7})
    document = _compare(tmp_path / "a", tmp_path / "b")
    assert len(document.sections) == 2
    assert _said(document).count("version: A 0.1.0, B 0.2.0") == 2
    assert "Only in A, and not compared: drawn, vgg16" in _said(document)
    assert {t.name for t in tables(document)} >= {
        "s1-compare-average-accuracy",
        "s2-compare-average-accuracy",
    }


def test_variants_by_label_or_the_only_one(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "1", Made("lgr", options={"z": 100}))
    write_run(tmp_path / "b" / "1", Made("lgr", options={"z": 50}))
    assert "lgr: z 100 / 50" in _said(_compare(tmp_path / "a", tmp_path / "b"))
    write_run(tmp_path / "b" / "2", Made("lgr", options={"z": 20}))
    with pytest.raises(Refused, match=r"a has .*\(lgr\); b has .*\(lgr \(z 20\), lgr \(z 50\)\)"):
        _compare(tmp_path / "a", tmp_path / "b")
    write_run(tmp_path / "a" / "2", Made("lgr", options={"z": 50}))
    document = _compare(tmp_path / "a", tmp_path / "b")
    assert list(_rows(document, "compare-average-accuracy")) == ["lgr (z 50)"]
    assert "Only in A: lgr (z 100)." in _said(document)


def test_nothing_corresponds(tmp_path: Path) -> None:
    write_study(tmp_path / "a" / "1", "none")
    write_study(tmp_path / "a" / "2", "none", changes={"iters": 7})
    write_study(tmp_path / "b", "none", changes={"iters": 9})
    with pytest.raises(Refused, match=r"Nothing in a corresponds to anything in b.*a has drawn"):
        _compare(tmp_path / "a", tmp_path / "b")
    write_study(tmp_path / "c", "lr", changes={"iters": 9})
    with pytest.raises(Refused, match=r"b has .* \(none\); c has .* \(lr\)"):
        _compare(tmp_path / "b", tmp_path / "c")


# --- what is said ------------------------------------------------------------------------


def test_one_seed_says_nothing_of_sureness(tmp_path: Path) -> None:
    write_study(tmp_path / "a", "none", "lgr", seeds=(0,))
    write_study(tmp_path / "b", "none", "lgr", seeds=(0,), level=0.5)
    document = _compare(tmp_path / "a", tmp_path / "b")
    assert "it takes two seeds" in _said(document)
    assert _rows(document, "compare-average-accuracy")["lgr"]["lower"] is None


def test_seeds_without_a_partner(tmp_path: Path) -> None:
    write_study(tmp_path / "a", "none", seeds=(0, 1, 2))
    write_study(tmp_path / "b", "none", seeds=(1, 2, 3))
    write_study(tmp_path / "c", "none", seeds=(7, 8))
    row = _rows(_compare(tmp_path / "a", tmp_path / "b"), "compare-average-accuracy")["none"]
    assert (row["how"], row["seeds"], row["a_n"], row["difference"]) == ("paired", 2, 3, 0)
    document = _compare(tmp_path / "a", tmp_path / "c")
    assert _rows(document, "compare-average-accuracy")["none"]["how"] == "independent"
    assert "fewer than two seeds are common" in _said(document)


def test_machines_and_missing_measures(tmp_path: Path) -> None:
    write_study(tmp_path / "a", "none", "joint")
    write_study(tmp_path / "b", "none", "joint", about={"processor": "B <1>"})
    document = _compare(tmp_path / "a", tmp_path / "b")
    assert r"B B \<1\>" in _said(document)
    assert _rows(document, "compare-forgetting")["joint"]["difference"] is None


def test_a_terminal_is_told_of_no_file(tmp_path: Path) -> None:
    for side in ("a", "b"):
        write_study(tmp_path / side, "none", "joint")
    document = _compare(tmp_path / "a", tmp_path / "b")
    text = markdown(document, files=False)
    assert all(f"*Table:* {table.title}" in text for table in tables(document))
    assert not any(part in text for part in ("](", ".csv", ".tex", ".png", "*Figure:*", "\n\n\n"))
    assert "(tables/compare-forgetting.csv)" in markdown(document)
