"""All texts of the model in the box, as files: what it reads first, questions, examinations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from mini import dictionaries, manners, manuals, python_texts, questions, small_talk, wordnet
from mini.packages import PACKAGES, unpacked
from mini.skills import SKILLS, Question
from mini.split import held_out

SEED = 1
EXAMINED = 500  # questions of an examination
REWARDED = 2_000  # questions of a skill whose answers are paid
# Questions that are drawn for each skill. Few keys have many wordings, so that some stand twice.
DRAWN = 30_000
_OWN = "Apache-2.0"  # what the programs here make
_MANY = "of each turn, its source's"
_BY_HEART = ("small-talk", "itself", "commands", "talk")

Say = Callable[[str], None]


def build(
    out: Path, archives: Path, say: Say, *, drawn: int = DRAWN, wordings: int = 0
) -> dict[str, Any]:
    """Write the corpus into `out` and return its report, which lies there as report.json.

    out:      a folder that is made anew: pretrain/, questions/, exams/, rewarded/ (questions of
              the skills that are learned from, with what is right), licences/, report.json.
    archives: where packages are, or are fetched to.
    wordings: that a question is drawn from at most; all by default.
    Raises PackageError for a package that cannot be had or is another.
    """
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for name in ("pretrain", "questions", "exams", "rewarded", "licences"):
        (part / name).mkdir(parents=True)
    folders = {}
    for package in PACKAGES.values():
        say(f"{package.name} {package.version}")
        folders[package.name] = unpacked(package, archives)
    read = _Read(folders)
    written = _texts(part, read, say) | _questions(part, read, drawn, wordings, say)
    _licences(part / "licences", folders)
    report = {"files": written, "broken": sorted(set(read.broken))}
    (part / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
    return report


class _Read:
    """The sources, each read once: for the texts, and for the questions about them.

    broken: what could not be read of them.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self.broken: list[str] = []
        self.net = wordnet.read(folders["wordnet-base"])
        self.broken.extend(self.net.broken)
        self.library = list(python_texts.library(self.broken))
        self.pages = list(python_texts.documentation(folders["python3.11-doc"], self.broken))
        self.jargon = list(dictionaries.entries(folders["dict-jargon"], "jargon", self.broken))
        self.devil = list(dictionaries.entries(folders["dict-devil"], "devil", self.broken))
        self.commands = list(manuals.commands(folders["toybox"], self.broken))
        self.talk = list(small_talk.pairs(folders["chatterbot-corpus"], self.broken))


def _texts(part: Path, read: _Read, say: Say) -> dict[str, dict[str, int]]:
    texts: dict[str, tuple[str, Iterable[str]]] = {
        "python": ("PSF-2.0", (text for _, text in read.library)),
        "python-docs": ("PSF-2.0", (text for _, text in read.pages)),
        "wordnet": ("WordNet-3.0", _dictionary_of(read.net)),
        "jargon": ("public domain", _gathered(read.jargon)),
        "devil": ("public domain", _gathered(read.devil)),
        "toybox": ("0BSD", (each.text for each in read.commands)),
    }
    counts = {}
    for name, (licence, of) in texts.items():
        lines = ({"text": text, "source": name, "licence": licence} for text in of)
        counts[f"pretrain/{name}"] = _write(part / "pretrain" / f"{name}.jsonl", lines, say)
    return counts


