"""What generation_config.json asks for is done or said, field by field."""

from __future__ import annotations

import inspect
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import griffin
import griffin.checkpoints as checkpoints
from griffin.checkpoints import CheckpointError, CheckpointWarning
from griffin.checkpoints.config_fields import GENERATION
from griffin.defaults import _BOOKKEEPING, _DONE, Defaults, read_defaults
from tests.support.toy_checkpoints import edit_config
from tests.support.toy_folder import write_toy

V = 100


def read(folder: Path, **fields: Any) -> Defaults:
    (folder / "generation_config.json").write_text(json.dumps(fields))
    return read_defaults(folder, V)


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"temperature": 0.5}, "temperature", 0.5),
        ({"temperature": 0.5, "do_sample": False}, "temperature", 0.0),
        ({"do_sample": True}, "temperature", 1.0),
        ({"top_k": 50}, "top_k", 50),
        ({"top_p": 0.9}, "top_p", 0.9),
        ({"min_p": 0.1}, "min_p", 0.1),
        ({"repetition_penalty": 1.2}, "repetition_penalty", 1.2),
        ({"max_new_tokens": 7}, "max_tokens", 7),
        ({"min_new_tokens": 3}, "min_tokens", 3),
        ({"min_new_tokens": 300}, "min_tokens", 256),
        ({"min_new_tokens": 9, "max_new_tokens": 7}, "min_tokens", 7),
        ({"begin_suppress_tokens": [5, 6]}, "begin_suppress_ids", (5, 6)),
        ({"stop_strings": ["\n", "end"]}, "stop", ("\n", "end")),
        ({"stop_strings": "end"}, "stop", ("end",)),
        ({"suppress_tokens": [3, 4]}, "suppress_ids", (3, 4)),
        ({"bad_words_ids": [[5], [6]]}, "suppress_ids", (5, 6)),
        ({"bad_words_ids": [[5], [1]], "eos_token_id": [1]}, "suppress_ids", (5,)),
        ({"sequence_bias": [[[7], -3.5], [[8], 2]]}, "logit_bias", {7: -3.5, 8: 2}),
    ],
)
def test_what_has_a_twin_is_done(
    tmp_path: Path, fields: dict[str, Any], field: str, value: Any
) -> None:
    found = read(tmp_path, **fields)
    assert getattr(found.params, field) == value and found.notes == ()


# A value of each other field that asks for something.
ASKED = {
    "max_length": 100,
    "min_length": 3,
    "early_stopping": True,
    "max_time": 2.0,
    "num_beams": 4,
    "use_mtp": True,
    "top_h": 0.4,
    "typical_p": 0.9,
    "epsilon_cutoff": 3e-4,
    "eta_cutoff": 3e-4,
    "encoder_repetition_penalty": 1.5,
    "length_penalty": 2.0,
    "no_repeat_ngram_size": 3,
    "renormalize_logits": True,
    "forced_bos_token_id": 5,
    "forced_eos_token_id": 5,
    "remove_invalid_values": True,
    "exponential_decay_length_penalty": [10, 1.1],
    "token_healing": True,
    "guidance_scale": 1.5,
    "watermarking_config": {"bias": 2.0},
    "num_return_sequences": 2,
    "encoder_no_repeat_ngram_size": 3,
    "penalty_alpha": 0.6,
    "dola_layers": "high",
    "diversity_penalty": 1.0,
    "num_beam_groups": 2,
    "constraints": [{}],
    "force_words_ids": [[5]],
    "bad_words_ids": [[5, 6]],
    "sequence_bias": [[[5, 6], 1.0]],
    "a_field_of_tomorrow": 1,
    "temprature": 0.5,
}


@pytest.mark.parametrize("name", ASKED)
def test_everything_else_is_said(tmp_path: Path, name: str) -> None:
    (note,) = read(tmp_path, **{name: ASKED[name], "top_k": 5}).notes
    assert name in note and "top_k" not in note and "not done here" in note


def test_what_asks_for_nothing_is_not_said(tmp_path: Path) -> None:
    neutral = {name: values[0] for name, values in GENERATION.items() if values}
    assert read(tmp_path, **neutral | {"do_sample": None}).notes == ()
    assert read(tmp_path, **dict.fromkeys(GENERATION)).notes == ()
    assert read(tmp_path, **dict.fromkeys(_BOOKKEEPING, 3)).notes == ()


