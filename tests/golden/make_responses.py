"""Make the golden responses: what `griffin serve` of commit 4dc24af, whose index had no items, kept
of responses.

    git worktree add --detach OLD 4dc24af         # and put the native module there
    cd OLD && PYTHONPATH=. python NEW/tests/golden/make_responses.py NEW/tests/golden/responses

It is not made anew by a later version: what it pins is that an index of version 1 is brought up to
today's, with the items of these. Beside the store lie the responses as that version showed them.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Bonn", "Graz"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def ask(live: Any) -> list[dict[str, Any]]:
    """Make responses, and return them: alone, in a chain, in a conversation, with a call."""
    with live.http() as http:

        def respond(**fields: Any) -> dict[str, Any]:
            answer = http.post("/v1/responses", json={"temperature": 0, "seed": 1, **fields})
            assert answer.status_code == 200, answer.text
            return answer.json()

        short = {"max_output_tokens": 6}
        first = respond(input="one", instructions="Be brief.", **short)
        second = respond(input="two", previous_response_id=first["id"], **short)
        inside = respond(input="three", conversation="conv_of_old", **short)
        respond(input="four", conversation="talk", store=False, **short)
        call = respond(input="five", tools=[WEATHER], tool_choice="required", max_output_tokens=60)
        given = call["output"][0]
        assert given["type"] == "function_call", given
        output = {"type": "function_call_output", "call_id": given["call_id"], "output": "rain"}
        last = respond(input=[output], previous_response_id=call["id"], tools=[WEATHER], **short)
        gone = respond(input="six", **short)
        assert http.delete(f"/v1/responses/{gone['id']}").status_code == 200
        return [first, second, inside, call, last]


def main(target: Path) -> None:
    import griffin
    from tests.support.live_server import serving
    from tests.support.toy_folder import write_toy

    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as beside:
        folder = Path(beside) / "store"
        llm = griffin.load(write_toy(Path(beside) / "toy"), device="cpu")
        with serving(llm, folder) as live:
            told = ask(live)
        with sqlite3.connect(folder / "index.sqlite") as index:
            index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        index.close()
        target.mkdir(parents=True)
        shutil.copytree(folder / "blobs", target / "blobs")
        shutil.copy(folder / "index.sqlite", target / "index.sqlite")
        (target / "expected.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{len(told)} responses, {size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
