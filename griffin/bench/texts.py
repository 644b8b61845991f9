"""The texts that drafts are measured with, one of each kind, the same in every run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).parents[1]
_TEXTS = _PACKAGE / "data" / "texts"


class Excerpt(NamedTuple):
    """A text, its beginning given and the rest answered.

    prompt: "" where its first tokens are, so many as are asked for.
    """

    prompt: str
    answer: str


def excerpts() -> dict[str, Excerpt]:
    """Return the texts by their kinds.

    English: prose of griffin's own documentation, on reading and sessions. JSON: made-up records,
    of which only the values differ. Python: a file of this package. edit: a file of this package
    before a commit, and written again as it was after it.
    """
    return {
        "English": Excerpt("", (_TEXTS / "english.txt").read_text("utf-8")),
        "JSON": Excerpt("", _records()),
        "Python": Excerpt("", (_PACKAGE / "model" / "griffin.py").read_text("utf-8")),
        "edit": Excerpt(
            (_TEXTS / "edit-before.txt").read_text("utf-8") + "\n\n",
            (_TEXTS / "edit-after.txt").read_text("utf-8"),
        ),
    }


def _records(count: int = 40) -> str:
    """Return orders as a program would send them."""
    draw = random.Random(0)
    things = ("lamp", "chair", "kettle", "mirror", "carpet", "shelf", "candle")
    towns = ("Lyon", "Bergen", "Porto", "Gdansk", "Graz", "Turku")
    records = [
        {
            "id": 1000 + draw.randrange(9000),
            "customer": {"name": f"customer {draw.randrange(500)}", "town": draw.choice(towns)},
            "items": [
                {
                    "thing": draw.choice(things),
                    "count": draw.randint(1, 9),
                    "price": draw.randrange(500, 20_000) / 100,
                }
                for _ in range(draw.randint(1, 3))
            ],
            "paid": draw.random() < 0.7,
            "note": None,
        }
        for _ in range(count)
    ]
    return json.dumps(records, indent=2)
