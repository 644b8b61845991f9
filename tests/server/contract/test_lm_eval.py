"""lm-eval's own client of /v1/completions before a live server: what it measures is what the model
says."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.server.contract.test_pages import PAGES
from tests.support.live_server import NAME

lm_eval = pytest.importorskip(
    "lm_eval", reason="lm-eval is not installed; see docs/clients/lm_eval.md"
)
pytestmark = pytest.mark.slow

PAIRS = [
    ("class Decoder:", " pass"),
    ("import json\n", "def loads(s, *, cls=None):"),
    ("def f(x):\n    return", " x"),
    ("", "import re"),
]


@pytest.fixture(
    params=[(1, 1), (4, 1), (1, 3)], ids=["one by one", "four at a time", "three in a request"]
)
def model(request, live, llm):
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    concurrent, batch = request.param
    api: Any = LocalCompletionsAPI  # its decorators hide its arguments from type checkers
    return api(
        base_url=f"{live.url}/v1/completions",
        model=NAME,
        tokenizer=llm.name,
        tokenizer_backend="huggingface",
        add_bos_token=True,
        num_concurrent=concurrent,
        batch_size=batch,
        max_gen_toks=12,
    )


def asked(kind, *all_arguments):
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=arguments, idx=n)
        for n, arguments in enumerate(all_arguments)
    ]


def measured(llm, ids, count):
    """Return the log-probability of the last `count` ids, and whether each is the likeliest
    there."""
    with torch.no_grad():
        logits = llm.model(torch.tensor([ids]))[0][0, :-1, : llm.tokenizer.vocab_size]
    chosen = torch.tensor(ids[1:])
    scores = logits.log_softmax(1).gather(1, chosen[:, None]).squeeze(1)[-count:]
    return scores.sum().item(), bool((logits.argmax(1) == chosen)[-count:].all())


def test_pairs(model, llm):
    found = model.loglikelihood(asked("loglikelihood", *PAIRS))
    for (context, text), (score, greedy) in zip(PAIRS, found, strict=True):
        ids = llm.tokenizer.encode(context + text)
        # White space at the end of a context belongs to what is measured: that is how lm-eval cuts.
        count = len(ids) - (len(llm.tokenizer.encode(context.rstrip())) if context else 1)
        expected, likeliest = measured(llm, ids, count)
        assert score == pytest.approx(expected, abs=1e-4) and greedy == likeliest, (context, text)


def test_what_greedy_decoding_gives_is_known_as_such(model, llm):
    context = "class Decoder:"
    for count in range(1, 8):  # one token is enough, if reading gives the one that was written
        answer = llm.generate(context, temperature=0, max_tokens=count)
        ids = [*llm.tokenizer.encode(context), *answer.ids]
        if answer.text.strip() and llm.tokenizer.encode(context + answer.text) == ids:
            break
    else:
        raise AssertionError(
            "the toy's words are other tokens when they are read; choose another context"
        )
    pairs = [(context, answer.text), (context, answer.text + " owl")]
    found = model.loglikelihood(asked("loglikelihood", *pairs))
    assert [greedy for _, greedy in found] == [True, False]


def test_whole_texts(model, llm):
    """lm-eval puts BOS before whole texts by itself; with add_bos_token there would be two."""
    model.add_bos_token = False
    texts = ["import json\nclass Decoder:\n    pass\n", "owl"]
    found = model.loglikelihood_rolling(
        asked("loglikelihood_rolling", *((text,) for text in texts))
    )
    for text, score in zip(texts, found, strict=True):
        ids = llm.tokenizer.encode(text)
        assert score == pytest.approx(measured(llm, ids, len(ids) - 1)[0], abs=1e-4)


def test_answers(model, llm):
    contexts = ["def f(", "class Decoder:", "import"]
    options = {"until": ["never said"], "temperature": 0, "max_gen_toks": 12}
    found = model.generate_until(
        asked("generate_until", *((text, dict(options)) for text in contexts))
    )
    assert found == [llm.generate(text, temperature=0, max_tokens=12).text for text in contexts]


def test_a_task_of_ones_own(model, llm, tmp_path, monkeypatch):
    """A file of questions, as docs/clients/lm_eval.md has it; nothing is fetched."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    questions = [
        {"question": "class Decoder:", "choices": [" pass", " return", "\n"], "answer": n}
        for n in range(3)
    ]
    (tmp_path / "owls.jsonl").write_text(
        "".join(json.dumps(question) + "\n" for question in questions)
    )
    task = {
        "task": "owls",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "owls.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    done = lm_eval.simple_evaluate(model=model, tasks=[task], bootstrap_iters=0)
    base = llm.tokenizer.encode("class Decoder:")
    scores = []
    for choice in questions[0]["choices"]:
        ids = llm.tokenizer.encode("class Decoder:" + choice)
        scores.append(measured(llm, ids, len(ids) - len(base))[0])
    best = max(range(3), key=scores.__getitem__)
    assert done["results"]["owls"]["acc,none"] == pytest.approx(1 / 3)  # each answer is right once
    sample = next(s for s in done["samples"]["owls"] if s["doc"]["answer"] == best)
    assert sample["acc"] == 1.0


def test_the_page_as_printed(live, llm, tmp_path, monkeypatch):
    """The arguments of its command, and the task of one's own, word by word."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    page = (PAGES / "lm_eval.md").read_text(encoding="utf-8")
    (question,) = re.findall(r'^ +(\{"question".*\})$', page, re.M)
    Path("owls.jsonl").write_text(f"{question}\n")
    Path("owls.yaml").write_text(
        textwrap.dedent(page.split("`owls.yaml`:\n\n")[1].split("\n\n")[0])
    )
    (printed,) = re.findall(r"--model_args (model=\S+)", page)
    there = {
        "http://127.0.0.1:8000": live.url,
        "tokenizer=google/recurrentgemma-2b": f"tokenizer={llm.name}",
    }
    for old, new in (there | {"google/recurrentgemma-2b": NAME}).items():
        printed = printed.replace(old, new)
    api: Any = LocalCompletionsAPI
    done = lm_eval.simple_evaluate(
        model=api.create_from_arg_string(printed, {"batch_size": 8}),
        tasks=["owls"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )
    asked = json.loads(question)
    base = len(llm.tokenizer.encode(asked["question"]))
    whole = [llm.tokenizer.encode(asked["question"] + choice) for choice in asked["choices"]]
    day, night = (measured(llm, ids, len(ids) - base)[0] for ids in whole)
    assert done["results"]["owls"]["acc,none"] == float(day > night)


def test_its_remote_tokenizer_is_the_models(live, llm):
    from lm_eval.utils import RemoteTokenizer, check_remote_tokenizer_support

    url = f"{live.url}/v1/completions"
    assert check_remote_tokenizer_support(url)
    remote, own = RemoteTokenizer(url), llm.tokenizer
    for text in ("def f(x):", " é", "<eos>b", "x"):
        ids = own.encode(text, bos=False)
        assert remote.encode(text) == ids and remote.decode(ids) == text
    assert (remote.bos_token_id, remote.eos_token_id) == (own.bos_id, own.eos_id)
    assert remote("a")["input_ids"] == own.encode("a", bos=False)
