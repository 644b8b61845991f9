"""Where the kernels were not compiled, a verb says so in one line, with what mends it."""

from __future__ import annotations

import pytest

from griffin.ops import native

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
