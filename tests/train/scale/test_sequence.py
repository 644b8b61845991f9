"""A row split over ranks: loss and gradients are those of one rank, whatever lies on the cuts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from griffin import ops
from griffin.model import Griffin, GriffinConfig
from griffin.train.data.rows import TrainBatch
from griffin.train.loss import row_nats
from griffin.train.objective import Objective
from griffin.train.scale import sequence
from griffin.train.scale.exchange import exchange
from griffin.train.scale.ranks import Ranks
from griffin.train.scale.sequence import RowPiece, SplitObjective, cut
from tests.support.ranks import on_ranks
from tests.train.conftest import MODEL

pytestmark = pytest.mark.thorough

BLOCKS = ["recurrent", "attention", "recurrent", "attention"]
SIZES = {"tie_embeddings": False, "block_types": BLOCKS, "num_kv_heads": 1}
CONFIG = GriffinConfig.from_dict(MODEL | SIZES)
WORLD, WINDOW = 4, CONFIG.attention_window_size
PIECES = {
    "two": (20, 20),
    "three": (13, 13, 13),
    "window": (WINDOW, WINDOW, WINDOW),
    "half a window": (WINDOW // 2,) * 4,
    "two tokens": (2, 2, 2, 2),
    "one token": (1, 1, 1),
    "uneven": (1, 11, 2, 9),
    "long first": (30, 1, 1),
}
TYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
Found = tuple[Tensor, dict[str, Tensor]]


def rows(pieces: tuple[int, ...]) -> list[list[int]]:
    """Return rows as the lengths of their documents: borders on a cut and beside it, or none."""
    length, at = sum(pieces), sum(pieces[: len(pieces) // 2])
    ends = [[at], [at - 1], [at + 1], [], [1, 3, at, length - 1], list(range(length))]
    inside = [sorted({end for end in each if 0 < end < length}) for each in ends]
    return [
        [last - first for first, last in zip([0, *each], [*each, length], strict=True)]
        for each in inside
    ]


def batch(pieces: tuple[int, ...], changed: int | None = None) -> TrainBatch:
    """Return rows in which no token stands twice, so that each has a gradient of its own.

    changed: the document of each row that is another one.
    """
    documents = rows(pieces)
    shape = (len(documents), sum(pieces))
    tokens = torch.arange(shape[0] * shape[1]).view(shape)
    mask = tokens % 5 != 1
    targets = (tokens * 7 + 3) % CONFIG.vocab_size
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in documents])
    if changed is not None:
        other = (positions == 0).cumsum(1) - 1 == changed
        tokens = torch.where(other, CONFIG.vocab_size - 1 - tokens, tokens)
        targets = torch.where(other, targets + 1, targets) % CONFIG.vocab_size
    return TrainBatch(tokens, targets, positions, mask)


def model(dtype: torch.dtype) -> Griffin:
    torch.manual_seed(0)
    return Griffin(CONFIG).to(torch.promote_types(dtype, torch.float32))


def found(ours: Griffin, nats: Tensor) -> Found:
    nats.backward()
    gradients = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    return nats.detach(), gradients


def read_piece(piece: RowPiece, whole: TrainBatch, dtype: torch.dtype) -> Found:
    ours, part = model(dtype), piece.of(whole)
    state = piece.state(CONFIG, part.segment_pos, ours.dtype)
    return found(ours, row_nats(ours, part, dtype, state=state, left=piece)[0])


def two_batches(ours: Objective, pieces: tuple[int, ...]) -> Found:
    """Read rows, and then others that go on with their last documents."""
    first = batch(pieces)
    nats, state = ours(first.tokens, first.targets, first.segment_pos, first.mask)
    on = state.pos[:, None] + torch.arange(sum(pieces))
    more, _ = ours(first.tokens.flip(1), first.targets.flip(1), on, first.mask, state)
    return found(ours.griffin, nats + more)


def numbers_sent(piece: RowPiece, whole: TrainBatch, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many numbers a rank sends to others while it reads its piece."""
    sent = list[int]()

    def counted(parts: list[Tensor], *others: Any) -> tuple[Tensor, ...]:
        sent.extend(part.numel() for part in parts)
        return exchange(parts, *others)

    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(sequence, "exchange", counted)
        part, ours = piece.of(whole), model(torch.float32)
        state = piece.state(CONFIG, part.segment_pos, torch.float32)
        row_nats(ours, part, state=state, left=piece)
    return sum(sent)


def work(ranks: Ranks, folder: Path) -> None:
    """Run one rank through all cases."""
    groups = {size: distributed.new_group(list(range(size))) for size in range(2, WORLD + 1)}
    results: dict[tuple[str, str, int | None], Any] = {}
    for name, pieces in PIECES.items():
        if ranks.rank >= len(pieces):
            continue
        group = groups[len(pieces)]
        piece = RowPiece(pieces, ranks.rank, group)
        for type_name, dtype in TYPES.items():
            for changed in (None, 0, 1):
                whole = batch(pieces, changed)
                results[name, type_name, changed] = read_piece(piece, whole, dtype)
        results[name, "sent", None] = numbers_sent(piece, batch(pieces), pytest.MonkeyPatch())
        if len(set(pieces)) == 1:
            ours = SplitObjective(model(torch.float32), group, carry=True)
            results[name, "objective", None] = two_batches(ours, pieces)
            ours = SplitObjective(model(torch.float32), group, carry=True)
            ours.griffin.keep_every = 3  # blocks, of four: what is sent is sent again, backward
            results[name, "kept", None] = two_batches(ours, pieces)
    torch.save(results, folder / f"rank{ranks.rank}")


