"""--draft of generate, chat, ask and serve: it arrives, and no answer changes."""

from __future__ import annotations

from typing import Any

import pytest

import griffin
from griffin.engine.draft_runner import DraftRunner
from griffin.ops import native
from tests.support.live_server import serving

pytestmark = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")

TEXT = "for a in range(9): print(a)\n" * 4  # which says the same again
OPTIONS = ("--quantize", "int8", "--temperature", 0, "--max-tokens", 40)
VERBS = {
    "generate": ("generate", TEXT),
    "chat": ("chat", "--no-persist"),
    "ask": ("ask", "-q", "for b in range", "--raw"),
}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many drafts each row had in each call that read some."""
    counts: list[int] = []
    real = DraftRunner._read_ahead

    def noted(self: Any, batch: Any, rows: Any, drafts: Any) -> None:
        counts.extend(len(draft.ids) for draft in drafts)
        real(self, batch, rows, drafts)

    monkeypatch.setattr(DraftRunner, "_read_ahead", noted)
    return counts


@pytest.mark.parametrize("verb", VERBS)
def test_no_answer_changes(run, folder, tmp_path, monkeypatch, read, verb):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "text").write_text(TEXT)
    file = ("--file", tmp_path / "text") if verb == "ask" else ()
    said = {}
    for draft in ("off", "auto", "3", "15"):
        read.clear()
        options = ("--model", folder, *OPTIONS, *file, "--draft", draft)
        done = run(*VERBS[verb], *options, stdin=TEXT.replace("\n", " ") + "\n")
        assert done.exit_code == 0, done.output
        said[draft] = done.stdout
        if draft == "off":
            assert not read
        elif draft != "auto":  # which may find that it saves no time
            assert max(read) == int(draft)
    assert len(set(said.values())) == 1 and len(said["off"]) > 20


@pytest.mark.parametrize("verb", [*VERBS, "serve"])
@pytest.mark.parametrize(("draft", "words"), [("16", "15"), ("some", "auto, off"), ("-1", "auto")])
def test_what_is_none_is_told_before_the_model_is_looked_for(run, verb, draft, words):
    done = run(verb, "--model", "/nowhere", "--draft", draft)
    assert done.exit_code == 2 and words in done.output and "/nowhere" not in done.output


def test_a_server_drafts_where_a_request_does_not_say(run, folder, monkeypatch):
    llm = griffin.load(folder, device="cpu", quantize="int8")

    def built(llm: Any, **_: Any) -> Any:
        raise ValueError("built")

    monkeypatch.setattr("griffin.cli.serve.ModelSource.llm", lambda source, **_: llm)
    monkeypatch.setattr("griffin.server.build.build", built)
    for draft, value in (("auto", None), ("off", 0), ("7", 7)):
        done = run("serve", "--port", "0", "--no-store", "--draft", draft)
        assert "built" in done.output
        assert (llm.defaults.draft, llm.chat_defaults.draft) == (value, value)
    monkeypatch.undo()
    asked: dict[str, Any] = {"model": "toy", "prompt": TEXT, "temperature": 0, "max_tokens": 40}
    with serving(llm) as live:
        completions = live.openai().completions
        drafted = completions.create(**asked)
        plain = completions.create(**asked, extra_body={"draft": 0})
    assert drafted.choices[0].text == plain.choices[0].text
    used = [each.usage.completion_tokens_details for each in (drafted, plain)]
    assert used[0].accepted_prediction_tokens > 0
    assert used[1].accepted_prediction_tokens == used[1].rejected_prediction_tokens == 0
