"""What a newcomer types in the first hour: each slip is answered with what was meant."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from griffin.answer import Result
from griffin.cli import main
from griffin.cli.chat.repl import mark
from griffin.cli.shared import progress
from griffin.conversation import Conversation
from griffin.model import PRESETS
from tests.support.terminal import Terminal
from tests.support.toy_folder import CONFIG

SLIPS = {
    "a verb with a letter too many": (("chatt",), "did you mean chat?"),
    "a verb that is none": (("improve",), "there are generate, chat"),
    "a verb of another program": (("run", "nano"), "did you mean chat?"),
    "a model where no place is for it": (("chat", "nano"), "named with --model"),
    "convert with one name": (("convert", "X"), "griffin convert SRC DST"),
    "--random with two names": (
        ("convert", "--random", "recurrentgemma-2b", "X", "Y"),
        "griffin convert --random PRESET DST",
    ),
    "alternatives that nothing shows": (("generate", "x", "--logprobs", 2), "needs --json"),
    "an amount without its unit": (
        ("plan", "--model", "recurrentgemma-2b", "--ram", 16),
        "did you mean 16G?",
    ),
    "misuse of a verb": (("generate", "x", "--max-tokens", 0), "`griffin generate --help`"),
    "an option's name": (("generate", "x", "--max-tokens", 0), "griffin: --max-tokens must be"),
    "an option that may be repeated": (
        ("generate", "x", "--stop-id", -1),
        "griffin: --stop-id must",
    ),
    "a model whose name is empty": (("pull", ""), "the model's name is empty"),
    "a device to plan for": (
        ("plan", "--model", "recurrentgemma-2b", "--ram", "9G", "--device", "gpu"),
        "there is no device 'gpu'",
    ),
    "more threads than there can be": (
        ("generate", "x", "--threads", 100_000),
        "--threads must be at",
    ),
    "a model with a letter too many": (("generate", "-m", "nanoo", "x"), "did you mean nano?"),
    "a released model by its last name": (
        ("info", "recurrentgemma-2b"),
        "google/recurrentgemma-2b is not",
    ),
    "another trainer's word": (
        ("train", "recipes/nano.toml", "--set", "train.lr=2"),
        "learning_rate",
    ),
    "a model to measure that is not there": (
        ("evaluate", "--held-out", "recipes/nano.toml", "--model", "nope"),
        "nope",
    ),
    "a picture of no kind": (("bench", "decode", "--plot", "x.xyz"), ".png, .svg, .pdf"),
    "a picture where no folder is": (
        ("evaluate", "--text", __file__, "--plot", "none/x.png"),
        "there is no folder none",
    ),
    "a session that is not there": (("state", "show", "nope"), "griffin state ls"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_answered_with_what_was_meant(run, slip):
    command, hint = SLIPS[slip]
    told = run(*command)
    assert told.exit_code == 2 and not told.stdout and hint in told.stderr, told.stderr


@pytest.mark.parametrize("verb", ["generate", "chat", "ask", "watch"])
def test_a_wrong_number_is_told_before_a_model_is_looked_for(run, verb):
    more = {"ask": ("--file", __file__, "-q", "x"), "watch": ("--ask", "x")}.get(verb, ())
    told = run(verb, "--model", "no/such", "--temperature", -1, *more, stdin="x")
    assert told.exit_code == 2 and "temperature must be" in told.stderr, told.stderr


WRONG = {
    "format": (("--quantize", "int3"), "there are int8"),
    "type": (("--dtype", "bf61"), "--dtype must be one of"),
    "device": (("--device", "gpu"), "there is no device 'gpu'"),
    "device that holds nothing": (("--device", "meta"), "there is no device 'meta' here"),
    "tokenizer": (("--tokenizer", "nope"), "there is no tokenizer nope"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_option_is_told_before_a_model_is_looked_for(run, wrong):
    options, hint = WRONG[wrong]
    told = run("generate", "--model", "no/such", *options, "x")
    assert told.exit_code == 2 and hint in told.stderr, told.stderr


def test_a_chat_that_cannot_begin_is_told_so_before_a_model_is_looked_for(run, tmp_path):
    chat = ("chat", "--model", "no/such", "--store", tmp_path / "s")
    for options, hint in {
        ("--session", "a/b"): "cannot name a session",
        ("--state", "nope.state"): "there is no state file nope.state",
        ("--state", "nope"): "there is no session 'nope'",
        ("--state", "nope", "--no-persist"): "there is no state file nope",
    }.items():
        told = run(*chat, *options, stdin="")
        assert told.exit_code == 2 and hint in told.stderr, told.stderr


@pytest.mark.sweep
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("verb", "module"), [("serve", "msgspec"), ("serve", "uvicorn"), ("batch", "msgspec")]
)
def test_a_verb_whose_extra_is_not_installed_says_how(tmp_path, verb, module):
    arguments = [verb, "--model", "no/such", *(["--port", "0"] if verb == "serve" else ["x", "y"])]
    (tmp_path / "x").write_text("{}\n")
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        f"from griffin.cli import main; main({arguments}, prog_name='griffin')"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    line = f"griffin: griffin {verb} needs {module}: pip install 'griffin-lm[serve]'"
    assert (told.returncode, told.stderr.splitlines()[:1]) == (1, [line])


def test_an_empty_prompt_begins_freely(run, folder):
    asked = ("generate", "", "--model", folder, "--temperature", 0, "-n", 4)
    free = json.loads(run(*asked, "--json").stdout)
    assert (free["prompt_tokens"], free["generated_tokens"]) == (1, 4)
    told = run(*asked[:1], *asked[2:], stdin="")
    assert told.exit_code == 2 and "the prompt is empty" in told.stderr


def test_a_taken_port_names_the_way_out(run, folder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        told = run("serve", "--model", folder, "--port", other.getsockname()[1])
    assert told.exit_code == 1 and "--port 0" in told.stderr


@pytest.mark.parametrize("word", ["exit", "quit", "/bye", "/quit"])
def test_a_chat_is_left_by_the_words_people_try(run, folder, tmp_path, word):
    said = f"{word}\n/help\n"
    told = run("chat", "--model", folder, "--store", tmp_path / "s", stdin=said)
    assert told.exit_code == 0 and not told.stdout


def test_slips_in_a_chat(run, folder, tmp_path):
    lines = {
        "/?": "/system [TEXT]",
        "/hepl": "did you mean /help?",
        "/file nope.txt": "nope.txt is no file",
        f"/file {tmp_path}": "is a folder",
        "/load nope": "lists them",
        "/set temp 0.2": "did you mean 'temperature'?",
    }
    for line, hint in lines.items():
        told = run("chat", "--model", folder, "--store", tmp_path / "s", stdin=f"{line}\n")
        assert told.exit_code == 0 and hint in told.stdout, (line, told.stdout)


def test_a_setting_goes_back_to_the_models_own(run, folder, tmp_path):
    chat = ("chat", "--model", folder, "--store", tmp_path / "s", "--session", "one")
    asked = "/set top_k 7\n/set top_k default\n/show\n"
    assert "top_k" not in run(*chat, stdin=asked).stdout.split("sampling:")[1]
    # In the session too, and where the command line had set it.
    assert "top_k" not in run(*chat, stdin="/show\n").stdout
    again = run(*chat, "--top-k", 9, stdin="/set top_k default\n/show\n")
    assert "top_k" not in again.stdout.split("sampling:")[1]
    assert "no sampling parameter 'topk'" in run(*chat, stdin="/set topk default\n").stdout


def test_an_answer_that_was_cut_says_so_and_goes_on(run, folder, tmp_path):
    chat = ("chat", "--model", folder, "--store", tmp_path / "s", "--session", "one")
    short = (*chat, "--temperature", 0, "--max-tokens", 5)
    cut = run(*short, stdin="say\n/continue\n")
    assert cut.stderr.count("[cut after 5 tokens; /continue goes on]") == 2
    whole = run("chat", "--model", folder, "--no-persist", *short[-4:-1], 10, stdin="say\n")
    assert cut.stdout.replace("\n", "") == whole.stdout.replace("\n", "")
    # What ended by itself, or never began, does not go on.
    new = ("chat", "--model", folder, "--no-persist")
    assert run(*new, stdin="/continue\n").stdout.startswith("no answer was cut short")


def test_a_conversation_shows_where_it_was_when_it_is_taken_up(run, folder, tmp_path):
    chat = ("chat", "--model", folder, "--store", tmp_path / "s", "--max-tokens", 5)
    run(*chat, "--session", "one", "--system", "Be brief.", stdin="first\nsecond\n")
    told = run(*chat, "--session", "one", stdin="/history 1\n/history\n/list\n")
    assert "system text: Be brief." in told.stderr
    assert "> second" in told.stderr and "> first" not in told.stderr
    one, both = told.stdout.split("[1]")
    assert "> second" in one and "> first" not in one
    assert "> first" in both and "> second" in both and "* one, 2 turns" in both
    assert run(*chat, "--new", stdin="/history\n").stdout == "nothing has been said yet\n"


def test_a_toy_and_a_base_model_say_what_they_are(run, folder, tmp_path):
    store = ("--store", tmp_path / "s")
    assert "nano is a toy" in run("chat", "--model", "nano", *store, stdin="").stderr
    base = run("chat", "--model", folder, *store, stdin="").stderr
    assert "\ntoy brings no chat template" in f"\n{base}"  # and not where it lies
    tuned = tmp_path / "toy-it"
    tuned.symlink_to(folder)
    assert "template" not in run("chat", "--model", tuned, *store, stdin="").stderr


def test_pasted_lines_are_one_message(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    store = ("--store", tmp_path / "s", "--session", "one", "--max-tokens", 3)
    with Terminal("chat", "--model", folder, *store) as terminal:
        terminal.expect(">>> ")
        terminal.type("\x1b[200~first line\nsecond line\x1b[201~")
        terminal.expect("cut after")
        terminal.type("/history")
        terminal.expect("> first line\n> second line")
        terminal.type("/bye")
        assert terminal.wait() == 0
    assert "[2]" not in terminal.output


def test_a_chat_has_defaults_that_hold_a_small_model(run, folder, tmp_path):
    def shown(*options, model=folder):
        asked = ("chat", "--model", model, "--no-persist", *options)
        lines = run(*asked, stdin="/set\n").stdout.splitlines()
        return dict(line.split(" = ") for line in lines)

    usual = {"temperature": "0.7", "top_p": "0.95", "min_p": "0.05", "max_tokens": "4096"}
    assert shown().items() >= usual.items()
    assert shown("--temperature", 0.2).items() >= (usual | {"temperature": "0.2"}).items()
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    (own / "generation_config.json").write_text('{"temperature": 1.0, "max_new_tokens": 9}')
    said = {"temperature": "1.0", "max_tokens": "9"}
    assert shown(model=own).items() >= (usual | said).items()
    assert "temperature 0.7" in run("chat", "--help").stdout


def test_generate_puts_the_prompt_into_a_turn_for_a_chat_model(run, folder, tmp_path):
    tuned = tmp_path / "toy-it"
    tuned.symlink_to(folder)
    asked = ("generate", "say", "--temperature", 0, "--max-tokens", 8)
    text = {
        (model.name, *how): run(*asked, "--model", model, *how).stdout
        for model in (folder, tuned)
        for how in ((), ("--raw",), ("--chat",))
    }
    assert text["toy",] == text["toy", "--raw"] == text["toy-it", "--raw"]
    assert text["toy-it",] == text["toy-it", "--chat"] == text["toy", "--chat"]
    assert text["toy",] != text["toy-it",]


@pytest.mark.parametrize(
    ("ram", "options", "hint"),
    [
        ("4G", (), "--quantize int8 or --quantize int4 would fit"),
        ("2.3G", (), "; --quantize int4 would fit"),
        ("3G", ("--quantize", "int8"), "; --quantize int4 would fit"),
        ("1G", (), "takes\n"),
    ],
)
def test_a_plan_that_does_not_fit_names_the_format_that_would(run, ram, options, hint):
    asked = ("plan", "--model", "recurrentgemma-2b", "--no-prefix-cache", "--slots", 1)
    told = run(*asked, "--ram", ram, *options)
    assert told.exit_code == 2 and hint in told.stderr, told.stderr


def test_random_weights_speak(run, tmp_path, monkeypatch):
    small = CONFIG.replace(vocab_size=512)
    monkeypatch.setitem(PRESETS, "small", small)
    made = run("convert", "--random", "small", tmp_path / "random")
    assert made.exit_code == 0 and "tokenizer of bytes" in made.stdout
    asked = ("generate", "x", "--model", tmp_path / "random", "-n", 4)
    assert run(*asked).exit_code == 0
    monkeypatch.setitem(PRESETS, "small", small.replace(vocab_size=64))
    silent = run("convert", "--random", "small", tmp_path / "silent")
    assert silent.exit_code == 0 and "tokenizer" not in silent.stdout


def test_a_terminal_shows_markdown_and_others_get_it_as_written(folder, tmp_path, monkeypatch):
    said = "# Title\n\nA **bold** word."
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(Conversation, "say", lambda *_: iter_of(said))
    chat = ("chat", "--model", folder, "--no-persist")
    for options, variables, shown in (
        ((), {}, "\x1b[1mTitle\x1b[22m\n\nA \x1b[1mbold\x1b[22m word."),
        (("--plain",), {}, said),
        ((), {"NO_COLOR": "1"}, said),
        ((), {"TERM": "dumb"}, said),
    ):
        with monkeypatch.context() as here:
            for name, value in variables.items():
                here.setenv(name, value)
            with Terminal(*chat, *options) as terminal:
                terminal.expect(">>> ")
                terminal.type("hello")
                terminal.expect(re.escape(shown))
                terminal.type("/bye")
                assert terminal.wait() == 0
    assert CliRunner().invoke(main, [*map(str, chat)], input="hello\n").stdout == f"{said}\n"


def iter_of(text):
    yield from text


@pytest.mark.parametrize(
    ("verb", "word"), [("chat", "reading"), ("generate", "reading"), ("generate", "loading")]
)
def test_a_terminal_shows_what_takes_long(folder, monkeypatch, verb, word):
    """Two seconds are none here, and reading a prompt takes long enough for the bar to be seen."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    calls = itertools.count()

    def slow(bar, done, total, real=progress.PromptBar.read):
        real(bar, done, total)
        if next(calls) < 5:
            time.sleep(0.3)

    monkeypatch.setattr(progress.PromptBar, "read", slow)
    rest = {"chat": ("--no-persist",), "generate": ("word " * 200,)}[verb]
    with Terminal(verb, "--model", folder, *rest, "-n", 3) as terminal:
        if verb == "chat":
            terminal.expect(">>> ")
            terminal.type("word " * 200)
        terminal.expect(word)
        if word == "reading":
            terminal.expect(r"\d+ of \d+ tokens")
        if verb == "chat":
            terminal.expect(">>> ")
            terminal.type("/bye")
        assert terminal.wait() == 0


def test_an_answer_that_is_empty_or_was_stopped_says_so():
    result = Result(
        **dict.fromkeys(("ids", "logprobs", "alternatives"), ()),
        text=" \n",
        finish_reason="stop",
        stop=None,
        prompt_tokens=1,
        first_seconds=0,
        seconds=0,
        seed=1,
    )
    assert mark(result) == "an empty answer; /regen asks for another"
    assert mark(replace(result, text="x")) == ""
    cut = replace(result, ids=(3,), finish_reason="cancelled")
    assert mark(cut) == "stopped after 1 token; /continue goes on"
