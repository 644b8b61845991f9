"""`griffin generate`: continue a prompt, a file or standard input of any size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from griffin.cli.shared.model_source import ModelSource, model_options
from griffin.cli.shared.reading import notice, opened, read_text
from griffin.cli.shared.results import result_dict, statistics
from griffin.cli.shared.sampling import sampling_from, sampling_options
from griffin.cli.shared.seen import seen

if TYPE_CHECKING:
    from griffin.answer import Stream
    from griffin.grammar import Grammar
    from griffin.llm import LLM


@click.command("generate")
@click.argument("prompt", required=False)
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Read the prompt from a file of any size, in constant memory; - is standard input.",
)
@model_options
@sampling_options
@click.option(
    "--chat/--raw",
    default=None,
    help="Put the prompt into a user's turn, or continue it as it is "
    "[chat for models with a chat template or called ...-it, else raw].",
)
@click.option(
    "--prefill",
    metavar="TEXT",
    help="How the answer to a user's turn begins; what follows is printed.",
)
@click.option(
    "--json-schema",
    "schema",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Answer with JSON that fits the JSON schema in a file.",
)
@click.option(
    "--regex",
    metavar="PATTERN",
    help="Answer with text that this regular expression matches as a whole.",
)
@click.option(
    "--choice",
    "choices",
    multiple=True,
    metavar="TEXT",
    help="Answer with one of these. Repeatable.",
)
@click.option(
    "--grammar",
    "rules",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Answer with text that the grammar in a file derives: llguidance's Lark, or GBNF.",
)
@click.option(
    "--logprobs",
    type=int,
    metavar="N",
    help="The N most probable tokens at each place; needs --json, which shows them.",
)
@click.option(
    "--echo", is_flag=True, help="Print the prompt too (not with --file or standard input)."
)
@click.option("--stats", is_flag=True, help="Print counts and speed on standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of streaming.")
def command(
    prompt: str | None,
    path: Path | None,
    source: ModelSource,
    chat: bool | None,
    prefill: str | None,
    schema: Path | None,
    regex: str | None,
    choices: tuple[str, ...],
    rules: Path | None,
    echo: bool,
    stats: bool,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Continue PROMPT and print the continuation as it comes; an empty one, "", begins freely.

    Without PROMPT, or with -, the prompt is standard input, byte for byte; it may be of any size,
    as with --file: only the model's fixed state stays in memory. (With --chat the whole text is
    held in memory, because it becomes one turn.)

    With --json-schema, --regex, --choice or --grammar an answer ends when it is complete; if
    --max-tokens cuts it short, it is only the beginning of one. Say in the prompt what you want.
    """
    if prompt is not None and prompt != "-" and path is not None:
        raise click.UsageError("give PROMPT or --file, not both")
    if prompt is None and path is None and sys.stdin.isatty():
        raise click.UsageError("give a PROMPT, --file FILE, or something on standard input")
    if sampling["logprobs"] is not None and not as_json:
        raise click.UsageError("--logprobs needs --json, which shows them")
    from griffin.cli.shared.progress import PromptBar

    grammar = _grammar(schema, regex, choices, rules)
    fields = sampling_from(sampling)
    bar = PromptBar()
    fields["progress"] = bar.read
    llm = source.llm()
    chat = llm.talks if chat is None else chat
    if prefill is not None and not chat:
        raise click.UsageError("--prefill needs --chat; with --raw PROMPT itself is gone on with")
    if grammar is not None:
        llm.grammars.compile(grammar)
        fields["grammar"] = grammar
    if prompt is not None and prompt != "-":
        stream = _begin(llm, prompt, chat, prefill, fields)
        if echo and not as_json:
            click.echo(prompt, nl=False)
    else:
        with opened("-" if path is None else path) as (text, size):
            if chat:
                stream = _begin(llm, _text(text), chat, prefill, fields)
            else:
                stream = llm.stream(read_text(llm, text, size), **fields)
    with bar:
        for piece in stream:
            bar.end()
            if not as_json and piece.text:
                sys.stdout.write(seen(piece.text))
                sys.stdout.flush()
    if as_json:
        click.echo(json.dumps(result_dict(stream.result, llm), ensure_ascii=False))
    else:
        click.echo()
    if stats:
        click.echo(statistics(stream.result), err=True)


def _grammar(
    schema: Path | None, regex: str | None, choices: tuple[str, ...], rules: Path | None
) -> Grammar | None:
    """Return what the answer must look like, if that was asked for."""
    from griffin.grammar import Grammar

    given = {
        "--json-schema": schema,
        "--regex": regex,
        "--choice": choices or None,
        "--grammar": rules,
    }
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise click.UsageError(
            f"{' and '.join(names)} both say what the answer looks like; give one"
        )
    if schema is not None:
        try:
            read = json.loads(schema.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{schema}: not a JSON schema ({error})") from None
        return Grammar.json_schema(read)
    if rules is not None:
        try:
            return Grammar.ebnf(rules.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{rules}: {error}") from None
    if regex is not None:
        return Grammar.regex(regex)
    return Grammar.choice(*choices) if choices else None


def _begin(
    llm: LLM, prompt: str, chat: bool, prefill: str | None, fields: dict[str, Any]
) -> Stream:
    if not chat:  # after nothing at all a model begins as its training texts do, after BOS
        return llm.stream(prompt or [llm.tokenizer.bos_id], **fields)
    begun = [] if prefill is None else [{"role": "assistant", "content": prefill}]
    return llm.stream_chat([{"role": "user", "content": prompt}, *begun], **fields)


def _text(source: BinaryIO) -> str:
    raw = source.read()
    text = raw.decode("utf-8", errors="replace")
    notice(text.count("\ufffd") - raw.count(b"\xef\xbf\xbd"))
    return text
