"""Make the golden store: sessions as the version of commit d8e173d left them on a disk.

    git worktree add --detach OLD d8e173d         # and put the native module there
    cd OLD && PYTHONPATH=. python NEW/tests/golden/make_store.py NEW/tests/golden/store

It is not made anew by a later version: what it pins is that sessions of that one open unchanged.
A terminal's conversations are of that version's Conversation, a server's of its `griffin serve`.
Beside the store lies what that version resumed of it, turn by turn.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMESPACES = ("", "responses", "states")
FIELDS = {"temperature": 0, "max_tokens": 6}


def digest(state: Any) -> str | None:
    """Return a digest of all numbers of a state; None for None."""
    if state is None:
        return None
    tensors = [state.pos, *(tensor for layer in state.layers for tensor in layer)]
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def terminal(model: Path, folder: Path, beside: Path) -> None:
    """What `griffin chat` and `griffin state` do."""
    import griffin
    from griffin.conversation import (
        Conversation,
        fingerprint_of,
        new_thread,  # pyright: ignore[reportAttributeAccessIssue] of that version
    )
    from griffin.sessions import NOTHING, StateInfo, Store, extend_chain, save_state_file

    llm = griffin.load(model, device="cpu")
    mark = fingerprint_of(llm)

    def say(talk: Conversation, *messages: str) -> None:
        for message in messages:
            for _ in talk.say(message):
                pass

    with Store(folder) as store:
        talk = Conversation(llm, new_thread(llm, store, "kitchen", "Be brief."), sampling=FIELDS)
        say(talk, "one", "two", "a much longer message, which the window does not hold at once")
        talk.undo(2)
        say(talk, "another way")
        talk.fork(store, "cellar")  # and on in it
        say(talk, "down there")
        talk.close()
        talk = Conversation(llm, store.open("kitchen", mark), sampling=FIELDS)
        talk.set("top_p", 0.9)
        talk.undo()
        talk.close()

        ids = llm.tokenizer.encode("A long story, " * 12)
        context = llm.read([ids])
        info = StateInfo(
            fingerprint=mark,
            config=llm.model.config,
            tokens=len(ids),
            chain=extend_chain(NOTHING, ids).hex(),
            pending=context.pending,
            title="Handbook",
        )
        save_state_file(beside / "book.state", info, context.state)
        store.import_(beside / "book.state", "handbook")
        talk = Conversation(llm, store.open("handbook", mark), sampling=FIELDS)
        say(talk, "what is in it?", "and then?")
        talk.clear()
        say(talk, "again")
        talk.close()

        store.export("cellar", beside / "cellar.state", at=4)
        store.import_(beside / "cellar.state", "moved", title="From elsewhere")
        talk = Conversation(llm, store.open("moved", mark), sampling=FIELDS)
        say(talk, "here")
        talk.close()
        new_thread(llm, store, "empty", "Nothing yet.").close()


def served(model: Path, folder: Path) -> None:
    """What `griffin serve` does."""
    with server(model, folder) as url:

        def post(path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
            request = urllib.request.Request(
                url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            for name, value in headers.items():
                request.add_header(name.replace("_", "-"), value)
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)

        def chat(*turns: tuple[str, str], session_id: str = "", **headers: str) -> str:
            messages = [{"role": role, "content": content} for role, content in turns]
            body = {"model": "toy", "messages": messages, **FIELDS}
            named = {"session_id": session_id} if session_id else {}
            told = post("/v1/chat/completions", body | named, **headers)
            return told["choices"][0]["message"]["content"]

        system = ("system", "Be kind.")
        first = chat(system, ("user", "one"), session_id="named")
        chat(("user", "two"), session_id="named")
        # An edited message: a branch after the first turn.
        way = [system, ("user", "one"), ("assistant", first)]
        chat(*way, ("user", "not two"), session_id="named")

        # A program's whole conversation, taken up as one turn, and gone on with.
        way = [system, ("user", "a"), ("assistant", "b c"), ("user", "d")]
        last = chat(*way, X_Session_Id="program")
        chat(*way, ("assistant", last), ("user", "e"), X_Session_Id="program")

        post("/v1/sessions", {"name": "reader", "title": "Read and asked"})
        post("/v1/sessions/reader/append", {"text": "A text that is read and not answered. " * 3})
        chat(("user", "what was it?"), session_id="reader")
        post("/v1/sessions/reader/fork", {"name": "reader-at-1", "at": 1})
        post("/v1/sessions/named/rewind", {"turns": 1})

        post("/v1/states", {"name": "base", "text": "What was read before. " * 4})
        post("/v1/states", {"name": "saved", "session": "named"})
        post("/v1/states/base/fork", {"name": "from-base"})
        chat(("user", "go on"), session_id="from-base")

        body = {"model": "toy", "temperature": 0, "max_output_tokens": 6}
        one = post("/v1/responses", {**body, "instructions": "Be calm.", "input": "one"})
        post("/v1/responses", {**body, "previous_response_id": one["id"], "input": "two"})
        post("/v1/responses", {**body, "conversation": "talk", "input": "three"})


@contextmanager
def server(model: Path, folder: Path):
    command = [sys.executable, "-c", "import griffin.cli as c; c.main()", "serve", "--model", model]
    command += ["--store", folder, "--port", 0, "--threads", 1]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            url = next(
                found for line in process.stderr if (found := re.search(r"http://[^\s,]+", line))
            )
            yield url.group().rstrip("/")
        finally:
            process.terminate()
            process.stderr.read()


def expected(folder: Path) -> dict[str, Any]:
    """Return what every session resumes at each turn that one can stand at, and where it stands."""
    from griffin.sessions import Store

    found: dict[str, Any] = {}
    with Store(folder) as whole:
        for namespace in NAMESPACES:
            store = whole.within(namespace)
            for info in store.list():
                with store.open(info.name, info.fingerprint) as session:
                    about: dict[str, Any] = {
                        "head": info.head,
                        "title": info.title,
                        "settings": info.settings,
                        "turns": [],
                    }
                    found[f"{namespace}/{info.name}"] = about
                    for turn in session.tree():
                        told = {
                            "number": turn.number,
                            "parent": turn.parent,
                            "role": turn.role,
                            "text": turn.text,
                            "ids": turn.ids,
                            "chain": turn.chain,
                            "stats": turn.stats,
                            "resumed": None,
                        }
                        if turn.restorable:
                            session.goto(turn.number, keep=False)
                            resumed = session.resume()
                            told["resumed"] = {
                                "pending": resumed.pending,
                                "tokens": resumed.tokens,
                                "state": digest(resumed.state),
                            }
                        about["turns"].append(told)
    return found


def main(target: Path) -> None:
    toy = importlib.import_module("tests.toy")  # that version's

    small = toy.CONFIG.replace(width=32, mlp_width=64, lru_width=32)
    toy.CONFIG = small  # pyright: ignore[reportAttributeAccessIssue]
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as beside:
        model = toy.write_toy(Path(beside) / "toy")
        folder = Path(beside) / "store"
        terminal(model, folder, Path(beside))
        served(model, folder)
        told = expected(folder)
        with sqlite3.connect(folder / "index.sqlite") as index:
            index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        index.close()
        target.mkdir(parents=True)
        # Locks are made when they are wanted.
        shutil.copytree(folder / "blobs", target / "blobs")
        shutil.copy(folder / "index.sqlite", target / "index.sqlite")
        (target / "expected.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{len(told)} sessions, {size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
