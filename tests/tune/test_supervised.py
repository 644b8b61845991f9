"""Tuning on written answers: what changes, what stays, and that a stopped run goes on."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import griffin
from griffin.adapters import open_adapter
from griffin.checkpoints import load_model
from griffin.cli import main
from griffin.model.layers import Linear
from griffin.model.packed import packed_format
from griffin.ops import native
from griffin.train.loss import row_nats
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.scale.ranks import Ranks
from griffin.train.scale.sharding import whole_weights
from griffin.tune.export import export, measure_before, tuned_adapter
from griffin.tune.supervised import Tuner
from tests.support.ranks import on_ranks

Build = Callable[..., Any]
LORA = {"method": "lora", "rank": 4}
STATE = {"method": "state", "keys": 3}


def _trained(run: Tuner) -> dict[str, torch.Tensor]:
    own = run.learner.named_parameters()
    return {name: each.detach().clone() for name, each in own if each.requires_grad}


def test_an_adapter_learns_and_the_base_stays(run: Build, base: Path) -> None:
    ours = run(tune=LORA, steps=30)
    before, worth = _trained(ours), ours.validate().worth
    assert all(".lora_" in name for name in before)
    ours.run()
    assert ours.validate().worth < worth - 0.5
    after = _trained(ours)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    own = dict(load_model(base).named_parameters())
    for name, parameter in ours.model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, own[name.replace(".base.", ".")]), name


@pytest.mark.parametrize(
    ("kind", "format"), [("bfloat16", "bf16"), ("int8", "int8"), ("int4", "int4")]
)
def test_a_base_lies_as_when_it_answers(run: Build, kind: str, format: str) -> None:
    """And what is trained computes the bits of an answer."""
    ours = run(tune=LORA | {"base": kind}, steps=20)
    assert packed_format(ours.model) == format or (format == "bf16" and not native.built())
    worth = ours.validate().worth
    ours.run()
    assert ours.validate().worth < worth - 0.3
    tokens = ours.packer.batch(0, 1).tokens
    found, _ = ours.model.trunk(tokens)
    with torch.no_grad():
        answered, _ = ours.model.trunk(tokens)
    assert found.requires_grad
    assert torch.equal(found, answered) or not native.built()


def test_answers_alone_are_counted(run: Build) -> None:
    ours = run(tune=LORA)
    batch, tokenizer = ours.packer.batch(0, 2), ours.data.tokenizer
    counted = batch.targets[batch.mask].tolist()
    words = tokenizer.decode(counted)
    assert "?" not in words and "." in words
    assert tokenizer.end_of_turn_id in counted


@pytest.mark.parametrize(
    "tune",
    [LORA, LORA | {"dropout": 0.5}, {"method": "full"}, STATE],
    ids=["lora", "dropout", "full", "state"],
)
def test_a_stopped_run_ends_with_the_same_bits(run: Build, tune: dict[str, Any]) -> None:
    straight = run("straight", tune=tune)
    straight.run()
    stopped = run("stopped", tune=tune)
    stopped.step()
    stopped.step()
    stopped.save()
    again = run("stopped", tune=tune)
    assert again.progress.step == 2
    again.run()
    one, other = _trained(straight), _trained(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_dropout_is_for_steps_alone(run: Build) -> None:
    ours = run(tune=LORA | {"dropout": 0.9})
    ours.step()
    assert ours.validate() == ours.validate()
    other = run("other", tune=LORA)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(_trained(ours).values(), _trained(other).values(), strict=True)
    )


def test_what_is_written_is_what_was_trained(run: Build, base: Path) -> None:
    ours = run(tune=LORA, steps=20)
    measure_before(ours)
    ours.run()
    results = export(ours)
    assert results is not None
    assert results == json.loads((ours.out / "results.json").read_text())
    before, after = results["before"], results["after"]
    assert after["held_out_bits_per_byte"] < before["held_out_bits_per_byte"]
    assert len(before["answers"]) == len(after["answers"]) == 5
    prompts = [each["prompt"] for each in before["answers"]]
    assert prompts == [each["prompt"] for each in after["answers"]] and len(set(prompts)) == 5
    assert before["answers"] != after["answers"]
    kept = open_adapter(results["adapter"])
    assert results["trained_parameters"] == sum(each.numel() for each in kept.tensors.values())
    llm = griffin.load(base, adapter=results["adapter"])
    ids = ours.data.sources[0].held_out.document(0)
    with torch.no_grad():
        theirs = llm.model.trunk(torch.from_numpy(ids)[None])[0]
        assert torch.equal(theirs, ours.model.eval().trunk(torch.from_numpy(ids)[None])[0])


def test_a_model_tuned_in_full_is_written_whole(run: Build) -> None:
    ours = run(tune={"method": "full"}, steps=10)
    measure_before(ours)
    ours.run()
    results = export(ours)
    assert results is not None
    model = load_model(results["full"])
    for name, parameter in ours.model.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter.to(torch.bfloat16)), name


def test_modules_trained_whole_travel_in_the_adapter(run: Build, base: Path) -> None:
    ours = run(tune=LORA | {"whole": ["rg_lru"], "targets": ["linear_x"]}, steps=3)
    ours.run()
    results = export(ours)
    assert results is not None
    kept = open_adapter(results["adapter"])
    whole = {name: tensor for name, tensor in kept.tensors.items() if ".rg_lru." in name}
    own = load_model(base)
    assert whole and any(not torch.equal(own.get_parameter(k), v) for k, v in whole.items())


@pytest.mark.parametrize("checkpoint", ["none", "blocks"])
def test_gradients_of_adapters_equal_float64_over_documents_alone(
    run: Build, base: Path, checkpoint: str
) -> None:
    """Packed rows in float32, against each document by itself with W + s B A in float64."""
    ours = run(tune=LORA, checkpoint=checkpoint, length=96)
    for number, each in enumerate(ours.model.parameters()):
        if each.requires_grad:  # B begins at zero, where A has no gradient
            torch.nn.init.normal_(each, std=0.1, generator=torch.Generator().manual_seed(number))
    batch = ours.packer.batch(0, 2)
    assert int((batch.segment_pos == 0).sum()) > 4, "rows hold several documents"
    nats, _ = ours.objective(batch.tokens, batch.targets, batch.segment_pos, batch.mask)
    nats.backward()
    found = {n: p.grad for n, p in ours.model.named_parameters() if p.requires_grad}

    truth = load_model(base).double().requires_grad_(False)
    leaves, scale = dict[str, torch.Tensor](), 32.0 / 4
    for name, module in list(truth.named_modules()):
        key = f"{name}.added.0.lora_A"
        if isinstance(module, Linear) and key in found:
            a, b = (
                ours.model.get_parameter(f"{name}.added.0.lora_{x}").detach().double() for x in "AB"
            )
            leaves[key], leaves[key[:-1] + "B"] = a.requires_grad_(), b.requires_grad_()
            weight = module._parameters.pop("weight")
            assert weight is not None
            module.weight = weight.detach() + scale * b @ a  # pyright: ignore
    assert leaves.keys() == found.keys()
    total = torch.zeros((), dtype=torch.float64)
    for row in range(2):
        starts = [*(batch.segment_pos[row] == 0).nonzero().flatten().tolist(), 96]
        for first, end in itertools.pairwise(starts):
            part = type(batch)(*(getattr(batch, key)[row : row + 1, first:end] for key in
                                 ("tokens", "targets", "segment_pos", "mask")))  # fmt: skip
            total = total + row_nats(truth, part, torch.float64)[0]
    total.backward()
    torch.testing.assert_close(nats.double(), total, rtol=1e-6, atol=0)
    for name, leaf in leaves.items():
        assert found[name] is not None and leaf.grad is not None
        size = float(leaf.grad.abs().max())
        torch.testing.assert_close(found[name].double(), leaf.grad, rtol=0, atol=2e-5 * size)


def _work(ranks: Ranks, folder: Path, recipe: Recipe) -> None:
    with Tuner(recipe, folder / "two", Reporter(quiet=True), ranks=ranks) as ours:
        loss = [ours.step()["loss"] for _ in range(3)]
        trained = {n: w.clone() for n, w in whole_weights(ours.model, ranks) if ".lora_" in n}
        results = export(ours)
        if ranks.is_writer:
            assert results is not None
            torch.save({"loss": loss, "trained": trained}, folder / "two.pt")


@pytest.mark.thorough
def test_two_ranks_train_the_adapter_that_one_does(
    run: Build, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    ours = run("one", tune=LORA)
    loss = [ours.step()["loss"] for _ in range(3)]
    on_ranks(2, _work, tmp_path, recipe(tune=LORA))
    there = torch.load(tmp_path / "two.pt")
    assert there["loss"] == pytest.approx(loss, rel=1e-6)
    one = _trained(ours)
    for name, tensor in there["trained"].items():
        torch.testing.assert_close(tensor, one[name], rtol=0, atol=2e-6)
    assert (tmp_path / "two" / "adapter").is_dir()


def test_a_quantized_base_is_read_as_it_is_asked_for(run: Build) -> None:
    ours = run(tune=LORA | {"base": "int8"})
    from griffin.model.packed import PackedLinear

    assert any(isinstance(module, PackedLinear) for module in ours.model.modules())
    worth = ours.validate().worth
    for _ in range(8):
        ours.step()
    assert ours.validate().worth < worth


def test_answers_before_are_those_of_the_first_step_whenever_it_stopped(run: Build) -> None:
    ours = run(tune=LORA)
    measure_before(ours)
    kept = (ours.out / "before.json").read_bytes()
    ours.step()
    ours.save()
    again = run(tune=LORA)
    measure_before(again)
    assert (ours.out / "before.json").read_bytes() == kept


def test_a_checkpoint_is_exported_as_an_adapter(run: Build, tmp_path: Path) -> None:
    ours = run(tune=LORA | {"whole": ["rg_lru"]}, keep=3)
    ours.step()
    ours.save()
    first = {name: each.clone() for name, each in tuned_adapter(ours).tensors.items()}
    ours.step()
    ours.save()
    words = ["export", str(ours.out), str(tmp_path / "first"), "--step", "1", "--json"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["adapter"] == str(tmp_path / "first")
    kept = open_adapter(tmp_path / "first").tensors
    assert kept.keys() == first.keys()
    assert all(torch.equal(kept[name], first[name]) for name in kept)
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 2 and "exists already" in again.output


def test_answers_before_are_those_of_the_recipe_that_has_the_folder(run: Build) -> None:
    """Also where another began there, and stopped before its first checkpoint."""
    other = run(tune=LORA | {"parameters": "lora"}, prompts=["a"])
    (other.out / "before.json").write_text('{"held_out_bits_per_byte": 0.5}')
    ours = run(tune=LORA | {"rank": 1})
    measure_before(ours)
    kept = json.loads((ours.out / "before.json").read_text())
    assert kept["held_out_bits_per_byte"] == ours.validate().worth


def test_how_to_use_it_is_said_so_that_it_works(base: Path, chats: Path, tmp_path: Path) -> None:
    """From a recipe, too, which says where its model is; in a folder with a space."""
    sets = [w for each in ("steps=1", "length=48") for w in ("--set", f"train.{each}")]
    made, base8 = [str(base), "--data", str(chats)], ["--set", "tune.base=int8"]
    (tmp_path / "there").mkdir()
    file = tmp_path / "there" / "mine.toml"
    (tmp_path / "there" / "toy").symlink_to(base)
    printed = CliRunner().invoke(main, ["finetune", *made, *sets, "--print-recipe"]).output
    file.write_text(printed.replace(str(base), "toy"))
    for method, given in (
        ("lora", [str(file)]),
        ("state", [*made, "--method", "state", *sets, *base8]),
    ):
        done = CliRunner().invoke(
            main, ["finetune", *given, "--out", str(tmp_path / f"a {method}")]
        )
        assert done.exit_code == 0, done.output
        said = done.stdout.rpartition("to use it: griffin ")[2]
        words = [*shlex.split(said), "--max-tokens", "2", "--no-persist", "--plain"]
        used = CliRunner().invoke(main, words, input="1 + 1?\n/quit\n")
        assert used.exit_code == 0, (words, used.output)
        assert ("--quantize int8" in said) == (method == "state")
