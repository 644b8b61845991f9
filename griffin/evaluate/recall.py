"""Questions about long texts that are made up: each has one right answer, somewhere far back.

No data set is needed: a question is a function of its task, its length and a seed, in any process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, kw_only=True)
class RecallQuestion:
    """A text that ends where an answer must follow, the answer, and where the text gave it.

    fact: characters of the prompt up to the end of the place that holds (the last of) the answer.
    """

    prompt: str
    answer: str
    fact: int


# Make a question about a text of so many units: sentences, entries or words.
Make = Callable[[Random, int, Sequence[str]], RecallQuestion]


def niah(random: Random, units: int, prose: Sequence[str]) -> RecallQuestion:
    """A number stands in one sentence among others of prose, and is asked for at the end."""
    start = random.randrange(max(len(prose) - units, 0) + 1)
    sentences = [prose[(start + n) % len(prose)] for n in range(units)]
    city, number = _word(random).capitalize(), random.randrange(1_000_000, 10_000_000)
    at = random.randrange(len(sentences) + 1)
    before = " ".join([*sentences[:at], f"The secret number of {city} is {number}."])
    after = " ".join(["", *sentences[at:]])
    question = f"\n\nThe secret number of {city} is"
    return RecallQuestion(prompt=before + after + question, answer=f" {number}", fact=len(before))


def phonebook(random: Random, units: int, prose: Sequence[str]) -> RecallQuestion:
    """Names with numbers, a line each; one of the names is asked for (Griffin, section 6.2)."""
    names = _distinct(random, units, lambda: f"{_name(random)} {_name(random)}")
    lines = [
        f"{name}: {random.randrange(100, 1000)}-{random.randrange(10_000):04}\n" for name in names
    ]
    at = random.randrange(len(names))
    name, _, number = lines[at].rstrip("\n").partition(":")
    fact = sum(map(len, lines[: at + 1]))
    return RecallQuestion(prompt="".join(lines) + f"\n{name}:", answer=number, fact=fact)


def copy(random: Random, units: int, prose: Sequence[str]) -> RecallQuestion:
    """Words in no order, which then follow again."""
    words = " ".join(_word(random) for _ in range(units))
    shown = f"Text: {words}\n"
    return RecallQuestion(prompt=f"{shown}Text:", answer=f" {words}", fact=len(shown))


COPIED = 16


def selective_copy(random: Random, units: int, prose: Sequence[str]) -> RecallQuestion:
    """Sixteen words among stops, which follow again without these (Griffin, section 6.2)."""
    units = max(units, COPIED)
    places = sorted(random.sample(range(units), COPIED))
    words = [_word(random) for _ in places]
    shown = ["."] * units
    for place, word in zip(places, words, strict=True):
        shown[place] = word
    begun = " ".join(shown[: places[-1] + 1])
    prompt = " ".join(["Words:", *shown]) + "\nWords:"
    return RecallQuestion(
        prompt=prompt, answer=" " + " ".join(words), fact=len("Words: ") + len(begun)
    )


def induction(random: Random, units: int, prose: Sequence[str]) -> RecallQuestion:
    """Words in no order; one of them comes again at the end, and what followed it is asked for."""
    words = _distinct(random, max(units, 2), lambda: _word(random))
    at = random.randrange(len(words) - 1)
    fact = len(" ".join(words[: at + 2]))
    return RecallQuestion(
        prompt=" ".join([*words, words[at]]), answer=f" {words[at + 1]}", fact=fact
    )


def recall(random: Random, units: int, prose: Sequence[str]) -> RecallQuestion:
    """Keys with values as JSON writes them; the value of one key is asked for."""
    keys = _distinct(random, units, lambda: f"{random.getrandbits(32):08x}")
    pairs = [f"{json.dumps(key)}: {json.dumps(f'{random.getrandbits(32):08x}')}" for key in keys]
    at = random.randrange(len(pairs))
    before = "{" + ", ".join(pairs[: at + 1])
    after = ", ".join(["", *pairs[at + 1 :]]) + "}"
    key, _, value = pairs[at].partition(": ")
    question = f'\nThe value of {key} is "'
    return RecallQuestion(
        prompt=before + after + question, answer=value.strip('"'), fact=len(before)
    )


TASKS: dict[str, Make] = {
    "niah": niah,
    "phonebook": phonebook,
    "copy": copy,
    "selective_copy": selective_copy,
    "induction": induction,
    "recall": recall,
}


def sized(
    task: str,
    tokens: int,
    number: int,
    *,
    seed: int,
    count: Callable[[str], int],
    prose: Sequence[str] = (),
) -> RecallQuestion:
    """Return question `number` of a task whose text and answer have at most so many tokens.

    It is the longest in whole units that the search finds: nearly always within one of them.
    count: tokens of a text. prose: sentences for `niah`; made up where there are none.
    The same arguments give the same question, in every process.
    Raises ValueError for an unknown task, and where not even one unit fits.
    """
    check_task(task)
    sentences = list(prose) or made_up_prose(seed)

    def made(units: int) -> tuple[RecallQuestion, int]:
        asked = TASKS[task](Random(f"{seed} {task} {tokens} {number}"), units, sentences)
        return asked, count(asked.prompt + asked.answer)

    fits, units, least = 0, max(tokens // 8, 1), None
    for _ in range(40):
        _, size = made(units)
        if size <= tokens:
            fits = max(fits, units)
        else:
            least = units if least is None else min(least, units)
        if least is not None and least - fits <= 1:
            break
        # Where the size would be reached if all units were alike; inside what is known.
        guess = max(int(units * tokens / size), 1)
        units = guess if guess > fits else fits + 1
        units = units if least is None or units < least else (fits + least) // 2
    if not fits:
        raise ValueError(f"the shortest question of {task} has {made(1)[1]} tokens, not {tokens}")
    return made(fits)[0]


_NOUNS = ("river", "road", "house", "garden", "letter", "window", "field", "boat", "tower", "storm")
_VERBS = ("follows", "hides", "carries", "remembers", "crosses", "leaves", "watches", "finds")
_KINDS = ("old", "quiet", "small", "green", "heavy", "distant", "bright", "empty", "narrow")


def made_up_prose(seed: int, sentences: int = 400) -> list[str]:
    """Return sentences of simple words, for texts in which something is to be found."""
    random = Random(f"{seed} prose")
    return [
        f"The {random.choice(_KINDS)} {random.choice(_NOUNS)} {random.choice(_VERBS)} the"
        f" {random.choice(_KINDS)} {random.choice(_NOUNS)}."
        for _ in range(sentences)
    ]


def sentences_of(text: str) -> list[str]:
    """Return a text's sentences, lines joined: the prose of one's own for `niah`."""
    words, sentence, found = text.split(), list[str](), list[str]()
    for word in words:
        sentence.append(word)
        if word.endswith((".", "!", "?")) or len(sentence) == 60:
            found.append(" ".join(sentence))
            sentence = []
    return [*found, " ".join(sentence)] if sentence else found


def check_task(name: str) -> None:
    """Raise ValueError, naming all tasks, for one that there is not."""
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; there are {', '.join(TASKS)}")


def _word(random: Random) -> str:
    """Return a word that can be said and that no dictionary has."""
    consonants, vowels = "bdfghklmnprstvz", "aeiou"
    return "".join(
        random.choice(consonants) + random.choice(vowels) for _ in range(random.choice((2, 2, 3)))
    )


def _name(random: Random) -> str:
    return _word(random).capitalize()


def _distinct(random: Random, count: int, draw: Callable[[], str]) -> list[str]:
    """Return so many that are drawn, no two alike; from where they run short, numbered."""
    found: dict[str, None] = {}
    for number in range(count):
        each = draw()
        for _ in range(20):
            if each not in found:
                break
            each = draw()
        found[each if each not in found else f"{each}{number}"] = None
    return list(found)