def _gathered(entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield a dictionary's entries, ten in a text."""
    for start in range(0, len(entries), 10):
        yield "\n\n".join(entry for _, entry in entries[start : start + 10])


def _dictionary_of(net: wordnet.WordNet) -> Iterator[str]:
    """Yield WordNet as a dictionary, thirty senses in a text, in an order that is drawn.

    Each sense stands once, under the first of its words: what is held out is nowhere else. Of a
    sense whose kind is asked in an examination no kind is named.
    """
    keys = sorted(net.senses)
    Random(SEED).shuffle(keys)
    for start in range(0, len(keys), 30):
        yield "\n".join(_entry(net, net.senses[key]) for key in keys[start : start + 30])


def _entry(net: wordnet.WordNet, sense: wordnet.Sense) -> str:
    name, *others = sense.words
    line = f"{name} ({wordnet.PART_OF_SPEECH[sense.part]}): {sense.gloss}."
    if others:
        line += f" Also: {', '.join(others)}."
    above = [net.senses[key].words[0] for key in sense.hypernyms if key in net.senses]
    if above and not held_out(f"kind {sense.key}"):
        line += f" A kind of {above[0]}."
    if sense.examples:
        line += f' "{sense.examples[0]}"'
    return line


class _Wordings(Random):
    """Draws as Random does, but of templates of words only one of the first few."""

    most = 0

    def choice(self, seq: Any) -> Any:
        """Return one of a sequence; of a tuple of texts with places to fill in, of the first."""
        if self.most and isinstance(seq, tuple) and all("{" in str(each) for each in seq):
            seq = seq[: self.most]
        return super().choice(seq)


def _questions(
    part: Path, read: _Read, drawn: int, wordings: int, say: Say
) -> dict[str, dict[str, int]]:
    random, net = _Wordings(SEED), read.net
    random.most = wordings
    # To be spelt, counted and sorted: many, so that the letters of their pieces are learned.
    drawn_from = {word for part in "nvasr" for word, _ in questions.common_words(net, part, 3)}
    plain = (word for word in drawn_from if word.isascii() and word.isalpha() and word.islower())
    words = sorted(word for word in plain if 3 <= len(word) <= 9)
    functions = {
        each.name: each
        for module, text in read.library
        for each in python_texts.functions(module, text, read.broken)
    }
    for _, text in read.pages:
        functions |= {each.name: each for each in python_texts.described(text)}
    asked: dict[str, tuple[str, Iterable[Question]]] = {
        "meanings": ("WordNet-3.0", questions.meanings(net, random)),
        "kinds": ("WordNet-3.0", questions.kinds(net, random)),
        "yes-or-no": ("WordNet-3.0", questions.yes_or_no(net, random)),
        "opposites": ("WordNet-3.0", questions.opposites(net, random)),
        "synonyms": ("WordNet-3.0", questions.synonyms(net, random)),
        "python": ("PSF-2.0", questions.of_python(functions.values(), random)),
        "commands": ("0BSD", questions.of_commands(read.commands, random)),
        "jargon": ("public domain", questions.of_entries(read.jargon, "hacker slang", random)),
        "devil": (
            "public domain",
            questions.of_entries(read.devil, "the Devil's Dictionary", random),
        ),
        "small-talk": ("BSD-3-Clause", (Question(f"talk {a}", a, b) for a, b in read.talk)),
        "itself": (_OWN, questions.about_itself()),
        "unknown": (_OWN, questions.made_up(net, random, max(drawn // 10, 50))),
    }
    for name, skill in SKILLS.items():
        asked[name] = _OWN, _each_once(skill(random, words) for _ in range(drawn))
    asked["talk"] = _OWN, manners.talk()
    asked["beyond"] = _OWN, manners.beyond(net, random, max(drawn // 5, 50))
    counts, of = {}, dict[str, list[Question]]()
    for name, (licence, drawn_of) in asked.items():
        learned, exam = questions.split(drawn_of)
        if name in _BY_HEART:  # nothing is to be concluded there
            learned, exam = learned + exam, []
        random.shuffle(learned)
        random.shuffle(exam)
        file = part / "questions" / f"{name}.jsonl"
        lines = (_line(turns, name, licence) for turns in _conversations(learned, random))
        counts[f"questions/{name}"] = _write(file, lines, say)
        lines = (_exam(each) for each in exam[:EXAMINED])
        counts[f"exams/{name}"] = _write(part / "exams" / f"{name}.jsonl", lines, say)
        if name in SKILLS:
            lines = (_exam(each) for each in learned[:REWARDED])
            counts[f"rewarded/{name}"] = _write(part / "rewarded" / f"{name}.jsonl", lines, say)
        if name not in ("small-talk", "itself"):  # talk says what these say, and says it better
            of[name] = learned
    chats = manners.mixed(of, random, max(drawn // 3, 50))
    lines = (_line(turns, "mixed", _MANY) for turns in chats)
    counts["questions/mixed"] = _write(part / "questions" / "mixed.jsonl", lines, say)
    return counts


def _each_once(of: Iterable[Question]) -> Iterator[Question]:
    return iter({question.asked: question for question in of}.values())


def _conversations(learned: list[Question], random: Random) -> Iterator[list[Question]]:
    """Yield conversations: half of the turns alone, a quarter in twos, a quarter in threes."""
    at = 0
    while at < len(learned):
        turns = random.choices((1, 2, 3), (6, 1.5, 1))[0]
        yield learned[at : at + turns]
        at += turns


def _line(turns: list[Question], source: str, licence: str) -> dict[str, Any]:
    messages = [
        message
        for question in turns
        for message in (
            {"role": "user", "content": question.asked},
            {"role": "assistant", "content": question.answer},
        )
    ]
    return {"messages": messages, "source": source, "licence": licence}


def _exam(question: Question) -> dict[str, Any]:
    exact = question.exact or question.answer
    return {"prompt": [{"role": "user", "content": question.asked}], "answer": exact}


def _write(file: Path, lines: Iterable[dict[str, Any]], say: Say) -> dict[str, int]:
    count = 0
    with file.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    if not count:
        file.unlink()
        return {"lines": 0, "bytes": 0}
    size = file.stat().st_size
    say(f"{file.parent.name}/{file.name}: {count:,} lines, {size / 1e6:.1f} MB")
    return {"lines": count, "bytes": size}


def _licences(folder: Path, folders: dict[str, Path]) -> None:
    """Copy what each package says of its licence beside the texts."""
    for name, place in folders.items():
        files = [*place.rglob(f"doc/{name}/copyright"), *place.glob("*.dist-info/METADATA")]
        shutil.copyfile(files[0], folder / f"{name}.txt")
