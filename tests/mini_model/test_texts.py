"""The texts of the model in the box: read from packages of a few lines, and held apart."""

from __future__ import annotations

import hashlib
import json
import re
from random import Random

import pytest
from click.testing import CliRunner

from mini import (
    corpus,
    dictionaries,
    manners,
    manuals,
    packages,
    python_texts,
    questions,
    small_talk,
    wordnet,
)
from mini.__main__ import main
from mini.packages import Package, PackageError, unpacked
from mini.reward import right
from mini.skills import SKILLS
from mini.split import held_out


def test_wordnet_is_read_and_what_is_torn_is_listed(archives):
    net = wordnet.read(archives / "wordnet-base")
    assert net.broken == ["data.noun:7", "cntlist.rev:6"]
    dog = net.senses["n00000003"]
    assert dog.words == ("dog", "domestic dog") and dog.gloss == "it barks"
    assert dog.examples == ("a good dog",)
    assert list(net.above("n00000004")) == ["n00000003", "n00000002", "n00000001"]
    assert net.senses["n00000004"].opposites == ((0, "n00000002", 0),)
    assert [word for word, _ in net.common("n", 7)] == ["entity", "animal", "dog", "rover", "tree"]
    assert questions.written("rover", net.senses["n00000004"]) == "Rover"


def test_dictionaries_manuals_and_talk(archives):
    broken: list[str] = []
    assert list(dictionaries.entries(archives / "dict-devil", "devil", broken)) == [
        ("BAD", "BAD, n.  Not so good as it was.")
    ]
    (command,) = manuals.commands(archives / "toybox", broken)
    assert command[:3] == ("ls", "ls [-a] [FILE...]", "List files.")
    pairs = list(small_talk.pairs(archives / "chatterbot-corpus", broken))
    assert pairs[:2] == [("Hello", "It's you"), ("How are you?", "Fine")] and len(pairs) == 14
    assert "devil.index:2" in broken and "toybox: Clear the screen." in broken
    assert sum("has 1 turns" in line for line in broken) == 7


def test_python_says_what_its_functions_do(archives):
    broken: list[str] = []
    (page,) = python_texts.documentation(archives / "python3.11-doc", broken)
    (listed,) = python_texts.described(page[1])
    assert listed == (
        "os.listdir",
        "listdir(path='.')",
        "Return a list of the names in path, as os.scandir has them.",
    )
    source = 'class A:\n    def b(self, c=1):\n        """Do what is asked.\n\n        More."""\n'
    (found,) = python_texts.functions("m", source, broken)
    assert found == ("m.A.b", "b(self, c=1)", "Do what is asked.")
    assert not list(python_texts.functions("torn", "def (", broken)) and broken == [
        "torn: invalid syntax"
    ]


@pytest.mark.parametrize("name", SKILLS)
def test_skills_answer_what_they_ask(name):
    """One key has one answer, whatever the wording, and the examination's part stands in it."""
    random, answers = Random(0), {}
    for _ in range(600):
        question = SKILLS[name](random, ["tree", "apple", "stone", "rain"])
        assert answers.setdefault(question.key, question.answer) == question.answer
        assert question.exact in question.answer and len(question.answer) < 120
    assert len(answers) > 30 or name == "spelling"


def test_sums_and_expressions_are_right():
    random = Random(1)
    for _ in range(300):
        sums = SKILLS["sums"](random, [])
        steps = [step.split(" = ") for step in sums.answer.split("; ")]
        assert all(eval(reckoned) == int(said) for reckoned, said in steps)
        assert steps[-1][1] == sums.exact and 1 <= len(steps) <= 3
        value = SKILLS["expressions"](random, ["tree", "apple"])
        assert eval(value.key) == eval(value.exact)


def test_manners_are_of_one_mind_and_too_much_is_said_to_be(archives):
    """Whatever is typed has one answer, short of what a mark or a capital changes."""
    answers = dict[str, str]()
    for question in manners.talk():
        typed = question.asked.lower().rstrip("?.!")
        assert answers.setdefault(typed, question.answer) == question.answer, typed
        assert len(question.answer) < 120
    assert len(answers) > 120 and answers["hello"].startswith("Hello!")
    net = wordnet.read(archives / "wordnet-base")
    asked = list(manners.beyond(net, Random(3), 300))
    assert all(right(each.answer, each.exact) for each in asked) and len(asked) == 300
    assert {each.key for each in asked} >= {"beyond dog", "beyond Rover"}
    assert not {each.asked for each in asked} & answers.keys()


def test_chats_mix_what_is_asked():
    words = ["tree", "apple", "stone", "rain"]
    drawn = {name: [SKILLS[name](Random(n), words) for n in range(9)] for name in SKILLS}
    chats = list(manners.mixed({"talk": list(manners.talk()), **drawn}, Random(5), 300))
    lengths = [len(chat) for chat in chats]
    assert set(lengths) == {1, 2, 3, 4, 5}
    greeted = sum(chat[0].key.startswith("talk ") for chat in chats)
    assert 90 < greeted < 170
    assert manners.hurried("What is 3 + 4?") == "what is 3+4"
    asked = [question.asked for chat in chats for question in chat]
    assert sum(not text.endswith(("?", ".")) for text in asked) > len(asked) / 4


