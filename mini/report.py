"""What came of it: report.json, and docs/model.md made from that alone."""

from __future__ import annotations

import json
import textwrap
import tomllib
from pathlib import Path
from typing import Any

from griffin.bench.machine import describe
from mini import seeds, trials
from mini.chain import COSTS, EXAMINED, FORMATS, NAME
from mini.course import read_course
from mini.exam import GRADES
from mini.manners import BEYOND
from mini.overlap import overlap

_BITS = "whole documents"
_XZ = "xz -9e, one stream"
PICTURE, SEEDS = "images/model_rewards.png", "images/model_seeds.png"  # beside the page
_COURSES = {"J-BOND": "jbond", "REINFORCE": "rloo"}
_REINFORCE = (
    " REINFORCE (leave one out) begins at the same model and draws as many answers a step; it does"
    " not ship."
)
_STAGES = ("pre-training", "SFT", "J-BOND", "rounding")  # in words, as EXAMINED


def build(out: Path) -> dict[str, Any]:
    """Return what a folder of `python -m mini train` holds, as plain values; write report.json.

    Raises FileNotFoundError where a step is not done yet, but for the last one, REINFORCE, of which
    nothing ships.
    """
    courses = {name: run for name, run in _COURSES.items() if (out / run / "results.json").exists()}
    grades = {name: _read(out / "exams" / name / GRADES)["grades"] for name in EXAMINED}
    pretrained, nano = _read(out / "pretrain" / "results.json"), _read(out / "held-out-nano.json")
    shipped = _read(out / f"held-out-{NAME}.json")
    skills = dict[str, dict[str, Any]]()
    for name, of_stage in grades.items():
        for grade in of_stage:
            skill = skills.setdefault(grade["exam"], {"stages": {}})
            skill |= {key: grade[key] for key in ("questions", "commonest")}
            told = {key: grade[key] for key in ("right", "error", "unknown")}
            skill["stages"][name] = told
    bits = {
        source: {
            "held_out_bytes": found["bytes"],
            "pretrained": found["bits_per_byte"].get(_BITS),
            NAME: shipped["sources"][source]["bits_per_byte"].get(_BITS),
            "nano": nano["sources"][source]["bits_per_byte"].get(_BITS),
            "xz": found["bits_per_byte"].get(_XZ),
        }
        for source, found in pretrained["sources"].items()
    }
    model, asked = out / NAME, _questions(out)
    report = {
        "model": {
            "parameters": pretrained["parameters"],
            "shape": _shape(pretrained["training"]["recipe"]["model"]),
            "bytes": (model / "model.safetensors").stat().st_size,
            "state_bytes": (model / "pirate.state").stat().st_size,
        },
        "tokens": {
            name: _read(out / name / "results.json")["training"]["tokens"]
            for name in ("pretrain", "sft", *courses.values(), "style")
        },
        "skills": skills,
        "bits_per_byte": bits,
        "overlap": overlap(out / "pretrain", asked),
        "formats": _in_formats(out),
        **{name: _read(file) for name, file in _short_runs(out).items() if file.exists()},
        "courses": {name: read_course(out / run) for name, run in courses.items()},
        "questions": asked,
        "costs": _read(out / COSTS),
        "chats": _read(out / "chats.json"),
        "pirate": _read(out / "chats-pirate.json"),
        "machine": describe(),
    }
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report


def _short_runs(out: Path) -> dict[str, Path]:
    """Return where the results of short runs lie, if there are any."""
    return {name: out / name / seeds.RESULTS for name in (trials.FOLDER, seeds.FOLDER)}


def _in_formats(out: Path) -> dict[str, dict[str, Any]]:
    """Return what the model is worth in each format, and how fast it is."""
    speeds, found = _read(out / "speeds.json"), dict[str, dict[str, Any]]()
    for form, folder in FORMATS.items():
        name = Path(folder).parts[0]
        grades = _read(out / "exams" / name / GRADES)["grades"]
        questions = sum(grade["questions"] for grade in grades)
        found[form] = {
            "bytes": (out / folder / "model.safetensors").stat().st_size,
            "bits_per_byte": _read(out / f"held-out-{name}.json")["bits_per_byte"][_BITS],
            "questions": questions,
            "right": sum(grade["right"] * grade["questions"] for grade in grades) / questions,
            **speeds[form],
        }
    return found


def _questions(out: Path) -> list[str]:
    """Return the sources of the pre-training that ask about what the others say."""
    recipe = tomllib.loads((out / "recipes" / "pretrain.toml").read_text(encoding="utf-8"))
    sources = recipe["data"]["source"]
    return [of["name"] for of in sources if Path(of["path"]).name == "questions"]


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _shape(config: dict[str, Any]) -> dict[str, Any]:
    kinds = config["block_types"]
    wanted = ("width", "attention_window_size", "vocab_size")
    shape = {name: config[name] for name in wanted}
    return shape | {"layers": len(kinds), "attention_layers": kinds.count("attention")}


