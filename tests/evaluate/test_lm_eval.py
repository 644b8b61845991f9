"""GriffinLM beside lm-eval's own model with transformers' weights, and its answers in a log."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance

import griffin
from griffin.checkpoints import save_model
from griffin.evaluate.answer_log import AnswerLog
from griffin.evaluate.lm_eval import GriffinLM, sampling_of
from griffin.model import Griffin
from griffin.train.data.bpe import save_bpe, train_bpe
from tests.support.toy_folder import CONFIG

TEXTS = ["import json\nclass Decoder:\n    pass\n", "def loads(s, *, cls=None): owl", "x"]
SHOTS = "Question: is 1 odd?\nAnswer: yes\n\nQuestion: is 2 odd?\nAnswer: no\n\n"
PAIRS = [
    *((f"{SHOTS}Question: is {n} odd?\nAnswer:", end) for n in (3, 4) for end in (" yes", " no")),
    ("class Decoder:", " pass"),
    ("def f(x):\n    return ", "x"),  # white space at the end belongs to what is measured
    ("", "import re"),
]
PROMPTS = [
    "import json\ndef loads(s, *, cls=None",
    "class Decoder:",
    f"{SHOTS}Question: is 5 odd?\nAnswer:",
]
UNTIL = {"until": ["\n\n", "e"], "do_sample": False, "max_gen_toks": 12}


def asked(kind, *all_arguments):
    return [
        Instance(request_type=kind, doc={}, arguments=arguments, idx=n)
        for n, arguments in enumerate(all_arguments)
    ]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A toy whose window no text here reaches, and whose tokenizer knows turns."""
    folder = tmp_path_factory.mktemp("lm_eval") / "toy-it"
    folder.mkdir()
    text = Path(json.__file__).read_text(encoding="utf-8")
    bpe = train_bpe([text], 480)
    save_bpe(bpe, folder)
    torch.manual_seed(0)
    model = Griffin(CONFIG.replace(vocab_size=bpe.get_vocab_size(), attention_window_size=512))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(0.05 * torch.randn_like(parameter))
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def ours(wide):
    return GriffinLM(pretrained=str(wide), device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def theirs(wide):
    pytest.importorskip("accelerate", reason="lm-eval's own model needs it")
    from lm_eval.models import huggingface
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(wide, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(wide)
    made: Any = huggingface.HFLM  # a decorator hides its names
    lm = made(pretrained=model, tokenizer=tokenizer, batch_size=1, add_bos_token=True)
    own = griffin.load(wide).tokenizer

    def tok_decode(tokens, skip_special_tokens=True):
        """Write ids as ours does: of bytes that form no character each library makes its own."""
        ids = [tokens] if isinstance(tokens, int) else tokens
        return own.decode(ids, skip_control=skip_special_tokens)

    lm.tok_decode = tok_decode
    return lm


@pytest.mark.thorough
def test_pairs_are_as_theirs(ours, theirs):
    """Multiple choice, and examples before the question."""
    mine = ours.loglikelihood(asked("loglikelihood", *PAIRS))
    other = theirs.loglikelihood(asked("loglikelihood", *PAIRS))
    for (logprob, greedy), (expected, theirs_greedy) in zip(mine, other, strict=True):
        assert logprob == pytest.approx(expected, abs=1e-4) and greedy == theirs_greedy


@pytest.mark.thorough
def test_whole_texts_are_as_theirs(ours, theirs, monkeypatch):
    """Theirs puts a BOS before each text by itself, and would put two."""
    monkeypatch.setattr(theirs, "add_bos_token", False)
    requests = asked("loglikelihood_rolling", *((text,) for text in TEXTS))
    assert ours.loglikelihood_rolling(requests) == pytest.approx(
        theirs.loglikelihood_rolling(requests), abs=1e-4
    )


@pytest.mark.thorough
def test_answers_are_as_theirs(ours, theirs):
    requests = asked("generate_until", *((text, dict(UNTIL)) for text in PROMPTS))
    mine = ours.generate_until(requests)
    assert mine == theirs.generate_until(requests)
    assert any(mine) and not any("e" in text for text in mine)


@pytest.mark.thorough
def test_short_prompts_are_as_theirs_without_their_cache(ours, theirs):
    """With it they go astray where a prompt is shorter than the convolution."""
    ids = ours.tok_encode("def f(")
    count = len(ids)
    for _ in range(6):
        with torch.no_grad():
            logits = theirs.model(torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    (found,) = ours.generate_until(asked("generate_until", ("def f(", {"max_gen_toks": 6})))
    assert found == ours.llm.tokenizer.decode(ids[count:])


@pytest.mark.thorough
def test_chats_are_as_theirs(wide, theirs):
    """Turns with examples, and an answer that has been begun."""
    ours = GriffinLM(griffin.load(wide))
    chats = [
        [{"role": "user", "content": "is 3 odd?"}],
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "is 2 odd?"},
            {"role": "assistant", "content": "no"},
            {"role": "user", "content": "is 4 odd?"},
        ],
    ]
    texts = [ours.apply_chat_template(chat) for chat in chats]
    assert texts[0] == "<start_of_turn>user\nis 3 odd?<end_of_turn>\n<start_of_turn>model\n"
    begun = ours.apply_chat_template(
        [*chats[0], {"role": "assistant", "content": "It is"}], add_generation_prompt=False
    )
    pairs = [(text, end) for text in (*texts, begun) for end in ("yes", "no")]
    mine = ours.loglikelihood(asked("loglikelihood", *pairs))
    other = theirs.loglikelihood(asked("loglikelihood", *pairs))
    for (logprob, greedy), (expected, theirs_greedy) in zip(mine, other, strict=True):
        assert logprob == pytest.approx(expected, abs=1e-4) and greedy == theirs_greedy
    requests = asked("generate_until", *((text, dict(UNTIL)) for text in texts))
    assert ours.generate_until(requests) == theirs.generate_until(requests)


def test_control_tokens_are_text_until_a_template_wrote_some(wide):
    lm = GriffinLM(griffin.load(wide))
    end = lm.llm.tokenizer.end_of_turn_id
    assert end not in lm.tok_encode("<end_of_turn>")
    lm.apply_chat_template([{"role": "user", "content": "x"}])
    assert end in lm.tok_encode("<end_of_turn>")
    assert lm.tok_encode("x")[0] == lm.prefix_token_id
    assert lm.tok_encode("x", add_special_tokens=False) == lm.tok_encode("x")[1:]


def test_windows_cut_as_the_harness_does(wide):
    """Each window is read afresh, with one token before it; all tokens are predicted once."""
    llm = griffin.load(wide)
    text = TEXTS[0] * 3
    ids = llm.tokenizer.encode(text)
    request = asked("loglikelihood_rolling", (text,))
    (whole,) = GriffinLM(llm).loglikelihood_rolling(request)
    assert whole == sum(llm.score(ids).logprobs)
    size, parts = 16, 0.0
    for begin in range(1, len(ids), size):
        window = ids[begin - 1 : begin + size]
        short = size - (len(window) - 1)  # the last one has all the context that has room
        before = ids[max(begin - 1 - short, 0) : begin - 1] if begin > 1 else []
        parts += sum(llm.score([*before, *window]).logprobs[len(before) :])
    (cut,) = GriffinLM(llm, windows=size).loglikelihood_rolling(request)
    assert cut == pytest.approx(parts, abs=1e-6) and cut != whole
    with pytest.raises(ValueError, match="windows must be at least 2"):
        GriffinLM(llm, windows=1)


def test_answers_are_kept_and_not_asked_again(wide, tmp_path, monkeypatch):
    llm = griffin.load(wide)
    pairs = asked("loglikelihood", *PAIRS)
    prompts = asked("generate_until", *((text, dict(UNTIL)) for text in PROMPTS))
    drawn = {**UNTIL, "do_sample": True, "temperature": 1.0, "until": []}
    twice = asked("generate_until", *[(PROMPTS[0], drawn)] * 2)
    with AnswerLog(tmp_path / "log", "toy") as log:
        lm = GriffinLM(llm, log=log)
        found = [lm.loglikelihood(pairs), lm.generate_until(prompts), lm.generate_until(twice)]
        counts = lm.asked, lm.read, lm.written
    assert found[2][0] != found[2][1], "drawn anew each time it is asked"
    with AnswerLog(tmp_path / "log", "toy") as log:
        lm = GriffinLM(llm, log=log)
        monkeypatch.setattr(llm.model, "trunk", None)  # nothing is read
        again = [lm.loglikelihood(pairs), lm.generate_until(prompts), lm.generate_until(twice)]
        assert again == found and (lm.asked, lm.read, lm.written) == counts


def test_the_harness_keeps_its_requests_and_answers_by_our_names(wide, tmp_path, monkeypatch):
    """Its own cache of answers, its name for the tokenizer and for the end of a turn."""
    from lm_eval.api.model import CachingLM

    llm = griffin.load(wide)
    lm = GriffinLM(llm)
    pairs = asked("loglikelihood", *PAIRS)
    found = CachingLM(lm, str(tmp_path / "answers.db")).loglikelihood(pairs)
    again = CachingLM(GriffinLM(llm), str(tmp_path / "answers.db"))
    monkeypatch.setattr(llm.model, "trunk", None)  # nothing is read
    assert [tuple(each) for each in again.loglikelihood(pairs)] == found
    assert lm.eot_token_id == llm.tokenizer.eos_id
    config = json.loads((wide / "tokenizer_config.json").read_text())
    other = tmp_path / "other"
    shutil.copytree(wide, other)
    written = json.dumps(config | {"chat_template": "{{ messages[0].content }}"})
    (other / "tokenizer_config.json").write_text(written)
    assert GriffinLM(griffin.load(other)).tokenizer_name != lm.tokenizer_name


def test_lm_eval_finds_it_by_name():
    (found,) = entry_points(group="lm_eval.models", name="griffin")
    assert found.load() is GriffinLM


def test_what_a_task_says_of_answers_is_known_or_refused():
    how = sampling_of({"until": "x", "max_gen_toks": 3})
    assert how == {"max_tokens": 3, "stop": ["x"], "temperature": 0.0}
    how = sampling_of({"do_sample": True, "temperature": 0.5, "top_p": 0.9})
    assert (how["temperature"], how["top_p"], how["max_tokens"]) == (0.5, 0.9, 256)
    with pytest.raises(ValueError, match="answers with num_beams"):
        sampling_of({"num_beams": 4})


def test_nothing_to_measure_is_an_error(ours):
    with pytest.raises(ValueError, match="nothing to measure in"):
        ours.loglikelihood(asked("loglikelihood", ("x", "")))
