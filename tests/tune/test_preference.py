"""DPO: that it learns what is preferred, from what, and that a stopped run goes on."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from griffin.adapters import Adapter, LoraConfig, adapt, open_adapter, save_adapter
from griffin.checkpoints import copy_companions, load_model, save_model
from griffin.model import Griffin
from griffin.train.recipe import Recipe
from griffin.train.scale.ranks import Ranks
from griffin.tune import preference
from griffin.tune.export import export, measure_before
from griffin.tune.pairs import Pair, Pairs, log_probabilities
from griffin.tune.preference import PreferenceTrainer
from tests.support.toy_models import make_model

Build = Callable[..., Any]
DPO = {"method": "dpo", "rank": 4, "beta": 0.1}
FULL = DPO | {"parameters": "full"}
LOSSES = ("sigmoid", "ipo", "sigmoid_norm")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty questions; the polite answer is preferred, whatever stands in it."""
    chance, lines = random.Random(2), list[str]()
    for number in range(40):
        said = f" {chance.randrange(100)}"
        good, bad = f"{said}, if you please.", f"{said}, you fool!"
        prompt: Any = f"{number} + {chance.randrange(10)}?"
        if number % 2:
            prompt = [{"role": "user", "content": prompt}]
            good, bad = ([{"role": "assistant", "content": each}] for each in (good, bad))
        lines.append(json.dumps({"prompt": prompt, "chosen": good, "rejected": bad}) + "\n")
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(lines))
    return path


@pytest.fixture
def ours(run: Build, pairs: Path) -> Callable[..., PreferenceTrainer]:
    def build(name: str = "run", tune: dict[str, Any] | None = None, **train: Any) -> Any:
        return run(name, tune=tune or DPO, data=pairs, **train)

    return build


def _trained(trainer: PreferenceTrainer) -> dict[str, Tensor]:
    own = trainer.learner.named_parameters()
    return {name: each.detach().clone() for name, each in own if each.requires_grad}


def _random_adapter(model: Griffin) -> None:
    """B begins at zero, where A has no gradient."""
    for number, each in enumerate(p for p in model.parameters() if p.requires_grad):
        torch.nn.init.normal_(each, std=0.1, generator=torch.Generator().manual_seed(number))


