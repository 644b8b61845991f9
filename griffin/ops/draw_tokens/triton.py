"""The choice in four launches, without sorting: over parts of rows, over rows, and both again.

A row is read in parts, each of which says how large its best value is and how much mass it has.
That is enough for a row that takes the most probable token, or any by its temperature: the part is
found that the row's random number falls into, and only that is read again. A row with top_k, top_p,
min_p or ends to keep back first finds the least value that it keeps (`search`), and its parts are
then weighed once more.
"""

# Of Triton's language the checker knows neither what a kernel's variables are nor its constants.
# pyright: reportPossiblyUnboundVariable=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from griffin.ops.draw_tokens import FINE, NOT_FINITE, NOTHING_ALLOWED, Draw, DrawnTokens
from griffin.ops.draw_tokens.search import search, totals
from griffin.ops.draw_tokens.shaped import marked, order_of, shaped, value_of
from griffin.ops.launching import device_op, launch, parts, power_of_two

PART = 2048  # ids of a part
ROOM = 4096  # values that a row's list holds
TILE = 512  # values that a search looks at together
_WAYS = 8
_MOST_PARTS = 1 << 16
_LEAST = -2139095041  # -inf in the order of values
# How a row's parts are weighed: by their best values, by their mass, or by what is kept of them.
_BEST, _WHOLE, _KEPT = range(3)


def draw_tokens(logits: Tensor, draw: Draw, live: Tensor | None, out: DrawnTokens) -> None:
    run = _op if torch.compiler.is_compiling() else _run
    run(logits.contiguous(), *draw, live, *out)


def _run(
    logits: Tensor,
    uniform: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    repetition: Tensor,
    presence: Tensor,
    frequency: Tensor,
    places: Tensor,
    counts: Tensor,
    bias: Tensor,
    masks: Tensor,
    live: Tensor | None,
    token: Tensor,
    logprob: Tensor,
    fault: Tensor,
) -> None:
    rows, size = logits.shape
    count = parts(size, PART)
    if count > _MOST_PARTS:
        raise ValueError(f"the Triton draw takes at most {_MOST_PARTS * PART} ids, not {size}")
    # Of each part the best logit, the best value, and that without ends; their mass, and the kept.
    best, value, every = logits.new_empty(3, rows, count)
    mass, whole, kept = logits.new_empty(3, rows, count, dtype=torch.float64)
    ties = logits.new_empty(rows, count, dtype=torch.int32)
    # Of each row the place of its least value, how many of that it keeps, the place of its ends,
    # and how its parts are weighed.
    rule = logits.new_empty(4, rows, dtype=torch.int32)
    top = logits.new_empty(rows)
    lists = logits.new_empty(rows, min(ROOM, size))
    shapes = repetition, presence, frequency, places, counts, bias, masks
    # A penalty's product is rounded before it is taken off, as in `Sampler`.
    form = {"size": size, "part": PART, "fuse": False}
    wide = {"count": count, "wide": power_of_two(max(count, 16), _MOST_PARTS)}
    small = rows * count * 4
    launch(
        _weigh_parts,
        (rows, count),
        *(logits, temperature, *shapes, best, value, every, mass, whole, live),
        moved=logits.nbytes + 7 * small,
        **form,
    )
    launch(
        _find_least,
        (rows,),
        *(logits, temperature, top_k, top_p, min_p, *shapes),
        *(value, every, rule, top, lists, live),
        moved=2 * small,
        num_warps=16,
        fuse=False,
        size=size,
        room=lists.shape[1],
        tile=TILE,
        ways=_WAYS,
        least_of_all=_LEAST,
        **wide,
    )
    launch(
        _weigh_kept,
        (rows, count),
        *(logits, temperature, *shapes, rule, top, kept, ties, live),
        moved=rule.nbytes,
        by_kept=_KEPT,
        **form,
    )
    launch(
        _draw,
        (rows,),
        *(logits, uniform, temperature, *shapes, best, value, mass, whole, kept, ties),
        *(rule, top, token, logprob, fault, live),
        moved=7 * small + rows * PART * 4,
        num_warps=8,
        maxnreg=96,  # as many as it wants: left alone, some compilers stop at 64, and spill
        by_best=_BEST,
        by_kept=_KEPT,
        fine=FINE,
        not_finite=NOT_FINITE,
        nothing_allowed=NOTHING_ALLOWED,
        **form,
        **wide,
    )


