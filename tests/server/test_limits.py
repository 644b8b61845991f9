"""The bounds of a server: checked, named by their flags, and each an option of `griffin serve`."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from griffin.cli.serve import command
from griffin.server.limits import Limits
from griffin.server.settings import Settings


def test_limits_are_checked_and_name_their_flags():
    assert Limits.flag("max_prompt_tokens") == "--max-prompt-tokens"
    for wrong in (0, -1, 1.5, True, "5", 2**63):
        with pytest.raises(ValueError, match="max_stop must be a whole number"):
            Limits(max_stop=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="default_max_tokens=1024 is more than max_tokens=10"):
        Limits(max_tokens=10)


def test_settings_are_above_nothing():
    for field in dataclasses.fields(Settings):
        with pytest.raises(ValueError, match=f"{field.name} must be above 0, not 0"):
            Settings(**{field.name: 0})


def test_every_bound_is_an_option():
    options: dict[str | None, Any] = {option.name: option for option in command.params}
    for kind in (Limits, Settings):
        for field in dataclasses.fields(kind):
            if field.name == "vocab_size":  # the tokenizer's
                continue
            option = options[field.name]
            assert option.opts == ["--" + field.name.replace("_", "-")]
            assert option.default == field.default and type(option.default) is type(field.default)
            assert option.help and not option.hidden
    assert "vocab_size" not in options
