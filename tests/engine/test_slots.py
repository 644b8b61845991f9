"""Slots are one State at a fixed place; rows keep their states through every move."""

from __future__ import annotations

import random

import pytest
import torch

from griffin.engine.batch import Batch
from griffin.engine.row import Row
from griffin.engine.slots import Slots, tensors
from griffin.engine.ticket import Ticket
from griffin.model import GriffinConfig, State
from tests.support.layers import recurrent
from tests.support.toy_engine import CONFIG, ask, same

HAWK = CONFIG.replace(block_types=("recurrent", "recurrent"), conv_width=1)


def state_of(
    number: int, dtype: torch.dtype = torch.float32, config: GriffinConfig = CONFIG
) -> State:
    """A state that no other number has."""
    generator = torch.Generator().manual_seed(number)
    state = State.zeros(config, 1, dtype=dtype)
    for t in tensors(state)[1:]:
        t.copy_(torch.rand(t.shape, generator=generator))
    state.pos.fill_(number)
    return state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("config", [CONFIG, HAWK, GriffinConfig.preset("nano")])
def test_bytes_are_known_before(config, dtype):
    slots = Slots(config, 5, dtype=dtype)
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in slots._tensors
    }
    assert Slots.bytes(config, dtype, 5) == slots.nbytes == sum(storages.values())


def test_bytes_of_released_shapes():
    for name, full in (("recurrentgemma-2b", 17_238_016), ("recurrentgemma-9b", 26_230_784)):
        assert Slots.bytes(GriffinConfig.preset(name), torch.bfloat16, 3) == 3 * (full + 8)


@pytest.mark.parametrize("config", [CONFIG, HAWK])
def test_slots_move_whole_states(config):
    slots = Slots(config, 4, dtype=torch.float32)
    states = [state_of(n, config=config) for n in (1, 2, 3)]
    for slot, state in enumerate(states):
        slots.put(slot, state)
    slots.swap(0, 2)
    slots.copy(1, 3)
    assert [int(slots.take(n).pos) for n in range(4)] == [3, 2, 1, 2]
    assert (
        same(slots.take(0), states[2])
        and same(slots.take(2), states[0])
        and same(slots.take(3), states[1])
    )
    assert same(slots.view(1, 2), State.cat([states[1], states[0]]))
    slots.clear(1)
    assert same(slots.take(1), State.zeros(config)) and same(slots.take(0), states[2])
    taken = slots.take(0)
    slots.clear(0)
    assert same(taken, states[2])


def test_a_view_is_the_slots_own_memory_and_a_call_in_place_costs_nothing(monkeypatch):
    slots = Slots(CONFIG, 3, dtype=torch.float32)
    view = slots.view(1, 2)
    for t in tensors(view):
        t.fill_(7)
    assert (slots.take(2).pos == 7).all() and not recurrent(slots.take(0)).lru.any()
    copied = []
    copy = torch.Tensor.copy_
    monkeypatch.setattr(
        torch.Tensor, "copy_", lambda own, *rest: copied.append(own) or copy(own, *rest)
    )
    slots.store(1, slots.view(1, 2))
    assert not copied
    parts = tensors(slots.view(1, 2))
    fresh = State(parts[0], slots.view(1, 2).layers).map(lambda t: t.clone() + 1)
    slots.store(1, fresh)
    assert len(copied) == len(parts) and same(slots.view(1, 2), fresh)


@pytest.mark.parametrize("seed", range(6))
def test_rows_find_their_states_wherever_they_are_moved(seed):
    chance = random.Random(seed)
    batch = Batch(Slots(CONFIG, 5, dtype=torch.float32))
    rows: dict[Row, State] = {}
    seen = set()
    for number in range(300):
        running, reading = list(batch.running), list(batch.reading)
        doing = chance.choice(["enter", "start", "leave", "fork", "replace"])
        if doing in ("enter", "fork") and not batch.free:
            continue
        new = Row(Ticket(number, ask(1), submitted=0.0), 0)
        if doing == "enter":
            batch.enter(new, state_of(number) if number % 5 else None)
            rows[new] = state_of(number) if number % 5 else State.zeros(CONFIG)
        elif doing == "start" and reading:
            batch.start(chance.choice(reading))
        elif doing == "fork" and running:
            source = chance.choice(running)
            batch.fork(source, new)
            rows[new] = rows[source]
        elif doing == "replace" and reading:
            source = chance.choice(reading)
            batch.replace(source, new)
            rows[new] = rows.pop(source)
        elif doing == "leave" and rows and chance.random() < 0.7:
            gone = chance.choice(list(rows))
            batch.leave(gone)
            del rows[gone]
        else:
            continue
        seen.add(doing)
        assert {*batch.running, *batch.reading} == set(rows) and batch.busy == len(rows)
        assert all(row.phase == "running" for row in batch.running)
        for slot, row in enumerate([*batch.running, *batch.reading]):
            assert batch.slot(row) == slot and same(batch.take(row), rows[row])
        for slot in range(batch.busy, 5):
            assert same(batch.slots.take(slot), State.zeros(CONFIG))
    assert len(seen) == 5
    assert set(batch.empty()) == set(rows) and batch.free == 5
    assert not any(t.any() for t in batch.slots._tensors)


def test_a_state_that_cannot_be_copied_leaves_its_slot_clean():
    batch = Batch(Slots(CONFIG, 2, dtype=torch.float32))
    broken = State(torch.tensor([3]), [*state_of(1).layers[:2], state_of(1).layers[1]])
    with pytest.raises((RuntimeError, ValueError)):
        batch.enter(Row(Ticket(0, ask(1), submitted=0.0), 0), broken)
    assert batch.free == 2 and not any(t.any() for t in batch.slots._tensors)
