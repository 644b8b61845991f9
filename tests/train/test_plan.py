"""What a run takes, told before anything is read."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from griffin.bench.training import Setting, griffin_learner
from griffin.cli import main
from griffin.cli.shared import train_plan
from griffin.cli.train import command
from griffin.model import Griffin, GriffinConfig, State
from griffin.ops import native
from griffin.train import plan
from griffin.train.plan import check_memory, kept_bytes, plan_training, saving_bytes
from griffin.train.recipe import Recipe
from griffin.train.scale import sharded_files
from griffin.train.scale.ranks import Ranks
from griffin.train.scale.sharded_files import write_tensors
from tests.support.living import Living
from tests.support.toy_folder import write_toy
from tests.train.conftest import MODEL


def _recipe(preset: str = "recurrentgemma-2b", **train: Any) -> Recipe:
    plan = {"steps": 10, "rows": 2, "length": 2048, "warmup_steps": 1} | train
    return Recipe.from_dict({"model": {"preset": preset}, "train": plan})


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("preset", "gigabytes"), [("recurrentgemma-2b", 42.9), ("recurrentgemma-9b", 137.3)]
)
def test_sixteen_bytes_a_weight_or_eight(preset: str, gigabytes: float) -> None:
    plan = plan_training(_recipe(preset))
    assert plan.state_bytes == 16 * plan.parameters
    assert plan.state_bytes / 1e9 == pytest.approx(gigabytes, abs=0.05)
    narrow = plan_training(_recipe(preset, weights="bfloat16", dtype="bfloat16"))
    assert narrow.state_bytes == 8 * plan.parameters and narrow.copy_bytes == 0
    assert plan_training(_recipe(preset, dtype="bfloat16")).copy_bytes == 2 * plan.parameters
    shared = plan_training(_recipe(preset), ranks=2)
    assert shared.moment_bytes == plan.moment_bytes // 2
    assert plan.weight_bytes / 2 < shared.weight_bytes < plan.weight_bytes
    # The embedding's gradient is whole on each, beside the parts of all.
    embedding = 4 * _recipe(preset).model.vocab_size * _recipe(preset).model.width
    assert shared.gradient_bytes > plan.gradient_bytes / 2 + embedding
    assert plan.checkpointed_bytes < 0.4 * plan.activation_bytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_kept_is_what_a_step_keeps(dtype: str) -> None:
    """Small twins tell it of a wider model to a tenth."""
    config = GriffinConfig.from_dict(
        MODEL
        | {"width": 256, "mlp_width": 768, "lru_width": 320, "num_heads": 4, "num_gate_blocks": 4}
        | {"block_types": ["recurrent", "recurrent", "attention"], "attention_window_size": 64}
    )
    kept = kept_bytes(config, dtype, "float32")
    told = kept["ends"] + sum(kept[kind] for kind in config.block_types)
    learner, bytes_of = griffin_learner(config, dtype), list[int]()
    for length in (256, 512):
        batch = Setting(rows=1, length=length, dtype=dtype).batch(config.vocab_size)
        bytes_of.append(learner.kept_bytes(batch))
    assert told == pytest.approx((bytes_of[1] - bytes_of[0]) / 256, rel=0.1)


@pytest.mark.skipif(not native.built(), reason="kernels are not built")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpoint", ["none", "blocks", 3])
def test_activations_are_what_lives_of_a_step(checkpoint: str | int, dtype: str) -> None:
    """Of each further token of a row, when most does: never less, and not much more."""
    config = GriffinConfig.from_dict(
        MODEL
        | {"width": 128, "mlp_width": 384, "lru_width": 128, "num_heads": 2, "num_gate_blocks": 2}
        | {"block_types": ["recurrent", "recurrent", "attention"] * 2}
        | {"attention_window_size": 64}
    )
    most, told = list[int](), list[int]()
    for length in (4096, 6144):  # a gate's gradient has its tile of tokens from 4096 on
        train = {"rows": 1, "length": length, "checkpoint": checkpoint, "dtype": dtype}
        plan = Recipe.from_dict({"model": config.to_dict(), "train": {"steps": 1} | train})
        learner = griffin_learner(config, dtype, plan.train.keep_every)
        batch = Setting(rows=1, length=length, dtype=dtype).batch(config.vocab_size)
        with Living() as living:
            learner.nats(batch).backward()
        most.append(living.most)
        told.append(plan_training(plan).activation_bytes)
    assert 1.0 < (told[1] - told[0]) / (most[1] - most[0]) < 1.4


@pytest.mark.skipif(not native.built(), reason="kernels are not built")
@pytest.mark.parametrize(
    ("checkpoint", "dtype"),
    [("none", "float32"), ("blocks", "float32"), (3, "float32"), ("blocks", "bfloat16")],
)
def test_activations_of_a_row_that_mlps_read_in_pieces(checkpoint: str | int, dtype: str) -> None:
    """Two gradients of the gate's width for the whole row are not counted: they are not there."""
    config = GriffinConfig.from_dict(
        MODEL
        | {"width": 64, "mlp_width": 192, "lru_width": 64, "num_heads": 2, "num_gate_blocks": 2}
        | {"block_types": ["recurrent", "recurrent", "attention"] * 2}
        | {"attention_window_size": 64}
    )
    train = {"rows": 1, "length": 16_384, "checkpoint": checkpoint, "dtype": dtype}
    plan = Recipe.from_dict({"model": config.to_dict(), "train": {"steps": 1} | train})
    learner = griffin_learner(config, dtype, plan.train.keep_every)
    batch = Setting(rows=1, length=16_384, dtype=dtype).batch(config.vocab_size)
    with Living() as living:
        learner.nats(batch).backward()
    assert 1.0 < plan_training(plan).activation_bytes / living.most < 1.15


