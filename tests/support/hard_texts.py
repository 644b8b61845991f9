"""Hypothesis strategies for text that is hard on a tokenizer."""

from hypothesis import strategies as st

CONTROL = ["<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
_NAMES = [*CONTROL, "<end_of", "_turn>", "<0x41>", "<0x0A>", "<table>", "<|im_end|>"]
_AWKWARD = [
    "▁",
    "  ",
    "    ",
    " ",
    "\n",
    "\n\n\n",
    "\t",
    "\r\n",
    "\x00",
    "👩🏽‍🚀",
    "漢字",
    "é",
    "\u2028",
    "\ufffd",
    "2024",
    "self",
    "return",
    "import os",
    "def f(x):",
]
texts = st.lists(st.sampled_from(_NAMES + _AWKWARD) | st.text(max_size=5), max_size=12).map("".join)
# Without the names that transformers takes for tokens wherever they stand.
_quiet = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=5)
plain_texts = st.lists(st.sampled_from(_AWKWARD) | _quiet, max_size=12).map("".join)
