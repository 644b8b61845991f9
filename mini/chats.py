"""Twenty fixed conversations, and what a model answers: unedited, errors included."""

from __future__ import annotations

import json
from pathlib import Path

from griffin.llm import LLM

FILE = Path(__file__).parent / "chats.jsonl"
LONGEST = 96  # tokens of an answer


def asked(file: Path = FILE) -> list[list[str]]:
    """Return what the user says, turn by turn, in each conversation."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def answered(llm: LLM, talks: list[list[str]]) -> list[list[dict[str, str]]]:
    """Return conversations with the model's answers, by its likeliest tokens, as messages."""
    found = list[list[dict[str, str]]]()
    for talk in talks:
        messages = list[dict[str, str]]()
        for said in talk:
            messages.append({"role": "user", "content": said})
            answer = llm.chat(messages, temperature=0.0, max_tokens=LONGEST).text
            messages.append({"role": "assistant", "content": answer.strip()})
        found.append(messages)
    return found


def write_chats(llm: LLM, out: Path, most: int | None = None) -> list[list[dict[str, str]]]:
    """Write the fixed conversations, or the first of them, with a model's answers as JSON; return
    them."""
    talks = answered(llm, asked()[:most])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(talks, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return talks