@triton.jit
def _weigh_parts(
    logits, temperature, repetition, presence, frequency, places, counts, bias, masks, best, value,
    every, mass, whole, live, size: tl.constexpr, part: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    runs = row >= 0
    if live is not None:
        runs = row < tl.load(live)
    if runs:
        own = row * tl.num_programs(1) + tl.program_id(1)
        at = tl.program_id(1) * part + tl.arange(0, part)
        x = tl.load(logits + row * size + at, mask=at < size, other=float("-inf"))
        most = tl.max(x, 0)
        broken = tl.sum((x != x).to(tl.int32), 0) > 0
        tl.store(best + own, tl.where(broken, float("nan"), most))
        base = tl.where(most == float("-inf"), 0.0, most)
        tl.store(mass + own, tl.sum(tl.exp(x - base).to(tl.float64), 0))
        y = shaped(
            logits, at, row, -1, repetition, presence, frequency, places, counts, bias, masks, size
        )
        tl.store(every + own, tl.max(y, 0))
        ended = tl.load(places + 3 * tl.num_programs(0) + row)
        if ended >= 0:
            y = tl.where(marked(masks, ended, at, size), float("-inf"), y)
        most = tl.max(y, 0)
        tl.store(value + own, most)
        base = tl.where(most == float("-inf"), 0.0, most)
        heat = tl.maximum(tl.load(temperature + row), 1e-30)
        tl.store(whole + own, tl.sum(tl.exp((y - base) / heat).to(tl.float64), 0))


@triton.jit
def _find_least(
    logits, temperature, top_k, top_p, min_p, repetition, presence, frequency, places, counts,
    bias, masks, value, every, rule, top, lists, live, size: tl.constexpr, count: tl.constexpr,
    wide: tl.constexpr, room: tl.constexpr, tile: tl.constexpr, ways: tl.constexpr,
    least_of_all: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    rows = tl.num_programs(0)
    runs = row >= 0
    if live is not None:
        runs = row < tl.load(live)
    if runs:
        part = tl.arange(0, wide)
        found = tl.load(value + row * count + part, mask=part < count, other=float("-inf"))
        best = tl.max(found, 0)
        ended = tl.load(places + 3 * rows + row)
        weighed = tl.where(ended >= 0, 2, 1)
        if best == float("-inf"):
            # Nothing may be chosen but what is kept back.
            ended = ended * 0 - 1
            found = tl.load(every + row * count + part, mask=part < count, other=float("-inf"))
            best = tl.max(found, 0)
            weighed = weighed * 0 + 2
        heat = tl.maximum(tl.load(temperature + row), 1e-30)
        most = tl.load(top_k + row)
        share = tl.load(top_p + row)
        under = tl.load(min_p + row)
        least = weighed * 0 + least_of_all
        ties = weighed * 0 + size
        if (tl.load(temperature + row) == 0) | (most == 1):
            least = order_of(best)
            ties = weighed * 0 + 1
            weighed = tl.where((weighed == 1) | (ended >= 0), 0, weighed)
        elif (best > float("-inf")) & (best < float("inf")):
            high = order_of(best).to(tl.int64) + 1
            listed = weighed * 0
            length = weighed * 0 + size
            if (most > 0) & (most < size):
                low = least.to(tl.int64)
                if most <= count:
                    # The best of each part is the least of those, or above.
                    low = order_of(tl.min(tl.where(part < count, found, float("inf")), 0))
                    low = low.to(tl.int64)
                low, above, listed, length = search(
                    most.to(tl.float64), low, high, best, heat, logits, lists, listed, length, row,
                    ended, repetition, presence, frequency, places, counts, bias, masks, False,
                    size, room, tile, ways,
                )  # fmt: skip
                least = low.to(tl.int32)
                ties = most - above.to(tl.int32)
                weighed = weighed * 0 + 2
            if under > float("-inf"):
                edge = best.to(tl.float64) + under
                near = edge.to(tl.float32)
                place = order_of(near) + (near.to(tl.float64) < edge).to(tl.int32)
                if place > least:
                    least = place
                    ties = ties * 0 + size
                weighed = weighed * 0 + 2
            if share < 1.0:
                low = least.to(tl.int64)
                mass, number = totals(
                    low, low + ways, best, heat, logits, lists, listed, length, row, ended,
                    repetition, presence, frequency, places, counts, bias, masks, size, room, tile,
                    ways,
                )  # fmt: skip
                way = tl.arange(0, ways)
                above = tl.sum(tl.where(way == 1, mass, 0.0), 0)
                equal = tl.sum(tl.where(way == 0, number, 0) - tl.where(way == 1, number, 0), 0)
                weight = tl.exp((value_of(least) - best) / heat).to(tl.float64)
                total = above + tl.minimum(ties, equal).to(tl.float64) * weight
                goal = share * total
                # What is lighter than this has less than the rest of the mass in all.
                spare = heat * tl.log((total - goal) / size).to(tl.float32)
                low = tl.maximum(least, order_of(best + spare - 1e-3 * heat)).to(tl.int64)
                low, above, listed, length = search(
                    goal, low, high, best, heat, logits, lists, listed, length, row, ended,
                    repetition, presence, frequency, places, counts, bias, masks, True, size, room,
                    tile, ways,
                )  # fmt: skip
                place = low.to(tl.int32)
                weight = tl.exp((value_of(place) - best) / heat).to(tl.float64)
                need = tl.ceil((goal - above) / tl.maximum(weight, 1e-300))
                held = tl.where(place == least, ties, size)
                need = tl.minimum(tl.maximum(need, 1.0), held.to(tl.float64))
                least = place
                ties = need.to(tl.int32)
                weighed = weighed * 0 + 2
        tl.store(rule + row, least)
        tl.store(rule + rows + row, ties)
        tl.store(rule + 2 * rows + row, ended)
        tl.store(rule + 3 * rows + row, weighed)
        tl.store(top + row, best)


@triton.jit
def _weigh_kept(
    logits, temperature, repetition, presence, frequency, places, counts, bias, masks, rule, top,
    kept, ties, live, size: tl.constexpr, part: tl.constexpr, by_kept: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    rows = tl.num_programs(0)
    runs = row >= 0
    if live is not None:
        runs = row < tl.load(live)
    if runs & (tl.load(rule + 3 * rows + row) == by_kept):
        at = tl.program_id(1) * part + tl.arange(0, part)
        least = tl.load(rule + row)
        ended = tl.load(rule + 2 * rows + row)
        x = shaped(
            logits, at, row, ended, repetition, presence, frequency, places, counts, bias, masks,
            size,
        )  # fmt: skip
        heat = tl.maximum(tl.load(temperature + row), 1e-30)
        weight = tl.exp((x - tl.load(top + row)) / heat)
        order = order_of(x)
        own = row * tl.num_programs(1) + tl.program_id(1)
        mass = tl.where((order > least) & (at < size), weight, 0.0).to(tl.float64)
        tl.store(kept + own, tl.sum(mass, 0))
        tl.store(ties + own, tl.sum(((order == least) & (at < size)).to(tl.int32), 0))


@triton.jit
def _draw(
    logits, uniform, temperature, repetition, presence, frequency, places, counts, bias, masks,
    best, value, mass, whole, kept, ties, rule, top, token, logprob, fault, live,
    size: tl.constexpr, part: tl.constexpr, count: tl.constexpr, wide: tl.constexpr,
    by_best: tl.constexpr, by_kept: tl.constexpr, fine: tl.constexpr, not_finite: tl.constexpr,
    nothing_allowed: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    rows = tl.num_programs(0)
    runs = row >= 0
    if live is not None:
        runs = row < tl.load(live)
    if runs:
        which = tl.arange(0, wide)
        there = which < count
        own = row * count + which
        # The model's own distribution.
        bests = tl.load(best + own, mask=there, other=float("-inf"))
        most = tl.max(bests, 0)
        broken = tl.sum((bests != bests).to(tl.int32), 0) > 0
        masses = tl.load(mass + own, mask=there, other=0.0)
        total = tl.sum(masses * tl.exp((bests - most).to(tl.float64)), 0)
        highest = tl.load(top + row)
        some = (highest > float("-inf")) & (highest < float("inf"))
        wrong = tl.where(some, fine, nothing_allowed)
        finite = (most > float("-inf")) & (most < float("inf"))
        wrong = tl.where(finite, wrong, not_finite)
        wrong = tl.where(broken, not_finite, wrong)

        # The part that the random number falls into.
        least = tl.load(rule + row)
        held = tl.load(rule + rows + row)
        weighed = tl.load(rule + 3 * rows + row)
        heat = tl.maximum(tl.load(temperature + row), 1e-30)
        values = tl.load(value + own, mask=there, other=float("-inf"))
        wholes = tl.load(whole + own, mask=there, other=0.0)
        share = tl.load(uniform + row)
        equal = tl.zeros([wide], tl.int32)
        if weighed == by_best:
            weights = (values == highest).to(tl.float64)
            share = share * 0
        elif weighed == by_kept:
            weight = tl.exp((value_of(least) - highest) / heat).to(tl.float64)
            equal = tl.load(ties + own, mask=there, other=0)
            before = tl.cumsum(equal, 0) - equal
            more = tl.minimum(tl.maximum(held - before, 0), equal)
            weights = tl.load(kept + own, mask=there, other=0.0) + more.to(tl.float64) * weight
        else:
            weights = wholes * tl.exp((values - highest).to(tl.float64) / heat)
        sums = tl.cumsum(weights, 0)
        goal = tl.sum(tl.where(which == wide - 1, sums, 0.0), 0) * share
        chosen = tl.min(tl.where((sums > goal) & (weights > 0), which, wide), 0)
        # The goal was so near the whole mass that it was rounded up to it.
        last = tl.maximum(tl.max(tl.where(weights > 0, which, 0), 0), 0)
        chosen = tl.minimum(chosen, last)
        goal -= tl.sum(tl.where(which == chosen, sums - weights, 0.0), 0)
        earlier = tl.sum(tl.where(which < chosen, equal, 0), 0)

        # The token in it.
        at = chosen * part + tl.arange(0, part)
        ended = tl.load(rule + 2 * rows + row)
        x = shaped(
            logits, at, row, ended, repetition, presence, frequency, places, counts, bias, masks,
            size,
        )  # fmt: skip
        order = order_of(x)
        tie = (order == least) & (at < size)
        number = earlier + tl.cumsum(tie.to(tl.int32), 0)
        mine = ((order > least) & (at < size)) | (tie & (number <= held))
        weights = tl.where(mine, tl.exp((x - highest) / heat), 0.0).to(tl.float64)
        sums = tl.cumsum(weights, 0)
        first = tl.min(tl.where((sums > goal) & (weights > 0), at, size), 0)
        last = tl.max(tl.where(weights > 0, at, 0), 0)
        id = tl.where(wrong == fine, tl.minimum(first, last), 0)

        own_logit = tl.load(logits + row * size + id)
        tl.store(token + row, id.to(tl.int64))
        tl.store(logprob + row, ((own_logit - most).to(tl.float64) - tl.log(total)).to(tl.float32))
        tl.store(fault + row, wrong)
        counted = tl.load(places + row)
        if (counted >= 0) & (wrong == fine):
            count_of = counts + counted.to(tl.int64) * size + id
            tl.store(count_of, tl.load(count_of) + 2)


_op = device_op("draw_tokens_on_device", _run, mutates=("counts", "token", "logprob", "fault"))
