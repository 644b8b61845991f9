"""`griffin bench train`: what it counts, keeps and says."""

from __future__ import annotations

import gc
import json

import pytest
import torch

from griffin.bench import work
from griffin.bench.measurement import Report
from griffin.bench.profile import OTHER, Profile
from griffin.bench.training import Learner, Setting, griffin_learner
from griffin.cli.bench.train import shaped
from griffin.model import Griffin
from griffin.train.plan import kept_bytes
from tests.bench.test_command import run

SMALL = ("--preset", "nano", "--width", 64, "--depth", 3, "--window", 8, "--vocab", 96)
QUICK = ("--rows", 2, "--length", 24, "--threads", 1, "--rounds", 1)


def test_a_run_as_typed(tmp_path):
    out = tmp_path / "report.json"
    result = run("train", *SMALL, *QUICK, "--profile", "--json", "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["what"], found["program"], found["batch"], found["context"]) == (
        *("train", "griffin"),
        *(2, 24),
    )
    assert found["ratio"] == pytest.approx(
        found["tokens_per_second"] / found["limit_tokens_per_second"]
    )
    assert found["loss"] > 1 and found["kept_bytes_per_token"] > 64 * 4
    assert found["groups"]["products"] > 0 and found["groups"]["recurrent unit"] > 0
    assert found["groups"]["loss"] > 0 and found["groups"][OTHER] > 0
    assert [m.to_dict() for m in Report.open(out).measurements] == [found]
    assert Report.open(out).rates["float32 product, 48 rows"] == found["operations_per_second"]
    shown = run("show", out)
    assert "kept/token" in shown.stdout and "recurrent unit" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--preset", "nono"), "no preset 'nono'; there are"),
        (("--dtype", "int8"), "int8"),
        ((*SMALL, "--length", 10**11), "--force tries it all the same"),
    ],
)
def test_misuse(arguments, said):
    result = run("train", *arguments)
    assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.stderr


def test_operations_are_six_a_weight_and_attention_to_what_is_seen():
    config = shaped("nano", 64, 3, 8, 96)
    model = Griffin(config)
    weights = sum(p.numel() for p in model.parameters())
    assert work.trained_weights(model) == weights  # the embedding is the head
    seen = sum(min(t, 8) + 1 for t in range(24)) / 24
    expected = 6 * weights + 12 * 64 * seen
    assert work.training_operations(config, weights, 24) == pytest.approx(expected)
    untied = Griffin(config.replace(tie_embeddings=False))
    assert work.trained_weights(untied) == weights


def test_what_is_kept_is_counted_once_and_without_weights():
    weight = torch.nn.Linear(8, 8, bias=False)
    x = torch.randn(4, 8)

    def nats(_):
        y = weight(x)
        return (y.exp() + y.exp()[:2].sum()).sum()  # a view of what was kept is nothing new

    learner = Learner("one", "small", weight, nats, lambda length: 1.0)
    batch = Setting(rows=1, length=4).batch(8)
    assert learner.kept_bytes(batch) == (4 * 8 + 2 * 4 * 8) * 4  # x, and both exponentials


def _tensor_bytes() -> int:
    gc.collect()
    storages = (t.untyped_storage() for t in gc.get_objects() if type(t) is torch.Tensor)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_what_was_counted_is_freed():
    """A measurement at one length leaves nothing to the next; nor does what a plan counts."""
    config = shaped("nano", 64, 3, 8, 96)
    learner = griffin_learner(config, "float32")
    learner.step(Setting(rows=1, length=8).batch(96))
    before = _tensor_bytes()
    for length in (64, 96, 128):
        kept = learner.kept_bytes(Setting(rows=2, length=length).batch(96))
        kept_bytes(config.replace(width=64 + length, lru_width=64), "float32", "float32")
        assert kept > 50_000 and _tensor_bytes() - before < 50_000


def test_steps_lower_the_loss_on_the_same_rows():
    learner = griffin_learner(shaped("nano", 64, 3, 8, 96), "float32")
    batch = Setting(rows=2, length=24).batch(96)
    first = learner.step(batch)
    for _ in range(20):
        last = learner.step(batch)
    assert last < first


def test_an_operator_belongs_to_what_calls_it():
    q = torch.randn(1, 2, 64, 16, requires_grad=True)

    def run():
        y = torch.nn.functional.scaled_dot_product_attention(q, q, q)
        (y @ y.transpose(2, 3)).sum().backward()

    groups = Profile.of(run).groups
    assert groups["attention"] > 0 and groups["products"] > 0 and groups["recurrent unit"] == 0
