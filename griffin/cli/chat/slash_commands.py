"""What can be typed in a chat besides messages: lines that begin with /."""

from __future__ import annotations

from collections.abc import Callable, Generator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.chat.opening import begin_from, forget_if_empty, resumed
from griffin.cli.shared.results import statistics
from griffin.cli.shared.seen import harmless, seen
from griffin.cli.shared.stores import excerpt, gist, state_file

if TYPE_CHECKING:
    from griffin.conversation import Conversation
    from griffin.sessions import Store, Turn

Pieces = Generator[str, None, None]

HELP = """\
  /system [TEXT]   say how the model should behave, from the first message on
  /set NAME VALUE  change a sampling parameter, such as /set temperature 0.7; /set NAME default
                   goes back to the model's; /set shows them all
  /show [N]        show the conversation's data, or what was said in turn N
  /undo [N]        go back N turns; /redo [N] goes forward again
  /continue        go on with an answer that was cut short
  /prefill TEXT    begin the next answer with TEXT
  /regen           another answer to the last message, beside the one there is
  /history [N]     show what was said, or the last N turns of it
  /branches        show the ways the conversation has taken; /goto N goes to turn N (0: the start)
  /fork [NAME]     go on in a copy and leave this conversation as it is
  /save NAME       keep a copy under a name; /load NAME goes to one, or begins from a state file
  /list            show the conversations that are kept
  /file PATH       put a text file before the next message
  /tokens          show how long the conversation is and how fast the last answer came
  /state           show what the model remembers, and where it is kept
  /clear           begin anew; what was said stays a branch
  /bye             leave, as Ctrl-D and the word exit do
  \"\"\"              begin and end a message of several lines
  Ctrl-C           stop the reading or the answer; what was said stays said"""


