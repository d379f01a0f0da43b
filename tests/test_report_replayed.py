"""What is replayed: figures against hand-worked ones, and what is called collapsed."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.report.figures import replay_bars
from stages.report.figures.style import style, svg
from stages.report.numbers import collapse, embed
from stages.report.numbers.collapse import COLLAPSED, verdicts
from stages.report.numbers.replays import states
from stages.report.page.document import Block, Figure, Fold, Group, Paragraph, Section, Table
from stages.report.reading.find import find_studies
from stages.report.reading.replay_file import read_replay
from stages.report.reading.runs import Run, Study
from stages.report.sections.replayed import section
from tests.made_runs import Made, write_run, write_study


def study(folder: Path) -> Study:
    (found,) = find_studies([folder])
    return found


def one(folder: Path, made: Made) -> Run:
    write_run(folder / "run", made)
    return study(folder).first


def replay(**changes: Any) -> dict[str, Any]:
    usual = {"learnt": 1, "kind": "generated", "drawn": 10, "variance_ratio": 0.5}
    return {**usual, "labels": {"anger": 5, "happiness": 5}, **changes}


def with_replays(folder: Path, by_seed: list[list[dict[str, Any]]], **made: Any) -> Run:
    """A run whose seeds have these entries."""
    write_run(folder / "run", Made("lgr", seeds=tuple(range(len(by_seed))), **made))
    path = folder / "run" / "metrics.json"
    metrics = json.loads(path.read_text())
    for seed, entries in zip(metrics["runs"], by_seed, strict=True):
        seed["replay"] = entries
    path.write_text(json.dumps(metrics))
    return study(folder).first


def flat(found: Section | None) -> list[Block]:
    def walk(blocks: tuple[Block, ...]) -> list[Block]:
        out: list[Block] = []
        for block in blocks:
            if isinstance(block, Group):
                out += block.figures
            elif isinstance(block, Fold):
                out += walk(block.blocks)
            else:
                out.append(block)
        return out

    assert found is not None
    return walk(found.blocks)


def said(blocks: list[Block], kind: str) -> str:
    return "\n".join(b.text for b in blocks if isinstance(b, Paragraph) and b.kind == kind)


def figures(blocks: list[Block]) -> dict[str, Figure]:
    return {block.name: block for block in blocks if isinstance(block, Figure)}


# --- figures of metrics.json -------------------------------------------------------------


def test_shares_are_within_heads(tmp_path: Path) -> None:
    labels = {"anger": 8, "happiness": 2, "sadness": 3, "surprise": 7}
    run = with_replays(tmp_path, [[replay(learnt=2, labels=labels)]])
    (state,) = states(run)
    assert [head.classes for head in state.heads] == [
        ("anger", "happiness"),
        ("sadness", "surprise"),
    ]
    shares = [[share.mean if share else None for share in head.shares] for head in state.heads]
    assert shares == [[0.8, 0.2], [0.3, 0.7]]
    assert [head.real for head in state.heads] == [(0.5, 0.5), (0.5, 0.5)]


def test_class_incrementally_there_is_one_head(tmp_path: Path) -> None:
    labels = {"anger": 8, "happiness": 2, "sadness": 3, "surprise": 7, "nobody": 99}
    (state,) = states(with_replays(tmp_path, [[replay(learnt=2, labels=labels)]], scenario="class"))
    (head,) = state.heads
    assert [share.mean for share in head.shares if share] == [0.4, 0.1, 0.15, 0.35]
    assert head.real == (0.25,) * 4


def test_domain_incrementally_tasks_share_outputs(tmp_path: Path) -> None:
    rows = {name: {"train": 1} for name in ("disgust", "fear", "contempt", "neutral")}
    rows |= {"anger": {"train": 10}, "happiness": {"train": 30}}
    rows |= {"sadness": {"train": 20}, "surprise": {"train": 20}}
    entries = [replay(learnt=2, labels={"anger": 1, "happiness": 3})]
    run = with_replays(tmp_path, [entries], scenario="domain", about={"data": {"classes": rows}})
    (state,) = states(run)
    assert state.heads[0].real == (30 / 80, 50 / 80)


def test_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    seeds = [[replay(variance_ratio=v, ncm_agreement=a)] for v, a in ((0.2, 0.5), (0.6, None))]
    with_replays(tmp_path, seeds)
    blocks = flat(section(study(tmp_path), "s2-"))
    data = figures(blocks)["s2-replayed-variance"].data
    assert data is not None
    (row,) = data.rows
    assert row[:2] == ("lgr", 1)
    assert row[2:] == (pytest.approx(0.4), pytest.approx(0.2828427), 2)
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert table.rows == (
        ("lgr", "1", "drawn", "2", "40.0 ± 28.3", "50.0", "–", "anger 50.0 ± 0.0"),
    )


# --- collapsed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratios", "kind", "expected"),
    [
        ((0.03, 0.05), "generated", "alarm"),
        ((COLLAPSED - 0.001, COLLAPSED), "generated", "alarm"),
        ((COLLAPSED, COLLAPSED), "generated", ""),
        ((0.02, 0.3), "generated", "warning"),  # the mean is above
        ((0.03, 0.05), "stored", ""),
        ((None, None), "generated", ""),
        ((0.0, 0.0), "generated", "alarm"),
    ],
)
def test_who_is_called_collapsed(
    tmp_path: Path, ratios: tuple[float | None, ...], kind: str, expected: str
) -> None:
    seeds = [[replay(variance_ratio=ratio, kind=kind)] for ratio in ratios]
    run = with_replays(tmp_path, seeds)
    found = verdicts(run, states(run))
    assert [one.kind for one in found] == [expected] * bool(expected)


def test_alarm_names_strategy_state_and_numbers(tmp_path: Path) -> None:
    labels = {"anger": 97, "happiness": 3}
    seeds = [[replay(variance_ratio=v, labels=labels)] for v in (0.02, 0.04)]
    run = with_replays(tmp_path, seeds)
    (found,) = verdicts(run, states(run))
    assert "lgr: the generator has collapsed" in found.text
    assert "3.0 ± 1.4 % of the variance of the real ones after task 1" in found.text
    assert "“anger” 97 % (real rows: 50 %)" in found.text


@pytest.mark.parametrize(
    ("answers", "train", "called"),
    [((95, 5), (50, 50), True), ((94, 6), (50, 50), False), ((97, 3), (96, 4), False)],
)
def test_who_is_called_one_sided(
    tmp_path: Path, answers: tuple[int, int], train: tuple[int, int], called: bool
) -> None:
    labels = dict(zip(("anger", "happiness"), answers, strict=True))
    rows = {name: {"train": n} for name, n in zip(("anger", "happiness"), train, strict=True)}
    run = with_replays(tmp_path, [[replay(labels=labels)]], about={"data": {"classes": rows}})
    assert ["one-sided" in one.text for one in verdicts(run, states(run))] == [True] * called


def test_a_head_of_one_class_is_not_one_sided(tmp_path: Path) -> None:
    entries = [replay(learnt=1, labels={"a": 10})]
    run = with_replays(tmp_path, [entries], classes=("a", "b", "c"), tasks=3)
    assert verdicts(run, states(run)) == []


def test_examples_in_docstrings() -> None:
    for module in (collapse, replay_bars):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed


# --- the section -------------------------------------------------------------------------


def test_nothing_to_say_where_nothing_is_replayed(tmp_path: Path) -> None:
    write_study(tmp_path, "none", "joint", "cumulative")
    assert section(study(tmp_path), "") is None


def test_older_runs_are_to_be_trained_again(tmp_path: Path) -> None:
    write_study(tmp_path, "none", "lr", "lgr", "cumulative", recorded=False)
    blocks = flat(section(study(tmp_path), ""))
    assert len(blocks) == 1
    assert "What lgr, lr replayed was not recorded" in said(blocks, "note")


def test_names_are_unique_and_everything_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long names, twenty classes, a dollar, variants, a ratio above 1."""
    monkeypatch.setattr(embed, "embedded", lambda points: points[:, :2])
    names = tuple(f"${k:02d}_a_name_of_25_letters" for k in range(20))
    same: dict[str, Any] = {"classes": names, "tasks": 10, "scenario": "class"}
    for units in (100, 200):
        made = Made("lgr", seeds=(0,), options={"generator_units": units}, **same)
        write_run(tmp_path / str(units), made)
    write_run(tmp_path / "dgr+d", Made("dgr+d", faces=True, variance_ratio=5.0, **same))
    blocks = flat(section(study(tmp_path), "s1-"))
    drawn = [block for block in blocks if isinstance(block, Figure)]
    assert len({figure.name for figure in drawn}) == len(drawn) == 2 + 3 + 2 * 3 + 1
    for figure in drawn:
        assert re.fullmatch(r"s1-[a-z0-9-]+", figure.name)
        assert figure.alt
        assert figure.caption
        with style():
            figure.draw().draw_without_rendering()


