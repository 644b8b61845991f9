"""`griffin plan`: the engine's own arithmetic, for models that are here and shapes that are not."""

from __future__ import annotations

import json

import pytest
import torch

import griffin
from griffin.bench.work import weight_bytes
from griffin.capacity import plan
from griffin.cli import plan as plan_file
from griffin.cli.shared import trial
from griffin.engine import Engine
from griffin.engine.prefix_cache import PrefixCache
from griffin.model import GriffinConfig, State
from tests.support.toy_folder import CONFIG

GIB = 1 << 30


@pytest.fixture
def facts(run):
    def call(*arguments):
        result = run("plan", *arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return call


def test_a_shape_that_is_not_here(facts):
    found = facts(
        *("--model", "recurrentgemma-2b", "--ram", "16G", "--quantize", "int8", "--disk", "100GB"),
        *("--read-rate", "20GB"),
    )
    config = GriffinConfig.preset("recurrentgemma-2b")
    made = plan(config, ram_bytes=16 * GIB, format="int8", prefix_cache_bytes=GIB)
    assert found["slot_bytes"] == 17_238_024 and found["slots"] == made.slots > 300
    for name in (
        "weight_bytes",
        "working_bytes",
        "live_bytes",
        "spare_bytes",
        "kept",
        "session_bytes",
    ):
        assert found[name] == getattr(made, name), name
    assert found["sessions_on_disk"] == made.sessions_on_disk(100 * 10**9) > 5000
    assert found["limit_tokens_per_second"] == {
        str(rows): made.tokens_per_second(20e9, rows, 2048) for rows in (1, 8, made.slots)
    }
    assert 60_000 < found["prefix_cache_tokens"] < 75_000  # at most 16 KB each
    assert (
        facts("--model", "google/recurrentgemma-2b-it", "--ram", "16G", "--no-measure")["slots"]
        < made.slots
    )


def test_a_checkpoint_is_planned_as_it_is_loaded(facts, folder):
    found = facts("--model", folder, "--ram", "1G", "--no-measure", "--slots", 3, "--kept", 2)
    llm = griffin.load(folder, device="cpu")
    assert found["weight_bytes"] == weight_bytes(llm.model) and found["dtype"] == "float32"
    assert found["limit_tokens_per_second"] is None and found["sessions_on_disk"] is None
    engine = Engine(llm.model, found["slots"], kept=found["kept"], max_bytes=found["live_bytes"])
    assert engine.stats().slot_bytes == 3 * found["slot_bytes"]
    assert found["slot_bytes"] == State.zeros(CONFIG, 1, dtype=torch.float32).nbytes + 8
    with pytest.raises(ValueError, match="enough for 5 of them"):
        Engine(llm.model, found["slots"] + 1, kept=found["kept"], max_bytes=found["live_bytes"])
    for name in ("int8", "bf16"):
        smaller = facts("--model", folder, "--ram", "1G", "--no-measure", "--quantize", name)
        packed = griffin.load_model(folder, device="cpu", quantize=name)
        assert smaller["weight_bytes"] == weight_bytes(packed) and smaller["format"] == name
    assert (
        facts("--model", folder, "--ram", "1G", "--no-measure", "--dtype", "bfloat16")["dtype"]
        == "bfloat16"
    )
    assert facts("--model", "nano", "--ram", "1G", "--no-measure")["weight_bytes"] < 20 << 20


def test_a_quantized_checkpoint(facts, run, folder, tmp_path):
    assert run("quantize", folder, tmp_path / "q", "--format", "int4").exit_code == 0
    found = facts("--model", tmp_path / "q", "--ram", "1G", "--no-measure")
    model = griffin.load_model(tmp_path / "q", device="cpu")
    assert found["format"] == "int4" and found["weight_bytes"] == weight_bytes(model)
    result = run("plan", "--model", tmp_path / "q", "--ram", "1G", "--quantize", "int8")
    assert result.exit_code == 2 and "is int4 already" in result.stderr


def test_a_preview_of_the_head_is_counted(facts, run, folder, tmp_path):
    """Where it is asked for, and where it is stored; a GPU leaves it out."""
    base = ("--ram", "1G", "--no-measure")
    asked = facts("--model", folder, *base, "--quantize", "int8", "--screen")
    model = griffin.load_model(folder, device="cpu", quantize="int8", screen=True)
    assert asked["weight_bytes"] == weight_bytes(model)
    assert asked["screen_bytes"] == weight_bytes(model.screen) > 0
    small = tmp_path / "q"
    run("quantize", folder, small, "--format", "int4", "--head", "int8", "--screen")
    stored = facts("--model", small, *base)
    assert stored == facts("--model", small, *base, "--screen")
    assert stored["weight_bytes"] == weight_bytes(griffin.load_model(small, device="cpu"))
    elsewhere = facts("--model", small, *base, "--device", "cuda")
    assert elsewhere["weight_bytes"] == stored["weight_bytes"] - stored["screen_bytes"]
    two = ("--model", "recurrentgemma-2b", "--ram", "16G", "--quantize", "int8", "--read-rate=1GB")
    assert facts(*two, "--screen")["screen_bytes"] == 286_720_000
    text = run("plan", *two, "--screen").stdout
    assert "286,720,000 of them a preview of the head" in text and "greedy choices, min_p" in text
    for given, why in (
        (("--model", "recurrentgemma-2b", "--dtype=float32", "--screen"), "beside a packed head"),
        (("--model", small, "--screen", "--device", "cuda"), "is for the CPU"),
    ):
        result = run("plan", *given, *base)
        assert result.exit_code == 2 and why in result.stderr


def test_the_prefix_cache_has_its_share(facts):
    base = ("--model", "nano", "--no-measure", "--ram")
    assert facts(*base, "4G")["prefix_cache_bytes"] == GIB // 2
    assert facts(*base, "64G")["prefix_cache_bytes"] == GIB
    assert facts(*base, "4G", "--prefix-cache", "1M")["prefix_cache_bytes"] == 1 << 20
    assert facts(*base, "4G", "--no-prefix-cache")["prefix_cache_bytes"] == 0
    config = GriffinConfig.preset("recurrentgemma-2b")
    cache = PrefixCache("x", config, torch.bfloat16, max_bytes=GIB)
    found = facts("--model", "recurrentgemma-2b", "--ram", "16G", "--no-measure")
    assert found["prefix_cache_tokens"] == pytest.approx(GIB / cache._usual, rel=0.03)


def test_rates_are_measured_here(facts, monkeypatch):
    monkeypatch.setattr(plan_file, "_BUFFER", 8 << 20)
    monkeypatch.setattr(plan_file, "_SECONDS", 0.01)
    found = facts("--model", "nano", "--ram", "1G", "--slots", 4)
    assert found["read_bytes_per_second"] > 1e8 and found["operations_per_second"] > 1e6
    assert (
        list(found["limit_tokens_per_second"])
        == ["1", "4"]
        == list(found["expected_tokens_per_second"])
    )
    given = facts(
        "--model",
        "nano",
        "--ram",
        "1G",
        "--slots",
        8,
        "--read-rate",
        "1GB",
        "--product-rate",
        "1e6",
    )
    config = GriffinConfig.preset("nano")
    made = plan(config, ram_bytes=GIB, slots=8, format=given["format"])
    assert given["expected_tokens_per_second"] is None, "of another machine, perhaps"
    speeds = given["limit_tokens_per_second"]
    assert speeds["8"] == made.tokens_per_second(1e9, 8, 256, 1e6) < speeds["1"]


def test_what_is_expected_comes_from_a_trial(run, monkeypatch):
    tried = []

    class Fake:
        def __init__(self, config, dtype, format):
            assert (config, dtype, format) == (
                GriffinConfig.preset("recurrentgemma-2b"),
                torch.bfloat16,
                "int8",
            )

        def rate(self, rows):
            tried.append(rows)
            return 1e9 * rows

    monkeypatch.setattr(trial, "Trial", Fake)
    monkeypatch.setattr(plan_file, "measured_rates", lambda *_: {"read": 20e9, "product": 4e11})
    base = ("plan", "--model", "recurrentgemma-2b", "--quantize", "int8", "--ram", "16G")
    found = json.loads(run(*base, "--json").stdout)["expected_tokens_per_second"]
    made = plan(GriffinConfig.preset("recurrentgemma-2b"), ram_bytes=16 * GIB, format="int8")
    assert tried == [1, 8, 64] and found["8"] == made.tokens_per_second(8e9, 8, 2048)
    text = run(*base).stdout
    assert (
        "expected after 2,048 tokens, and the most that 20.0 GB/s and 400 billion operations/s"
        " allow:" in text
    )
    assert f"alone   {found['1']:>14,.1f} tokens/s together, at most " in text


def test_text_for_people(run):
    base = ("plan", "--model", "recurrentgemma-9b", "--ram", "32GiB")
    text = run(*base, "--disk", "1T", "--read-rate", "40GB").stdout
    assert "a slot                    26,230,792     25.02 MiB" in text
    assert "saved conversations on 1,099,511,627,776 bytes, 26,234,888 bytes each" in text
    assert "at most, with 40.0 GB/s after 2,048 tokens (a bound; what is reached is less):" in text
    assert "alone" in text and "8 at once" in text and "tokens/s together" in text
    assert "together              34,359,738,368     32.00 GiB" in text
    rest = run(*base, "--no-measure").stdout
    assert "speed           not known" in rest and "on a gigabyte" in rest


def test_a_model_without_attention(facts):
    found = facts("--model", "hawk-1.3b", "--ram", "8G", "--read-rate", "10GB")
    assert found["context"] == 0 and found["turn_bytes"]["per_token"] == 0 and found["slots"] > 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "recurrentgemma-9b", "--ram", "8G"), "1 live sequences need 1"),
        (("--model", "recurrentgemma-2b", "--ram", "16G", "--slots", 5000), "enough for"),
        (("--model", "recurrentgema-2b", "--ram", "8G"), "did you mean 'recurrentgemma-2b'"),
        (("--model", "nano", "--ram", "1G", "--quantize", "int3"), "no format 'int3'"),
        (("--model", "nano", "--ram", "1G", "--dtype", "int3"), "dtype must be one of"),
        (("--model", "nano", "--ram", "1G", "--slots", 0), "--slots"),
        (
            ("--model", "nano", "--ram", "1G", "--product-rate", 5),
            "--product-rate goes with --read-rate",
        ),
        (
            ("--model", "nano", "--ram", "1G", "--prefix-cache", "1M", "--no-prefix-cache"),
            "not both",
        ),
        (("--model", "nano"), "--ram"),
        (("--ram", "1G"), "--model"),
    ],
)
def test_misuse(run, arguments, message):
    result = run("plan", *arguments)
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""