class Split:
    """What all ranks found, case by case."""

    def __init__(self, folder: Path) -> None:
        self.ranks = [torch.load(folder / f"rank{rank}") for rank in range(WORLD)]

    def __call__(self, pieces: str, kind: str, changed: int | None = None) -> Found:
        """Return the sums over the ranks."""
        each = [ranks[pieces, kind, changed] for ranks in self.ranks[: len(PIECES[pieces])]]
        names = each[0][1]
        total = {name: sum(gradients[name] for _, gradients in each) for name in names}
        return sum(nats for nats, _ in each), total  # pyright: ignore


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    folder = tmp_path_factory.mktemp("ranks")
    on_ranks(WORLD, work, folder)
    yield Split(folder)


def whole(pieces: str, dtype: torch.dtype, implementation: str | None = None) -> Found:
    ours, rows = model(dtype), batch(PIECES[pieces])
    if implementation is None:
        return found(ours, row_nats(ours, rows, dtype)[0])
    with ops.use(implementation):
        return found(ours, row_nats(ours, rows, dtype)[0])


def close(ours: Found, theirs: Found, rtol: float) -> None:
    torch.testing.assert_close(ours[0], theirs[0], rtol=rtol, atol=0)
    assert ours[1].keys() == theirs[1].keys()
    for name, wanted in theirs[1].items():
        scale = float(wanted.abs().max())
        torch.testing.assert_close(ours[1][name], wanted, rtol=0, atol=rtol * scale, msg=name)


@pytest.mark.parametrize("pieces", PIECES)
def test_in_float64_it_is_the_loop_of_one_rank(split: Split, pieces: str) -> None:
    close(split(pieces, "float64"), whole(pieces, torch.float64, "reference"), 1e-11)


@pytest.mark.parametrize("pieces", PIECES)
def test_in_float32_it_is_one_rank_to_rounding(split: Split, pieces: str) -> None:
    close(split(pieces, "float32"), whole(pieces, torch.float32), 1e-4)


@pytest.mark.parametrize("pieces", PIECES)
def test_under_autocast_it_is_as_near_the_truth_as_one_rank(split: Split, pieces: str) -> None:
    def distance(one: Found) -> float:
        pairs = ((one[1][name].double() - g, g) for name, g in truth[1].items())
        return max(float(off.norm() / g.norm().clamp_min(1e-12)) for off, g in pairs)

    truth = whole(pieces, torch.float64)
    assert distance(split(pieces, "bfloat16")) < 1.5 * distance(whole(pieces, torch.bfloat16))


@pytest.mark.parametrize("kind", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("changed", [0, 1])
@pytest.mark.parametrize("pieces", PIECES)
def test_another_document_leaves_the_gradient_as_it_is(
    split: Split, pieces: str, changed: int, kind: str
) -> None:
    whole = batch(PIECES[pieces])
    kept = whole.tokens == batch(PIECES[pieces], changed).tokens
    name = "model.embed_tokens.weight"
    one, other = split(pieces, kind)[1][name], split(pieces, kind, changed)[1][name]
    tokens = whole.tokens[kept]
    assert one[tokens].abs().sum() > 0
    assert torch.equal(one[tokens], other[tokens])
    assert not torch.equal(one, other)


@pytest.mark.parametrize("pieces", [name for name in PIECES if len(set(PIECES[name])) == 1])
def test_the_objective_cuts_rows_and_carries_their_state_on(split: Split, pieces: str) -> None:
    alone = two_batches(Objective(model(torch.float32)), PIECES[pieces])
    close(split(pieces, "objective"), alone, 1e-4)


@pytest.mark.parametrize("pieces", [name for name in PIECES if len(set(PIECES[name])) == 1])
def test_block_checkpointing_does_not_change_a_bit(split: Split, pieces: str) -> None:
    close(split(pieces, "kept"), split(pieces, "objective"), 0.0)


def test_no_more_is_sent_than_the_edges_and_two_numbers_a_channel(split: Split) -> None:
    batch_rows = len(rows(PIECES["window"]))
    edge = (CONFIG.conv_width - 1) * CONFIG.lru_width
    ring = 2 * WINDOW * CONFIG.num_kv_heads * CONFIG.head_dim
    sent = [ranks["window", "sent", None] for ranks in split.ranks[:3]]
    for right, numbers in zip((2, 1, 0), sent, strict=True):
        recurrent = edge * (right > 0) + 2 * CONFIG.lru_width * right
        attention = ring * (right > 0)
        assert numbers == 2 * (recurrent + attention) * batch_rows


def test_rows_are_cut_as_evenly_as_can_be() -> None:
    assert cut(12, 3) == (4, 4, 4)
    assert cut(11, 3) == (4, 4, 3)
    with pytest.raises(ValueError, match="a row of 2 tokens cannot be split over 3 ranks"):
        cut(2, 3)
