"""Sampling parameters: what is refused, and how; what they are once they are there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from griffin.sampling import SamplingParams


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -1}, "temperature must be a number from 0 to 100, not -1"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": float("nan")}, "temperature must be a number"),
        ({"temperature": True}, "temperature must be a number"),
        ({"top_k": -1}, "top_k must be a whole number of at least 0"),
        ({"top_k": 1.5}, "top_k must be a whole number"),
        ({"top_p": 0}, "top_p must be a number above 0 and at most 1, not 0"),
        ({"top_p": 1.01}, "top_p"),
        ({"min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": 3}, "presence_penalty must be a number from -2 to 2"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"logit_bias": [1]}, "logit_bias must map"),
        ({"logit_bias": {"a": 1}}, "a token id of logit_bias"),
        ({"logit_bias": {1: 101}}, r"logit_bias\[1\]"),
        ({"seed": -1}, "seed must be a whole number from 0 to"),
        ({"stop": [""]}, "stop must hold strings that are not empty"),
        ({"stop": [3]}, "stop must hold strings"),
        ({"stop_ids": "12"}, "stop_ids must be a list of token ids"),
        ({"stop_ids": [-1]}, "stop_ids must be a whole number"),
        ({"logprobs": 101}, "logprobs must be a whole number from 0 to 100"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1, not 0"),
        ({"min_tokens": -1}, "min_tokens must be a whole number of at least 0"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9 and max_tokens 8"),
        ({"ignore_eos": 1}, "ignore_eos must be True or False, not 1"),
        ({"allowed_ids": []}, "allowed_ids is empty"),
        ({"allowed_ids": 3}, "allowed_ids must be a list of token ids"),
        ({"begin_suppress_ids": [-2]}, "begin_suppress_ids must be a whole number"),
        ({"temprature": 1}, "no sampling parameter 'temprature'.*did you mean 'temperature'"),
    ],
)
def test_wrong_values_name_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        SamplingParams.from_dict(fields)


def test_params_are_frozen_and_normalised():
    params = SamplingParams(
        stop="END", stop_ids=[np.int64(3)], temperature=1, logit_bias={np.int64(2): 1}
    )
    assert params.stop == ("END",) and params.stop_ids == (3,) and params.logit_bias == {2: 1.0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.top_k = 3  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        params.logit_bias[1] = 2  # pyright: ignore[reportIndexIssue]
    assert params.replace(top_k=2).stop == ("END",)


def test_none_is_none_of_them():
    assert SamplingParams(stop=None, stop_ids=None, logit_bias=None) == SamplingParams()  # pyright: ignore[reportArgumentType]
    for wrong in (3, 2.5, object()):
        with pytest.raises(ValueError, match="stop must be a string or a list of strings"):
            SamplingParams(stop=wrong)  # pyright: ignore[reportArgumentType]


def test_a_smaller_max_tokens_lowers_a_min_tokens_that_was_there_before():
    params = SamplingParams(min_tokens=50)
    assert params.replace(max_tokens=5).min_tokens == 5 and params.replace(top_k=2).min_tokens == 50
    with pytest.raises(ValueError, match="min_tokens is 9 and max_tokens 5"):
        params.replace(max_tokens=5, min_tokens=9)
    with pytest.raises(ValueError, match="max_tokens must be a whole number"):
        params.replace(max_tokens=-3)


def test_something_is_left_to_choose():
    for fields, message in (
        ({"suppress_ids": range(9)}, "suppress_ids names every token"),
        ({"begin_suppress_ids": range(9)}, "begin_suppress_ids names every token"),
        ({"suppress_ids": [2, 3], "allowed_ids": [3]}, "suppress_ids names all of allowed_ids"),
        ({"begin_suppress_ids": [3], "allowed_ids": [3]}, "begin_suppress_ids names all of"),
        ({"allowed_ids": [9]}, "allowed_ids names token 9; the vocabulary has ids 0 to 8"),
    ):
        with pytest.raises(ValueError, match=message):
            SamplingParams(**fields).check_vocabulary(9)
    SamplingParams(suppress_ids=[3], allowed_ids=[3, 4]).check_vocabulary(9)  # pyright: ignore[reportArgumentType]
