"""Skills with exact answers, made by program: each draws questions from a generator of its own."""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Callable
from random import Random
from typing import NamedTuple


class Question(NamedTuple):
    """A question and its answer.

    key: what is asked, apart from its wording: two questions of one key have one answer.
    exact: the part of the answer that an examination compares; the answer where it is empty.
    topic: questions of one topic are on the same side of the split between training and
         examination, because one's answer would tell the other's; the key where it is empty.
    """

    key: str
    asked: str
    answer: str
    exact: str = ""
    topic: str = ""


Skill = Callable[[Random, list[str]], Question]


def sums(random: Random, words: list[str]) -> Question:
    """Add or subtract numbers of up to two digits."""
    a, b = random.randrange(100), random.randrange(100)
    if random.random() < 0.5:
        asks = ("What is {} + {}?", "{} + {} =", "Add {} and {}.", "How much is {} plus {}?")
        ask = random.choice((*asks, "{} + {}", "{}+{}"))
        topic = "{}+{}".format(*sorted((a, b)))
        return Question(f"{a}+{b}", ask.format(a, b), _worked(a, "+", b), str(a + b), topic)
    a, b = max(a, b), min(a, b)
    asks = ("What is {} - {}?", "{} - {} =", "How much is {} minus {}?", "{} - {}", "{}-{}")
    ask = random.choice(asks)
    return Question(f"{a}-{b}", ask.format(a, b), _worked(a, "-", b), str(a - b))