def page(report: dict[str, Any]) -> str:
    """Return docs/model.md: what the model is, and every figure of a report."""
    parts = (_opening, _skills, _bits, _formats, _costs, _short, _chats)
    return "\n\n".join(block for part in parts for block in part(report)) + "\n"


def card(report: dict[str, Any]) -> str:
    """Return the README.md that lies beside the weights."""
    title, _, what, _ = _opening(report)
    told = "Its sources' licences are in `licences`. How it was made: docs/model.md of griffin."
    return "\n\n".join((title, what, *_skills(report), told)) + "\n"


def _opening(report: dict[str, Any]) -> list[str]:
    model = report["model"]
    shape = model["shape"]
    return [
        "# The model in the box",
        "<!-- Written by `python -m mini report`; change mini/report.py, not this page. -->",
        _wrapped(
            f"`{NAME}` answers when `griffin chat` is started with nothing else. It has"
            f" {model['parameters']:,} weights ({shape['layers']} layers,"
            f" {shape['attention_layers']} of them attention over {shape['attention_window_size']}"
            f" tokens, width {shape['width']}, {shape['vocab_size']:,} tokens) in"
            f" {model['bytes'] / 1e6:.1f} MB of int8, and was made by the paper's own recipe, in"
            " small, from texts of free licences, which lie beside the weights. It is a toy: it"
            " knows a little, and errs. A large one: `griffin chat -m recurrentgemma-2b-it`."
        ),
        "    python -m mini sources --out corpus\n"
        "    python -m mini train --corpus corpus --out runs/mini --threads 1\n"
        "    python -m mini report --out runs/mini --page docs/model.md",
    ]


def _skills(report: dict[str, Any]) -> list[str]:
    skills = report["skills"]
    rows = [
        (name, f"{skill['questions']:,}", *_shares(skill), f"{skill['commonest']:.1%}")
        for name, skill in skills.items()
    ]
    last = {name: skill["stages"][NAME] for name, skill in skills.items()}
    said = list[str]()
    if "kinds" in skills:
        said.append(
            f"The right hypernym (`kinds`): {last['kinds']['right']:.1%} of held-out senses; the"
            f" commonest answer is right for {skills['kinds']['commonest']:.1%}."
        )
    if {"unknown", "meanings"} <= skills.keys():
        said.append(
            f'"I don\'t know" is said to {last["unknown"]["unknown"]:.1%} of made-up names, and to'
            f" {last['meanings']['unknown']:.1%} of real ones (`meanings`)."
        )
    if "beyond" in skills:
        said.append(
            f'"{BEYOND}" is said to {last["beyond"]["right"]:.1%} of requests that so small a model'
            " cannot meet (`beyond`): a poem, a translation, who wrote what."
        )
    apart = ("unknown", "beyond")
    at = {name: stage["right"] for name, stage in last.items() if name not in apart}
    good = ", ".join(name for name, right in at.items() if right >= 0.8)
    bad = ", ".join(name for name, right in at.items() if right < 0.5)
    return [
        "## What it answers",
        _wrapped(
            f"Good at: {good or 'nothing'}. Bad at: {bad or 'nothing'}, and whatever is not listed."
        ),
        _wrapped(
            "Right answers to questions that were held out by their topic, by the likeliest tokens,"
            " ± the standard error. `meanings`, `python`, `jargon` and `devil` count only an answer"
            " that has the book's words."
        ),
        _table(("", "questions", *(f"after {name}" for name in _STAGES), "commonest answer"), rows),
        *map(_wrapped, said),
    ]


def _shares(skill: dict[str, Any]) -> list[str]:
    stages = [skill["stages"][name] for name in EXAMINED]
    return [f"{stage['right']:.1%} ± {stage['error']:.1%}" for stage in stages]


def _bits(report: dict[str, Any]) -> list[str]:
    columns, shared = ("pretrained", NAME, "nano", "xz"), report["overlap"]
    rows = [
        (
            name,
            f"{of['held_out_bytes']:,}",
            *(_decimals(of[column]) for column in columns),
            *(_share([shared[name]], key) for key in ("in_texts", "in_training")),
        )
        for name, of in report["bits_per_byte"].items()
    ]
    head = ("", "bytes", "after pre-training", NAME, "nano", "xz -9e", "in texts", "in training")
    texts = [shared[name] for name in shared if name not in report["questions"]]
    asked = [shared[name] for name in report["questions"]]
    return [
        "## What it reads",
        _wrapped(
            "Bits a byte of held-out documents, read whole; of the questions the answers alone."
            " nano has read parts of Python's library, some of what is held out here among them."
            " The last two columns: of their runs of thirteen words, how many stand in what was"
            " trained on, in its texts, and in texts and questions together."
        ),
        _table(head, rows),
        _wrapped(
            f"Of the held-out texts {_share(texts, 'in_texts')} of"
            f" {sum(of['runs'] for of in texts):,} runs of thirteen words stand in the texts of"
            f" training, {_share(texts, 'in_training')} in texts or questions. Of the held-out"
            f" questions {_share(asked, 'in_training')}, on purpose: their answers are what the"
            " texts say, and sums and dates are reckoned in the same words. The examinations are"
            " apart by topic."
        ),
    ]


