"""OpenAI's Agents SDK before a live server, in an environment of its own."""

from __future__ import annotations

import pytest

from griffin.llm import LLM
from tests.server.contract.test_pages import here, snippets
from tests.support.foreign import Foreign, python_with
from tests.support.live_server import serving

pytestmark = pytest.mark.slow

PRELUDE = """
from agents import set_default_openai_client, set_tracing_disabled
from openai import AsyncOpenAI
client = AsyncOpenAI(base_url="{url}/v1", api_key="none", max_retries=0)
set_default_openai_client(client, use_for_tracing=False)
set_tracing_disabled(True)
clients = (client,)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return python_with(tmp_path_factory.mktemp("agents") / "venv", "openai-agents")


@pytest.fixture(scope="module")
def ending(llm, tmp_path_factory):
    """A server whose answers soon end by themselves: one that is cut is an error to this SDK."""
    plain = LLM.request

    def request(self, context, **options):
        bias = dict.fromkeys(self.stop_ids, 6.0) | (options.pop("logit_bias", None) or {})
        return plain(self, context, logit_bias=bias, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LLM, "request", request)
        with serving(llm, tmp_path_factory.mktemp("agents") / "store") as live:
            yield live


@pytest.fixture(scope="module")
def there(python, ending):
    return Foreign(python, PRELUDE.format(url=ending.url))


def test_every_memory_gives_the_same_answers(there, capsys):
    """A conversation of the server's and a file, both sent whole, and the server's two own."""

    def talk(client):
        import asyncio
        from importlib.metadata import version

        from agents import Agent, ModelSettings, OpenAIConversationsSession, Runner, SQLiteSession

        settings = ModelSettings(max_tokens=500, extra_body={"seed": 1})
        agent = Agent(name="owl", instructions="Be calm.", model="toy", model_settings=settings)
        words = ["one", "two", "three"]

        async def whole(session):
            for word in words:
                await Runner.run(agent, word, session=session)
            items = await session.get_items()
            popped = await session.pop_item()
            left = await session.get_items()
            await session.clear_session()
            return [
                [item["role"] for item in items],
                [item["content"][0]["text"] for item in items if item["role"] == "assistant"],
                popped["role"],
                len(left),
            ]

        async def kept():
            answers = [[], []]
            made, last = await client.conversations.create(), None
            for word in words:
                answer = await Runner.run(agent, word, conversation_id=made.id)
                answers[0].append(answer.final_output)
                answer = await Runner.run(agent, word, previous_response_id=last)
                last = answer.last_response_id
                answers[1].append(answer.final_output)
            return answers

        async def streamed():
            run = Runner.run_streamed(agent, "one", session=SQLiteSession("streamed"))
            async for _ in run.stream_events():
                pass
            return run.final_output

        async def all_of_it():
            return {
                "versions": [version("openai-agents"), version("openai")],
                "conversation": await whole(OpenAIConversationsSession(openai_client=client)),
                "file": await whole(SQLiteSession("talk")),
                "kept": await kept(),
                "streamed": await streamed(),
            }

        return asyncio.run(all_of_it())

    told = there(talk)
    roles, texts, popped, left = told["conversation"]
    assert told["file"] == told["conversation"]
    assert roles == ["user", "assistant"] * 3 and popped == "assistant" and left == 5
    assert told["kept"][0] == told["kept"][1] and told["kept"][0][0] == texts[0]
    assert told["streamed"] == texts[0]
    with capsys.disabled():
        print("\nopenai-agents {}, openai {}".format(*told["versions"]))


def test_tools_are_called_and_remembered(there):
    def call(client):
        import asyncio

        from agents import Agent, ModelSettings, OpenAIConversationsSession, Runner, function_tool

        @function_tool
        def coin(side: bool) -> str:
            """Lay a coin."""
            return f"it shows {side}"

        settings = ModelSettings(max_tokens=900, tool_choice="required", extra_body={"seed": 1})
        agent = Agent(name="owl", model="toy", tools=[coin], model_settings=settings)

        async def run():
            session = OpenAIConversationsSession(openai_client=client)
            first = await Runner.run(agent, "lay it", session=session)
            second = await Runner.run(agent, "again", session=session)
            items = await session.get_items()
            return [[item["type"] for item in items], first.final_output, second.final_output]

        return asyncio.run(run())

    kinds, first, second = there(call)
    turn = ["message", "function_call", "function_call_output", "message"]
    assert kinds == turn * 2 and isinstance(first, str) and isinstance(second, str)


def test_the_page_runs_as_printed(python, ending):
    code = "\n".join(snippets("openai_agents.md", "python"))
    told = Foreign(python, "").run(here(code, ending))
    assert told.count("\n") >= 7 and ending.idle()