def test_every_field_of_transformers_is_known() -> None:
    transformers = pytest.importorskip("transformers")
    own = {name for name in vars(transformers.GenerationConfig()) if name != "generation_kwargs"}
    source = inspect.getsource(transformers.GenerationConfig.__init__)
    popped = {part.split('"')[0] for part in source.split('kwargs.pop("')[1:]}
    assert len(popped) > 60
    unknown = (own | popped) - GENERATION.keys() - _DONE - _BOOKKEEPING
    assert not {name for name in unknown if not name.startswith("_")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "must hold a JSON object"),
        ('{"top_p": 3}', "top_p must be"),
        ('{"temperature": "hot"}', "temperature must be"),
        ('{"temperature": {}}', "temperature must be"),
        ('{"temperature": 1' + "0" * 400 + "}", "temperature must be"),
        ('{"top_p": NaN}', "top_p must be"),
        ('{"stop_strings": 5}', "stop"),
        ('{"stop_strings": [5]}', "stop must hold strings"),
        ('{"eos_token_id": "x"}', "eos_token_id must be token ids"),
        ('{"eos_token_id": [true]}', "eos_token_id must be token ids"),
        ('{"eos_token_id": 100}', "names token 100"),
        ('{"suppress_tokens": [100]}', "suppress_ids names token 100"),
        ('{"suppress_tokens": [-1]}', "suppress_tokens must be token ids"),
        ('{"suppress_tokens": {}}', "suppress_tokens must be token ids"),
        ('{"min_new_tokens": 2.5}', "min_tokens must be"),
        ('{"begin_suppress_tokens": [100]}', "begin_suppress_ids names token 100"),
        ('{"bad_words_ids": [5]}', "bad_words_ids must be a list of lists"),
        ('{"bad_words_ids": 5}', "bad_words_ids must be a list of lists"),
        ('{"sequence_bias": {"[5]": 1}}', "sequence_bias must be a list of lists"),
        ('{"sequence_bias": [[[100], 1]]}', "logit_bias names token 100"),
        ('{"top_k": 1' + "0" * 400 + ".5}", "top_k must be"),
        ('{"top_k": 1, "top_k": 2}', "'top_k' stands there twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read_defaults(tmp_path, V)
    assert str(tmp_path / "generation_config.json") in str(caught.value)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_config_json_counts_where_there_is_no_other_file(tmp_path: Path) -> None:
    asked = {"repetition_penalty": 1.2, "suppress_tokens": [5], "num_beams": 4, "eos_token_id": 7}
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 3, "top_k": 50} | asked))
    found = read_defaults(tmp_path, V)
    assert found.params.repetition_penalty == 1.2 and found.params.suppress_ids == (5,)
    assert found.stop_ids == {7} and found.params.top_k == 0
    assert "num_beams=4" in found.notes[0] and "hidden_size" not in found.notes[0]
    # Beside another file that says otherwise it is said; what both say is not.
    found = read(tmp_path, eos_token_id=[1], repetition_penalty=1.2)
    assert found.stop_ids == {1} and found.params.suppress_ids == ()
    (note,) = found.notes
    assert "suppress_tokens=[5]" in note and "num_beams=4" in note and "repetition" not in note


@pytest.mark.parametrize("how", ["convert", "quantize"])
def test_what_config_json_asked_for_outlives_a_conversion(tmp_path: Path, how: str) -> None:
    folder = write_toy(tmp_path / "m")
    edit_config(folder, eos_token_id=[1, 7], repetition_penalty=1.2, suppress_tokens=[5])
    expected = read_defaults(folder, 512)
    if how == "convert":
        checkpoints.convert(folder, tmp_path / "out", "deepmind-torch")
    else:
        checkpoints.quantize(folder, tmp_path / "out", "int8")
    assert read_defaults(tmp_path / "out", 512) == expected
    assert expected.stop_ids == {1, 7} and expected.params.suppress_ids == (5,)
    # Where nothing is asked for there is no such file.
    plain = write_toy(tmp_path / "plain")
    checkpoints.convert(plain, tmp_path / "without")
    assert not (tmp_path / "without" / "generation_config.json").exists()


def test_a_model_is_loaded_with_it(tmp_path: Path) -> None:
    plain = griffin.load(write_toy(tmp_path / "plain"), device="cpu")
    first = plain.generate("x", temperature=0, max_tokens=1).ids[0]
    folder = write_toy(
        tmp_path / "m", suppress_tokens=[first], stop_strings=["qqq"], num_beams=4, do_sample=False
    )
    with pytest.warns(CheckpointWarning, match="num_beams=4"):
        llm = griffin.load(folder, device="cpu")
    assert llm.defaults.stop == ("qqq",)
    assert first not in llm.generate("x", max_tokens=20).ids
    # A bias of the caller's own does not take it away.
    assert first not in llm.generate("x", max_tokens=3, logit_bias={first: 100}).ids
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        griffin.load(tmp_path / "plain", device="cpu")
