"""The rivals do the same work: the same tokens from the same weights, and what is said of them is
true."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.rivals import RIVALS
from griffin.bench.draft import Recording
from griffin.bench.program import OURS
from griffin.bench.worker import WorkerTasks
from griffin.loading import load_model
from griffin.model import Griffin
from tests.bench.test_programs import STEPS, continued, greedy, ids, options


@pytest.fixture(scope="module")
def toy(folder) -> Griffin:
    return load_model(folder, device="cpu").requires_grad_(False)


@pytest.mark.thorough
def test_transformers_does_the_same(folder, toy):
    pytest.importorskip("transformers")
    from benchmarks.with_transformers import Transformers

    program = Transformers(options(folder))
    tokens = ids(2, 20)  # it shows one key fewer, so not past the window
    assert continued(program, tokens) == greedy(toy, tokens)
    assert continued(program, tokens) == greedy(toy, tokens)  # it forgets
    assert program.weight_bytes == sum(p.nbytes for p in toy.parameters())


@pytest.mark.thorough
def test_recurrentgemma_does_as_much(folder, toy):
    pytest.importorskip("recurrentgemma.torch")
    from benchmarks.with_recurrentgemma import RecurrentGemma

    program = RecurrentGemma(options(folder))
    first = continued(program, ids(2, 20))
    assert continued(program, ids(2, 20)) == first
    assert program._seen == 20 + STEPS
    assert program.format == "bf16" and 2 * program.weight_bytes == sum(
        p.nbytes for p in toy.parameters()
    )


@pytest.mark.parametrize("format", ["bf16", "int8", "int4"])
def test_llama_cpp_continues_as_it_would_alone_and_in_a_larger_cache(tmp_path, format):
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    from benchmarks.gemma_gguf import SHAPES, write_gemma
    from benchmarks.with_llama_cpp import LlamaCpp

    path = tmp_path / "toy.gguf"
    write_gemma(path, SHAPES["toy"], format)
    program = LlamaCpp(options(path, format=format))
    tokens = ids(1, 600)
    whole = continued(program, tokens)
    program.forget(1, 512)
    program.read(tokens[:, :512])
    program.reserve(1024)
    program.read(tokens[:, 512:])
    program.step()
    assert program._next == whole[0][1:2]
    assert (
        program.decode_work(100, 1)["bytes"] - program.decode_work(0, 1)["bytes"]
        == 100 * 2 * 2 * 64 * 2
    )


def test_what_llama_cpp_looks_up_is_counted_and_taken_back(tmp_path):
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    from benchmarks.gemma_gguf import SHAPES, write_gemma
    from benchmarks.lookup import DRAFTS, beside
    from benchmarks.with_llama_cpp import LlamaCpp

    path = tmp_path / "toy.gguf"
    write_gemma(path, SHAPES["toy"], "int4")
    program = LlamaCpp(options(path, format="int4"))
    text = Recording("circle", [*range(20), *range(20), *range(15), 3, 3, 3], 5)
    for drafts, told in zip(DRAFTS, beside(program, text), strict=True):
        assert told.tokens == 53 and 53 - told.accepted == told.calls
        assert 20 < told.accepted < told.proposed <= drafts * told.calls
    # After going back it says what it would say of the text alone.
    ids = list(range(30))
    program.forget(2, 64)
    program.put(0, 0, ids)
    [alone] = program.choices(0, 30, [5])
    program.put(1, 0, ids)
    list(program.choices(1, 30, [7, 8, 9]))
    program.go_back(1, 30)
    assert [alone] == list(program.choices(1, 30, [5]))


def test_a_rival_that_is_not_installed_is_named(monkeypatch, tmp_path):
    # A package of that name that cannot be imported, before any other on the path.
    (tmp_path / "llama_cpp.py").write_text(
        "raise ModuleNotFoundError('No module named libllama')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    rival = RIVALS["llama.cpp"]
    options = {"model": "x.gguf", "format": "int4", "threads": 1, "chunk": 8}
    with pytest.raises(
        ModuleNotFoundError, match=r"llama\.cpp cannot run here.*pip install llama-cpp-python"
    ):
        WorkerTasks().start(rival.name, rival.where, list(rival.packages), **options)


def test_drafts_beside_a_rival_need_it_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.draft.find_spec", lambda name: None)
    done = CliRunner().invoke(main, ["draft", "-m", "nano", "--gguf", str(tmp_path / "weights")])
    assert done.exit_code == 2 and "pip install llama-cpp-python gguf" in done.output
    assert not (tmp_path / "weights").exists()


def test_the_table_of_rivals_names_files_that_exist():
    for name, rival in RIVALS.items():
        assert find_spec(rival.where.partition(":")[0]) is not None
        assert rival.name == name and rival.packages and set(rival.formats) < set(OURS.formats)
        assert rival.otherwise is None or rival.otherwise in rival.formats
        assert rival.root is not None and (rival.root / "benchmarks").is_dir()