@pytest.mark.parametrize("sizes", [[300_000] * 20, [300_000] * 3 + [2_000_000], [1000] * 3])
def test_saving_takes_a_file_beside_what_is_saved(
    sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (plan, sharded_files):
        monkeypatch.setattr(module, "FILE_BYTES", 2 << 20)
    tensors = {str(number): torch.zeros(size) for number, size in enumerate(sizes)}
    told = saving_bytes(4 * sum(sizes), 4 * max(sizes))
    write_tensors(tmp_path, {"imports": torch.zeros(1)}, Ranks())
    tracemalloc.start()
    try:
        write_tensors(tmp_path, tensors, Ranks())
        found = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.5 * told < found < told + 200_000


def test_between_steps_the_writer_may_need_more_than_in_one() -> None:
    """Weights for samples, and those that are exported and measured, are whole on one rank."""
    alone = plan_training(_recipe())
    step = alone.copy_bytes + alone.gradient_bytes + alone.activation_bytes + alone.loss_bytes
    stays = alone.runtime_bytes + alone.weight_bytes + alone.moment_bytes
    assert 2**28 < alone.between_bytes < step and alone.total_bytes == stays + step
    count, train = alone.parameters, {"rows": 64, "length": 64}
    gathered = plan_training(_recipe(**train), ranks=64)
    part = -(-count // 64)
    assert gathered.weight_bytes - 4 * part + gathered.between_bytes == 4 * (count - 2 * part)
    stays = gathered.runtime_bytes + gathered.weight_bytes + gathered.moment_bytes
    assert gathered.total_bytes == stays + gathered.between_bytes
    prompts = {"prompts": ["def "], "dtype": "bfloat16"}
    sampled = plan_training(_recipe(**train, **prompts), ranks=64)
    more = sampled.between_bytes - gathered.between_bytes
    assert more == 2 * count + 8 * part  # copies for the products; the moments are there
    assert plan_training(_recipe(**train, **prompts)).between_bytes == alone.between_bytes


def test_states_that_are_carried_are_counted() -> None:
    source = [{"name": name, "path": name} for name in "ab"]
    data = {"source": source, "packing": "cut"}
    found = list[int]()
    for carry in (False, True):
        train = {"steps": 10, "rows": 4, "length": 512, "carry": carry, "accumulation": 2}
        recipe = {"model": {"preset": "recurrentgemma-2b"}, "train": train, "data": data}
        made = plan_training(Recipe.from_dict(recipe), ranks=2)
        found.append(made.carried_bytes)
    state = State.zeros(GriffinConfig.preset("recurrentgemma-2b"), 1, device="meta")
    assert found == [0, 2 * 2 * 2 * (state.nbytes + 8)]  # two sources, two rows a rank, twice
    assert plan_training(_recipe()).carried_bytes == 0


def test_pairs_and_rows_that_are_read_together_are_counted_whole() -> None:
    """Only a row that is alone is read in pieces, of as much of it as its rank has."""

    def each(ranks: int = 1, **train: Any) -> float:
        recipe = _recipe(**{"length": 65_536, "checkpoint": "blocks"} | train)
        rows = recipe.train.rows / ranks
        return plan_training(recipe, ranks).activation_bytes / rows / recipe.train.length

    whole = each(rows=2)
    assert each(rows=1) < 0.9 * whole
    assert each(rows=2, ranks=2) == pytest.approx(each(rows=1), rel=1e-6)
    assert each(rows=2, ranks=2, sequence_ranks=2) == pytest.approx(whole, rel=1e-6)
    assert each(rows=1, ranks=2, sequence_ranks=2) < 0.9 * whole
    assert each(rows=1, ranks=8, sequence_ranks=8) == pytest.approx(whole, rel=1e-6)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    recipe = _recipe()
    check_memory(recipe, 200 * 10**9)
    with pytest.raises(ValueError) as told:
        check_memory(recipe, 32 * 10**9)
    said = str(told.value)
    assert "42.9 of weights, gradient and moments (16 bytes for each of 2,682,862,080" in said
    assert "train.weights = 'bfloat16', train.dtype = 'bfloat16'" in said
    assert "there are 32.0 GB" in said and "--force" in said
    with pytest.raises(ValueError, match="No other setting would fit here"):
        check_memory(recipe, 10**9)


def test_nothing_is_made_of_a_run_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "large.toml"
    file.write_text('[model]\npreset = "recurrentgemma-9b"\n[train]\nsteps = 1\n')
    monkeypatch.setattr(train_plan, "memory_bytes", lambda: 10**9)
    result = CliRunner().invoke(command, [str(file), "--out", str(tmp_path / "run")])
    assert "137.3 of weights, gradient and moments" in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_ranks_of_a_machine_share_its_memory_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[int] = []

    def check(_: Recipe, memory: int, ranks: int) -> None:
        there.append(memory)
        raise ValueError(f"{ranks} ranks")

    mesh: Any = object()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(Ranks, "join", lambda *_: Ranks(world=4, mesh=mesh))
    monkeypatch.setattr("griffin.train.plan.check_memory", check)
    monkeypatch.setattr(train_plan, "memory_bytes", lambda: 8 * 10**9)
    result = CliRunner().invoke(command, ["nano", "--out", str(tmp_path / "run")])
    assert str(result.exception) == "4 ranks" and there == [2 * 10**9]


@pytest.mark.parametrize(
    ("verb", "changes", "said"),
    [
        ("train", ["train.sequence_ranks=2"], "start a multiple of 2 ranks"),
        ("finetune", ["train.sequence_ranks=2"], "start a multiple of 2 ranks"),
        ("finetune", ["tune.method=state", "train.carry=true"], "take train.carry and"),
    ],
)
def test_what_the_ranks_cannot_do_is_said_before_memory_is_probed(
    verb: str, changes: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probed(*_: object) -> None:
        raise AssertionError("memory was probed")

    monkeypatch.setattr("griffin.tune.plan.plan_tuning", probed)  # which imports the other's
    monkeypatch.setattr("griffin.train.plan.plan_training", probed)
    file = tmp_path / "recipe.toml"
    if verb == "train":
        file.write_text('[model]\npreset = "nano"\n[train]\nsteps = 1\n')
    else:
        base = write_toy(tmp_path / "base")
        file.write_text(f'from = "{base}"\n[data]\n[train]\nsteps = 1\n[tune]\nmethod = "lora"\n')
    given = [word for change in changes for word in ("--set", change)]
    result = CliRunner().invoke(main, [verb, str(file), *given, "--out", str(tmp_path / "run")])
    assert result.exit_code == 2 and said in result.stderr, result.output
    assert not (tmp_path / "run").exists()


def _plan(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["plan", *map(str, arguments)])


def test_the_verb() -> None:
    facts: dict[str, Any] = json.loads(
        _plan("--train", "nano", "--ram", "1G", "--product-rate", 1e12, "--json").stdout
    )
    with torch.device("meta"):
        model = Griffin(GriffinConfig.preset("nano"))
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert facts["fits"] and facts["total_bytes"] < 1 << 30
    tokens = facts["steps"] * facts["tokens_per_step"]
    assert facts["least_seconds"] == pytest.approx(tokens / facts["limit_tokens_per_second"])
    assert 6 * facts["parameters"] < 1e12 / facts["limit_tokens_per_second"]
    more = ("--set", "train.rows=64", "--ram", "1G", "--no-measure")
    text = _plan("--train", "nano", *more).stdout
    assert "between steps " in text and "carried" not in text
    epochs = ("--set", "train.epochs=3", "--no-measure")
    assert "; 3 epochs, in steps of 4,096 tokens" in _plan("--train", "nano", *epochs).stdout
    assert "nano: 3,533,760 weights in float32, products in float32" in text
    assert "which is too little" in text and "speed           not known" in text


def _rates(narrow: float, wide: float) -> Any:
    def rate(shapes: Any, rows: int, dtype: str, seconds: float) -> float:
        return narrow if dtype == "bfloat16" else wide

    return rate


def test_slow_products_in_bfloat16_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without them does them ten times slower: `plan` says so in a line."""
    monkeypatch.setattr("griffin.bench.rates.matrix_rate", _rates(6.04e9, 75e9))
    asked = ("--train", "nano", "--ram", "1G", "--set", "train.dtype=bfloat16")
    line = (
        "bfloat16 products run at 6.04 billion operations/s a thread here, float32 at 75:"
        " train.dtype = 'float32' is faster"
    )
    assert _plan(*asked).stdout.splitlines()[-1] == line
    assert json.loads(_plan(*asked, "--json").stdout)["hint"] == line
    assert "with memory for it, train.weights = train.dtype = 'float32' is" in (
        _plan(*asked, "--set", "train.weights=bfloat16").stdout
    )
    for quiet in (
        ("--train", "nano", "--ram", "1G"),
        (*asked, "--no-measure"),
        (*asked, "--product-rate", 6e9),
    ):
        assert "is faster" not in _plan(*quiet).stdout
    monkeypatch.setattr("griffin.bench.rates.matrix_rate", _rates(40e9, 75e9))
    assert "is faster" not in _plan(*asked).stdout


def test_training_says_so_before_anything_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("griffin.bench.rates.matrix_rate", _rates(6e9, 75e9))
    changes = ("--set", "train.dtype=bfloat16", "--set", "data.include=['nothing']")
    result = CliRunner().invoke(command, ["nano", *changes, "--out", str(tmp_path / "run")])
    assert "match" in str(result.exception)
    assert result.stderr.startswith("bfloat16 products run at 6 billion operations/s a thread here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--train", "nano", "--model", "nano"), "--train stands alone, without --model"),
        (("--train", "nano", "--slots", 3), "--train stands alone, without --slots"),
        (("--train", "nanno"), "did you mean nano?"),
        (("--set", "train.rows=1", "--model", "nano", "--ram", "1G"), "give --train RECIPE"),
        ((), "Missing option '--model'"),
    ],
)
def test_misuse(arguments: tuple[object, ...], message: str) -> None:
    result = _plan(*arguments)
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""


@pytest.mark.parametrize(
    ("train", "ranks"),
    [({"length": 8}, 1), ({"rows": 1, "sequence_ranks": 2}, 2), ({"rows": 1}, 2)],
)
def test_what_cannot_be_made_smaller_is_refused_for_its_size(
    train: dict[str, Any], ranks: int
) -> None:
    with pytest.raises(ValueError, match=r"this run takes about .* GB"):
        check_memory(_recipe(**train), 10**9, ranks)


def test_a_row_that_ranks_share_is_kept_in_parts() -> None:
    alone = plan_training(_recipe(rows=1, length=8192))
    shared = plan_training(_recipe(rows=1, length=8192, sequence_ranks=8), ranks=8)
    assert shared.activation_bytes == pytest.approx(alone.activation_bytes / 8, rel=1e-6)