def test_what_an_answer_would_tell_is_held_out_with_it():
    """A word that is to be spelt is spelt in no other skill's training either, and so on."""
    random = Random(2)
    words = ["".join(random.choices("abcdeilnorst", k=6)) for _ in range(100)]
    drawn = [SKILLS[name](random, words) for name in SKILLS for _ in range(1500)]
    learned, exam = questions.split(drawn)
    said = {piece for each in learned for piece in re.findall(r"\w-[\w-]+", each.answer)}
    spelt = [each.answer for each in exam if each.key.startswith("spell ")]
    assert len(spelt) > 20 and not said & set(spelt)
    sums = {each.key for each in learned}
    turned = ["+".join(reversed(each.key.split("+"))) for each in exam if "+" in each.key]
    assert len(turned) > 20 and not sums & set(turned)


def test_nothing_of_a_held_out_key_is_learned(archives, tmp_path, monkeypatch):
    """The corpus of the small packages: files, splits, licences, and the same twice."""
    library = [("json", 'def load(file):\n    """Read a document from a file."""\n')]
    monkeypatch.setattr(python_texts, "library", lambda broken: iter(library))
    said: list[str] = []
    report = corpus.build(tmp_path / "corpus", archives, said.append, drawn=200)
    out = tmp_path / "corpus"
    assert json.loads((out / "report.json").read_text()) == report
    assert {path.name for path in (out / "licences").iterdir()} == {
        f"{n}.txt" for n in packages.PACKAGES
    }
    texts = [json.loads(line) for file in (out / "pretrain").iterdir() for line in file.open()]
    assert {text["source"] for text in texts} == {
        "python",
        "python-docs",
        "wordnet",
        "jargon",
        "devil",
        "toybox",
    }
    assert all(text["text"] and text["licence"] for text in texts)
    learned, turns = set(), set()
    for file in (out / "questions").iterdir():
        for line in map(json.loads, file.open()):
            assert line["source"] == file.stem and line["licence"]
            asked = [each["content"] for each in line["messages"] if each["role"] == "user"]
            learned |= set(asked)
            turns.add(len(asked))
    assert turns == {1, 2, 3, 4, 5}  # chats of many things are the longest
    exams = [json.loads(line) for file in (out / "exams").iterdir() for line in file.open()]
    assert exams and not {each["prompt"][0]["content"] for each in exams} & learned
    paid = [json.loads(line) for file in (out / "rewarded").iterdir() for line in file.open()]
    assert {each["prompt"][0]["content"] for each in paid} <= learned and paid[0]["answer"]
    again = corpus.build(tmp_path / "corpus", archives, said.append, drawn=200)
    assert again == report and not list(tmp_path.glob(".*"))


def test_a_sense_that_is_held_out_is_called_no_kind(archives, monkeypatch):
    net = wordnet.read(archives / "wordnet-base")
    monkeypatch.setattr(corpus, "held_out", lambda key: key == "kind n00000003")
    senses = [net.senses[net.words[word][0]] for word in ("dog", "rover")]
    entries = [corpus._entry(net, sense) for sense in senses]
    assert "A kind of" not in entries[0] and "A kind of dog." in entries[1]


def test_a_sense_stands_once_in_the_dictionary(archives):
    """Whatever words it has: what one text says of it is said by no other, held out or learned."""
    net = wordnet.read(archives / "wordnet-base")
    lines = "\n".join(corpus._dictionary_of(net)).splitlines()
    assert len(lines) == len(net.senses)
    for sense in net.senses.values():
        assert sum(f": {sense.gloss}." in line for line in lines) == 1


def test_the_split_is_of_content():
    share = sum(held_out(f"key {n}") for n in range(4000)) / 4000
    assert 0.045 < share < 0.075 and held_out("A B") == held_out("a b")


def test_a_package_that_is_another_is_refused(tmp_path):
    package = Package(
        name="six", version="1", kind="pypi", file="six.whl", sha256="0" * 64, licence="MIT"
    )
    (tmp_path / "six.whl").write_bytes(b"else")
    with pytest.raises(PackageError, match=r"SHA-256 .* expected 000.* of six 1; remove it"):
        unpacked(package, tmp_path)
    assert not (tmp_path / "six").exists()


def test_a_package_that_cannot_be_had_names_the_command(tmp_path, monkeypatch):
    missing = Package(
        name="no-such", version="1", kind="debian", file="x.deb", sha256="0" * 64, licence="MIT"
    )
    monkeypatch.setattr(
        Package, "command", property(lambda self: ["false", f"{self.name}={self.version}"])
    )
    monkeypatch.setattr("mini.corpus.PACKAGES", {"no-such": missing})
    said = CliRunner().invoke(
        main, ["sources", "--out", str(tmp_path / "c"), "--archives", str(tmp_path)]
    )
    assert said.exit_code == 1 and "no-such 1 cannot be had" in said.output
    assert "put x.deb into" in said.output and "false no-such=1" in said.output


def test_pins_are_whole():
    for package in packages.PACKAGES.values():
        assert len(package.sha256) == len(hashlib.sha256().hexdigest()) and package.licence
        assert package.version.split(":")[-1] in package.file
