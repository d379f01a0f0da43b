"""What the README shows does what it says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stages import strategies
from stages.train.loop import run
from stages.train.view import TaskView
from tests.world import make_setup, make_world

README = (Path(__file__).parent.parent / "README.md").read_text()


def block(language: str, holding: str) -> str:
    """The only code block of a language that holds these words."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (found,) = (text for text in blocks if holding in text)
    return found


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The README's own strategy, put where strategies are looked for; its name."""
    (tmp_path / "l2.py").write_text(block("python", "L2: stay near"))
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
    yield "l2"
    sys.modules.pop("stages.strategies.l2", None)


def test_a_strategy_of_ones_own(own: str) -> None:
    assert own in strategies.names()
    module = strategies.module(own)
    data, scenario = make_world()
    moved = []
    for strength in (0.0, 10.0):
        setup = make_setup(scenario)
        method = module.Method(setup, module.Options(strength=strength))
        method.learn(TaskView(data, scenario.tasks[:1]))
        before = [p.detach().clone() for p in method.top.parameters()]
        method.learn(TaskView(data, scenario.tasks[1:]))
        pairs = zip(method.top.parameters(), before, strict=True)
        moved.append(sum(float((new.detach() - old).square().sum()) for new, old in pairs))
        assert method.memory()["snapshots"] == sum(4 * p.numel() for p in before)
    assert moved[1] < moved[0] / 2  # the pull does what it says


def test_it_goes_on_where_it_was(own: str) -> None:
    module = strategies.module(own)
    data, scenario = make_world()
    setup = make_setup(scenario)
    whole = module.Method(setup, module.Options())
    outcome = run(whole, data, scenario)
    first = module.Method(setup, module.Options())
    first.learn(TaskView(data, scenario.tasks[:1]))
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second = module.Method(setup, module.Options())
    second.load_state(state)
    second.learn(TaskView(data, scenario.tasks[1:]))
    latents = data.latents[:50]
    assert torch.equal(whole.logits(latents), second.logits(latents))
    assert outcome.memory == second.memory()


def test_links_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    linked = re.findall(r"\]\(#([\w-]+)\)", README)
    assert linked
    assert set(linked) <= anchors
    for path in re.findall(r"\]\((\.github/[^)]+)\)", README):
        assert (Path(__file__).parent.parent / path).is_file()
