"""Where kernels were not compiled, or a GPU has none that serve, a verb says so in one line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from griffin.cli.shared import model_source
from griffin.cli.shared.kernels import say_if_not_stepped
from griffin.model import GriffinConfig
from griffin.ops import launching, native

MENDS = "python -m pip install --no-cache-dir --force-reinstall"


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setattr(native, "built", lambda: False)


@pytest.mark.parametrize(
    "words",
    [("generate", "a", "--max-tokens", "1", "--model"), ("chat", "--no-persist", "--model")],
)
def test_a_verb_that_answers_says_it_once(run, folder, words, without_kernels):
    told = run(*words, folder, stdin="").stderr
    (line,) = [line for line in told.splitlines() if "no compiled kernels" in line]
    assert "several times slower" in line and MENDS in line and "C++17 compiler" in line


def test_info_says_it_with_the_command(run, folder, without_kernels):
    text = run("info", folder).stdout
    assert "not compiled, so torch alone runs" in text and MENDS in text


@pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
def test_where_all_are_compiled_nothing_is_said(run, folder):
    assert "kernels" not in run("generate", "a", "--max-tokens", "1", "--model", folder).stderr
    assert MENDS not in run("info", folder).stdout


@pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
def test_info_names_what_was_not_compiled(run, folder, monkeypatch):
    monkeypatch.setattr(native, "not_compiled", lambda: ["avx9"])
    text = run("info", folder).stdout
    assert "not compiled: avx9" in text and "-Ccmake.define.GRIFFIN_KERNELS=all" in text


@pytest.fixture
def old_gpu(monkeypatch):
    """A GPU from before bfloat16, and a model that lies on it."""
    monkeypatch.setattr(launching, "version", lambda _: "3.6.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 34, 1 << 34))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an old one")
    config = GriffinConfig.preset("recurrentgemma-2b")
    where = {"dtype": torch.bfloat16, "device": torch.device("cuda:0")}
    names = SimpleNamespace(names=())
    return SimpleNamespace(config=config, **where, by_graphs=True, adapters=names)


@pytest.mark.parametrize(
    "words",
    [("generate", "a", "--max-tokens", "1", "--model"), ("chat", "--no-persist", "--model")],
)
def test_a_verb_says_once_that_a_gpu_is_too_old(run, folder, words, old_gpu, monkeypatch):
    def say(llm):
        assert llm.model.device.type == "cpu"
        say_if_not_stepped(SimpleNamespace(model=old_gpu))

    monkeypatch.setattr(model_source, "say_if_not_stepped", say)
    told = run(*words, folder, "--device", "cpu", stdin="").stderr
    (line,) = [line for line in told.splitlines() if "torch's own operations decode" in line]
    assert "on cuda:0, several times slower: the GPU is of capability 7.5" in line


def test_nothing_is_said_of_a_gpu_that_serves(old_gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    say_if_not_stepped(SimpleNamespace(model=old_gpu))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("triton", "why"),
    [("3.5.1", "triton 3.5.1 has not been tried"), ("3.6.0", "the GPU is of capability 7.5")],
)
def test_info_says_why_a_gpu_has_no_kernels(run, old_gpu, monkeypatch, triton, why):
    monkeypatch.setattr(launching, "version", lambda _: triton)
    text = run("info", "recurrentgemma-2b", "--preset").stdout
    (line,) = [line for line in text.splitlines() if "decode on a GPU" in line]
    assert f"a call of the model a token: {why}" in line
    assert any(f"torch's own operations: {why}" in line for line in text.splitlines())


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize(
    "words", [("generate", "a"), ("chat", "--no-persist"), ("serve", "--no-store")]
)
def test_a_verb_without_a_gpu_reads_no_weight(run, words, monkeypatch):
    monkeypatch.setattr("griffin.checkpoints.load_model", None)
    result = run(*words, "--device", "cuda", stdin="")
    assert result.exit_code == 2
    first, _ = result.stderr.strip().splitlines()
    assert "finds no GPU here" in first
