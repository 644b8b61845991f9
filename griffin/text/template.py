"""A checkpoint's own Jinja chat template, rendered with limits and with its users' text kept apart.

A template comes from whoever made the checkpoint, so it is rendered in a process of its own
(`RenderProcess`) whose memory and time the system bounds, in Jinja's immutable sandbox.
"""

import datetime
import re
import sys
from collections.abc import Iterable, Mapping, Sequence

from griffin.text.render_process import RenderProcess, TemplateError, TemplateRefusal

__all__ = ["ChatTemplate", "Control", "Segment", "TemplateError", "TemplateRefusal"]

# What compiling and one rendering may take: seconds of the processor, and as much again for each
# million characters of the messages; bytes of memory beyond eight times the messages' own.
TIME_LIMIT = 0.5
MEMORY_LIMIT = 96 << 20
SIZE_LIMIT = 1 << 20  # characters a rendering may have beyond eight times the messages' own
SOURCE_LIMIT = 1 << 17  # characters a template may have; public ones have up to a third of it


class Control(str):
    """The name of a control token where the template, not a message, wrote it."""

    __slots__ = ()


Segment = str  # a Control, or text


class ChatTemplate:
    """A compiled template.

    control: the names of the tokenizer's control tokens. variables: bos_token and its like.
    Raises TemplateError if the source is too long or does not compile.
    """

    def __init__(
        self,
        source: str,
        control: Iterable[str],
        variables: Mapping[str, str],
        time_limit: float = TIME_LIMIT,
        size_limit: int = SIZE_LIMIT,
    ) -> None:
        self._control = sorted(control, key=len, reverse=True)
        if short := [name for name in self._control if len(name) < 2]:
            raise TemplateError(
                f"control token {short[0]!r} is one character: messages cannot be kept apart"
                " from it"
            )
        if len(source) > SOURCE_LIMIT:
            raise TemplateError(
                f"the checkpoint's chat template has {len(source):,} characters; at most"
                f" {SOURCE_LIMIT:,} are compiled"
            )
        self._pattern = re.compile("(" + "|".join(map(re.escape, self._control)) + ")")
        self._firsts = _any_of({name[0] for name in self._control})
        self._lasts = _any_of({name[-1] for name in self._control})
        self._variables = dict(variables)
        self._source = source
        self._time_limit = time_limit
        self._size_limit = size_limit
        self._process = RenderProcess.shared()
        self._ask(None, False, datetime.datetime.now(), "\ue000")

    def segments(
        self, messages: Sequence[tuple[str, str]], add_generation_prompt: bool
    ) -> list[Segment]:
        """Render (role, content) messages; return control tokens and text in order.

        A control token's name counts as one only where the template wrote it. For that, a mark is
        put inside the messages wherever such a name could begin or end, and taken out again
        afterwards. The template does not see the marks, whether it trims, joins, searches or splits
        contents. It is rendered with and without: should the two differ all the same, the
        conversation is refused (TemplateError).
        """
        now = datetime.datetime.now()
        names = [self._source, *self._control, *self._variables.values()]
        mark = free_character([*names, *(content for _, content in messages)])
        guarded = [(role, self._guard(content, mark)) for role, content in messages]
        rendered = self._ask(guarded, add_generation_prompt, now, mark)
        if guarded == list(messages):
            mark = ""
        elif rendered.replace(mark, "") != self._ask(messages, add_generation_prompt, now, mark):
            raise TemplateError(
                "the checkpoint's chat template decides by what is written in a message, and a"
                f" message has characters of control tokens such as {self._control[0]}: it cannot"
                " be rendered safely"
            )
        parts = self._pattern.split(rendered)
        segments = [
            Control(part) if index % 2 else part.replace(mark, "") if mark else part
            for index, part in enumerate(parts)
        ]
        return [segment for segment in segments if segment]

    def _guard(self, content: str, mark: str) -> str:
        guarded = self._lasts.sub(lambda match: mark + match[0], content)
        guarded = self._firsts.sub(lambda match: match[0] + mark, guarded)
        core = content.strip()
        if (
            core
            and guarded == content
            and any(core.lower() in name.lower() for name in self._control)
        ):
            # "end_of_turn" alone: the template might put the brackets around it.
            at = content.index(core) + 1
            # Marked on both sides of the first character: of one character, either side may be cut.
            guarded = content[: at - 1] + mark + content[at - 1 : at] + mark + content[at:]
        return guarded

    def _ask(
        self,
        messages: Sequence[tuple[str, str]] | None,
        add_generation_prompt: bool,
        now: datetime.datetime,
        mark: str,
    ) -> str:
        """Render messages; with None, only compile."""
        contents = [content for _, content in messages or ()]
        length = sum(map(len, contents))
        characters = self._size_limit + 8 * length
        asked = {
            "source": self._source,
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            "variables": self._variables,
            "now": now.isoformat(),
            "mark": mark,
            "seconds": self._time_limit * (1 + length / 1e6),
            "memory": MEMORY_LIMIT + 8 * sum(map(sys.getsizeof, contents)),
            "characters": characters,
        }
        return self._process.ask(asked, most=4 * characters)


def free_character(texts: Iterable[str]) -> str:
    """Return a private-use character that none of `texts` has, nor its escape in JSON."""
    texts = list(texts)
    used = set[str]().union(*map(set, texts))
    for code in range(0xE000, 0xF900):
        if chr(code) not in used and not any(f"\\u{code:04x}" in text for text in texts):
            return chr(code)
    raise TemplateError(
        "the messages use every private-use character of Unicode (U+E000 to U+F8FF)"
    )


def _any_of(characters: set[str]) -> re.Pattern[str]:
    return re.compile("[" + "".join(map(re.escape, sorted(characters))) + "]", re.IGNORECASE)