def _share(counts: list[dict[str, int]], key: str) -> str:
    runs = sum(of["runs"] for of in counts)
    return f"{sum(of[key] for of in counts) / runs:.2%}" if runs else ""


def _formats(report: dict[str, Any]) -> list[str]:
    rows = [
        (
            name,
            f"{of['bytes'] / 1e6:.1f}",
            f"{of['bits_per_byte']:.4f}",
            f"{of['right']:.1%}",
            f"{of['plain']:,.0f}",
            f"{of['drafted']:,.0f}",
        )
        for name, of in report["formats"].items()
    ]
    head = ("", "MB", "bits a byte", "right answers", "tokens/s", "with drafts")
    questions = next(iter(report["formats"].values()))["questions"]
    return [
        "## In other formats",
        _wrapped(
            f"All held-out documents; all {questions:,} questions of the examinations; one answer"
            " at a time to the first questions of the chats below, with the same tokens with drafts"
            " and without, prompts not counted."
        ),
        _table(head, rows),
    ]


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _costs(report: dict[str, Any]) -> list[str]:
    tokens = report["tokens"]
    rows = [
        (step, f"{tokens[step]:,}" if step in tokens else "", f"{of['core_seconds'] / 3600:.2f}")
        for step, of in report["costs"].items()
    ]
    total = sum(of["core_seconds"] for of in report["costs"].values()) / 3600
    course = [
        (
            name,
            f"{at['step']:,}",
            _decimals(at["held_out_reward"]),
            f"{at['kl_start']:.2f}",
            f"{at['ties']:.0%}",
        )
        for name, steps in report["courses"].items()
        for at in steps
    ]
    return [
        "## What it cost",
        f"{total:.2f} core-hours in all ({report['machine']['processor']}).",
        _table(("", "tokens", "core-hours"), rows),
        "## What rewards did",
        _wrapped(
            "The mean reward of held-out prompts (1 for a right answer, at most a half for one that"
            " is nearly right), nats from where it began, and the share of prompts whose answers"
            " are worth the same, two of the anchor's in J-BOND."
            f"{_REINFORCE if 'REINFORCE' in report['courses'] else ''}"
        ),
        f"![held-out reward by step and by divergence]({PICTURE})",
        _table(("", "step", "held-out reward", "nats", "ties"), course),
    ]


def _short(report: dict[str, Any]) -> list[str]:
    told = list[str]()
    if found := report.get(trials.FOLDER):
        settings = found["settings"]
        told += [
            "## What helps",
            _wrapped(
                f"Pre-trainings of {settings['tokens']:,} tokens with one thing changed in each,"
                " examined without SFT: held-out bits a byte, and shares of right answers."
                f" Skills are {', '.join(trials.SKILLS)}; words {', '.join(trials.WORDS)}."
                " Questions keep all their wordings where they are asked. What is left out leaves"
                f" its share to the rest. {found['hours']:.1f} core-hours"
                " (`python -m mini trials`)."
            ),
            trials.table(found["runs"], settings["most"]),
        ]
    if found := report.get(seeds.FOLDER):
        count = len({run["seed"] for run in found["runs"]})
        told += [
            "## Beside a transformer",
            _wrapped(
                f"Pre-trainings of {found['settings']['tokens']:,} tokens by {count} seeds, beside"
                " a transformer of as many weights on the same rows: held-out bits a byte, the"
                f" mean over seeds ± its standard error. {found['hours']:.1f} core-hours"
                " (`python -m mini seeds`)."
            ),
            seeds.table(found["runs"]),
            f"![held-out bits a byte by tokens]({SEEDS})",
        ]
    return told


def _chats(report: dict[str, Any]) -> list[str]:
    size = report["model"]["state_bytes"]
    return [
        "## Twenty chats",
        "Unedited, errors included; the likeliest tokens.",
        _talks(report["chats"]),
        f"The first five with the tuned state `pirate.state` ({size:,} bytes, beside the weights):",
        _talks(report["pirate"][:5]),
    ]


def _talks(talks: list[list[dict[str, str]]]) -> str:
    """Return conversations as an indented block, what the user says after >>>."""
    lines = list[str]()
    for talk in talks:
        for turn in talk:
            first = ">>> " if turn["role"] == "user" else ""
            said = turn["content"].splitlines() or ["(nothing)"]
            lines += [f"    {first}{line}".rstrip() for line in said]
        lines.append("")
    return "\n".join(lines).rstrip()


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
