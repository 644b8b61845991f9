"""`--metadata`: what tasks that make their texts are told."""

from __future__ import annotations

import json
from typing import Any

import click


class JsonObject(click.ParamType):
    """An object of JSON, as {"max_seq_lengths": [4096, 8192]}."""

    name = "JSON"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(value)
        except ValueError as error:
            self.fail(f"{value!r} is no JSON: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f'{value!r} is no object; write {{"max_seq_lengths": [4096]}}', param, ctx)
        return found
