"""What training reads of thirty rows, written down once and read by eye."""

from __future__ import annotations

import json

import jinja2
import pytest

from griffin.text import Tokenizer
from griffin.train.data.encode import Encoder
from griffin.train.data.example import learned_words, read_example
from tests.golden.make_masks import FILE, NANO, ROWS, masks
from tests.support.gemma_tokenizer import GEMMA_TEMPLATE


def test_masks_are_as_they_were_written_down() -> None:
    golden = json.loads(FILE.read_text(encoding="utf-8"))
    assert len(golden) == 30
    assert json.loads(json.dumps(masks())) == golden


def _refuse(message: str) -> None:
    raise ValueError(message)


@pytest.mark.parametrize("name", [name for name in ROWS if "messages" in ROWS[name]])
def test_gemmas_own_template_says_the_same(name: str) -> None:
    """The text is the template's, to the end of the last answer; only answers are learned."""
    spans = json.loads(FILE.read_text(encoding="utf-8"))[name]["spans"]
    messages = [dict(message) for message in read_example(ROWS[name]).messages]  # pyright: ignore
    if messages[0]["role"] in ("system", "developer"):  # which the template refuses
        first = messages.pop(0)["content"].strip()
        if messages[0]["role"] == "user":
            joined = f"{first}\n\n{messages[0]['content'].strip()}"
            messages[0] = {"role": "user", "content": joined}
        else:
            messages.insert(0, {"role": "user", "content": first})
    elif messages[0]["role"] == "assistant":
        messages.insert(0, {"role": "user", "content": ""})
    template = jinja2.Environment().from_string(GEMMA_TEMPLATE)
    said = template.render(
        messages=messages, bos_token="<bos>", raise_exception=_refuse, add_generation_prompt=False
    )
    assert said.startswith("".join(text for text, _ in spans))
    learned = [text.removesuffix("<end_of_turn>") for text, counted in spans if counted]
    assert "".join(learned) == learned_words(read_example(ROWS[name]))


def test_what_is_written_in_a_message_is_text() -> None:
    encoder = Encoder(Tokenizer.open(NANO))
    control = encoder.tokenizer.control_ids
    for name in ("control tokens of a user", "control tokens in system", "text"):
        ids = encoder.encode(read_example(ROWS[name])).ids.tolist()
        # <bos>, two a turn (the last text of a document: <eos>)
        assert sum(id in control for id in ids) == (2 if name == "text" else 1 + 4)
