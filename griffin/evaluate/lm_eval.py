"""The model as lm-eval asks it: in process, each common beginning read once."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, cast

import numpy as np
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from griffin import loading
from griffin.evaluate.answer_log import AnswerLog
from griffin.evaluate.branches import Ids, branches_of
from griffin.evaluate.reading import Measured, TextReader
from griffin.evaluate.writing import contexts_of
from griffin.llm import LLM

MAX_GEN_TOKS = 256  # tokens of an answer, where a task does not say
# What a task may say of how an answer is chosen, in the words of SamplingParams.
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")

_Pair = tuple[Ids, int]  # a text, and how many of its ids are only read


class GriffinLM(TemplateLM):
    """A griffin model behind lm-eval's interface: hand it to `lm_eval.simple_evaluate(model=...)`.

    model:    an LLM, or what griffin.load takes. `pretrained` is another name for it, and further
              arguments are griffin.load's (quantize, device, ...).
    log:      where answers are kept, and looked for before the model is asked.
    windows:  cut whole texts for `loglikelihood_rolling` as the harness does for a model of so many
              tokens; otherwise they are read from end to end with the state carried.
    seed:     of answers that are drawn at random.
    progress: called with a word for what is done, how much of it, and of how much.
    batch_size, max_batch_size: are what the harness hands over, and change nothing: batches are as
              large as one call of the model takes.
    BOS stands before every text, once. Names of control tokens are ordinary text, but where a chat
    template wrote the text.
    asked, read, written: tokens that all texts would take, each read alone; those that are read;
              those of all answers. What the log knew is counted like the rest.
    """

    def __init__(
        self,
        model: str | LLM = "",
        *,
        pretrained: str = "",
        log: AnswerLog | None = None,
        windows: int | None = None,
        seed: int = 1234,
        progress: Callable[[str, int, int], object] | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        **load: Any,
    ) -> None:
        super().__init__()
        self.llm = model if isinstance(model, LLM) else loading.load(model or pretrained, **load)
        if windows is not None and self.llm.tuned is not None:
            raise ValueError(
                "windows cut a text into pieces without BOS, which a tuned state cannot stand"
                " before; leave --windows or --state out"
            )
        if windows is not None and windows < 2:
            raise ValueError(f"windows must be at least 2 tokens, not {windows}")
        self._log, self._windows, self._seed = log, windows, seed
        self._progress = progress or (lambda *_: None)
        self._chat = False
        self.asked = self.read = self.written = 0

    @property
    def eot_token_id(self) -> int:
        return self.llm.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        return self.llm.tokenizer.bos_id

    @property
    def max_gen_toks(self) -> int:
        return MAX_GEN_TOKS

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer and its template for the harness's cache of requests."""
        tokenizer = self.llm.tokenizer
        template = blake2b((tokenizer.chat_template or "").encode(), digest_size=8).hexdigest()
        return f"{tokenizer.digest}-{template}"

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Turn text into ids, BOS first, exactly once; without it for add_special_tokens=False."""
        bos = add_special_tokens is not False
        return self.llm.tokenizer.encode(string, bos=bos, allow_control=self._chat)

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Write a conversation as the model's turns. From then on the names of control tokens are
        taken for them, in what the data say too: the harness knows texts alone."""
        self._chat = True
        return self.llm.chat_format.text(chat_history)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Say how conversations become text, for the harness's records."""
        return self.llm.tokenizer.chat_template or "gemma" if chat_template else None

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-probability of whole texts, read from end to end or in windows."""
        pairs, owners = list[_Pair](), list[int]()
        for number, request in enumerate(requests):
            for begin, end in self._cut(self.tok_encode(request.args[0])):
                pairs.append((np.array([*begin, *end], np.uint32), len(begin)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, found in zip(owners, self._measure(pairs), strict=True):
            totals[number] += found.logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return what the model answers to each context, cut before the first stop string."""
        asked = [cast(tuple[str, dict[str, Any]], request.args) for request in requests]
        texts = [np.array(self.tok_encode(context), np.uint32) for context, _ in asked]
        self._count(texts)
        answers: dict[int, str] = {}
        times = Counter[str]()
        groups = defaultdict[str, list[tuple[int, str]]](list)
        for number, ((_, said), ids) in enumerate(zip(asked, texts, strict=True)):
            how = sampling_of(said)
            key = _key("generate_until", ids, json.dumps(how, sort_keys=True))
            if how["temperature"]:  # each time it is asked, it is drawn anew
                how["seed"] = self._seed + times[key]
                times[key] += 1
                key = f"{key} {how['seed']}"
            if (known := self._known(key)) is not None:
                answers[number] = known["text"]
                self.written += known["tokens"]
            else:
                groups[json.dumps(how, sort_keys=True)].append((number, key))
        for said, group in groups.items():
            how = json.loads(said)
            for contexts in contexts_of(self.llm, [texts[number] for number, _ in group]):
                prompts = [context for _, context in contexts]
                for place, _, result in self.llm.stream_all(prompts, chat=self._chat, **how):
                    if result is None:
                        continue
                    number, key = group[contexts[place][0]]
                    answers[number] = result.text
                    self.written += result.generated_tokens
                    self._keep(key, {"text": result.text, "tokens": result.generated_tokens})
                    self.cache_hook.add_partial("generate_until", asked[number], result.text)
                    self._progress("writing answers", len(answers), len(asked))
        return [answers[number] for number in range(len(asked))]

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Return for each pair of ids how probable the second part is after the first, and
        whether greedy decoding would write it."""
        pairs = list[_Pair]()
        for said, begin, end in requests:
            if not begin or not end:
                raise ValueError(f"there is nothing to measure in {said!r:.200}")
            pairs.append((np.array([*begin, *end], np.uint32), len(begin)))
        found = [(each.logprob, each.greedy) for each in self._measure(pairs)]
        for (said, _, _), each in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", said, each)
        return found

    def _cut(self, ids: list[int]) -> Iterable[tuple[list[int], list[int]]]:
        """Return the parts of a text that are measured, each with what is read before it."""
        if self._windows is None:
            return [(ids[:1], ids[1:])] if len(ids) > 1 else []
        windows = utils.get_rolling_token_windows(
            token_list=ids[1:],
            prefix_token=self.prefix_token_id,
            max_seq_len=self._windows,
            context_len=1,
        )
        return map(utils.make_disjoint_window, windows)

    def _measure(self, pairs: Sequence[_Pair]) -> list[Measured]:
        """Return how probable the model finds each text after its first so many ids."""
        self._count([ids for ids, _ in pairs])
        results: dict[int, Measured] = {}
        keys = [_key("loglikelihood", ids, str(begins)) for ids, begins in pairs]
        for number, key in enumerate(keys):
            if (known := self._known(key)) is not None:
                results[number] = Measured(logprob=known[0], greedy=known[1])
        left = [number for number in range(len(pairs)) if number not in results]
        reader = TextReader(
            self.llm.model,
            [pairs[number][0] for number in left],
            [pairs[number][1] for number in left],
            self.llm.adapter,
            self.llm.beginning,
        )
        for place, found in reader:
            results[left[place]] = found
            self._keep(keys[left[place]], [found.logprob, found.greedy])
            self._progress("reading", len(results), len(pairs))
        return [results[number] for number in range(len(pairs))]

    def _count(self, texts: Sequence[Ids]) -> None:
        begun = [ids[:-1] for ids in texts]
        self.asked += sum(map(len, begun))
        self.read += branches_of(begun).tokens

    def _known(self, key: str) -> Any:
        return None if self._log is None else self._log.get(key)

    def _keep(self, key: str, answer: Any) -> None:
        if self._log is not None:
            self._log.add(key, answer)


def sampling_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a task says of how its answers are written, as fields of SamplingParams.

    Raises ValueError for what they do not know.
    """
    how: dict[str, Any] = dict(normalize_gen_kwargs(dict(said), MAX_GEN_TOKS))
    drawn = how.pop("do_sample")
    stop = [text for text in how.pop("until") if text]
    found = {"max_tokens": how.pop("max_gen_toks"), "stop": stop, "temperature": 0.0}
    if drawn:
        found["temperature"] = 1.0
        found |= {name: how[name] for name in _SAMPLING if name in how}
    if unknown := sorted(how.keys() - set(_SAMPLING)):
        raise ValueError(
            f"a task asks for answers with {', '.join(unknown)}; known are until, max_gen_toks,"
            f" do_sample, {', '.join(_SAMPLING)}"
        )
    return found


def _key(kind: str, ids: Ids, how: str) -> str:
    """Return the key under which an answer is kept: a digest of all that it depends on, but for the
    model."""
    digest = blake2b(f"{kind} {how} ".encode(), digest_size=16)
    digest.update(ids.astype("<u4").tobytes())
    return digest.hexdigest()
