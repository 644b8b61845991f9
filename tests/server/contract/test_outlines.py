"""outlines' vLLM dialect before a live server, in an environment of its own."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.foreign import Foreign, python_with
from tests.support.live_server import NAME
from tests.support.tool_calls import TALLY, valid

pytestmark = pytest.mark.slow

PRELUDE = """
import openai, outlines
client = openai.OpenAI(base_url="{url}/v1", api_key="none")
clients = (outlines.from_vllm(client, "{name}"),)
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory, live):
    python = python_with(tmp_path_factory.mktemp("outlines") / "venv", "outlines", "openai")
    return Foreign(python, PRELUDE.format(url=live.url, name=NAME))


def test_every_kind_of_output(there):
    def answers(model, schema, rules):
        from typing import Literal

        from outlines.types import CFG, JsonSchema, Regex

        kinds = {
            "choice": Literal["an owl", "ein Kauz"],
            "regex": Regex("[xy]{3}"),
            "json": JsonSchema(json.dumps(schema)),
            "grammar": CFG(rules),
            "number": int,
        }
        return {
            name: model("Hi there", kind, max_tokens=200, seed=1) for name, kind in kinds.items()
        }

    found = there(answers, TALLY, 'start: "- " WORD "!"\nWORD: /[a-z]{1,3}/')
    assert found["choice"] in ("an owl", "ein Kauz")
    assert re.fullmatch("[xy]{3}", found["regex"])
    assert valid("look", found["json"])
    assert re.fullmatch("- [a-z]{1,3}!", found["grammar"])
    json.loads(found["number"])


def test_a_stream(there):
    def streamed(model):
        from outlines.types import Regex

        return list(model.stream("Hi there", Regex("[xy]{9}"), max_tokens=60))

    assert re.fullmatch("[xy]{9}", "".join(there(streamed)))
