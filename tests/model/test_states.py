"""States that do not fit: refused by name, before anything is read or written."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin.model import AttentionState, Griffin, RecurrentState, State
from griffin.quant import quantize_model
from tests.support.toy_models import GRIFFIN, make_model, make_tokens
from tools.fuzz import states as fuzz
from tools.fuzz.ops import misplaced, negated_view

Change = Callable[[State], State]
ROWS, STEPS = 2, 20


def packed(**changes: Any) -> Griffin:
    return quantize_model(make_model(GRIFFIN.replace(**changes)), "int8")


@pytest.fixture(scope="module")
def models() -> dict[str, Griffin]:
    return {"packed": packed(), "unpacked": make_model(GRIFFIN)}


def pos_of(value: Any) -> Change:
    return lambda state: State(value(state.pos) if callable(value) else value, state.layers)


def with_tensor(name: str, change: Callable[[Tensor], Tensor]) -> Change:
    """Change one tensor of the first layer that has it."""

    def apply(state: State) -> State:
        layers = list(state.layers)
        number = next(n for n, layer in enumerate(layers) if name in layer._fields)
        new = change(getattr(layers[number], name))
        layers[number] = layers[number]._replace(**{name: new})
        return State(state.pos, layers)

    return apply


UNFIT: dict[str, tuple[Change, str]] = {
    "a negative pos": (pos_of(torch.tensor([3, -199_999])), "pos is -199999"),
    "the least pos": (pos_of(torch.tensor([3, -(2**63)])), "pos is -9223372036854775808"),
    "the end of int64": (pos_of(torch.tensor([3, 2**63 - 2])), "pos is 9223372036854775806"),
    "beyond float64": (pos_of(torch.tensor([3, 2**53 - STEPS + 1])), r"2\^53"),
    "a pos of int32": (pos_of(lambda pos: pos.int()), "pos is torch.int32"),
    "a pos with a fraction": (pos_of(lambda pos: pos + 0.5), "pos is torch.float32"),
    "a pos of more rows": (pos_of(torch.zeros(4096, dtype=torch.int64)), "4096 rows"),
    "a pos of two dimensions": (pos_of(lambda pos: pos[:, None]), r"pos is torch.int64 \(2, 1\)"),
    "a pos without rows": (pos_of(lambda pos: pos[0]), r"pos is torch.int64 \(\)"),
    "a pos on meta": (pos_of(lambda pos: pos.to("meta")), "pos lies on meta"),
    **{
        f"{name}: {what}": (with_tensor(name, change), f"{name} of layer [01]")
        for name in ("conv", "lru", "k", "v")
        for what, change in {
            "one row": lambda t: t[:1],
            "more rows": lambda t: torch.cat([t, t]),
            "shorter": lambda t: t[..., :-1],
            "longer": lambda t: torch.cat([t, t], -1),
            "narrower": lambda t: t.narrow(1, 0, 1),
            "flat": lambda t: t.flatten(),
            "empty": lambda t: t[:, :0],
            "float64": lambda t: t.double(),
            "bfloat16": lambda t: t.bfloat16(),
            "whole": lambda t: t.long(),
            "on meta": lambda t: t.to("meta"),
        }.items()
    },
    "a layer too few": (lambda s: State(s.pos, s.layers[:-1]), "4 layers does not fit"),
    "a layer too many": (lambda s: State(s.pos, (*s.layers, s.layers[0])), "6 layers does not"),
    "no layers": (lambda s: State(s.pos, ()), "0 layers does not fit"),
    "layers in another order": (
        lambda s: State(s.pos, (s.layers[1], s.layers[0], *s.layers[2:])),
        "layer 0 is AttentionState does not fit",
    ),
    "a layer that is a tuple": (
        lambda s: State(s.pos, (tuple(s.layers[0]), *s.layers[1:])),
        "layer 0 is tuple does not fit",
    ),
}


@pytest.mark.parametrize("kind", ["packed", "unpacked"])
@pytest.mark.parametrize("name", UNFIT)
def test_a_state_that_does_not_fit_is_refused(
    models: dict[str, Griffin], name: str, kind: str
) -> None:
    change, message = UNFIT[name]
    tokens = make_tokens(GRIFFIN, ROWS, STEPS)
    places = torch.arange(STEPS).expand(ROWS, -1)
    for donate in (False, True):
        for segment_pos in (None, places):
            state = change(State.zeros(GRIFFIN, ROWS))
            with pytest.raises(ValueError, match=message):
                models[kind](tokens, state, segment_pos, donate=donate)
            assert state.pos is not None, "a refused state is not used up"


def test_the_places_of_the_attack(models: dict[str, Griffin]) -> None:
    """Each wrote outside its memory: a slot is a place modulo the window, negative below zero."""
    wide = packed(attention_window_size=200_000)
    one = State.zeros(wide.config, 1).layers
    tokens = torch.ones(1, STEPS, dtype=torch.int64)
    for pos in (-199_999, -1, 2**63 - 2, 2**63 - STEPS):
        with pytest.raises(ValueError, match=f"pos is {pos}"):
            wide(tokens, State(torch.tensor([pos]), one))
    many = State(torch.zeros(4096, dtype=torch.int64), one)
    with pytest.raises(ValueError, match="4096 rows"):
        wide(tokens, many)
    with pytest.raises(ValueError, match=r"conv of layer 0 is .* \(1, 2, 40\) does not fit"):
        wide(tokens.expand(4096, -1), State(many.pos, one), donate=True)


def test_the_last_positions_there_are(models: dict[str, Griffin]) -> None:
    tokens = make_tokens(GRIFFIN, 1, STEPS)
    late = State(torch.tensor([2**53 - STEPS]), State.zeros(GRIFFIN, 1).layers)
    for model in models.values():
        _, state = model(tokens, late)
        assert state.pos.tolist() == [2**53]
        with pytest.raises(ValueError, match=r"pos is 9007199254740992; with the 1 tokens"):
            model(tokens[:, :1], state)


@pytest.mark.parametrize("kind", ["packed", "unpacked"])
def test_tokens_elsewhere_or_of_other_types(models: dict[str, Griffin], kind: str) -> None:
    model, tokens = models[kind], make_tokens(GRIFFIN, ROWS, 5)
    expected, _ = model(tokens)
    for dtype in (torch.int32, torch.int16, torch.int8, torch.uint8):
        assert torch.equal(model(tokens.to(dtype))[0], expected)
    assert torch.equal(model(tokens.T.contiguous().T)[0], expected)
    for bad in (tokens.to("meta"), tokens.bool(), tokens.double(), tokens.to(torch.complex64)):
        with pytest.raises(ValueError, match="tokens"):
            model(bad)
    places = torch.arange(5).expand(ROWS, -1)
    with pytest.raises(ValueError, match="segment_pos lies on meta"):
        model(tokens, None, places.to("meta"))


def test_a_model_on_meta_takes_what_is_there() -> None:
    with torch.device("meta"):
        model = Griffin(GRIFFIN)
    tokens = make_tokens(GRIFFIN, 1, 5)
    with pytest.raises(ValueError, match="tokens lie on cpu, the model on meta"):
        model(tokens)
    state = State.zeros(GRIFFIN, 1, device="meta")
    assert model(tokens.to("meta"), state)[0].shape == (1, 5, GRIFFIN.vocab_size)


def test_a_packed_model_whose_weights_were_changed() -> None:
    """Weights of another shape, a config that says other sizes: the fast path steps aside."""
    tokens, short = make_tokens(GRIFFIN, 1, 5), torch.nn.Parameter(torch.ones(1))
    for change in (
        lambda m: setattr(m.model.layers[0].temporal_pre_norm, "weight", short),
        lambda m: setattr(m.model.final_norm, "weight", short),
        lambda m: setattr(m.model.layers[0].temporal_block.rg_lru, "recurrent_param", short),
        lambda m: setattr(m.model.layers[0].temporal_block.conv_1d, "bias", short),
    ):
        model = packed()
        model(tokens)
        change(model)
        with pytest.raises(ValueError), torch.no_grad():
            model(tokens)
    model = packed()
    model(tokens)
    model.config = GRIFFIN.replace(attention_window_size=4)
    assert model(tokens)[1].layers[1].k.shape[1] == 4
    model.config = GRIFFIN.replace(vocab_size=10**6)
    with pytest.raises(ValueError, match="there are rows 0 to"):
        model(tokens + 1000)


def test_states_that_do_not_fit_each_other() -> None:
    state = State.zeros(GRIFFIN, 2)
    for change, _ in UNFIT.values():
        other = change(State.zeros(GRIFFIN, 2))
        if other.pos.shape == (2,) and not other.layers:
            continue
        try:
            other.check()
        except ValueError:
            with pytest.raises(ValueError):
                State.cat([other, other])
            with pytest.raises(ValueError):
                other.select([0])
            with pytest.raises(ValueError):
                other.save("never-written")
        if [tuple(t.shape[1:]) for x in other.layers for t in x] != [
            tuple(t.shape[1:]) for x in state.layers for t in x
        ]:
            with pytest.raises(ValueError):
                State.cat([state, other])
    with pytest.raises(ValueError, match="types cannot be joined"):
        State.cat([state, State.zeros(GRIFFIN, 2, dtype=torch.bfloat16)])
    with pytest.raises(ValueError, match="cannot be joined; move them"):
        State.cat([state, State.zeros(GRIFFIN, 2, device="meta")])
    assert State.cat([state, state]).batch == 4


@pytest.mark.parametrize("rows", [[2], [-1], [True, False], [0.7], [[0]], torch.tensor(0)])
def test_rows_that_are_not_there(rows: Any) -> None:
    with pytest.raises(ValueError, match="row"):
        State.zeros(GRIFFIN, 2).select(rows)


def test_rows_there_are() -> None:
    state = State(torch.tensor([3, 4]), State.zeros(GRIFFIN, 2).layers)
    assert state.select([1, 0, 1]).pos.tolist() == [4, 3, 4]
    assert state.select([]).batch == 0
    assert state.select(torch.tensor([1], dtype=torch.int32)).pos.tolist() == [4]


def saved(path: Path, state: State | None = None) -> tuple[dict[str, Any], bytes]:
    """Save a state; return the header and the bytes behind it."""
    if state is None:
        _, state = make_model(GRIFFIN)(make_tokens(GRIFFIN, 2, 5))
    state.save(path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write(path: Path, header: dict[str, Any], rest: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + rest)


HEADERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no slots": lambda h: h["__metadata__"].pop("slots"),
    "negative slots": lambda h: h["__metadata__"].update(slots="-1"),
    "no whole number of slots": lambda h: h["__metadata__"].update(slots="1.5"),
    "fewer slots than positions": lambda h: h["__metadata__"].update(slots="4"),
    "no room for a position": lambda h: h["__metadata__"].update(slots="0"),
    "more slots than any memory": lambda h: h["__metadata__"].update(slots="9" * 17),
    "more slots than numbers": lambda h: h["__metadata__"].update(slots="9" * 4000),
    "keys of no row": lambda h: h.update(
        {"k.1": {"dtype": "F32", "shape": [0, 0, 1, 16], "data_offsets": [0, 0]}}
    ),
    "pos as float": lambda h: h["pos"].update(dtype="F64"),
    "pos of two dimensions": lambda h: h["pos"].update(shape=[2, 1]),
    "pos of other rows": lambda h: h["pos"].update(dtype="I32", shape=[4]),
    "a flat lru": lambda h: h["lru.0"].update(shape=[80]),
    "lru of more rows": lambda h: h["lru.0"].update(shape=[4, 20]),
    "lru of another type": lambda h: h["lru.0"].update(dtype="BF16", shape=[2, 80]),
    "whole lru": lambda h: h["lru.0"].update(dtype="I32"),
    "conv turned": lambda h: h["conv.0"].update(shape=[2, 40, 2]),
    "a ring turned": lambda h: h["k.1"].update(shape=[2, 2, 5, 8]),
    "a ring of other heads": lambda h: h["k.1"].update(shape=[2, 5, 1, 16]),
    "a ring of five dimensions": lambda h: h["v.3"].update(shape=[2, 5, 2, 8, 1]),
    "another layer's name": lambda h: h.update({"k.0": h.pop("lru.0")}),
    "a layer left out": lambda h: h.update({"conv.9": h.pop("conv.0"), "lru.9": h.pop("lru.0")}),
    "a tensor nobody asked for": lambda h: h.update(more=h.pop("lru.4")),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_file_whose_tensors_do_not_fit_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "conversation.state"
    header, rest = saved(path)
    HEADERS[name](header)
    write(path, header, rest)
    with pytest.raises(ValueError, match=r"conversation\.state"):
        State.load(path)


@pytest.mark.parametrize("pos", [-1, -(2**63), 2**53 + 1, 2**63 - 2, 4])
def test_a_file_of_another_place_is_named(tmp_path: Path, pos: int) -> None:
    path = tmp_path / "conversation.state"
    header, rest = saved(path)
    at = header["pos"]["data_offsets"][0]
    write(path, header, rest[:at] + struct.pack("<2q", pos, pos) + rest[at + 16 :])
    with pytest.raises(ValueError, match=r"conversation\.state"):
        State.load(path)


def test_a_header_of_odd_length(tmp_path: Path) -> None:
    """Values behind it lie where a processor may not read them, until they are copied."""
    path = tmp_path / "conversation.state"
    header, rest = saved(path)
    tokens, expected = make_tokens(GRIFFIN, 2, 3), State.load(path)
    for blanks in (1, 2, 3):
        text = json.dumps(header).encode()
        text += b" " * (blanks - len(text) % 4 + 4)
        other = tmp_path / f"{blanks}.state"  # a loaded state stays in its file's mapping
        other.write_bytes(struct.pack("<Q", len(text)) + text + rest)
        state = State.load(other)
        assert all(t.data_ptr() % t.itemsize == 0 for layer in state.layers for t in layer)
        assert torch.equal(packed()(tokens, state)[0], packed()(tokens, expected)[0])


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.state")
    (tmp_path / "folder.state").mkdir()
    for name in ("pipe.state", "folder.state"):
        with pytest.raises(ValueError, match=f"{name} is no file"):
            State.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        State.load(tmp_path / "nothing.state")


def test_layers_that_share_memory_are_saved_apart(tmp_path: Path) -> None:
    first = State.zeros(GRIFFIN, 1).layers
    assert isinstance(first[1], AttentionState)
    ring = AttentionState(first[1].k, first[1].k)
    state = State(torch.tensor([40]), (first[0], ring, first[0], ring, first[0]))
    state.save(tmp_path / "s")
    assert State.load(tmp_path / "s").layers[3][1].shape == ring.v.shape


def test_what_fits_is_taken(models: dict[str, Griffin], tmp_path: Path) -> None:
    """Strided, negated-when-read, of no rows, saved and loaded at any place."""
    tokens = make_tokens(GRIFFIN, ROWS, 3)
    _, state = models["unpacked"](make_tokens(GRIFFIN, ROWS, 7))
    strided = state.map(lambda t: torch.stack([t, t], 1)[:, 0])
    negated = State(state.pos, [type(x)(*(negated_view(-t) for t in x)) for x in state.layers])
    for model in models.values():
        expected, after = model(tokens, state)
        for other in (strided, negated, state.map(misplaced)):
            assert torch.equal(model(tokens, other)[0], expected)
        none, _ = model(tokens[:0], state.select([]))
        assert none.shape == (0, 3, GRIFFIN.vocab_size)
        for kept in (state, after, state.select([]), State.zeros(GRIFFIN, 3)):
            kept.save(tmp_path / "s")
            found = State.load(tmp_path / "s")
            assert found.pos.tolist() == kept.pos.tolist() and found.nbytes == kept.nbytes


def test_under_autocast_states_are_of_its_type(models: dict[str, Griffin]) -> None:
    model, tokens = models["unpacked"], make_tokens(GRIFFIN, 1, 5)
    with torch.autocast("cpu", torch.bfloat16):
        _, state = model(tokens)
        assert isinstance(state.layers[0], RecurrentState)
        assert state.layers[0].conv.dtype == torch.bfloat16
        model(tokens, state)
        model(tokens, State.zeros(GRIFFIN, 1))


def test_calls_drawn_at_random() -> None:
    """A few of what `python -m tools.fuzz states` draws."""
    refused = 0
    for number in range(60):
        try:
            fuzz.attempt(fuzz.make(random.Random(f"test {number}")))
        except fuzz.ALLOWED:
            refused += 1
    assert 15 < refused < 55
