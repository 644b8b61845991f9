"""Several adapters on one base in one engine: each request as alone, and nothing shared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from griffin.adapters import Adapter, LoraConfig, adapt
from griffin.engine import End, Engine, Refused, generate
from griffin.engine.graphs import NoGraphs
from griffin.quant import quantize_model
from tests.adapters.test_layers import make_adapter
from tests.engine.test_engine_cache import make_cache
from tests.support.toy_engine import CHUNK, CONFIG, alone, ask, ids, make_model, plain, run

ADAPTERS = [
    Adapter(name, config, {key: 4 * t for key, t in made.tensors.items()})
    for name, config, seed in (
        ("one", LoraConfig(rank=3), 0),
        ("two", LoraConfig(rank=4, targets=("up_proj", "q_proj")), 1),
        ("three", LoraConfig(rank=1, rslora=True), 2),
    )
    for made in [make_adapter(config, CONFIG, seed)]
]
NAMES = ["", "one", "two", "three"]


def base(format):
    return make_model() if format is None else quantize_model(make_model(), format)


@pytest.fixture(scope="module", params=[None, "int8", "int4"])
def models(request):
    """Return one model with all adapters, and by name one with each alone."""
    alone = {"": base(request.param)}
    alone |= {each.name: adapt(base(request.param), each) for each in ADAPTERS}
    return adapt(base(request.param), ADAPTERS), alone


def asked(name, seed=0, length=13):
    return ask(length, seed, adapter=name)


def test_an_engine_by_graphs_answers_with_no_adapter_that_came_later():
    """It would read the prompt with it and step without; one that is made then steps by calls."""
    model = make_model()
    engine = Engine(model, 1, chunk=CHUNK, graphs=NoGraphs())
    adapt(model, ADAPTERS[:1])
    ticket, plain_one = engine.submit(asked("one")), engine.submit(asked(""))
    (end, *_) = run(engine)
    assert isinstance(end, End) and "adds no adapter" in str(end.error)
    assert (ticket.finish_reasons, plain_one.finish_reasons) == (["error"], ["length"])
    with pytest.raises(ValueError, match="with adapters is not read by steps of a graph"):
        Engine(model, 1, graphs=NoGraphs())


def test_each_in_company_is_as_alone(models):
    model, single = models
    engine = Engine(model, 3, chunk=CHUNK)
    wanted, tickets = {}, []
    for number in range(9):
        name = NAMES[number % 4]
        request = asked(name, seed=number, length=5 + 3 * number)
        tickets.append(engine.submit(request))
        wanted[tickets[-1].number] = alone(single[name], request)
    found = {number: [] for number in wanted}
    for event in run(engine):
        found[event.index].append(event)
    assert {number: plain(events) for number, events in found.items()} == wanted
    one, *others = [alone(model, asked(name)) for name in NAMES]
    assert one not in others and len({str(other) for other in others}) == 3


def test_two_adapters_never_share_an_entry(models):
    model, single = models
    cache = make_cache()
    engine = Engine(model, 2, chunk=CHUNK, prefix_cache=cache)
    prompt = ids(40)
    for turn in range(2):
        for name in NAMES:
            ticket = engine.submit(ask(ids=prompt, adapter=name, seed=turn))
            assert plain(run(engine)) == alone(single[name], ticket.request), (name, turn)
            assert ticket.cached_tokens == (0, 32)[turn], (name, turn)


def test_an_adapter_of_other_values_is_another_though_the_name_is_the_same(models):
    """The cache outlives a model: what counts is the digest."""
    cache, prompt = make_cache(), ids(40)
    for number, given in enumerate((ADAPTERS[0], replace(ADAPTERS[2], name="one"))):
        engine = Engine(adapt(make_model(), given), 2, chunk=CHUNK, prefix_cache=cache)
        ticket = engine.submit(ask(ids=prompt, adapter="one"))
        run(engine)
        assert ticket.cached_tokens == 0, number


def test_generate_takes_them_too(models):
    model, single = models
    requests = [asked(name, seed=3) for name in NAMES]
    events = list(generate(model, requests, chunk=CHUNK))
    for number, name in enumerate(NAMES):
        found = plain(event for event in events if event.index == number)
        assert found == alone(single[name], requests[number])


def test_one_that_is_not_there_is_refused(models):
    model, _ = models
    with pytest.raises(Refused, match="there is no adapter 'four'; this model has one, two, three"):
        Engine(model, 1).submit(asked("four"))
    with pytest.raises(Refused, match="there is no adapter 'one'; this model has none"):
        Engine(make_model(), 1).submit(asked("one"))
    whole = make_adapter(LoraConfig(rank=1, whole=("rg_lru",)), CONFIG, name="w")
    with pytest.raises(Refused, match="is read with adapter w, which changes it for all"):
        Engine(adapt(make_model(), whole), 1).submit(asked(""))
