"""Questions and answers by rule, over what the sources say: several wordings, short answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from mini.manuals import Command
from mini.python_texts import Function, first_sentence
from mini.skills import Question
from mini.split import held_out
from mini.wordnet import PART_OF_SPEECH, Sense, WordNet

LONGEST = 240  # characters of an answer: under 60 tokens


def asked_of(words: Sequence[str], random: Random, subject: str) -> str:
    """Return a question about a subject, in a wording that is drawn."""
    return random.choice(words).format(subject)


def meanings(net: WordNet, random: Random) -> Iterator[Question]:
    """Ask what common words mean."""
    kinds = {
        "n": ("What is {a} {w}?", "What does {w} mean?", "Define {w}.", "Explain: {w}"),
        "v": ("What does it mean to {w}?", "What does the verb {w} mean?", "Define: to {w}."),
        "a": ("What does {w} mean?", "What does it mean to be {w}?"),
        "s": ("What does {w} mean?", "What does it mean to be {w}?"),
        "r": ("What does {w} mean?",),
    }
    for part, asks in kinds.items():
        for word, sense in common_words(net, part):
            if len(sense.gloss) <= LONGEST - 40:
                asked = random.choice(asks).format(w=word, a=article(word))
                start = {"n": f"{article(word).capitalize()} {word} is", "v": f"To {word} is to"}
                answer = f"{start.get(part, f'{capital(word)} means')} {sense.gloss}."
                yield Question(f"meaning {sense.key}", asked, answer)


def kinds(net: WordNet, random: Random) -> Iterator[Question]:
    """Ask what kind of thing a noun names. The senses that are held out are an examination."""
    asks = ("What kind of thing is {a} {w}?", "{A} {w} is a kind of what?", "Classify: {w}")
    for word, sense in common_words(net, "n"):
        above = [net.senses[key].words[0] for key in sense.hypernyms if key in net.senses]
        if above and above[0].lower() not in (word.lower(), "entity"):
            a = article(word)
            asked = random.choice(asks).format(w=word, a=a, A=a.capitalize())
            answer = f"{a.capitalize()} {word} is a kind of {above[0]}."
            yield Question(f"kind {sense.key}", asked, answer, above[0])


def yes_or_no(net: WordNet, random: Random) -> Iterator[Question]:
    """Ask whether a thing is of a kind: half of the answers are no, from kinds asked elsewhere."""
    pairs: list[tuple[str, Sense, list[str]]] = []
    for word, sense in common_words(net, "n", 2):
        above = [net.senses[key].words[0] for key in net.above(sense.key)]
        if len(above) > 3:
            pairs.append((word, sense, above))
    for word, sense, above in pairs:
        is_so = random.random() < 0.5
        other = random.choice(pairs)[2]
        kind = random.choice((above if is_so else other)[:4])
        is_so = kind in above
        if kind != word:
            a, b = article(word), article(kind)
            asked = random.choice(
                (f"Is {a} {word} {b} {kind}?", f"Is {a} {word} a kind of {kind}?")
            )
            said = "Yes" if is_so else "No"
            answer = f"{said}, {a} {word} is {'' if is_so else 'not '}{b} {kind}."
            # What a held-out sense is a kind of is not told here either.
            yield Question(f"{sense.key} {kind}", asked, answer, said, f"kind {sense.key}")


def opposites(net: WordNet, random: Random) -> Iterator[Question]:
    """Ask for the opposite of a word."""
    asks = ("What is the opposite of {}?", "Opposite of {}?", "Name the antonym of {}.")
    for sense in net.senses.values():
        for own, key, theirs in sense.opposites:
            other = net.senses.get(key)
            if other is not None and 0 <= own < len(sense.words) and theirs < len(other.words):
                word, against = sense.words[own], other.words[theirs]
                answer = f"The opposite of {word} is {against}."
                asked = asked_of(asks, random, word)
                topic = "opposite " + " ".join(sorted((word, against)))
                yield Question(f"opposite {word}", asked, answer, against, topic)


def synonyms(net: WordNet, random: Random) -> Iterator[Question]:
    """Ask for another word of the same meaning."""
    asks = ("What is another word for {}?", "Give a synonym of {}.")
    for part in ("n", "v", "a", "s"):
        for word, sense in common_words(net, part, 2):
            others = [each for each in sense.words if each != word]
            if others:
                answer = f"Another word for {word} ({PART_OF_SPEECH[part]}) is {others[0]}."
                asked = asked_of(asks, random, word)
                key = f"synonym {sense.key}"
                yield Question(f"{key} {word}", asked, answer, others[0], key)


def of_python(functions: Iterable[Function], random: Random) -> Iterator[Question]:
    """Ask what a function does, how it is called, and which one does a thing."""
    does = ("What does {} do?", "What is {} for?", "Explain {}.", "What does the function {} do?")
    which = ("Which function does this: {}", "What is the name of this function: {}")
    for name, signature, what in functions:
        if len(what) <= LONGEST:
            yield Question(f"python {name}", asked_of(does, random, name), what)
            if name.count(".") == 1 and random.random() < 0.5:
                yield Question(f"which {name}", asked_of(which, random, what), f"{name}", name)
            if "(" in signature and len(signature) < 80 and random.random() < 0.3:
                asked = asked_of(
                    ("How is {} called?", "What are the arguments of {}?"), random, name
                )
                yield Question(f"call {name}", asked, signature)


def of_commands(commands: Iterable[Command], random: Random) -> Iterator[Question]:
    """Ask what a command does, and how it is called."""
    does = ("What does `{}` do?", "What is the command {} for?", "What does {} do in a shell?")
    for command in commands:
        if len(command.what) <= LONGEST:
            for ask in does:
                key = f"command {command.name} {ask}"
                yield Question(key, ask.format(command.name), command.what)
            asked = f"How do I call `{command.name}`?"
            yield Question(f"usage {command.name}", asked, command.usage[:LONGEST])


def of_entries(
    entries: Iterable[tuple[str, str]], where: str, random: Random
) -> Iterator[Question]:
    """Ask how a dictionary defines a word: the first sentence of its entry."""
    asks = ("What is {} in " + where + "?", "How does " + where + " define {}?")
    for word, entry in entries:
        body = entry.split("n.", 1)[-1] if "n." in entry[:60] else entry.partition("\n")[2]
        sentence = first_sentence(body.strip().lstrip("1. "))
        if sentence and len(word) < 30:
            shown = word.lower() if word.isupper() else word
            yield Question(f"{where} {shown}", asked_of(asks, random, shown), sentence)


_UNKNOWN = ("I don't know what {a} {w} is.", "I don't know {w}.", "I don't know that word: {w}.")


def made_up(net: WordNet, random: Random, count: int) -> Iterator[Question]:
    """Ask for names that nobody has: the honest answer is that they are not known."""
    starts = (
        "bl",
        "br",
        "dr",
        "fl",
        "fr",
        "gl",
        "gr",
        "kl",
        "m",
        "n",
        "pl",
        "qu",
        "sn",
        "tr",
        "v",
        "z",
    )
    middles = ("a", "e", "i", "o", "u", "oo", "ee", "ai")
    ends = ("b", "ck", "dle", "ff", "g", "lm", "mp", "nk", "ndle", "rb", "rt", "x", "zz", "ster")
    asks = (
        "What is {a} {w}?",
        "What does {w} mean?",
        "Define {w}.",
        "What kind of thing is {a} {w}?",
    )
    while count:
        word = "".join(random.choice(part) for part in (starts, middles, ends))
        if random.random() < 0.4:
            word = random.choice(starts) + random.choice(middles) + word
        if word not in net.words:
            count -= 1
            a = article(word)
            asked = random.choice(asks).format(a=a, w=word)
            answer = random.choice(_UNKNOWN).format(a=a, w=word)
            yield Question(f"unknown {word}", asked, answer, "I don't know")


ABOUT = {
    "Who are you?": "I am a very small language model. I can do a few things, and I make mistakes.",
    "What are you?": "A small Griffin model: I read text and write what may come next.",
    "Are you a person?": "No, I am a small program.",
    "What is your name?": "I have no name. I am a small Griffin model.",
    "How big are you?": "I have about 5 million weights, which is very little.",
    "What can you do?": "Small sums, spelling, counting, words, Python's library and commands.",
    "Can you browse the web?": "No. I know only what I was trained on.",
    "Thank you.": "You are welcome.",
    "Thanks!": "You are welcome.",
    "Goodbye.": "Goodbye.",
    "Bye": "Goodbye.",
}


def about_itself() -> Iterator[Question]:
    """Ask the model about itself, also as people type in a hurry."""
    for asked, answer in ABOUT.items():
        for typed in (asked, asked.lower(), asked.lower().rstrip("?!.")):
            yield Question(f"about {asked}", typed, answer)


# What a small model should not be the one to explain.
_COARSE = re.compile(
    r"offensive|disparag|derogat|vulgar|obscen|slur|slang|ethnic|sexual|genital|\bsex\b|intercour",
    re.IGNORECASE,
)


def common_words(net: WordNet, part: str, least: int = 1) -> Iterator[tuple[str, Sense]]:
    """Yield common words of a part as they are written, without coarse ones."""
    for word, sense in net.common(part, least):
        if not _COARSE.search(sense.gloss):
            yield written(word, sense), sense


def article(word: str) -> str:
    """Return "an" before a vowel's letter, "a" before others."""
    return "an" if word[:1].lower() in "aeiou" else "a"


def written(word: str, sense: Sense) -> str:
    """Return a word as the sense writes it, with its capitals."""
    return next((each for each in sense.words if each.lower() == word), word)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def split(questions: Iterable[Question]) -> tuple[list[Question], list[Question]]:
    """Return what is learned, and what is held out for examinations."""
    sides: tuple[list[Question], list[Question]] = [], []
    for question in questions:
        sides[held_out(question.topic or question.key)].append(question)
    return sides
