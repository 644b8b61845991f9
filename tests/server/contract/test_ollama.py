"""Ollama's official client before a live server, in an environment of its own."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.server.contract.test_pages import here, snippets
from tests.support.foreign import Foreign, python_with
from tests.support.live_server import NAME
from tests.support.tool_calls import TALLY, TOOLS, valid

pytestmark = pytest.mark.slow

HI = [{"role": "user", "content": "Hi there"}]
ASKED = {"model": NAME, "messages": HI, "options": {"num_predict": 8, "seed": 1}}
PRELUDE = """
from ollama import AsyncClient, Client
clients = Client(host="{url}"), AsyncClient(host="{url}")
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory, live):
    python = python_with(tmp_path_factory.mktemp("ollama") / "venv", "ollama")
    return Foreign(python, PRELUDE.format(url=live.url))


def test_the_answer_is_the_models(there, llm):
    def answers(client, other, asked):
        import asyncio

        async def both():
            parts = [part async for part in await other.chat(**asked, stream=True)]
            return await other.chat(**asked), parts

        late, parts = asyncio.run(both())
        parts = [list(client.chat(**asked, stream=True)), parts]
        texts = ["".join(part.message.content for part in stream) for stream in parts]
        whole = [client.chat(**asked), late]
        last = [answer.model_dump() for answer in (*whole, *(stream[-1] for stream in parts))]
        return [*(answer.message.content for answer in whole), *texts], last

    alone = llm.chat(HI, seed=1, max_tokens=8)
    texts, last = there(answers, ASKED)
    assert texts == [alone.text] * 4
    for one in last:
        assert one["done"] is True and one["done_reason"] == "length"
        assert (one["prompt_eval_count"], one["eval_count"]) == (alone.prompt_tokens, 8)
        assert one["total_duration"] > one["eval_duration"] > 0


def test_generate(there, llm):
    def generated(client, other, asked):
        raw = client.generate(**asked, raw=True)
        parts = client.generate(**asked, system="S", stream=True)
        return raw.response, "".join(part.response for part in parts)

    asked = {"model": NAME, "prompt": "Hi", "options": ASKED["options"]}
    talk = [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]
    alone = [llm.generate("Hi", seed=1, max_tokens=8), llm.chat(talk, seed=1, max_tokens=8)]
    assert there(generated, asked) == [one.text for one in alone]


def test_formats_and_tools(there):
    def made(client, other, asked, schema, tools):
        held = client.chat(**asked, format=schema).message.content
        called = client.chat(**asked, tools=tools).message.tool_calls or []
        parts = list(client.chat(**asked, tools=tools, stream=True))
        streamed = [call for part in parts for call in part.message.tool_calls or []]
        dumped = [[call.model_dump() for call in calls] for calls in (called, streamed)]
        return [held, *dumped]

    asked = ASKED | {"options": {"num_predict": 400, "seed": 1}}
    held, called, streamed = there(made, asked, TALLY, TOOLS)
    assert valid("look", held) and called == streamed
    for call in called:
        assert valid(call["function"]["name"], json.dumps(call["function"]["arguments"]))


def test_a_function_is_a_tool_and_its_result_is_read(there):
    def talk(client, other, asked):
        def look(where: str) -> str:
            """Look somewhere.

            Args:
                where: the place
            """
            return where

        call = {"function": {"name": "look", "arguments": {"where": "here"}}}
        messages = [
            *asked["messages"],
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "an owl", "tool_name": "look"},
        ]
        said = client.chat(**asked | {"messages": messages}, tools=[look])
        return [said.prompt_eval_count, client.chat(**asked, tools=[look]).prompt_eval_count]

    longer, shorter = there(talk, ASKED)
    assert longer > shorter > 100


def test_the_model_is_described(there):
    def described(client, other, name):
        (listed,), (running,) = client.list().models, client.ps().models
        shown = client.show(name)
        return listed.model, running.model, shown.capabilities, shown.modelinfo

    listed, running, capabilities, info = there(described, NAME)
    assert listed == running == f"{NAME}:latest" and capabilities == ["completion", "tools"]
    assert info["general.parameter_count"] > 0


def test_vectors(there, llm):
    def vectors(client, other, name):
        return client.embed(name, ["owl", "a mouse"]).embeddings

    made = there(vectors, NAME)
    for one, alone in zip(made, llm.embed(["owl", "a mouse"]).tolist(), strict=True):
        assert one == pytest.approx(alone, abs=1e-6)


def test_refusals_are_its_own_errors(there):
    def refused(client, other, asked):
        told = []
        for do in (
            lambda: client.chat(**asked | {"model": "other"}),
            lambda: list(client.chat(**asked | {"model": "other"}, stream=True)),
            lambda: client.pull("llama"),
            lambda: client.chat(**asked | {"options": {"mirostat": 2}}),
        ):
            try:
                do()
            except Exception as error:
                told.append([type(error).__name__, error.status_code, error.error])  # pyright: ignore
        return told

    found = there(refused, ASKED)
    assert [(kind, status) for kind, status, _ in found] == [
        *([("ResponseError", 404)] * 3),
        ("ResponseError", 400),
    ]
    assert "griffin pull" in found[2][2] and "options.mirostat" in found[3][2]


def test_the_page(there, live):
    printed = there.run(here("\n".join(snippets("ollama.md", "python")), live))
    assert len(printed) > 100 and live.idle()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(live):
    (code,) = snippets("ollama.md", "sh")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", here(code, live)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and '"done":true' in done.stdout, done.stdout + done.stderr
