"""An LLM behind a tuned state: every way that reads a text, sessions, files and commands."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import griffin
from griffin.adapters import LoraConfig, save_adapter, save_tuned_state
from griffin.cli import main
from griffin.conversation import Conversation, begin, fingerprint_of
from griffin.model import TunedState
from griffin.sessions import Store
from tests.adapters.test_layers import make_adapter
from tests.support.toy_folder import CONFIG, write_toy
from tests.support.toy_states import write_tuned

FIELDS: dict[str, Any] = {"temperature": 0, "max_tokens": 9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and beside it states: untuned, one, other, and wide with five keys."""
    folder = tmp_path_factory.mktemp("tuned")
    write_toy(folder / "toy")
    plain = griffin.load(folder / "toy")
    for number, (name, keys) in enumerate({"untuned": 1, "one": 1, "other": 1, "wide": 5}.items()):
        write_tuned(plain, folder / f"{name}.state", keys=keys, seed=number or None)
    return folder


def load(folder, name=None, **how):
    state = None if name is None else folder / f"{name}.state"
    return griffin.load(folder / "toy", state=state, **how)


def everything(llm):
    """Return what an LLM makes of a text by every way that reads one."""
    bos = llm.tokenizer.bos_id
    document = llm.document("import json\n")
    return {
        "generate": llm.generate("import json", max_tokens=8, seed=0).ids,
        "chat": llm.chat("import json", max_tokens=8, seed=0).ids,
        "score": llm.score("import json").logprobs,
        "read": llm.generate(llm.read([[bos], [50, 60], [70]]), max_tokens=8, seed=0).ids,
        "short": llm.generate(llm.read([[bos, 50]]), max_tokens=8, seed=0).ids,
        "document": document.ask("x", max_tokens=8, seed=0).ids,
        "company": [r.ids for r in llm.generate(["import", "def x"], max_tokens=8, seed=0)],
    }


def test_every_way_reads_behind_it(folder):
    names = (None, "untuned", "one", "other", "wide")
    found = {name: everything(load(folder, name)) for name in names}
    assert found[None] == found["untuned"]
    for way in found[None]:
        assert len({str(found[name][way]) for name in names[1:]}) == 4, way
    one = load(folder, "one")
    ids = [one.tokenizer.bos_id, 50, 60, 70]
    assert one.generate(ids, max_tokens=8, seed=0).ids == found["one"]["read"]
    assert one.generate("import json", max_tokens=1).prompt_tokens == len(
        one.tokenizer.encode("import json")
    )
    assert torch.equal(one.embed("import json"), load(folder).embed("import json"))


def test_what_it_cannot_stand_behind_is_told(folder):
    one = load(folder, "one")
    with pytest.raises(ValueError, match="these ids begin with 50"):
        one.generate([50, 60])
    with pytest.raises(ValueError, match="the prompt is BOS alone"):
        one.generate([one.tokenizer.bos_id])


def test_those_that_do_not_fit_are_refused(folder, tmp_path):
    other = griffin.model.GriffinConfig.from_dict(CONFIG.to_dict() | {"lru_width": 128})
    made = TunedState.begin(griffin.Griffin(other), [2], weights="w")
    save_tuned_state(made, tmp_path / "shape.state")
    with pytest.raises(ValueError, match=r"another shape \(lru_width 128, 64 here\)"):
        griffin.load(folder / "toy", state=tmp_path / "shape.state")
    made = TunedState.begin(load(folder).model, [2], weights="w" * 32)
    save_tuned_state(made, tmp_path / "weights.state")
    with pytest.raises(ValueError, match=r"other weights \(wwwwwwwwwwww\.\.\., here "):
        griffin.load(folder / "toy", state=tmp_path / "weights.state")
    save_adapter(make_adapter(LoraConfig(rank=2), CONFIG), tmp_path / "lora")
    adapted = griffin.load(folder / "toy", adapter={"lora": tmp_path / "lora"})
    with pytest.raises(ValueError, match="learnt with no adapter, and the model reads with the"):
        load(folder, "one", adapter=tmp_path / "lora")
    weights = {"weights": adapted.weights_digest, "adapter": adapted.adapter_digest}
    both = TunedState.begin(adapted.model, [2], **weights)
    save_tuned_state(both, tmp_path / "both.state")
    lora = {"lora": tmp_path / "lora"}
    again = griffin.load(folder / "toy", adapter=lora, state=tmp_path / "both.state")
    assert again.generate("def", **FIELDS).ids == adapted.generate("def", **FIELDS).ids
    with pytest.raises(ValueError, match=r"learnt with the adapter .*, and .* with no adapter"):
        again.using("")


