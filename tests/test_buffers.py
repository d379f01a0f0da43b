"""What is stored for rehearsal, and the LGR code's way of doing it."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import Refused
from stages.train.buffer import (
    Balanced,
    Reservoir,
    Rows,
    draw_slots,
    last_in_each,
    latent_form,
)
from stages.train.released import Latest
from stages.train.seeds import generator
from tests.world import make_method, make_setup, make_world


def _offer(buffer: Reservoir, rows: Rows, stream: torch.Generator) -> None:
    entering = buffer.offer(rows.targets, rows.tasks, stream)
    buffer.put(entering.slots, rows[entering.rows])


def _numbered(start: int, stop: int) -> Rows:
    values = torch.arange(start, stop)
    return Rows(values.float()[:, None].expand(-1, 3), values, values % 5)


@given(st.integers(1, 20), st.lists(st.integers(1, 25), min_size=1, max_size=6))
def test_reservoir_holds_rows_that_were_offered_once_each(capacity: int, offers: list[int]) -> None:
    buffer = Reservoir(capacity, latent_form(3), "cpu")
    start, stream = 0, generator(0, "slots")
    for count in offers:
        _offer(buffer, _numbered(start, start + count), stream)
        start += count
    state = buffer.state()
    assert len(buffer) == min(capacity, start) == len(set(state["targets"].tolist()))
    assert buffer.bytes == len(buffer) * (3 * 4 + 16)
    assert torch.equal(state["values"][:, 0].long(), state["targets"])
    assert torch.equal(state["tasks"], state["targets"] % 5)
    slots = draw_slots(len(buffer), 2 * len(buffer), stream)
    assert set(Counter(slots.tolist()).values()) == {2}


@given(
    st.integers(1, 20),
    st.lists(st.sampled_from("aaaaab"), min_size=1, max_size=120),
)
def test_a_balanced_buffer_shares_its_slots(capacity: int, stream: list[str]) -> None:
    """No class has more than another, unless that other gave all it had; no slot is lost."""
    buffer, random = Balanced(capacity, latent_form(1), "cpu"), generator(0, "slots")
    seen: Counter[int] = Counter()
    for k, name in enumerate(stream):
        target = ord(name) - ord("a")
        seen[target] += 1
        row = Rows(torch.tensor([[float(k)]]), torch.tensor([target]), torch.tensor([0]))
        _offer(buffer, row, random)
        stored = Counter(buffer.state()["targets"].tolist())
        assert sum(stored.values()) == min(capacity, k + 1)
        few, many = min(stored.values()), max(stored.values())
        rare = min(stored, key=lambda t: stored[t])
        assert many - few <= 1 or stored[rare] == seen[rare]
    values = buffer.state()["values"][:, 0].tolist()
    assert len(set(values)) == len(values)
    copy = Balanced(capacity, latent_form(1), "cpu")
    copy.load_state(buffer.state())
    more = Rows(torch.arange(30.0)[:, None], torch.arange(30) % 3, torch.zeros(30).long())
    for both in (buffer, copy):
        _offer(both, more, generator(1, "slots"))
    assert torch.equal(buffer.state()["values"], copy.state()["values"])


@given(st.lists(st.integers(-1, 4), max_size=30))
def test_the_last_to_come_stays(places: list[int]) -> None:
    last = {slot: k for k, slot in enumerate(places) if slot >= 0}
    found = last_in_each(torch.tensor(places, dtype=torch.int64))
    assert dict(zip(found.slots.tolist(), found.rows.tolist(), strict=True)) == last
    assert found.rows.tolist() == sorted(last.values())


def test_reservoir_is_uniform() -> None:
    """Each of 40 rows stays in 10 slots with probability 1/4 (5 sigma)."""
    kept: Counter[int] = Counter()
    trials = 800
    for trial in range(trials):
        buffer = Reservoir(10, latent_form(3), "cpu")
        stream = generator(trial, "slots")
        _offer(buffer, _numbered(0, 15), stream)
        _offer(buffer, _numbered(15, 40), stream)
        kept.update(buffer.state()["targets"].tolist())
    sigma = math.sqrt(trials * 0.25 * 0.75)
    assert all(abs(kept[row] - trials / 4) < 5 * sigma for row in range(40))


def test_the_released_buffer_by_hand() -> None:
    """Six places: all six of task 1; then three of them give way to three of task 2's; every
    row is taught to the first head with its label within its task."""
    _, scenario = make_world()
    buffer = Latest(6, latent_form(3), make_setup(scenario))
    stream = generator(0, "arrivals")

    def task(index: int, rows: range) -> Rows:
        values = torch.tensor(list(rows))
        targets = 2 * index + values % 2
        return Rows(values.float()[:, None].expand(-1, 3), targets, torch.full_like(values, index))

    for start in (0, 4):  # eight rows arrive, of which two take random places
        buffer.saw(task(0, range(start, start + 4)), stream)
    view = SimpleNamespace(index=0)
    buffer.close(view, lambda batch: batch, generator(0, "slots", 0))  # type: ignore[arg-type]
    first = set(buffer.stored.values[:, 0].int().tolist())
    assert len(first) == 6 <= len(buffer.stored)
    assert first < set(range(8))
    assert {6, 7} & first
    for start in (100, 104):
        buffer.saw(task(1, range(start, start + 4)), stream)
    buffer.close(SimpleNamespace(index=1), lambda batch: batch, generator(0, "slots", 1))  # type: ignore[arg-type]
    held = buffer.stored.values[:, 0].int().tolist()
    assert len(held) == len(set(held)) == 6
    assert sum(value >= 100 for value in held) == 3
    assert set(buffer.stored.tasks.tolist()) == {0}
    assert buffer.stored.targets.tolist() == [value % 2 for value in held]


def test_the_released_protocol_needs_the_largest_task_first() -> None:
    _, scenario = make_world()
    setup = make_setup(scenario, heads=(range(0, 1), range(1, 4)), protocol="released")
    with pytest.raises(Refused, match="largest task first"):
        make_method("lr", setup)
