from __future__ import annotations

import random

import numpy as np
import pytest

from griffin.train.data.split import Overlap, fate_of, line_hashes, split


def _text(seed: object, lines: int = 20) -> str:
    chance = random.Random(str(seed))
    return "".join(f"{chance.randrange(10**9)} {'x' * 40}\n" for _ in range(lines))


def _split(texts: dict[str, str], share: float = 0.3) -> tuple[set[str], Overlap]:
    fates = np.asarray([fate_of(name.encode()) for name in texts])
    lines = [line_hashes(text) for text in texts.values()]
    starts = np.cumsum([0, *map(len, lines)])
    held, overlap = split(fates, starts, np.concatenate(lines), share)
    return {name for name, out in zip(texts, held, strict=True) if out}, overlap


def test_hashes_are_the_same_everywhere() -> None:
    """Values written down once: the split of a released model must never change."""
    assert fate_of(b"a0.py") == pytest.approx(0.00061232, abs=1e-7)
    assert line_hashes(f"short\n  {'a' * 41}\t\r\n{'a' * 41}\n").tolist() == [17876681648773448471]
    assert len(line_hashes("short\nlines\n")) == len(line_hashes("")) == 1


def test_a_near_copy_of_training_is_trained_on() -> None:
    texts = {f"d{n}": _text(n) for n in range(60)}
    held, overlap = _split(texts)
    assert len(held) > 5 and overlap == Overlap(20 * len(held), 0)
    first, second = sorted(held)[:2]
    trained = min(texts.keys() - held)
    # two lines of twenty are a tenth; one is not
    texts[first] = _text("new", 18) + "".join(texts[trained].splitlines(True)[:2])
    texts[second] = _text("other", 19) + texts[trained].splitlines(True)[3]
    after, overlap = _split(texts)
    assert after == held - {first}
    assert overlap == Overlap(20 * len(after), 1) and str(overlap).startswith("0.")


def test_what_repeats_what_went_to_training_follows() -> None:
    """a repeats training, b repeats a alone: both go; the order of documents does not matter."""
    texts = {f"d{n}": _text(n) for n in range(60)}
    held, _ = _split(texts)
    first, second = sorted(held)[:2]
    lines = texts[first].splitlines(True)
    texts[first] = "".join([*lines[:10], *_text(min(texts.keys() - held)).splitlines(True)[:5]])
    texts["d" + min(texts.keys() - held)[1:]] += texts[first].splitlines(True)[-1]
    texts[second] = "".join(lines[:10]) + _text("own", 10)
    texts[min(texts.keys() - held)] += "".join(texts[first].splitlines(True)[-5:])
    after, _ = _split(texts)
    assert after == held - {first, second}
    names = list(texts)
    random.Random(1).shuffle(names)
    assert _split({name: texts[name] for name in names})[0] == after


def test_adding_documents_moves_only_what_they_repeat() -> None:
    texts = {f"d{n}": _text(n) for n in range(60)}
    held, _ = _split(texts)
    copied = min(held)
    added = texts | {f"e{n}": _text(f"e{n}") for n in range(60)}
    more, _ = _split(added)
    assert more & texts.keys() == held
    twin = next(f"t{n}" for n in range(99) if fate_of(f"t{n}".encode()) > 0.3)
    assert _split(added | {twin: texts[copied]})[0] == more - {copied}


def test_no_side_is_empty_even_of_copies() -> None:
    texts = {f"d{n}": _text("the same") for n in range(20)}
    for share in (1e-9, 0.3, 1 - 1e-9):
        held, overlap = _split(texts, share)
        assert 0 < len(held) < 20
        assert overlap.share == 1.0
    # copies of each other alone may be held out together
    twins = {"a0.py": "one text", "b": "other", "c": "third"}
    assert _split(twins, 0.01)[0] == {"a0.py"}


def test_pieces_do_not_change_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"d{n}": _text(n % 40, 30) for n in range(60)}
    expected = _split(texts)
    monkeypatch.setattr("griffin.train.data.split._CHUNK", 7)
    assert _split(texts) == expected
