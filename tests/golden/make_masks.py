"""Write masks.json anew: python -m tests.golden.make_masks. Then read it, line by line.

Thirty rows, and what training reads of each: text, and whether it is learned.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import griffin
from griffin.text import Tokenizer
from griffin.train.data.encode import Encoder
from griffin.train.data.example import read_example
from griffin.train.data.show import spans_of

FILE = Path(__file__).parent / "masks.json"
NANO = Path(griffin.__file__).parent / "data" / "nano"


def _talk(*said: str, **last: Any) -> list[dict[str, Any]]:
    """User and assistant in turn; what begins with "system:" is a system message."""
    messages: list[dict[str, Any]] = []
    for text in said:
        if text.startswith("system:"):
            messages.append({"role": "system", "content": text.removeprefix("system:")})
            continue
        mine = messages and messages[-1]["role"] == "user"
        messages.append({"role": "assistant" if mine else "user", "content": text})
    messages[-1] |= last
    return messages


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text[:3]}, {"type": "text", "text": text[3:]}]


ASK, SAY = _talk("Why?", "So.")
ROWS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": _talk("Why?", "So.")},
    "two turns": {"messages": _talk("Why?", "So.", "How?", "Thus.")},
    "four turns": {"messages": _talk("1", "one", "2", "two", "3", "three", "4", "four")},
    "the user has the last word": {"messages": _talk("Why?", "So.", "Thanks!")},
    "system": {"messages": _talk("system:Be brief.", "Why?", "So.")},
    "system, several turns": {
        "messages": _talk("system:Be brief.", "Why?", "So.", "How?", "Thus."),
    },
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, ASK, SAY]},
    "empty system": {"messages": _talk("system:", "Why?", "So.")},
    "greeting": {"messages": [{"role": "assistant", "content": "Hello."}, ASK, SAY]},
    "system and greeting": {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "assistant", "content": "Hello."},
            ASK,
            SAY,
        ]
    },
    "role model": {"messages": [ASK, {"role": "model", "content": "So."}]},
    "white space": {"messages": _talk("  Why?\n\n", "\n So. \n")},
    "lines": {"messages": _talk("def f():\n    return 1", "def g():\n\treturn 2\n\n\nprint(g())")},
    "CRLF": {"messages": _talk("a\r\nb", "c\r\nd")},
    "control tokens of a user": {
        "messages": _talk("<end_of_turn>\n<start_of_turn>model\nx", "So."),
    },
    "control tokens in an answer": {"messages": _talk("Why?", "<eos><end_of_turn> is an end")},
    "control tokens in system": {"messages": _talk("system:<bos><start_of_turn>", "Why?", "So.")},
    "letters": {"messages": _talk("🦉 wörter", "éclair ▁ 漢字")},
    "content in parts": {
        "messages": [
            ASK | {"content": _parts("Why is it?")},
            SAY | {"content": _parts("So it is.")},
        ],
    },
    "names": {"messages": [ASK | {"name": "Ada"}, SAY]},
    "cut by length": {"messages": _talk("Why?", "Because the"), "finish_reason": "length"},
    "cut by length, in the message": {"messages": _talk("Why?", "So the", finish_reason="length")},
    "cut by length, after a whole answer": {
        "messages": _talk("Why?", "So.", "How?", "In the", finish_reason="length")
    },
    "stopped": {"messages": _talk("Why?", "So.", finish_reason="stop"), "finish_reason": "stop"},
    "prompt and completion": {"prompt": "1 + 1 =", "completion": " 2"},
    "prompt and completion, cut": {
        "prompt": "Count: 1", "completion": ", 2, 3", "finish_reason": "length",
    },
    "empty prompt": {"prompt": "", "completion": "Once"},
    "prompt and completion of messages": {"prompt": [ASK], "completion": [SAY]},
    "only the completion's answers": {
        "prompt": _talk("system:Be brief.", "Why?", "So.", "How?"), "completion": [SAY],
    },
    "text": {"text": "<bos> is text\n"},
}  # fmt: skip


def masks() -> dict[str, Any]:
    """Return the spans of every row."""
    encoder, found = Encoder(Tokenizer.open(NANO)), dict[str, Any]()
    for name, row in ROWS.items():
        encoded = encoder.encode(read_example(row))
        ids, counted = encoded.ids.tolist(), encoded.counted.tolist()
        spans = [list(span) for span in spans_of(ids, counted, encoder.tokenizer)]
        found[name] = {"row": row, "spans": spans}
    return found


if __name__ == "__main__":
    text = json.dumps(masks(), indent=1, ensure_ascii=False)
    FILE.write_text(text + "\n", encoding="utf-8")
