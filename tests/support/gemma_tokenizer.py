"""One small vocabulary in Gemma's layout: tokenizer.model and, converted here, tokenizer.json."""

from __future__ import annotations

import ast
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece

TURNS = ["<start_of_turn>", "<end_of_turn>"]
# Gemma 1's chat template, written from its description: no system role, roles alternate, contents
# trimmed.
GEMMA_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}
{%- for m in messages %}
{%- if (loop.index0 % 2 == 0) != (m.role == 'user') -%}
{{ raise_exception('roles must alternate') }}{% endif %}
{%- set name = 'model' if m['role'] == 'assistant' else m['role'] %}
{{- '<start_of_turn>' + name + '\\n' + (m['content'] | trim) + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
CHATML_TEMPLATE = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content | trim }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@dataclass(frozen=True)
class Files:
    json: Path
    model: Path
    chatml: Path


def write_tokenizers(folder: Path) -> Files:
    """Train the vocabulary, and write it in every layout below `folder`."""
    for name in ("json", "model", "chatml"):
        (folder / name).mkdir()
    model = _train(folder / "model")
    spec = _convert(model)
    (folder / "json" / "tokenizer.json").write_text(json.dumps(spec))
    names = {f"{role}_token": f"<{role}>" for role in ("bos", "eos", "pad", "unk")}
    config = {**names, "tokenizer_class": "GemmaTokenizer", "additional_special_tokens": TURNS}
    (folder / "json" / "tokenizer_config.json").write_text(
        json.dumps({**config, "chat_template": GEMMA_TEMPLATE})
    )

    next_id = len(spec["model"]["vocab"])
    flags = {
        key: value for key, value in spec["added_tokens"][0].items() if key not in ("id", "content")
    }
    spec["added_tokens"] += [
        {"id": next_id + index, "content": name, **flags}
        for index, name in enumerate(("<|im_start|>", "<|im_end|>"))
    ]
    (folder / "chatml" / "tokenizer.json").write_text(json.dumps(spec))
    (folder / "chatml" / "chat_template.jinja").write_text(CHATML_TEMPLATE)
    return Files(folder / "json", folder / "model", folder / "chatml")


def _train(folder: Path) -> Path:
    source = "\n".join(Path(str(module.__file__)).read_text() for module in (ast, textwrap, json))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for line in source.split("\n") if line]),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=600,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        unk_piece="<unk>",
        user_defined_symbols=["<mask>", *TURNS, "\n", "\n\n", "<table>"],
        num_threads=1,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


def _convert(model: Path) -> dict[str, Any]:
    """Write a sentencepiece BPE as the tokenizers library's JSON, the rest of it as Gemma's is."""
    processor: Any = sentencepiece.SentencePieceProcessor(model_file=str(model))
    size = processor.get_piece_size()
    pieces = [processor.id_to_piece(id) for id in range(size)]
    vocab = {piece: id for id, piece in enumerate(pieces)}
    marked = {0, 1, 2, 3} | {vocab[piece] for piece in ("<mask>", *TURNS, "\n", "\n\n", "<table>")}
    merges = []
    for id, piece in enumerate(pieces):
        if id in marked or processor.is_byte(id):
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                merges.append((-processor.get_score(id), vocab[left], vocab[right], [left, right]))
    merges.sort(key=lambda entry: entry[:3])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": id, "content": pieces[id], **flags, "special": id < 4 or pieces[id] in TURNS}
            for id in sorted(marked)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<bos>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [entry[3] for entry in merges],
        },
    }