@pytest.mark.parametrize("entry", [{"variance_ratio": None, "labels": {}}, {"drawn": 0}])
def test_what_is_undefined_is_left_out(tmp_path: Path, entry: dict[str, Any]) -> None:
    with_replays(tmp_path, [[replay(**entry)]], tasks=2)
    for figure in figures(flat(section(study(tmp_path), ""))).values():
        with style():
            figure.draw()


def test_many_points_become_one_picture(tmp_path: Path) -> None:
    write_study(tmp_path, "lr")
    with style():
        text = svg(figures(flat(section(study(tmp_path), "")))["replayed-lr-pca"].draw())
    assert "<image" in text
    assert len(text) < 200_000


def test_without_scikit_learn_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "available", lambda: False)
    write_study(tmp_path, "lgr", "lr")
    blocks = flat(section(study(tmp_path), ""))
    assert "scikit-learn cannot be imported" in said(blocks, "note")
    assert not [name for name in figures(blocks) if name.endswith("tsne")]


# --- t-SNE -------------------------------------------------------------------------------


def test_embedding_is_the_same_again_and_keeps_neighbours() -> None:
    random = np.random.default_rng(0)
    cluster = np.repeat([0, 1], 40)
    points = (random.normal(size=(80, 8)) + 30 * cluster[:, None]).astype(np.float32)
    first, again = embed.embedded(points), embed.embedded(points.copy())
    assert first is not None
    assert again is not None
    assert (first == again).all()
    gaps = np.linalg.norm(first[:, None] - first[None], axis=-1) + 1e9 * np.eye(80)
    assert (cluster[gaps.argmin(axis=1)] == cluster).all()


def test_points_that_do_not_differ_are_not_embedded() -> None:
    assert embed.embedded(np.ones((50, 4), np.float32)) is None
    assert embed.embedded(np.eye(4, dtype=np.float32)) is None


def test_thinning_keeps_both_kinds(tmp_path: Path) -> None:
    found = read_replay(one(tmp_path, Made("lgr")))  # 300 of each
    assert found is not None
    kept = embed.thinned(found, 100)
    assert found.generated[kept].sum() == 50
    assert len(set(kept.tolist())) == 100
    assert len(embed.thinned(found)) == 600
