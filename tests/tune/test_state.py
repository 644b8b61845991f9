"""A learnt state: its gradients, and runs that learn one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import griffin
from griffin.adapters import open_tuned
from griffin.checkpoints import load_model
from griffin.cli import main
from griffin.llm import LLM
from griffin.model import Griffin, TunedState
from griffin.ops import native
from griffin.quant import FORMATS, quantize_model
from griffin.train.data.rows import TrainBatch
from griffin.train.loss import row_nats
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.scale.ranks import Ranks
from griffin.train.watching import sample
from griffin.tune.export import export, measure_before, tuned_state, write_learned
from griffin.tune.state import StateLearner, StateObjective
from griffin.tune.supervised import Tuner
from tests.adapters.test_packed_training import in_float64, rounding, wanted_nats, watch
from tests.support.ranks import on_ranks
from tests.support.toy_models import GRIFFIN, HAWK, TOYS, make_model, make_tokens

Build = Callable[..., Any]
BOS = 2
STATE = {"method": "state", "keys": 3}


def packed(config) -> TrainBatch:
    """Two rows: documents of several lengths, a piece without its beginning, padding."""
    tokens = make_tokens(config, 2, 41)
    positions = torch.zeros(2, 40, dtype=torch.int64)
    lengths = ((18, 4, 2, 16), (9, 25, 6))  # the last of row 1 is padding
    for row, parts in enumerate(lengths):
        at = 0
        for number, length in enumerate(parts):
            if (row, number) != (1, 0):  # that one is a piece
                tokens[row, at] = BOS
            positions[row, at : at + length] = torch.arange(length)
            at += length
    mask = torch.rand(2, 40, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[1, 34:] = False
    mask[0, 0] = mask[0, 22] = True  # what follows BOS is counted, too
    return TrainBatch(tokens[:, :-1], tokens[:, 1:], positions, mask)


def objective(model: Griffin, keys: int = 1) -> StateObjective:
    begun = TunedState.begin(model, [BOS] * keys, weights="w")
    return StateObjective(model, StateLearner(begun), BOS, model.dtype)


def fields(batch: TrainBatch):
    return batch.tokens, batch.targets, batch.segment_pos, batch.mask


@pytest.mark.parametrize("name", TOYS)
def test_before_it_has_learned_the_loss_is_that_of_the_model(name):
    model, batch = make_model(TOYS[name], dtype=torch.float64), packed(TOYS[name])
    wanted = row_nats(model, batch, torch.float64)[0]
    found = objective(model)(*fields(batch))[0]
    assert torch.allclose(found, wanted, rtol=1e-12)


def alone(model: Griffin, tensors: dict[str, torch.Tensor], batch: TrainBatch) -> torch.Tensor:
    """Return the loss by logits of each document by itself, without packing or padding."""
    total = torch.zeros((), dtype=torch.float64)
    for row in range(2):
        starts = (batch.segment_pos[row] == 0).nonzero()[:, 0].tolist()
        for start, end in zip(starts, (*starts[1:], 40), strict=True):
            part = slice(start, end)
            tokens, counted = batch.tokens[row, part][None], batch.mask[row, part]
            logits = model(tokens)[0][0]
            if int(tokens[0, 0]) == BOS and end - start > 1:
                begun = TunedState.begin(model, [BOS] * 4, weights="w")
                tuned = StateLearner(begun).tuned(tensors)
                behind = model(tokens[:, 1:], tuned.as_state())[0][0]
                logits = torch.cat([logits[:1], behind])
            nats = -logits.log_softmax(-1).gather(1, batch.targets[row, part][:, None])[:, 0]
            total = total + nats[counted].sum()
    return total


def test_gradients_of_packed_rows_are_those_of_documents_alone_and_finite_differences():
    model, batch = make_model(GRIFFIN, dtype=torch.float64), packed(GRIFFIN)
    ours = objective(model, keys=4)
    nats = ours(*fields(batch))[0]
    nats.backward()
    own = {name: p.detach().clone().requires_grad_() for name, p in ours.learner.named_parameters()}
    wanted = alone(model, own, batch)
    wanted.backward()
    assert torch.allclose(nats, wanted, rtol=1e-12)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in ours.learner.named_parameters():
        assert parameter.grad is not None and own[name].grad is not None
        assert torch.allclose(parameter.grad, own[name].grad, rtol=1e-9, atol=1e-12), name
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        ends = list[float]()
        for step in (1e-5, -1e-5):
            moved = {**own, name: own[name].detach() + step * direction}
            with torch.no_grad():
                ends.append(float(alone(model, moved, batch)))
        slope = (ends[0] - ends[1]) / 2e-5
        found = float((parameter.grad * direction).sum())
        assert found == pytest.approx(slope, rel=1e-6, abs=1e-7), name
    assert all(each.grad is None for each in model.parameters())


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_on_a_packed_base_it_is_learned_with_the_bits_of_an_answer(format):
    """And gradients pass straight through what is rounded: they are those in float64."""
    model = make_model(HAWK)
    quantize_model(model, format)
    learner = StateLearner(TunedState.begin(model, [BOS] * 4, weights="w"))
    tokens = make_tokens(HAWK, 2, 31)
    with torch.no_grad():
        answered, _ = model.trunk(tokens[:, :-1], learner(2, model.dtype))
    found, _ = model.trunk(tokens[:, :-1], learner(2, model.dtype))
    assert found.requires_grad and (torch.equal(found, answered) or not native.built())

    positions = (4 + torch.arange(30)).expand(2, 30)
    mask = torch.rand(2, 30, generator=torch.Generator().manual_seed(0)) < 0.6
    batch = TrainBatch(tokens[:, :-1], tokens[:, 1:], positions, mask)
    seen = watch(model)
    nats, _ = row_nats(model, batch, state=learner(2, model.dtype))
    nats.backward()
    assert len(seen) > 10
    other = in_float64(model, None, seen)
    own = {name: p.detach().double().requires_grad_() for name, p in learner.named_parameters()}
    state = learner.tuned(own).as_state(2, torch.float64)
    wanted = wanted_nats(other, batch, rounding(seen["head"], format), state)
    wanted.backward()
    assert float(nats.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    for name, parameter in learner.named_parameters():
        gradient = own[name].grad
        assert parameter.grad is not None and gradient is not None and gradient.any(), name
        error = (parameter.grad - gradient).abs().max() / gradient.abs().max()
        assert error < (1e-4 if format == "int8" else 2e-5), (name, float(error))


def test_rows_that_go_on_are_refused():
    model, batch = make_model(GRIFFIN), packed(GRIFFIN)
    with pytest.raises(ValueError, match=r"take train\.carry out"):
        objective(model)(*fields(batch), griffin.State.zeros(GRIFFIN, 2))


def test_a_run_learns_it_and_the_base_stays(run: Build, base: Path, tmp_path: Path) -> None:
    ours = run(tune=STATE, steps=40, learning_rate=0.1)
    measure_before(ours)
    worth = ours.validate().worth
    ours.run()
    assert ours.validate().worth < worth - 0.3
    results = export(ours)
    assert results is not None and results["state"].endswith("tuned.state")
    own = dict(load_model(base).named_parameters())
    for name, parameter in ours.model.named_parameters():
        assert torch.equal(parameter, own[name]), name
    tuned = open_tuned(results["state"])
    assert tuned.keys == 3 and tuned.name == str(base)
    assert results["trained_parameters"] == sum(t.numel() for t in tuned.tensors().values())
    # What it learned is what every reader gets: bits of a held-out conversation, by scoring.
    llm = griffin.load(base, state=results["state"])
    documents, _ = ours._validation["data"]
    ids, counted = documents[0].ids.tolist(), documents[0].counted
    scores = torch.tensor(llm.score(ids).logprobs)[torch.from_numpy(counted)[1:]]
    batch = TrainBatch(
        torch.tensor([ids[:-1]]),
        torch.tensor([ids[1:]]),
        torch.arange(len(ids) - 1)[None],
        torch.from_numpy(counted)[None, 1:],
    )
    with torch.no_grad():
        nats = ours.objective(*fields(batch))[0]
    assert float(-scores.sum()) == pytest.approx(float(nats), rel=1e-4)
    answers = {each["prompt"]: each["answer"] for each in results["after"]["answers"]}
    assert answers and answers != {
        each["prompt"]: each["answer"] for each in results["before"]["answers"]
    }


def test_with_one_key_it_begins_as_the_model(run: Build) -> None:
    ours, plain = run(tune={"method": "state", "keys": 1}), run("plain", tune={"method": "lora"})
    assert ours.validate().worth == pytest.approx(plain.validate().worth, rel=1e-6)


def _work(ranks: Ranks, folder: Path, recipe: Recipe) -> None:
    with Tuner(recipe, folder / "two", Reporter(quiet=True), ranks=ranks) as ours:
        loss = [ours.step()["loss"] for _ in range(3)]
        results = export(ours)
        if ranks.is_writer:
            assert results is not None
            torch.save(loss, folder / "two.pt")


@pytest.mark.thorough
def test_two_ranks_learn_the_state_that_one_does(
    run: Build, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    ours = run("one", tune=STATE)
    loss = [ours.step()["loss"] for _ in range(3)]
    results = export(ours)
    on_ranks(2, _work, tmp_path, recipe(tune=STATE))
    assert torch.load(tmp_path / "two.pt") == pytest.approx(loss, rel=1e-6)
    assert results is not None
    one, two = open_tuned(results["state"]), open_tuned(tmp_path / "two" / "tuned.state")
    for name, tensor in one.tensors().items():
        torch.testing.assert_close(two.tensors()[name], tensor, rtol=0, atol=2e-6)


def test_the_command_learns_one(base: Path, chats: Path, tmp_path: Path) -> None:
    made = tmp_path / "run"
    arguments = ["finetune", str(base), "--data", str(chats), "--method", "state"]
    sets = ("train.epochs=1", "train.length=64", "tune.keys=2")
    changes = [word for each in sets for word in ("--set", each)]
    done = CliRunner().invoke(main, [*arguments, "--out", str(made), *changes])
    assert done.exit_code == 0, done.output
    assert f"to use it: griffin chat --model {base} --state {made / 'tuned.state'}" in done.stdout
    said = ["generate", "--model", str(base), "--json", "--max-tokens", "4", "2 + 3?", "--chat"]
    used = CliRunner().invoke(main, [*said, "--state", str(made / "tuned.state")])
    assert used.exit_code == 0 and "text" in json.loads(used.stdout)


def test_a_checkpoint_is_exported_as_a_state(run: Build, tmp_path: Path) -> None:
    ours = run(tune=STATE, keep=3)
    ours.step()
    ours.save()
    first = open_tuned(write_learned(ours))
    ours.step()
    ours.save()
    words = ["export", str(ours.out), str(tmp_path / "first.state"), "--step", "1", "--json"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["state"] == str(tmp_path / "first.state")
    found = open_tuned(tmp_path / "first.state")
    assert found.digest() == first.digest() != open_tuned(write_learned(ours)).digest()
    assert (found.weights, found.name, found.config) == (first.weights, first.name, first.config)
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 2 and "exists already" in again.output


def test_prompts_that_are_watched_are_continued_behind_the_state(run: Build) -> None:
    ours = run(tune=STATE, prompts=["1 + 1", ""], sample_tokens=6)
    model, tokenizer = ours.model, ours.data.tokenizer
    with torch.no_grad():
        for parameter in ours.learner.parameters():
            parameter.add_(torch.randn_like(parameter))
    tuned = tuned_state(ours)
    assert tuned is not None
    llm = LLM(model, tokenizer, weights=lambda: tuned.weights, tuned=tuned)
    ids = tokenizer.encode("1 + 1")
    result = llm.generate(ids, temperature=0.0, max_tokens=6)
    assert ours._samples() == [{"prompt": "1 + 1", "text": result.text}]
    assert sample(model, tokenizer, ["1 + 1"], 6) != ours._samples()