@pytest.mark.sweep
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("tune", [DPO, FULL], ids=["lora", "full"])
def test_held_out_pairs_are_told_apart(
    ours: Callable[..., PreferenceTrainer], tune: dict[str, Any], loss: str
) -> None:
    """By the wrong sign fewer would be than before."""
    rate = 1e-2 if tune is DPO else 1e-3
    trainer = ours(tune=tune | {"loss": loss}, steps=25, rows=4, learning_rate=rate, eval_every=24)
    before = trainer.validate().entries
    trainer.run()
    after = trainer.validate().entries
    assert before["held_out_accuracy"] == pytest.approx(0.5, abs=0.2)
    assert after["held_out_accuracy"] >= 0.95
    assert after["held_out_margin"] > before["held_out_margin"] + 0.2
    assert after["held_out_loss"] < before["held_out_loss"]
    assert after["held_out_chosen_reward"] > after["held_out_rejected_reward"]
    lines = (trainer.out / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert len(entries) == 25 and entries[23].keys() >= after.keys()
    assert {"loss", "margin", "accuracy", "chosen_reward", "epoch"} <= entries[0].keys()


@pytest.mark.parametrize("tune", [DPO, FULL], ids=["lora", "full"])
def test_it_begins_at_the_reference(
    ours: Callable[..., PreferenceTrainer], tune: dict[str, Any]
) -> None:
    entry = ours(tune=tune).step()
    assert entry["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert entry["margin"] == pytest.approx(0.0, abs=1e-5)


def _alone(model: Griffin, document: Any) -> Tensor:
    """Return the log-probability of one answer by itself, from whole logits."""
    ids = torch.from_numpy(document.ids)
    logits, _ = model(ids[None, :-1])
    said = logits[0].log_softmax(-1).gather(-1, ids[1:, None]).squeeze(-1)
    return said[torch.from_numpy(document.counted[1:])].sum()


@pytest.mark.sweep
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("tune", [DPO, FULL], ids=["lora", "full"])
def test_gradients_equal_a_loop_in_float64(
    ours: Callable[..., PreferenceTrainer],
    base: Path,
    tune: dict[str, Any],
    loss: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over answers alone, without padding; the reference's numbers are the base's own."""
    trainer = ours(tune=tune | {"loss": loss}, rows=2, accumulation=2, clip=0.0)
    if tune is DPO:
        _random_adapter(trainer.model)
    truth = load_model(base).double().requires_grad_(False)
    policy = load_model(base, dtype=torch.float32)
    if tune is DPO:
        adapter = Adapter.new("x", LoraConfig(rank=4), truth.config, torch.Generator())
        adapt(policy, adapter, torch.float32, train=True)
    policy.load_state_dict(trainer.model.state_dict())
    policy.double()
    listed = [trainer.pairs.at(number) for number in range(4)]
    losses = list[Tensor]()
    for pair in listed:
        answers = (pair.chosen, pair.rejected)
        ratios = [_alone(policy, each) - _alone(truth, each) for each in answers]
        if loss != "sigmoid":
            ratios = [r / int(a.counted.sum()) for r, a in zip(ratios, answers, strict=True)]
        margin = ratios[0] - ratios[1]
        losses.append(
            (margin - 1 / (2 * 0.1)) ** 2
            if loss == "ipo"
            else torch.log1p(torch.exp(-0.1 * margin))
        )
    expected = torch.stack(losses).mean()
    expected.backward()
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    entry = trainer.step()
    assert entry["loss"] == pytest.approx(expected.item(), rel=1e-5)
    own = dict(policy.named_parameters())
    for name, each in trainer.model.named_parameters():
        theirs = own[name].grad
        if not each.requires_grad:
            assert each.grad is None
            continue
        assert each.grad is not None and theirs is not None, name
        size = float(theirs.abs().max())
        torch.testing.assert_close(
            each.grad.double(), theirs, rtol=0, atol=max(5e-5 * size, 1e-7), msg=name
        )


@pytest.mark.parametrize(
    "tune", [DPO, DPO | {"dropout": 0.5}, FULL], ids=["lora", "dropout", "full"]
)
def test_a_stopped_run_ends_with_the_same_bits(
    ours: Callable[..., PreferenceTrainer], tune: dict[str, Any]
) -> None:
    """Over the border of an epoch: 30 pairs or so, 8 a step."""
    how = {"tune": tune, "steps": 5, "rows": 4, "accumulation": 2}
    straight = ours("straight", **how)
    straight.run()
    stopped = ours("stopped", **how)
    for _ in range(3):
        stopped.step()
    stopped.save()
    kept = (stopped.out / "data" / "reference.safetensors").read_bytes()
    again = ours("stopped", **how)
    assert again.progress.step == 3 and again.progress.rows == 24
    again.run()
    assert again.progress.rows > len(again.pairs)
    one, other = _trained(straight), _trained(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (again.out / "data" / "reference.safetensors").read_bytes() == kept


@pytest.mark.parametrize("tune", [DPO | {"dropout": 0.9, "whole": ["rg_lru"]}, FULL])
def test_the_reference_does_not_drift(
    ours: Callable[..., PreferenceTrainer], base: Path, tune: dict[str, Any]
) -> None:
    """Its numbers are those of the checkpoint, whatever is trained and whatever is left out."""
    trainer = ours(tune=tune, steps=4)
    trainer.run()
    model = load_model(base, dtype=torch.float32).eval()
    kept = load_file(trainer.out / "data" / "reference.safetensors")
    for pairs, known in ((trainer.pairs, "train"), (trainer.held_out, "held_out")):
        for number in range(0, len(pairs), 7):
            pair = pairs.listed(number)
            with torch.no_grad():
                found = torch.stack([_alone(model, a) for a in (pair.chosen, pair.rejected)])
            torch.testing.assert_close(kept[known][number], found, rtol=1e-5, atol=1e-4)


def test_the_reference_is_asked_once(
    ours: Callable[..., PreferenceTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ours().reference

    def never(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("asked again")

    monkeypatch.setattr("griffin.tune.reference.log_probabilities", never)
    again = ours().reference
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    with pytest.raises(AssertionError, match="asked again"):
        ours("another")


@pytest.mark.parametrize("damage", ["digest", "torn"])
def test_numbers_of_another_reference_are_computed_anew(
    ours: Callable[..., PreferenceTrainer], damage: str
) -> None:
    trainer = ours()
    path, first = trainer.out / "data" / "reference.safetensors", trainer.reference
    content = path.read_bytes()
    if damage == "torn":
        path.write_bytes(content[:-9])
    else:
        place = content.index(b'"reference":"') + 13
        path.write_bytes(content[:place] + b"0000" + content[place + 4 : -8] + b"\0" * 8)
    again = ours().reference
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert path.read_bytes() == content


def test_another_base_has_other_numbers(
    run: Build, pairs: Path, tmp_path: Path, base: Path
) -> None:
    """A checkpoint that was replaced is seen, by its digest."""
    folder = tmp_path / "base"
    recipe: Any = {"tune": DPO, "data": pairs}
    model = load_model(base)
    save_model(model, folder)
    copy_companions(base, folder)
    planned = Recipe.from_dict(run(**recipe).recipe.to_dict() | {"from": str(folder)})
    first = PreferenceTrainer(planned, tmp_path / "x")
    first.close()
    other = make_model(model.config, seed=9)
    save_model(other, folder)
    with PreferenceTrainer(planned, tmp_path / "x") as again:
        assert not torch.allclose(first.reference.train, again.reference.train)


def test_training_goes_on_from_a_named_adapter(
    ours: Callable[..., PreferenceTrainer], base: Path, tmp_path: Path
) -> None:
    """It is the reference, and what the run begins as."""
    shape = load_model(base).config
    config = LoraConfig(rank=4, dropout=0.25)
    adapter = Adapter.new("mine", config, shape, torch.Generator().manual_seed(3))
    random_b = {
        name: torch.randn(each.shape, generator=torch.Generator().manual_seed(4)) * 0.1
        for name, each in adapter.tensors.items()
    }
    adapter = dataclasses.replace(adapter, tensors=random_b)
    folder = save_adapter(adapter, tmp_path / "mine")
    trainer = ours(tune=DPO | {"reference": str(folder)})
    plain = ours("plain")
    assert not torch.allclose(trainer.reference.train, plain.reference.train, atol=0.1)
    assert trainer.step()["loss"] == pytest.approx(math.log(2), abs=1e-5)
    with pytest.raises(ValueError, match=r"set tune\.rank = 4"):
        ours("other", tune=DPO | {"rank": 8, "reference": str(folder)})
    with pytest.raises(ValueError, match="beside which no other weights are trained"):
        ours("full", tune=FULL | {"reference": str(folder)})
    with pytest.raises(ValueError, match="holds no adapter"):
        ours("none", tune=DPO | {"reference": str(tmp_path / "nowhere")})


def test_what_is_written_is_what_was_trained(
    ours: Callable[..., PreferenceTrainer], base: Path
) -> None:
    trainer = ours(steps=12, rows=4)
    measure_before(trainer)
    trainer.run()
    results = export(trainer)
    assert results is not None and results["method"] == "dpo"
    before, after = results["before"], results["after"]
    assert after["held_out_accuracy"] > before["held_out_accuracy"]
    assert len(before["answers"]) == len(after["answers"]) == 5
    model = adapt(load_model(base).eval(), open_adapter(results["adapter"]), torch.float32)
    trainer.model.eval()
    pair = trainer.held_out.listed(0)
    with torch.no_grad():
        ours_, theirs = (log_probabilities(m, [pair]) for m in (trainer.model, model))
    torch.testing.assert_close(ours_, theirs, rtol=1e-6, atol=1e-5)


def test_long_pairs_are_left_out_whole(ours: Callable[..., PreferenceTrainer]) -> None:
    whole = ours().pairs
    lengths = [
        max(len(p.chosen.ids), len(p.rejected.ids)) - 1
        for p in (whole.listed(number) for number in range(len(whole)))
    ]
    most = sorted(lengths)[len(lengths) // 2]
    short = ours("short", length=most)
    assert short.pairs.left_out == sum(each > most for each in lengths) > 0
    assert len(short.pairs) == sum(each <= most for each in lengths)
    assert short.reference.train.shape == (len(short.pairs), 2)
    with pytest.raises(ValueError, match=r"there is no pair to train on .* train\.length = 3"):
        ours("none", length=3)


def test_every_pair_once_an_epoch(ours: Callable[..., PreferenceTrainer]) -> None:
    pairs: Pairs = ours().pairs
    epochs = [[pairs.at(e * len(pairs) + n).number for n in range(len(pairs))] for e in (0, 1)]
    assert epochs[0] != epochs[1]
    assert all(sorted(epoch) == list(range(len(pairs))) for epoch in epochs)
    again = [pairs.at(n).number for n in range(len(pairs))]
    assert again == epochs[0]
    first: Pair = pairs.listed(0)
    assert first.lengths == (int(first.chosen.counted.sum()), int(first.rejected.counted.sum()))


def test_a_budget_in_epochs(ours: Callable[..., PreferenceTrainer]) -> None:
    trainer = ours(steps=0, epochs=2.0, rows=4)
    assert trainer.plan.total_steps == 2 * len(trainer.pairs) // 4


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"steps": 0, "tokens": 1000}, "takes a budget in train.steps or train.epochs"),
        ({"carry": True}, "whole answers|data.packing = 'cut'"),
    ],
)
def test_what_cannot_be_is_refused(
    ours: Callable[..., PreferenceTrainer], train: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        ours(**train)


def test_several_ranks_are_refused_with_a_reason(
    ours: Callable[..., PreferenceTrainer], tmp_path: Path
) -> None:
    recipe = ours().recipe
    with pytest.raises(ValueError, match="is for one process, not 2: pairs are not dealt"):
        PreferenceTrainer(recipe, tmp_path / "own", ranks=Ranks(0, 2))
    assert not (tmp_path / "own").exists()


def test_ties_count_half(
    ours: Callable[..., PreferenceTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = ours()
    known = trainer.reference.held_out
    numbers = iter(range(10_000))

    def same(model: Any, pairs: Any, *_: Any, **__: Any) -> Tensor:
        return known[[pair.number for pair in pairs]] + 0 * next(numbers)

    monkeypatch.setattr(preference, "log_probabilities", same)
    assert trainer.validate().entries["held_out_accuracy"] == 0.5