def test_it_is_a_part_of_the_fingerprint(folder):
    marks = {n: fingerprint_of(load(folder, n)) for n in (None, "untuned", "one", "wide")}
    assert len({mark.digest for mark in marks.values()}) == 4
    assert marks["one"].differences(marks[None]).keys() == {"tuned"}
    assert marks["wide"].tuned.startswith("5-") and "tuned" not in marks[None].to_dict()
    for mark in marks.values():
        assert type(mark).from_dict(mark.to_dict()) == mark
    with pytest.raises(ValueError, match="must be positions, a hyphen and a digest, not '0-ab'"):
        replace(marks["one"], tuned="0-ab")


@pytest.mark.parametrize("name", ["one", "wide"])
def test_a_conversation_behind_it_outlives_the_program(folder, tmp_path, name):
    llm = load(folder, name)
    messages = [{"role": "user", "content": "one"}]
    with Store(tmp_path / "store") as store:
        talk = Conversation(llm, begin(llm, store, "kitchen"), sampling=dict(FIELDS))
        first = "".join(talk.say("one"))
        assert first == llm.chat(messages, **FIELDS).text
        assert first != load(folder).chat(messages, **FIELDS).text
        talk.session.export(tmp_path / "kitchen.state")
        talk.close()
        for other in (None, "other"):
            with pytest.raises(ValueError, match=r"another model .*tuned: "):
                store.open("kitchen", fingerprint_of(load(folder, other)))
        talk = Conversation(llm, store.open("kitchen", fingerprint_of(llm)), sampling=dict(FIELDS))
        second = "".join(talk.say("two"))
        keys = llm.tuned.keys
        assert int(talk.context.state.pos[0]) == talk.tokens - 1 + keys - 1
        talk.undo(2)
        assert "".join(talk.say("one")) == first and "".join(talk.say("two")) == second
        talk.close()
        assert store.check() == ()
        # A file of it is gone on from behind the same state alone.
        store.import_(tmp_path / "kitchen.state", "again", fingerprint=fingerprint_of(llm))
        talk = Conversation(llm, store.open("again", fingerprint_of(llm)), sampling=dict(FIELDS))
        assert "".join(talk.say("two")) == second
        talk.close()
        with pytest.raises(ValueError, match=r"another model .*tuned: "):
            store.import_(tmp_path / "kitchen.state", fingerprint=fingerprint_of(load(folder)))


def run(*arguments, **how):
    return CliRunner().invoke(main, [str(each) for each in arguments], **how)


def test_commands_take_it(folder, tmp_path):
    (tmp_path / "text").write_text("import json\n")
    toy, seed = ("--model", folder / "toy"), ("--seed", "0", "--max-tokens", "8", "--json")

    def said(verb, *more):
        done = run(*verb, *toy, *seed, *more)
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        return found.get("text", found.get("answer"))

    for verb in (
        ("generate", "import json"),
        ("generate", "--chat", "import json"),
        ("generate", "--file", tmp_path / "text"),
        ("ask", "--file", tmp_path / "text", "-q", "x"),
    ):
        one = said(verb, "--state", folder / "one.state")
        assert one != said(verb) and one != said(verb, "--state", folder / "wide.state"), verb
    done = run("generate", *toy, "x", "--state", tmp_path / "text")
    assert done.exit_code == 2 and "text is not a whole safetensors file" in done.stderr


def test_a_chat_takes_it_by_its_kind(folder, tmp_path):
    store = ("--store", tmp_path / "store")

    def chat(*more):
        arguments = ("chat", "--model", folder / "toy", "--seed", "0", "--max-tokens", "8")
        return run(*arguments, *store, *more, input="import json\n")

    for more in (("--state", folder / "one"), (), ("--state", folder / "one.state")):
        done = chat(*more)
        assert done.exit_code == 0, done.output
    with Store(tmp_path / "store") as opened:  # the third went on with the first
        turns = {i.fingerprint.tuned == "none": opened.turns(i.name) for i in opened.list()}
    assert [len(turns[plain]) for plain in (True, False)] == [1, 2]
    assert turns[True][0].ids != turns[False][0].ids
    shown = json.loads(run("state", "show", folder / "wide.state", "--json").stdout)
    assert (shown["kind"], shown["keys"], shown["model"]) == ("tuned state", 5, "toy")
    text = run("state", "show", folder / "wide.state").stdout
    assert "kind:        tuned state" in text and "keys:        5" in text


def test_a_text_is_read_behind_it_and_gone_on_from(folder, tmp_path):
    (tmp_path / "text").write_text("import json\n" * 20)
    wide = ("--model", folder / "toy", "--state", folder / "wide.state")
    built = tmp_path / "text.state"
    done = run("state", "build", "--from", tmp_path / "text", "-o", built, *wide)
    assert done.exit_code == 0, done.output
    llm = load(folder, "wide")
    with Store(tmp_path / "store") as store:
        info = store.import_(built, "read", fingerprint=fingerprint_of(llm))
        with store.open("read", fingerprint_of(llm)) as session:
            context = session.resume()
            ids = llm.tokenizer.encode("import json\n" * 20)
            assert context.tokens == info.tokens == len(ids)
            assert llm.generate(context, **FIELDS).ids == llm.generate(ids, **FIELDS).ids