class Commands:
    """Obey lines that begin with /.

    store: opens the folder of kept conversations. over: the user wants to leave.
    """

    def __init__(self, talk: Conversation, store: Callable[[], Store]) -> None:
        self.talk = talk
        self.over = False
        self._store = store
        self._table: dict[str, Callable[[str], Pieces | None]] = {
            **dict.fromkeys(("/help", "/?"), lambda _: click.echo(HELP)),
            "/system": self._system,
            "/set": self._set,
            "/show": self._show,
            "/undo": lambda rest: self._stand(self.talk.undo(_count(rest))),
            "/redo": lambda rest: self._stand(self.talk.redo(_count(rest))),
            "/goto": lambda rest: self._stand(self.talk.goto(_number(rest))),
            "/continue": lambda _: self.talk.go_on(),
            "/prefill": self._prefill,
            "/regen": lambda _: self.talk.regenerate(),
            "/history": self._history,
            "/branches": self._branches,
            "/fork": self._fork,
            "/save": self._save,
            "/load": self._load,
            "/list": self._list,
            "/file": self._file,
            "/tokens": self._tokens,
            "/state": self._state,
            "/clear": self._clear,
            **dict.fromkeys(("/bye", "/exit", "/quit"), self._bye),
        }

    def obey(self, line: str) -> Pieces | None:
        """Do what a line says; return the pieces of an answer it makes. ValueError if it cannot."""
        verb, _, rest = line.partition(" ")
        if verb not in self._table:
            near = get_close_matches(verb, self._table, n=1)
            meant = f"did you mean {near[0]}?" if near else "/help lists them"
            raise ValueError(
                f"no command {verb}; {meant} (begin with a space to say it to the model)"
            )
        return self._table[verb](rest.strip())

    def _bye(self, _rest: str) -> None:
        self.over = True

    def _system(self, rest: str) -> None:
        self.talk.instruct(rest or None)
        again = "; what was said is read again under it before the next answer"
        text = "this system text" if rest else "no system text"
        click.echo(f"{text} from now on" + (again if self.talk.session.head else ""))

    def _prefill(self, rest: str) -> None:
        self.talk.prefill = rest
        click.echo(f"the next answer begins with {rest!r}" if rest else "answers begin freely")

    def _clear(self, rest: str) -> None:
        if rest.strip():
            raise ValueError("/clear takes nothing after it; /undo N takes back the last N turns")
        self.talk.clear()
        click.echo("a new conversation")

    def _set(self, rest: str) -> None:
        name, _, text = rest.partition(" ")
        name = name.replace("-", "_")
        if name:
            text = text.strip()
            if text == "default":
                self.talk.unset(name)
            else:
                self.talk.set(name, (text,) if name == "stop" else parse(text))
        params = self.talk.llm.params(**self.talk.sampling)
        for field, value in vars(params).items():
            if not name or field == name:
                click.echo(f"{field} = {dict(value) if field == 'logit_bias' else value}")

    def _show(self, rest: str) -> None:
        talk, session = self.talk, self.talk.session
        if rest:
            number = _number(rest)
            turn = next((turn for turn in session.tree() if turn.number == number), None)
            if turn is None:
                raise ValueError(f"there is no turn {number}; /branches shows which there are")
            click.echo(_text(turn))
            return
        click.echo(f"conversation: {talk.name or 'in memory'}")
        click.echo(f"model:        {talk.llm.name}")
        click.echo(seen(f"system text:  {talk.system or 'none'}"))
        click.echo(
            f"turns:        {len(session.turns())} here, {len(session.tree())} on all branches"
        )
        click.echo(f"tokens:       {talk.tokens:,}")
        changed = ", ".join(f"{name} = {value}" for name, value in talk.sampling.items())
        click.echo(f"sampling:     {changed or 'as the model says'}")

    def _stand(self, turn: Turn | None) -> None:
        where = (
            "before the first turn" if turn is None else f"at turn {turn.number}: {excerpt(turn)}"
        )
        click.echo(f"{where} ({resumed(self.talk)})" if turn is not None else where)

    def _branches(self, _rest: str) -> None:
        branches = self.talk.session.branches()
        if not branches:
            click.echo("nothing has been said yet")
        for branch in branches:
            mark = "*" if branch.current else " "
            length = (
                f"{branch.turns} turn{'s' * (branch.turns > 1)}, {branch.shared} of them on the way"
                " here"
            )
            click.echo(f"{mark} to turn {branch.tip.number} ({length}): {excerpt(branch.tip)}")
        head = self.talk.session.head
        if branches:
            click.echo(
                f"you are at turn {head.number}" if head else "you are before the first turn"
            )

    def _history(self, rest: str) -> None:
        said = self.talk.session.turns()
        for turn in said[-_count(rest) :] if rest else said:
            click.echo(f"[{turn.number}]")
            click.echo(_text(turn))
        if not said:
            click.echo("nothing has been said yet")

    def _list(self, _rest: str) -> None:
        found = self._store().list()
        for info in found:
            mark = "*" if info.name == self.talk.name else " "
            title = f": {harmless(info.title)}" if info.title else ""
            click.echo(f"{mark} {info.name}, {info.turns} turns, {info.tokens:,} tokens{title}")
        if not found:
            click.echo("no conversation is kept yet; /save NAME keeps this one")

    def _fork(self, rest: str) -> None:
        before = self.talk.name
        self.talk.fork(self._store(), rest or None)
        click.echo(f"on in {self.talk.name}" + (f"; {before} stays as it is" if before else ""))

    def _save(self, rest: str) -> None:
        if not rest:
            raise ValueError("/save NAME: say under which name")
        kept = self.talk.kept
        name = self.talk.save(self._store(), rest)
        click.echo(f"saved as {name}" + (f"; you are still in {self.talk.name}" if kept else ""))

    def _load(self, rest: str) -> None:
        if not rest:
            raise ValueError("/load NAME: say which; /list shows them")
        talk, store = self.talk, self._store()
        if state_file(rest) is not None:
            session, _ = begin_from(talk.llm, store if talk.kept else None, self._store, rest, None)
        elif rest == talk.name:
            raise ValueError(f"you are in {rest}")
        else:
            session = store.open(rest, talk.session.fingerprint)
        left = talk.session
        try:
            talk.switch(session)
        except ValueError:
            session.close()
            raise
        forget_if_empty(left, [store])
        click.echo(f"in {talk.name or rest}: {resumed(talk)}")

    def _file(self, rest: str) -> None:
        if not rest:
            raise ValueError("/file PATH: say which file")
        path = Path(rest).expanduser()
        if not path.is_file():
            what = "a folder" if path.is_dir() else "no file"
            raise ValueError(
                f"{rest} is {what} (looked from {Path.cwd()}); /file takes a text file"
            )
        raw = path.read_bytes()
        if b"\0" in raw:
            raise ValueError(f"{rest} is not a text: it holds zero bytes")
        text = raw.decode("utf-8", errors="replace")
        replaced = text.count("\ufffd") - raw.count(b"\xef\xbf\xbd")
        tokens = self.talk.attach(text.strip("\n"))
        note = f" ({replaced:,} places were not UTF-8 and are read as U+FFFD)" if replaced else ""
        click.echo(f"{len(raw):,} bytes, {tokens:,} tokens, go before your next message{note}")

    def _tokens(self, _rest: str) -> None:
        click.echo(f"{self.talk.tokens:,} tokens in the conversation")
        if self.talk.result is not None:
            click.echo(f"last answer: {statistics(self.talk.result)}")

    def _state(self, _rest: str) -> None:
        talk, session = self.talk, self.talk.session
        state = talk.context.state
        if state is None:
            click.echo("nothing has been read yet")
        else:
            click.echo(f"{state.nbytes:,} bytes: {gist(talk.tokens, talk.llm.model.config)}")
        if talk.kept:
            head = session.head
            took = f"; the last turn took {head.nbytes:,} bytes" if head else ""
            click.echo(f"kept as {session.name}{took}")
        else:
            click.echo("kept in memory only" + (f": {talk.trouble}" if talk.trouble else ""))


def _text(turn: Turn) -> str:
    return f"({turn.role}, its text is not kept)" if turn.text is None else seen(turn.text)


def parse(text: str) -> Any:
    """Return a number where the text is one, None for "none" and "off", else the text."""
    if text.lower() in ("none", "off"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _count(rest: str) -> int:
    count = _number(rest or "1")
    if count < 1:
        raise ValueError(f"{count} turns make no sense; give 1 or more")
    return count


def _number(rest: str) -> int:
    if not rest.isdecimal():
        raise ValueError(f"{rest!r} is not a number of turns or of a turn, such as 3")
    return int(rest)
