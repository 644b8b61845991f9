"""From a loaded model to a Service: its engine, prefix cache, limits and store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from griffin import __version__
from griffin.engine import Engine
from griffin.engine.devices import default_chunk
from griffin.engine.draft_length import prepare
from griffin.engine.prefix_cache import PrefixCache
from griffin.llm import LLM
from griffin.server.http.hosts import Hosts
from griffin.server.http.keys import Keys
from griffin.server.limits import Limits
from griffin.server.served import served_models
from griffin.server.service import Service
from griffin.server.settings import Settings
from griffin.sessions import Store


def build(
    llm: LLM,
    *,
    name: str,
    aliases: Sequence[str] = (),
    roots: Mapping[str, str] | None = None,
    any_name: bool = False,
    root_path: str = "",
    state_data: bool = False,
    slots: int = 8,
    max_waiting: int = 64,
    chunk: int | None = None,
    cache_bytes: int = 256 << 20,
    exact_cache: bool = False,
    store: Path | None = None,
    store_bytes: int | None = None,
    store_network: bool = False,
    limits: Mapping[str, int] | None = None,
    settings: Settings | None = None,
    keys: Keys | None = None,
    hosts: Hosts | None = None,
    capturing: Callable[[int, int], object] | None = None,
) -> Service:
    """Return the service of a loaded model, and of each of its adapters as a model beside it.

    name:        what clients call it; aliases: what else they may call it. Adapters have names.
    roots:       what each was loaded from, by its name, as clients are told; else the name.
    any_name:    any other name will do, too, and means the first model.
    state_data:  states may come with requests, and go with answers.
    root_path:   what stands before every path, as `check_root` has it.
    slots:       answers at a time.
    max_waiting: requests that may wait for a slot.
    chunk:       tokens of a prompt in a call of the model; 64, on a GPU 4,096, if None.
    cache_bytes: of the prefix cache; 0 reads every prompt from its beginning.
    exact_cache: prompts go on only where a chunk ends, so that they are read in the same calls.
    store:       folder of sessions, of `store_bytes` at most; None keeps none.
    store_network: several machines share the folder.
    limits:      fields of Limits that are not to be the default. `max_choices` is the slots, if
                 these are fewer.
    keys, hosts: who may ask; everybody on this machine unless they say otherwise.
    capturing:   called with how many of an engine's graphs there are, on a GPU.
    """
    models = served_models(llm, __version__, name, aliases, roots)
    cache = None
    if cache_bytes:
        config, dtype = llm.model.config, llm.model.dtype
        how: dict[str, Any] = {"max_bytes": cache_bytes, "device": llm.model.device}
        if exact_cache:
            how |= {"every": chunk or default_chunk(llm.model.device), "ends": False}
        cache = PrefixCache(models[0].fingerprint.digest, config, dtype, **how)
    bounds = Limits(
        **{"max_choices": min(Limits.max_choices, slots), **(limits or {})},
        vocab_size=llm.tokenizer.vocab_size,
    )
    prepare(llm.model)  # not while somebody waits for a token
    return Service(
        models,
        Engine(
            llm.model,
            slots,
            chunk=chunk,
            max_waiting=max_waiting,
            prefix_cache=cache,
            kept=slots,  # who has more than his share of slots may have to give all but one
            capturing=capturing,
        ),
        any_name=any_name,
        root_path=root_path,
        state_data=state_data,
        version=__version__,
        limits=bounds,
        keys=keys,
        hosts=hosts,
        settings=settings,
        store=None
        if store is None
        else Store(store, quota_bytes=store_bytes, network=store_network),
    )
