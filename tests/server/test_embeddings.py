"""/v1/embeddings, through the official client: the vectors of `LLM.embed`, fairly."""

from __future__ import annotations

import base64
import threading
from typing import Any, cast

import numpy as np
import openai
import pytest
from openai.types import embedding_create_params

from griffin.server.endpoints.embeddings.body import POLICY, EmbeddingsBody
from griffin.server.settings import Settings
from tests.support.live_server import NAME, serving
from tests.support.request_bodies import parse, refused

TEXTS = ["import json", "x", "an owl sees 🦉", "x"]


@pytest.mark.parametrize("pooling", [None, "mean", "last"])
@pytest.mark.parametrize("form", ["float", "base64"])
def test_they_are_those_of_llm(client, llm, form, pooling):
    """The client asks for base64 unless told otherwise, and gives floats all the same."""
    extra = {} if pooling is None else {"pooling": pooling}
    expected = llm.embed(TEXTS, pooling or "mean").numpy()
    asked: dict[str, Any] = {"model": NAME, "extra_body": extra}
    if form == "float":
        asked["encoding_format"] = "float"
    made = client.embeddings.create(input=TEXTS, **asked)
    assert [one.index for one in made.data] == [0, 1, 2, 3] and made.model == NAME
    assert np.array_equal(np.array([one.embedding for one in made.data], np.float32), expected)
    ids = [llm.tokenizer.encode(text) for text in TEXTS]
    assert made.usage.prompt_tokens == made.usage.total_tokens == sum(map(len, ids))
    again = client.embeddings.create(input=ids, **asked)
    assert [one.embedding for one in again.data] == [one.embedding for one in made.data]
    for single in (TEXTS[0], ids[0]):
        (one,) = client.embeddings.create(input=single, **asked).data
        assert one.embedding == made.data[0].embedding


def test_the_form_on_the_wire(http, llm):
    body = {"input": "owl", "encoding_format": "base64", "model": NAME, "user": "u", "odd": 1}
    answer = http.post("/v1/embeddings", json=body)
    assert answer.headers["x-griffin-ignored"] == "odd"
    (one,) = answer.json()["data"]
    assert one["object"] == "embedding" and answer.json()["object"] == "list"
    numbers = np.frombuffer(base64.b64decode(one["embedding"]), "<f4")
    assert np.array_equal(numbers, llm.embed("owl").numpy())


def test_fewer_dimensions_have_length_1(client, llm):
    whole = llm.embed("owl").numpy()
    made = client.embeddings.create(input="owl", model=NAME, dimensions=5).data[0].embedding
    assert np.allclose(made, whole[:5] / np.linalg.norm(whole[:5]), atol=1e-6) and len(made) == 5
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(input="owl", model=NAME, dimensions=len(whole) + 1)
    assert caught.value.param == "dimensions"


def test_every_field_of_openais_is_done_or_said():
    fields = set(embedding_create_params.EmbeddingCreateParams.__annotations__)
    assert fields - {"user"} == set(EmbeddingsBody.__struct_fields__) - {"pooling"}
    assert "user" in POLICY.ignored and parse("embedding", user="u").ignored == ()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [[5], [1000]]}, "input[1][0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"pooling": "max"}, "pooling"),
        ({"truncate_prompt_tokens": 9}, "truncate_prompt_tokens"),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(fields, param):
    assert refused("embedding", **fields).param == param


def test_more_than_a_request_may_have(llm):
    width = llm.model.config.width
    limits = {"max_prompt_tokens": 40, "max_vectors": 3 * width}
    with serving(llm, limits=limits) as live:
        client: Any = live.openai()
        ids = [[5] * 13] * 3
        assert len(client.embeddings.create(input=ids, model=NAME).data) == 3
        for more, option in (
            (["x"] * 4, "--max-vectors"),
            ([[5] * 14] * 3, "--max-prompt-tokens"),
            ([5] * 41, "--max-prompt-tokens"),
        ):
            with pytest.raises(openai.BadRequestError, match=option):
                client.embeddings.create(input=more, model=NAME)
        few = client.embeddings.create(input=["x"] * 6, model=NAME, dimensions=width // 2)
        assert len(few.data) == 6


def test_it_counts_among_a_keys_requests_and_stops_when_the_client_leaves(llm, monkeypatch):
    from griffin.server.endpoints.embeddings import route

    begun, end = threading.Event(), threading.Event()
    left: list[BaseException] = []

    def slow(model, texts, pooling, *, rest, adapter):
        begun.set()
        assert end.wait(60)
        try:
            while True:
                rest()
        except BaseException as error:
            left.append(error)
            raise

    monkeypatch.setattr(route, "embed", slow)
    settings = Settings(max_requests_per_key=1, deadline_seconds=1.0)
    with serving(llm, settings=settings) as live:
        client = cast("Any", live.openai())
        found: list[Any] = []

        def ask():
            try:
                client.embeddings.create(input="x", model=NAME)
            except openai.APIStatusError as error:
                found.append(error.status_code)

        first = threading.Thread(target=ask)
        first.start()
        assert begun.wait(60)
        with pytest.raises(openai.RateLimitError):
            client.embeddings.create(input="x", model=NAME)
        end.set()
        first.join(60)
        assert found == [504]
    assert [type(error).__name__ for error in left] == ["Cancelled"]
