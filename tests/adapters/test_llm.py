"""An LLM with adapters: everything it does reads with the one that was chosen."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

import griffin
from griffin.adapters import Adapter, LoraConfig, open_adapter, save_adapter
from griffin.cli import main
from griffin.conversation.fingerprint import fingerprint_of
from tests.adapters.test_layers import make_adapter
from tests.support.toy_folder import CONFIG, write_toy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    write_toy(folder / "toy")
    for seed, name in enumerate(("one", "two")):
        made = make_adapter(LoraConfig(rank=3), CONFIG, seed, name)
        strong = {key: 4 * tensor for key, tensor in made.tensors.items()}
        save_adapter(Adapter(name, made.config, strong), folder / name)
    return folder


def everything(llm):
    """Return what an LLM makes of a text by every way that reads one."""
    document = llm.document("import json\n")
    return {
        "generate": llm.generate("import json", max_tokens=8, seed=0).ids,
        "score": llm.score("import json").logprobs,
        "embed": tuple(llm.embed("import json").tolist()),
        "read": llm.generate(llm.read([[2, 50, 60, 70]]), max_tokens=8, seed=0).ids,
        "document": document.ask("x", max_tokens=8, seed=0).ids,
    }


def test_every_way_reads_with_the_adapter(folder):
    both = griffin.load(folder / "toy", adapter={"a": folder / "one", "b": folder / "two"})
    plain = griffin.load(folder / "toy")
    one, two = (griffin.load(folder / "toy", adapter=folder / name) for name in ("one", "two"))
    assert (both.adapter, both.using("b").adapter, one.adapter, plain.adapter) == (
        *("a", "b", "one", ""),
    )
    wanted = {"a": everything(one), "b": everything(two), "": everything(plain)}
    assert {name: everything(both.using(name)) for name in wanted} == wanted
    for way in wanted[""]:
        assert len({str(found[way]) for found in wanted.values()}) == 3, way
    with pytest.raises(ValueError, match="there is no adapter 'c'; this model has a, b"):
        both.using("c")


def test_an_adapter_is_part_of_the_fingerprint(folder):
    both = griffin.load(folder / "toy", adapter={"a": folder / "one", "b": folder / "two"})
    one = griffin.load(folder / "toy", adapter=folder / "one")
    plain = fingerprint_of(griffin.load(folder / "toy"))
    assert fingerprint_of(both) == fingerprint_of(one) != plain
    assert fingerprint_of(both.using("")) == plain
    assert fingerprint_of(both.using("b")).differences(plain).keys() == {"adapter"}


def test_the_command_line_takes_one(folder):
    def said(*more):
        arguments = ["generate", "--model", str(folder / "toy"), "--json", "--seed", "0"]
        done = CliRunner().invoke(main, [*arguments, "--max-tokens", "8", *more, "import json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["text"]

    assert said("--adapter", str(folder / "one")) != said()
    done = CliRunner().invoke(
        main, ["generate", "--model", str(folder / "toy"), "--adapter", "nowhere", "x"]
    )
    assert done.exit_code == 2 and "nowhere holds no adapter" in done.stderr


def test_one_that_does_not_fit_is_told_before_weights_are_read(folder, tmp_path, monkeypatch):
    shape = CONFIG.replace(mlp_width=192)
    save_adapter(make_adapter(LoraConfig(rank=2), shape), tmp_path / "other")
    monkeypatch.setattr("griffin.checkpoints.load_model", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"adapter other: .* for this model it must be"):
        griffin.load(folder / "toy", adapter=tmp_path / "other")
    bad = make_adapter(LoraConfig(rank=2), CONFIG)
    torn = {key: torch.full_like(tensor, torch.inf) for key, tensor in bad.tensors.items()}
    save_adapter(replace(bad, tensors=torn), tmp_path / "torn")
    with pytest.raises(ValueError, match="not all finite"):
        griffin.load(folder / "toy", adapter=tmp_path / "torn")


def test_info_and_plan_say_what_adapters_take(folder):
    both = [f"--adapter=a={folder / 'one'}", "--adapter", str(folder / "two")]
    told = CliRunner().invoke(main, ["info", str(folder / "toy"), *both, "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)["adapters"]
    tensors = open_adapter(folder / "one").tensors.values()
    size = sum(tensor.nbytes for tensor in tensors)  # in float32, as the toy is
    assert [(one["name"], one["rank"], one["bytes"]) for one in found] == [
        ("a", 3, size),
        ("two", 3, size),
    ]
    assert (
        f"{size:,} bytes, rank 3: "
        in CliRunner().invoke(main, ["info", str(folder / "toy"), *both]).stdout
    )
    asked = ["plan", "--model", str(folder / "toy"), "--ram", "4G", "--no-measure", "--json"]
    plain, more = (
        json.loads(CliRunner().invoke(main, [*asked, *each]).stdout) for each in ([], both)
    )
    assert more["weight_bytes"] - plain["weight_bytes"] == more["adapter_bytes"] == 2 * size
    told = CliRunner().invoke(main, [*asked[:-1], *both]).stdout
    assert f"{2 * size:,} of them adapters" in told
