"""Text in, text out: the place where tokenizer, engine and checkpoint meet."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import griffin
from griffin import checkpoints
from griffin.grammar import Grammar
from griffin.text import Tokenizer
from tests.support.toy_folder import CONFIG, write_toy

PROMPTS = ["def load(", "x", "import json\n\n\nclass Decoder:\n    pass\n" * 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("llm") / "toy")


@pytest.fixture(scope="module")
def llm(folder):
    return griffin.load(folder, device="cpu")


def plain(result):
    return result.text, result.ids, result.logprobs, result.alternatives, result.finish_reason


def test_a_prompt_alone_and_in_company(llm):
    fields = {"seed": 5, "max_tokens": 14, "logprobs": 2}
    together = llm.generate(PROMPTS, **fields)
    for prompt, result in zip(PROMPTS, together, strict=True):
        alone = llm.generate(prompt, **fields)
        assert plain(alone) == plain(result)
        assert alone.prompt_tokens == len(llm.tokenizer.encode(prompt))
        assert alone.generated_tokens == 14 == len(alone.logprobs) and alone.seed == 5
        assert alone.text == llm.tokenizer.decode(alone.ids)
        assert 0 < alone.first_seconds <= alone.seconds and alone.tokens_per_second > 0


def test_streaming_gives_what_generate_gives(llm):
    stream = llm.stream(PROMPTS[0], seed=2, max_tokens=20)
    with pytest.raises(RuntimeError, match="not over"):
        _ = stream.result
    pieces = list(stream)
    assert "".join(p.text for p in pieces) == stream.result.text
    assert [p.id for p in pieces] == list(stream.result.ids)
    assert plain(stream.result) == plain(llm.generate(PROMPTS[0], seed=2, max_tokens=20))


def test_ids_and_text_are_the_same_prompt(llm):
    ids = llm.tokenizer.encode(PROMPTS[0])
    assert plain(llm.generate(ids, seed=0, max_tokens=9)) == plain(
        llm.generate(PROMPTS[0], seed=0, max_tokens=9)
    )
    a, b = llm.generate([ids, ids[:2]], temperature=0, max_tokens=3)
    assert plain(a) == plain(llm.generate(ids, temperature=0, max_tokens=3))
    assert b.prompt_tokens == 2


def test_a_seedless_answer_reports_the_seed_that_repeats_it(llm):
    first = llm.generate("x", max_tokens=16)
    assert plain(llm.generate("x", max_tokens=16, seed=first.seed)) == plain(first)


def test_stop_strings_cut_one_row_and_leave_the_other(llm):
    whole = llm.generate("x", seed=1, max_tokens=30)
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 2]
    cut = whole.text[: whole.text.index(stop)]
    stopped, other = llm.generate(["x", "def load("], seed=1, max_tokens=30, stop=[stop])
    assert stopped.text == cut and stopped.finish_reason == "stop" and stopped.stop == stop
    assert stopped.generated_tokens < 30 and stopped.ids == whole.ids[: stopped.generated_tokens]
    stream = llm.stream("x", seed=1, max_tokens=30, stop=stop)
    assert "".join(piece.text for piece in stream) == cut
    free = llm.generate("def load(", seed=1, max_tokens=30)
    assert free.text.startswith(other.text)


def test_a_context_goes_on_where_a_stream_ended(llm):
    whole = llm.generate("x", temperature=0, max_tokens=20, repetition_penalty=1.3)
    stream = llm.stream("x", temperature=0, max_tokens=8, repetition_penalty=1.3)
    for _ in stream:
        pass
    assert stream.context.tokens == 2 + 8
    for _ in range(2):  # a context is a value
        rest = llm.generate(stream.context, temperature=0, max_tokens=12, repetition_penalty=1.3)
        assert stream.result.ids + rest.ids == whole.ids
        assert rest.prompt_tokens == 10


def test_closing_a_stream_keeps_what_was_said(llm):
    stream = llm.stream("x", seed=3, max_tokens=20)
    said = [next(stream) for _ in range(5)]
    stream.close()
    assert stream.result.finish_reason == "cancelled" and len(stream.result.ids) == 5
    assert next(stream, None) is None and stream.context.pending == (said[-1].id,)


@pytest.mark.parametrize("cuts", [[0], [1], [1, 1, 2, 60], list(range(0, 90, 7))])
def test_reading_pieces_equals_reading_the_prompt(llm, cuts):
    ids = llm.tokenizer.encode(PROMPTS[2])
    pieces = [ids[a:b] for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    told = []
    context = llm.read(iter(pieces), progress=told.append, chunk=16)
    assert context.tokens == len(ids) and context.pending == (ids[-1],) and told[-1] == len(ids) - 1
    fields = {"temperature": 0, "max_tokens": 10, "repetition_penalty": 1.5}
    assert llm.generate(context, **fields).ids == llm.generate(ids, **fields).ids


def test_reading_goes_on_from_a_context(llm):
    ids = llm.tokenizer.encode(PROMPTS[2])
    context = llm.read([ids[:1]])
    assert context.state is None and context.pending == (ids[0],)
    context = llm.read([ids[1:9], [], ids[9:]], context)
    assert context.tokens == len(ids)
    assert (
        llm.generate(context, seed=0, max_tokens=9).ids
        == llm.generate(ids, seed=0, max_tokens=9).ids
    )
    with pytest.raises(ValueError, match="prompt is empty"):
        llm.read([[], []])


def test_score_equals_the_logits(llm):
    one = llm.score("import json")
    ids = llm.tokenizer.encode("import json")
    with torch.no_grad():
        logits, _ = llm.model(torch.tensor([ids]))
    exact = logits[0, :-1].log_softmax(-1).gather(1, torch.tensor(ids)[1:, None]).squeeze(1)
    assert one.ids == tuple(ids[1:])
    assert one.logprobs == pytest.approx(exact.tolist(), abs=1e-5)
    assert one.total == pytest.approx(float(exact.sum()), abs=1e-4)
    both = llm.score(["import json", "x"])
    assert both[0] == one and len(both[1].ids) == 1
    assert llm.score(ids) == one


def test_chat_reads_gemmas_turns_and_stops_at_their_end(llm):
    messages = [{"role": "user", "content": "hi <end_of_turn>"}]
    ids = llm.chat_format.ids(messages)
    end = llm.tokenizer.end_of_turn_id
    assert ids.count(end) == 1
    result = llm.chat(messages, temperature=0, max_tokens=6)
    assert result.ids == llm.generate(ids, temperature=0, max_tokens=6).ids
    forced = llm.chat(messages, logit_bias={end: 100.0}, max_tokens=6)
    assert forced.ids == (end,) and forced.finish_reason == "stop" and forced.text == ""
    pieces = list(llm.stream_chat(messages, temperature=0, max_tokens=6))
    assert "".join(p.text for p in pieces) == result.text


def test_end_of_turn_and_eos_stop_whatever_generation_config_says(tmp_path):
    folder = write_toy(
        tmp_path,
        eos_token_id=[1, 300],
        temperature=0.5,
        top_k=7,
        max_new_tokens=9,
        transformers_version="5",
    )
    llm = griffin.load(folder, device="cpu")
    assert (
        llm.defaults.temperature == 0.5 and llm.defaults.top_k == 7 and llm.defaults.max_tokens == 9
    )
    for stop in (1, 300, llm.tokenizer.end_of_turn_id):
        result = llm.generate("x", logit_bias={stop: 100.0}, temperature=0)
        assert result.ids == (stop,) and result.finish_reason == "stop"
    assert len(llm.generate("x", seed=0, stop=()).ids) <= 9


def test_generation_config_may_ask_for_greedy_and_may_be_wrong(tmp_path):
    folder = write_toy(tmp_path, do_sample=False)
    assert griffin.load(folder).defaults.temperature == 0
    for text, message in (
        ("{", "generation_config.json"),
        ('{"top_p": 3}', "top_p must be"),
        ('{"eos_token_id": 99999}', "stop_ids names token 99999"),
    ):
        (folder / "generation_config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            griffin.load(folder)


def test_embedding_rows_beyond_the_tokenizer_are_never_chosen(llm):
    size = llm.tokenizer.vocab_size
    assert size < CONFIG.vocab_size
    result = llm.generate("x", seed=0, temperature=50.0, max_tokens=100)
    assert max(result.ids) < size


def test_a_vocabulary_that_does_not_match_is_refused(tmp_path):
    folder = write_toy(tmp_path, vocab_size=64)
    with pytest.raises(
        ValueError, match=r"tokenizer .* has \d+ ids, the model in .* only 64 embeddings"
    ):
        griffin.load(folder)
    model = griffin.load_model(folder)
    with pytest.raises(ValueError, match="belongs to another model"):
        griffin.LLM(model, Tokenizer.open(folder))


def test_a_model_loads_without_a_tokenizer_and_an_llm_says_what_is_missing(tmp_path):
    folder = write_toy(tmp_path / "a" / "b")
    (folder / "tokenizer.json").rename(tmp_path / "a" / "tokenizer.json")
    assert griffin.load(folder).tokenizer.path == tmp_path / "a" / "tokenizer.json"
    (tmp_path / "a" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=r"no tokenizer\.json or tokenizer\.model"):
        griffin.load(folder)
    assert griffin.load(folder, tokenizer=tmp_path).tokenizer.path == tmp_path / "tokenizer.json"
    model = griffin.load_model(folder, dtype="bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16 and model.config == CONFIG


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", r"prompt is empty; give some text, or \[2\]"),
        ([], "prompt is empty"),
        ([1, 512], "id 512 at position 1; the vocabulary has ids 0 to 511"),
        ([3, "a"], "holds 'a' at position 1"),
        (["a", ""], "prompt is empty"),
        (7, "a prompt is a string"),
        (b"abc", "bytes: decode them"),
    ],
)
def test_bad_prompts(llm, prompt, message):
    with pytest.raises(ValueError, match=message):
        llm.generate(prompt)


def test_bad_sampling_and_bad_paths(llm, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'temperature'"):
        llm.generate("x", temprature=1)
    with pytest.raises(ValueError, match="max_tokens must be a whole number of at least 1"):
        llm.stream("x", max_tokens=0)
    with pytest.raises(ValueError, match="nothing-here"):
        griffin.load(tmp_path / "nothing-here")


def test_public_names_resolve_and_unknown_ones_do_not():
    for name in griffin.__all__:
        assert getattr(griffin, name) is not None
    assert "load" in dir(griffin)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = griffin.nothing


def test_results_are_plain_values(llm):
    result = llm.generate("x", max_tokens=2, logprobs=1)
    assert json.loads(json.dumps([result.ids, result.logprobs, result.alternatives]))


def test_arrays_and_tensors_of_ids_are_prompts(llm):
    ids = [2, 5, 9, 4]
    expected = llm.generate(ids, seed=1, max_tokens=4)
    for made in (torch.tensor(ids), np.array(ids), torch.tensor(ids, dtype=torch.int32)):
        assert llm.generate(made, seed=1, max_tokens=4).ids == expected.ids
        assert llm.score(made) == llm.score(ids)
    both = llm.generate(torch.tensor([ids, ids]), seed=1, max_tokens=4)
    assert [answer.ids for answer in both] == [expected.ids] * 2
    assert llm.generate([np.array(ids)], seed=1, max_tokens=4)[0].ids == expected.ids


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (torch.tensor(3), "has one dimension, several prompts two; this one has 0"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), "this one has 3"),
        (torch.tensor([1.0, 2.0]), "a prompt is"),
        (np.array([True]), "ids are whole numbers"),
        (torch.tensor([], dtype=torch.int64), "the prompt is empty"),
        ([None], "a prompt is"),
        ([1.5], "a prompt is"),
    ],
)
def test_what_is_no_prompt_is_said_to_be_none(llm, prompt, message):
    for ask in (llm.generate, llm.score):
        with pytest.raises(ValueError, match=message):
            ask(prompt)


def test_stop_may_be_none(llm):
    answer = llm.generate("x", seed=1, max_tokens=4, stop=None)
    assert answer.ids == llm.generate("x", seed=1, max_tokens=4).ids


def test_what_one_expects_of_an_llm(llm):
    said = llm.chat("say", temperature=0, max_tokens=6)
    asked = [{"role": "user", "content": "say"}]
    assert said.ids == llm.chat(asked, temperature=0, max_tokens=6).ids
    pieces = "".join(piece.text for piece in llm.stream_chat("say", temperature=0, max_tokens=6))
    assert pieces == said.text
    shown = repr(llm)
    assert llm.name in shown and "cpu" in shown and "GB" in shown and "\n" not in shown
    with pytest.raises(ValueError, match=r"tokens are a list; give a tensor"):
        llm.model([[1, 2]])


@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:1"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_a_device_that_is_not_there(device):
    with pytest.raises(ValueError, match=r"there is no device 'gpu'|finds no GPU here"):
        griffin.load_model("nano", device=device)


def test_no_end_before_min_tokens_and_none_at_all(llm):
    free = llm.generate(PROMPTS[0], seed=3, max_tokens=40, ignore_eos=True)
    assert free.generated_tokens == 40 and free.finish_reason == "length"
    end, stop = free.ids[4], free.text[2:4]
    fields = {"seed": 3, "max_tokens": 40, "ignore_eos": True}
    assert llm.generate(PROMPTS[0], **fields, stop_ids=[end]).generated_tokens <= 5
    late = llm.generate(PROMPTS[0], **fields, stop_ids=[end], min_tokens=20)
    assert late.generated_tokens > 20 and end not in late.ids[:20]
    assert llm.generate(PROMPTS[0], **fields, stop=[stop]).text == free.text[:2]
    late = llm.generate(PROMPTS[0], **fields, stop=[stop], min_tokens=20)
    first = llm.tokenizer.decode(free.ids[:20])
    assert late.text.startswith(first) and stop not in late.text[len(first) :]
    for text in (late.text, "".join(p.text for p in llm.stream(PROMPTS[0], **fields, stop=[stop]))):
        assert free.text.startswith(text)
    own = llm.generate(PROMPTS[0], seed=3, max_tokens=40, allowed_ids=[300, 301, 302])
    assert set(own.ids) <= {300, 301, 302} and own.generated_tokens == 40


def test_a_finished_grammar_ends_whatever_is_asked(llm):
    fields = {"grammar": Grammar.choice("yes", "no"), "min_tokens": 20, "max_tokens": 40}
    for seed in range(4):
        answer = llm.generate("x", **fields, seed=seed, ignore_eos=bool(seed % 2))
        assert answer.text in ("yes", "no") and answer.finish_reason == "stop"
    long = llm.generate("x", grammar=Grammar.regex("a*"), min_tokens=9, max_tokens=40, seed=0)
    assert long.generated_tokens > 9 and set(long.text) == {"a"}


def test_a_stream_tells_how_much_of_the_prompt_it_has_read(llm):
    told: list[tuple[int, int]] = []
    ids = [2, *range(10, 200)]
    text = "".join(
        p.text
        for p in llm.stream(ids, progress=lambda *n: told.append(n), temperature=0, max_tokens=5)
    )
    assert text == llm.generate(ids, temperature=0, max_tokens=5).text
    read = [done for done, _ in told]
    assert read == sorted(set(read)) and told[-1] == (len(ids), len(ids))


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_loading_tells_how_far_it_is(tmp_path, quantize):
    folder = write_toy(tmp_path / "toy")
    told: list[checkpoints.Progress] = []
    griffin.load(folder, device="cpu", quantize=quantize, progress=told.append)
    source = checkpoints.open(folder)
    assert sorted(step.name for step in told) == sorted(source.names())
    done = [step.done for step in told]
    assert (
        done == sorted(done) and done[0] == 0 and {step.total for step in told} == {source.nbytes}
    )
    assert done[-1] + source.size(told[-1].name) == source.nbytes


def test_vectors_of_texts(llm):
    both = llm.embed(["import json", "x"], pooling="last")
    assert both.shape == (2, CONFIG.width) and both.dtype == torch.float32
    ids = llm.tokenizer.encode("import json")
    for same in (ids, np.array(ids), torch.tensor(ids), "import json"):
        assert torch.equal(llm.embed(same, "last"), both[0])
    assert not torch.equal(llm.embed("x"), both[1])
    for wrong in ("", [], [""], llm.read([[1, 2]]), ["x", 5]):
        with pytest.raises(ValueError, match=r"empty|Context|list of ids"):
            llm.embed(wrong)
