"""The command itself: quick help, errors in one line, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import click
import pytest

from griffin import cli

_MAIN = "import sys; sys.argv[0] = 'griffin'; from griffin.cli import main; main()"


def test_help_and_import_load_no_torch():
    probe = (
        "import sys, griffin, griffin.cli\n"
        "griffin.cli.main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'rich', 'numpy', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for verb in cli.VERBS:
        assert f"\n  {verb} " in done.stdout


@pytest.mark.thorough
def test_an_answer_loads_no_compiler(folder):
    """torch's own, which takes as long to import as the rest of torch."""
    probe = (
        "import sys, griffin\n"
        "griffin.load(sys.argv[1], device='cpu').generate('x', max_tokens=2)\n"
        "sys.exit(int('torch._dynamo' in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", probe, str(folder)], check=True, timeout=600)


def test_every_verb_exists_and_has_help(run):
    for verb in cli.VERBS:
        result = run(verb, "--help")
        assert result.exit_code == 0 and "--debug" in result.output, verb


def test_an_unknown_verb_is_misuse(run):
    result = run("genrate")
    assert result.exit_code == 2 and "genrate" in result.stderr


@pytest.fixture
def failing(monkeypatch):
    """A verb `fail` that raises what the test says."""
    raised: list[BaseException] = []

    @click.command("fail")
    def command() -> None:
        raise raised[0]

    monkeypatch.setitem(cli.VERBS, "fail", ("tests.cli.test_main:_COMMAND", "Fail."))
    monkeypatch.setattr(sys.modules[__name__], "_COMMAND", command, raising=False)
    return raised


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("top_p must be\n  below 1"), 2, "griffin: top_p must be below 1"),
        (OSError(28, "No space left on device"), 1, "griffin: [Errno 28] No space left on device"),
        (FloatingPointError("not finite"), 1, "griffin: not finite"),
        (
            ImportError("pip install 'griffin-lm[kaggle]'"),
            1,
            "griffin: pip install 'griffin-lm[kaggle]'",
        ),
        (MemoryError(), 1, "griffin: out of memory (MemoryError)"),
        (RuntimeError("state was donated"), 1, "griffin: state was donated"),
    ],
)
def test_errors_are_one_line_and_a_hint(run, failing, error, code, line):
    failing.append(error)
    result = run("fail")
    assert result.exit_code == code
    assert result.stderr.splitlines()[0] == line and "--debug" in result.stderr.splitlines()[1]
    assert len(result.stderr.splitlines()) == 2 and result.stdout == ""
    for arguments in (("--debug", "fail"), ("fail", "--debug")):
        shown = run(*arguments)
        assert shown.exception is error


def test_a_bug_keeps_its_traceback(run, failing):
    failing.append(KeyError("a bug"))
    assert isinstance(run("fail").exception, KeyError)


def test_ctrl_c_ends_with_130_and_no_traceback(run, failing):
    failing.append(KeyboardInterrupt())
    result = run("fail")
    assert result.exit_code == 130 and "Traceback" not in result.stderr


@pytest.mark.thorough
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_while_generating(folder):
    command = [sys.executable, "-c", _MAIN, "generate", "--model", str(folder), "--threads", "1"]
    # Neither EOS nor <end_of_turn> ends it.
    command += ["--logit-bias", "1=-100", "--logit-bias", "6=-100"]
    command += ["--max-tokens", "100000", "x"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.read(20)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in stderr


@pytest.mark.thorough
def test_a_reader_that_has_enough_is_no_error(folder):
    flags = f'--model "{folder}" --threads 1 --max-tokens 3000'
    line = f'"{sys.executable}" -c "{_MAIN}" generate {flags} x | head -c 5'
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=60)
    assert len(done.stdout) == 5 and done.stderr == b""
