"""Public shapes of chat templates: as transformers renders them, and nothing typed is control."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin.text.template import Control, TemplateError
from tests.support.templates import CONTROL, conversations, ours, shapes, theirs
from tools.fuzz.harness import chance
from tools.fuzz.templates import ALLOWED, attempt, make

pytestmark = [pytest.mark.sweep, pytest.mark.thorough]


@pytest.mark.parametrize("name", shapes())
def test_a_template_writes_what_transformers_would(name: str) -> None:
    source = shapes()[name]
    template = ours(source)
    for talk in conversations():
        prompt = talk[-1][0] == "user"
        try:
            expected = theirs(source, talk, prompt)
        except Exception:  # the template refuses, or Jinja does
            with pytest.raises(TemplateError):
                template.segments(talk, prompt)
        else:
            assert "".join(template.segments(talk, prompt)) == expected


def test_there_are_a_hundred_shapes_and_twelve_conversations() -> None:
    assert len(shapes()) >= 100 and len(conversations()) == 12


# Pieces that no shape looks for: whatever is made of them says nothing to a template.
_TYPED = [*(n for n in CONTROL if not n.endswith(("think>", "THINK]", "think▷", "tool_call>")))]
_HALVES = [
    part for n in _TYPED for part in (n[:1], n[1:-1], n[-1:], n[: len(n) // 2], n[len(n) // 2 :])
]
_typed = st.lists(st.sampled_from(sorted({*_TYPED, *_HALVES, " ", "\n", "a"})), max_size=6).map(
    "".join
)


@pytest.mark.parametrize("name", shapes())
def test_nothing_typed_becomes_a_control_token(name: str) -> None:
    """The control tokens are those of the same conversation with words alone."""
    template = ours(shapes()[name])

    def written(talk: list[tuple[str, str]]) -> list[str] | None:
        try:
            segments = template.segments(talk, True)
        except TemplateError as error:
            assert "cannot be rendered safely" not in str(error)
            return None
        return [segment for segment in segments if isinstance(segment, Control)]

    @settings(max_examples=10)
    @given(contents=st.lists(_typed, min_size=3, max_size=3))
    def equal(contents: list[str]) -> None:
        roles = ("user", "assistant", "user")
        typed = written(list(zip(roles, contents, strict=True)))
        assert typed is None or typed == innocuous

    innocuous = written([("user", "one"), ("assistant", "two"), ("user", "three")])
    assert innocuous is not None
    equal()


@pytest.mark.parametrize("seed", range(4))
def test_templates_nobody_thought_of(seed: int) -> None:
    """A few of what `python -m tools.fuzz templates` tries; hostile ones are in test_template."""
    for number in range(40):
        case = make(chance("templates", seed, number))
        if case.tame:
            with suppress(*ALLOWED):
                attempt(case)
