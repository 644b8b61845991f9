"""`griffin generate`: prompts from everywhere, streaming and JSON."""

from __future__ import annotations

import json

import pytest

import griffin

PROMPT = "import json\n\n\ndef load(path):\n"
FLAGS = ("--max-tokens", 12, "--seed", 4, "--top-k", 50)


@pytest.fixture(scope="module")
def llm(folder):
    return griffin.load(folder, device="cpu")


def expected(llm, prompt, **more):
    return llm.generate(prompt, max_tokens=12, seed=4, top_k=50, **more)


def test_argument_file_and_standard_input_give_the_same_text(run, folder, llm, tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text(PROMPT)
    text = expected(llm, PROMPT).text + "\n"
    assert run("generate", "--model", folder, *FLAGS, PROMPT).stdout == text
    assert run("generate", "--model", folder, *FLAGS, "--file", path).stdout == text
    assert run("generate", "--model", folder, *FLAGS, "-", stdin=PROMPT).stdout == text
    assert run("generate", "--model", folder, *FLAGS, stdin=PROMPT).stdout == text
    assert run("generate", "--model", folder, *FLAGS, "--echo", PROMPT).stdout == PROMPT + text


@pytest.mark.thorough
def test_a_long_file_reads_as_the_whole_text_would(run, folder, llm, tmp_path):
    text = PROMPT * 1500
    path = tmp_path / "long.txt"
    path.write_text(text)
    result = run("generate", "--model", folder, *FLAGS, "--json", "--file", path)
    out = json.loads(result.stdout)
    assert out["prompt_tokens"] == len(llm.tokenizer.encode(text))
    assert out["ids"] == list(expected(llm, text).ids)


def test_json_carries_the_result(run, folder, llm):
    result = run("generate", "--model", folder, *FLAGS, "--json", "--logprobs", 2, PROMPT)
    out = json.loads(result.stdout)
    same = expected(llm, PROMPT, logprobs=2)
    assert out["text"] == same.text and out["ids"] == list(same.ids) and out["seed"] == 4
    assert out["logprobs"] == pytest.approx(same.logprobs)
    assert [[token["id"] for token in row] for row in out["alternatives"]] == [
        [i for i, _ in row] for row in same.alternatives
    ]
    assert out["finish_reason"] == same.finish_reason and out["generated_tokens"] == len(same.ids)


def test_chat_puts_the_prompt_into_a_turn(run, folder, llm):
    text = llm.chat([{"role": "user", "content": "hi"}], max_tokens=12, seed=4, top_k=50).text
    assert run("generate", "--model", folder, *FLAGS, "--chat", "hi").stdout == text + "\n"
    assert run("generate", "--model", folder, *FLAGS, "--chat", stdin="hi").stdout == text + "\n"


def test_an_answer_goes_on_from_how_it_begins(run, folder, llm):
    asked = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well, "}]
    text = llm.chat(asked, max_tokens=12, seed=4, top_k=50).text
    begun = ("generate", "--model", folder, *FLAGS, "--prefill", "Well, ")
    assert run(*begun, "--chat", "hi").stdout == text + "\n"
    result = run(*begun, "hi")
    assert result.exit_code == 2 and "--prefill needs --chat" in result.stderr


def test_sampling_flags_arrive(run, folder, llm):
    whole = expected(llm, PROMPT)
    stop = whole.text[len(whole.text) // 2 :][:2]
    result = run("generate", "--model", folder, *FLAGS, "--stop", stop, PROMPT)
    assert result.stdout == whole.text[: whole.text.index(stop)] + "\n"
    result = run(
        "generate", "--model", folder, "--logit-bias", "300=100", "--stop-id", 300, "--json", PROMPT
    )
    assert json.loads(result.stdout)["ids"] == [300]
    greedy = run(
        "generate", "--model", folder, "--temperature", 0, "--max-tokens", 5, "--json", PROMPT
    )
    assert json.loads(greedy.stdout)["ids"] == list(
        llm.generate(PROMPT, temperature=0, max_tokens=5).ids
    )


def test_bytes_that_are_no_text_are_read_with_a_notice(run, folder, llm):
    result = run("generate", "--model", folder, *FLAGS, stdin=b"abc\xff\xfedef")
    assert result.stdout == expected(llm, "abc\ufffd\ufffddef").text + "\n"
    assert "notice: 2 places were not UTF-8" in result.stderr


def test_statistics_go_to_standard_error(run, folder):
    result = run("generate", "--model", folder, *FLAGS, "--stats", PROMPT)
    assert (
        "12 out (length)" in result.stderr
        and "seed 4" in result.stderr
        and "seed" not in result.stdout
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--file", "/dev/null"), "the prompt is empty"),
        (("--top-p", 2, "x"), "--top-p must be a number above 0 and at most 1, not 2.0"),
        (("--max-tokens", 0, "x"), "--max-tokens must be a whole number of at least 1, not 0"),
        (("--logit-bias", "a", "x"), "'a' is not ID=BIAS"),
        (("--logit-bias", "512=1", "x"), "--logit-bias names token 512"),
        (("--file", "/no/such/file"), "/no/such/file"),
        (("--dtype", "int3", "x"), "--dtype must be one of"),
    ],
)
def test_misuse(run, folder, arguments, message):
    result = run("generate", "--model", folder, *arguments)
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""


def test_more_misuse(run, folder, tmp_path):
    path = tmp_path / "empty"
    path.write_text("")
    result = run("generate", "--model", folder, "--file", path)
    assert result.exit_code == 2 and "the prompt is empty" in result.stderr
    result = run("generate", "--model", folder, "--file", path, "x")
    assert result.exit_code == 2 and "not both" in result.stderr
    result = run("generate", "--model", tmp_path / "nothing", "x")
    assert result.exit_code == 2 and "nothing does not exist" in result.stderr


def test_an_answer_in_a_form(run, folder, llm, tmp_path):
    from griffin.grammar import Grammar

    path = tmp_path / "schema.json"
    path.write_text('{"enum": ["é", 12, {"a": [true]}]}', encoding="utf-8")
    say = ("generate", "--model", folder, *FLAGS[2:], "--max-tokens", 60, PROMPT)
    assert json.loads(run(*say, "--json-schema", path).stdout) in ("é", 12, {"a": [True]})
    answer = run(*say, "--choice", "yes", "--choice", "no")
    grammar = Grammar.choice("yes", "no")
    assert answer.stdout == llm.generate(PROMPT, seed=4, top_k=50, grammar=grammar).text + "\n"
    assert run(*say, "--regex", "[ab]{3}", "--chat").stdout.strip("ab") == "\n"
    assert json.loads(run(*say, "--regex", "[ab]{3}", "--json").stdout)["finish_reason"] == "stop"
    path = tmp_path / "rules.gbnf"
    path.write_text('root ::= "é" [xy]{2}', encoding="utf-8")
    assert run(*say, "--grammar", path).stdout.strip("xy\n") == "é"


def test_an_answer_of_a_given_length(run, folder):
    say = ("generate", "--model", folder, *FLAGS[2:], "--json", "--ignore-eos", PROMPT)
    free = json.loads(run(*say, "--max-tokens", 30).stdout)
    assert free["generated_tokens"] == 30
    ends = ("--stop-id", free["ids"][2])
    assert json.loads(run(*say, *ends).stdout)["generated_tokens"] <= 3
    late = json.loads(run(*say, *ends, "--min-tokens", 20).stdout)
    assert late["generated_tokens"] > 20
    few = json.loads(run(*say, "--allowed-id", 300, "--allowed-id", 301).stdout)
    assert set(few["ids"]) <= {300, 301}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--regex", "(", PROMPT), "the regular expression cannot be used: "),
        (
            ("--regex", "a", "--choice", "b", PROMPT),
            "--regex and --choice both say what the answer looks like",
        ),
        (("--choice", "", PROMPT), "not empty"),
        (("--grammar", "schema.json", PROMPT), "the grammar cannot be used: "),
        (("--min-tokens", 9, "--max-tokens", 8, PROMPT), "--min-tokens is 9 and --max-tokens 8"),
        (("--json-schema", "schema.json", PROMPT), "schema.json: not a JSON schema"),
    ],
)
def test_a_form_that_is_none(run, folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schema.json").write_text("{")
    result = run("generate", "--model", folder, *arguments)
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""