def _worked(a: int, sign: str, b: int) -> str:
    """Return how a sum is reckoned, tens, then units, then both: each line of a small table."""
    of = 1 if sign == "+" else -1
    borrowed = 10 if sign == "-" and a % 10 < b % 10 else 0
    tens, ones = (a // 10 * 10 - borrowed, b // 10 * 10), (a % 10 + borrowed, b % 10)
    # Nothing is reckoned with a 0; 0 and 12 of 12 are no tens.
    parts = [pair for pair in (tens, ones) if pair[1] and (pair[0] or sign == "-")]
    steps = [f"{x} {sign} {y} = {x + of * y}" for x, y in parts]
    total = str(a + of * b)
    if not steps or steps[-1].split()[-1] != total:
        t, u = (x + of * y for x, y in (tens, ones))
        steps.append(f"{t} + {u} = {total}" if steps else f"{a} {sign} {b} = {total}")
    return "; ".join(steps)


def products(random: Random, words: list[str]) -> Question:
    """Multiply numbers of the tables up to twelve."""
    a, b = random.randrange(13), random.randrange(13)
    ask = random.choice(("What is {} * {}?", "How much is {} times {}?", "Multiply {} by {}."))
    return Question(f"{a}*{b}", ask.format(a, b), f"{a} * {b} = {a * b}", str(a * b))


_UNITS = (
    *(("kilometre", "metre", 1000), ("metre", "centimetre", 100), ("hour", "minute", 60)),
    *(("minute", "second", 60), ("day", "hour", 24), ("week", "day", 7), ("dozen", "piece", 12)),
    *(("kilogram", "gram", 1000), ("litre", "millilitre", 1000), ("byte", "bit", 8)),
    *(("foot", "inch", 12), ("yard", "foot", 3), ("year", "month", 12), ("pound", "ounce", 16)),
)
_PLURALS = {"foot": "feet", "inch": "inches", "dozen": "dozens"}


def units(random: Random, words: list[str]) -> Question:
    """Turn a number of one unit into a smaller one."""
    large, small, factor = random.choice(_UNITS)
    count = random.randrange(1, 21)
    many, few = _plural(small, 2), _plural(large, count)
    ask = random.choice(
        ("How many {many} are in {count} {few}?", "Convert {count} {few} to {many}.")
    )
    answer = f"{count} {few} are {count * factor} {many}."
    if count == 1:
        answer = f"1 {large} is {factor} {many}."
    asked = ask.format(many=many, count=count, few=few)
    return Question(f"{count} {large} {small}", asked, answer, str(count * factor))


def _plural(unit: str, count: int) -> str:
    return unit if count == 1 else _PLURALS.get(unit, unit + "s")


def dates(random: Random, words: list[str]) -> Question:
    """Say what comes after a day, or how long a month is."""
    if random.random() < 0.5:
        start, step = random.randrange(7), random.randrange(1, 8)
        day, then = calendar.day_name[start], calendar.day_name[(start + step) % 7]
        asked = random.choice(
            ("Today is {}. What day is it in {}?", "What day comes {1} after {0}?")
        ).format(day, f"{step} day" if step == 1 else f"{step} days")
        return Question(f"{day}+{step}", asked, f"It is {then}.", then)
    year, month = random.randrange(1900, 2100), random.randrange(1, 13)
    name = calendar.month_name[month]
    days = calendar.monthrange(year, month)[1]
    following = datetime.date(year, month, days) + datetime.timedelta(days=1)
    if random.random() < 0.5:
        asked = f"How many days has {name} {year}?"
        return Question(f"{name} {year}", asked, f"{name} {year} has {days} days.", str(days))
    last = f"{name} {days}, {year}"
    answer = f"{calendar.month_name[following.month]} 1, {following.year}"
    return Question(last, f"What is the day after {last}?", f"{answer}.", answer)


def spelling(random: Random, words: list[str]) -> Question:
    """Write a word letter by letter. In quotes a word is cut into pieces that others have, too."""
    word = random.choice(words)
    ask = random.choice(('Spell "{}".', 'How do you spell "{}"?', 'Write "{}" letter by letter.'))
    spelt = "-".join(word)
    return Question(f"spell {word}", ask.format(word), spelt, spelt, f"word {word}")


def counting(random: Random, words: list[str]) -> Question:
    """Count the letters of a word, or one letter in it: each time it comes, its number is said."""
    word = random.choice(words)
    spelt = "-".join(word)
    if random.random() < 0.5:
        ask = random.choice(('How many letters has "{}"?', 'Count the letters of "{}".'))
        answer = f"{spelt}: {len(word)} letters."
        key, topic = f"letters {word}", f"word {word}"
        return Question(key, ask.format(word), answer, str(len(word)), topic)
    letter = random.choice(word) if random.random() < 0.8 else random.choice("aeiorst")
    count = word.count(letter)
    ask = random.choice(('How many times does "{1}" occur in "{0}"?', 'How many "{1}" has "{0}"?'))
    times = "time" if count == 1 else "times"
    numbers = iter(range(1, count + 1))
    counted = "-".join(f"{each}{next(numbers)}" if each == letter else each for each in word)
    answer = f"{counted}: {count} {times}."
    key, topic = f"{letter} in {word}", f"word {word}"
    return Question(key, ask.format(word, letter), answer, str(count), topic)


def sorting(random: Random, words: list[str]) -> Question:
    """Put three or four words or numbers in order."""
    count = random.choice((3, 4))
    if random.random() < 0.5:
        drawn: list[str] = random.sample(words, count)
        ordered = sorted(drawn)
    else:
        numbers = random.sample(range(100), count)
        drawn, ordered = [str(n) for n in numbers], [str(n) for n in sorted(numbers)]
    ask = random.choice(("Sort: {}.", "Put in order: {}.", "Sort these: {}."))
    answer = ", ".join(ordered)
    return Question("sort " + " ".join(drawn), ask.format(", ".join(drawn)), answer, answer)


def expressions(random: Random, words: list[str]) -> Question:
    """Say what a short Python expression is."""
    word, number = random.choice(words), random.randrange(2, 10)
    other = random.randrange(2, 10)
    of_word, product = f"word {word}", f"{number}*{other}"
    expression, value, topic = random.choice(
        (
            (f"len({word!r})", len(word), of_word),
            (f"{word!r}.upper()", word.upper(), of_word),
            (f"{word!r}[0]", word[0], of_word),
            (f"{word!r}[-1]", word[-1], of_word),
            (f"{word!r}[:2]", word[:2], of_word),
            (f"{number} * {other}", number * other, product),
            (f"{number} > {other}", number > other, ""),
            (f"max({number}, {other})", max(number, other), ""),
            (f"[{number}, {other}][::-1]", [other, number], ""),
            (f"{word[:4]!r} + {word[-1]!r}", word[:4] + word[-1], of_word),
            (f"sorted([{number}, {other}])", sorted([number, other]), ""),
            (f"list(range({other}))", list(range(other)), ""),
        )
    )
    ask = random.choice(("What is {}?", "What does {} give?", ">>> {}"))
    return Question(expression, ask.format(expression), repr(value), repr(value), topic)


SKILLS: dict[str, Skill] = {
    "sums": sums,
    "products": products,
    "units": units,
    "dates": dates,
    "spelling": spelling,
    "counting": counting,
    "sorting": sorting,
    "expressions": expressions,
}
