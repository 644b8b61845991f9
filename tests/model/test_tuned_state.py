"""A learnt state: what it stands for, how a text goes on behind it, and what fits no model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from griffin.model import PRESETS, Griffin, TunedState
from tests.support.toy_models import GRIFFIN, HAWK, TOYS, make_model, make_tokens

BOS = 2


def begun(model: Griffin, ids=(BOS,)) -> TunedState:
    return TunedState.begin(model, ids, weights="w")


def read(model: Griffin, ids: torch.Tensor, tuned: TunedState | None) -> torch.Tensor:
    """Return the logits after the second token of a text and all later ones."""
    with torch.no_grad():
        if tuned is None:
            return model(ids)[0][:, 1:]
        return model(ids[:, 1:], tuned.as_state(len(ids), model.dtype))[0]


def text(config, rows: int = 2, steps: int = 40) -> torch.Tensor:
    ids = make_tokens(config, rows, steps)
    ids[:, 0] = BOS
    return ids


@pytest.mark.parametrize("name", TOYS)
def test_one_of_which_nothing_was_learnt_equals_no_state(name):
    model, ids = make_model(TOYS[name]), text(TOYS[name])
    assert torch.equal(read(model, ids, begun(model)), read(model, ids, None))


def test_begun_with_more_ids_it_is_what_they_lead_to():
    model, ids = make_model(GRIFFIN), text(GRIFFIN, 1)
    tuned = begun(model, ids[0, :5].tolist())
    with torch.no_grad():
        whole = model(ids)[0][:, 5:]
        found = model(ids[:, 5:], tuned.as_state())[0]
    assert tuned.keys == 5 and torch.equal(found, whole)


@pytest.mark.parametrize("part", ["lru", "conv", "k", "v"])
def test_every_part_changes_the_first_logits(part):
    model, ids = make_model(GRIFFIN), text(GRIFFIN)
    tuned = begun(model)
    changed = replace(tuned, **{part: tuned.tensors()[part] + 0.5})
    difference = read(model, ids, changed)[:, 0] - read(model, ids, tuned)[:, 0]
    assert difference.abs().amax(-1).min() > 1e-3
    assert changed.digest() != tuned.digest() == begun(model).digest()


def test_rows_share_no_memory_and_the_value_stays():
    model, ids = make_model(GRIFFIN), text(GRIFFIN)
    tuned = begun(model, (BOS,) * 3)
    kept = {name: tensor.clone() for name, tensor in tuned.tensors().items()}
    state = tuned.as_state(2)
    with torch.no_grad():
        once = model(ids[:, 1:], state, donate=True)[0]
        again = model(ids[:, 1:], tuned.as_state(2))[0]
    assert torch.equal(once, again)
    for name, tensor in tuned.tensors().items():
        assert torch.equal(tensor, kept[name])
    tuned.as_state(2).check()


def test_gradients_into_it_equal_finite_differences():
    model = make_model(GRIFFIN, dtype=torch.float64)
    ids = text(GRIFFIN, 2, 24)
    tuned = begun(model, (BOS,) * 4)
    parts = {name: t.clone().requires_grad_() for name, t in tuned.tensors().items()}
    weights = torch.randn(23, GRIFFIN.vocab_size, dtype=torch.float64)

    def loss(parts) -> torch.Tensor:
        logits, _ = model(ids[:, 1:], replace(tuned, **parts).as_state(2))
        return (logits * weights).sum()

    loss(parts).backward()
    for name, tensor in parts.items():
        assert tensor.grad is not None
        direction = torch.randn(tensor.shape, dtype=torch.float64)
        step = 1e-5
        with torch.no_grad():
            ends = [loss({**parts, name: tensor + sign * step * direction}) for sign in (1.0, -1.0)]
        slope = (ends[0] - ends[1]) / (2 * step)
        found = (tensor.grad * direction).sum()
        assert float((found - slope).abs()) < 1e-6 * max(1.0, float(slope.abs())), name


def test_half_a_megabyte_at_2b():
    config = PRESETS["recurrentgemma-2b"]
    for keys, size in ((1, 468_992), (16, 591_872)):
        recurrent = config.block_types.count("recurrent")
        attention = config.block_types.count("attention")
        ring = torch.zeros(attention, keys, 1, config.head_dim, dtype=torch.bfloat16)
        conv = torch.zeros(recurrent, 3, config.lru_width, dtype=torch.bfloat16)
        lru = torch.zeros(recurrent, config.lru_width)
        tuned = TunedState(config=config, weights="w", lru=lru, conv=conv, k=ring, v=ring)
        tuned.check_tensors()
        assert tuned.nbytes == size


def test_what_fits_no_model_is_refused_by_name():
    model = make_model(GRIFFIN)
    tuned = begun(model, (BOS,) * 2)
    tuned.check(GRIFFIN, "w")
    with pytest.raises(ValueError, match=r"another shape \(width 48, 96 here"):
        tuned.check(GRIFFIN.replace(width=96), "w")
    with pytest.raises(ValueError, match=r"other weights \(w\.\.\., here other"):
        tuned.check(GRIFFIN, "other")
    with pytest.raises(ValueError, match=r"learnt with no adapter, .* with the adapter abc"):
        tuned.check(GRIFFIN, "w", "abc")
    with pytest.raises(ValueError, match="n = 0 keys; it needs at least 1, because"):
        replace(tuned, k=tuned.k[:, :0], v=tuned.v[:, :0]).check(GRIFFIN, "w")
    with pytest.raises(ValueError, match=r"the tuned state's v is \(2, 1, 2, 8\), not \(2, 2, 2"):
        replace(tuned, v=tuned.v[:, :1]).check(GRIFFIN, "w")
    with pytest.raises(ValueError, match=r"the tuned state's lru .* is not all finite"):
        replace(tuned, lru=tuned.lru * float("nan")).check(GRIFFIN, "w")
    with pytest.raises(ValueError, match="n = 0 keys"):
        begun(model, ())
    with pytest.raises(ValueError, match="n = 17 keys; this model's window holds 16"):
        begun(model, (BOS,) * 17)
    assert begun(make_model(HAWK), (BOS,) * 17).keys == 17  # positions alone


def test_in_another_type_it_keeps_h_wide():
    half = begun(make_model(GRIFFIN)).to(torch.bfloat16)
    assert half.lru.dtype == torch.float32 and half.k.dtype == torch.bfloat16
    half.as_state(1).check()
    assert half.as_state(1, torch.float32).layers[0][0].dtype == torch.float32
