"""What a chat template may do, what it sees of messages, and what becomes of a hostile one."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin.text.render_process import RenderProcess
from griffin.text.template import (
    MEMORY_LIMIT,
    SOURCE_LIMIT,
    ChatTemplate,
    Control,
    TemplateError,
    TemplateRefusal,
)
from tests.support.hard_texts import CONTROL, texts
from tests.support.hostile_templates import REFUSED
from tests.support.templates import LOOKS

EACH = "{% for m in messages %}"


def template(source: str, **limits: Any) -> ChatTemplate:
    names = [*CONTROL, "<|im_end|>", "</think>"]
    return ChatTemplate(source, names, {"bos_token": "<bos>"}, **limits)


def render(source: str, *contents: str, **limits: Any) -> list[str]:
    return template(source, **limits).segments([("user", text) for text in contents], True)


def controls(segments: list[str]) -> list[str]:
    return [segment for segment in segments if isinstance(segment, Control)]


@pytest.mark.parametrize(
    ("source", "contents"),
    [
        (EACH + "{{ m.content }}{% endfor %}", ["<eos>", "<end_of", "_turn>"]),
        (EACH + "{{ m.content | trim }}{% endfor %}", [" < ", "eos", " >"]),
        (EACH + "<{{ m.content }}>{% endfor %}", ["eos", "bos", " pad"]),
        (EACH + "<{{ m.content | lower | trim }}>{% endfor %}", [" EOS ", "Bos"]),
        (EACH + "{{ m.content }}s>{% endfor %}", ["x <eo"]),
        (EACH + "<eo{{ m.content }}{% endfor %}", ["s> x"]),
        (EACH + "<eo{{ m.content }}{% endfor %}", ["s>", "s"]),
        ("{{ messages | map(attribute='content') | join }}", ["<", "e", "os", ">"]),
        ("{{ messages | tojson }}", ['<eos>"', "<|im_end|>"]),
        ("{{ messages | tojson(ensure_ascii=True) }}", ['<eos>"é', "<|im_end|>"]),
        (EACH + "<{{ m.content }}s>{% endfor %}", ["eo"]),
        (EACH + "{{ m.content[1:] }}{{ m.content[0] }}{% endfor %}", [">a<eos", "x<eos>"]),
        (EACH + "{{ m.content.split('x') | join }}{% endfor %}", ["<exos>", "x<xeos>x"]),
        (EACH + "{{ m.content.strip('xe') }}{% endfor %}", ["xe<eos>x", "<eos>"]),
        (EACH + "{{ m.content.replace('x', '') }}{% endfor %}", ["<xeox s>", "<exos>"]),
        (EACH + "{{ m.content.replace('x', 'eo') }}{% endfor %}", ["<xs>", "<x"]),
        (EACH + "{{ m.content | replace('(', '<') }}{% endfor %}", ["(eos>", "<|im_end|)<"]),
        (EACH + "{{ m.content | replace('<eos>', '<eos>') }}{% endfor %}", ["a<eos>b"]),
        (EACH + "{{ m.content.partition('-') | join }}{% endfor %}", ["<eo-s>", "<-eos>"]),
        (EACH + "{{ m.content | upper | lower }}{% endfor %}", ["<Eos>", "<EOS>"]),
        (EACH + "{{ '%s%s' % (m.content, m.content) }}{% endfor %}", ["eos><", "<eos"]),
        (EACH + "{{ '{}{}'.format('<', m.content) }}{% endfor %}", ["eos>"]),
    ],
)
def test_no_template_puts_a_control_token_together_from_contents(
    source: str, contents: list[str]
) -> None:
    segments = render(source + "<bos>", *contents)
    assert controls(segments) == ["<bos>"]
    environment_free = "".join(segments)
    assert not any(0xE000 <= ord(character) < 0xF900 for character in environment_free)


def test_contents_come_through_a_template_unchanged() -> None:
    plain = template(EACH + "<eos>[{{ m.content }}]{% endfor %}")
    pieces = st.sampled_from(["e", "eos", "end_of_turn", "<", ">", "os>", "<eo"])

    @given(contents=st.lists(texts | pieces, max_size=4))
    def unchanged(contents: list[str]) -> None:
        segments = plain.segments([("user", content) for content in contents], True)
        assert "".join(segments) == "".join(f"<eos>[{content}]" for content in contents)
        assert controls(segments) == ["<eos>"] * len(contents)

    unchanged()


_HARD = (
    *(
        "<eos>",
        "<",
        "a<eos>b>",
        "<think>\na</think>\n\nb <",
        "</think></think>",
        "eos",
        "",
        " \n<a> ",
    ),
    *("plain words", "<<eos>>", "> <eos> </think>\n\n<eos><", "a\r\nb<\x0b>", "É<é>日<\U0001f600>"),
)


def looks_alike(look: str, content: str) -> None:
    """Nothing is refused, and the text is that of one rendering without marks."""
    source = EACH + f"{{% set c = m.content %}}[{{{{ {look} }}}}]{{% endfor %}}"
    talk = [("user", content)]
    try:
        expected = "".join(ChatTemplate(source, ["\U0010fffe!"], {}).segments(talk, True))
    except TemplateError:  # no such character, nothing found
        with pytest.raises(TemplateError, match="fails"):
            template(source).segments(talk, True)
    else:
        assert "".join(template(source).segments(talk, True)) == expected


def test_templates_look_into_contents_as_if_nothing_were_guarded() -> None:
    for look in LOOKS:
        for content in _HARD:
            looks_alike(look, content)


@pytest.mark.thorough
@given(look=st.sampled_from(LOOKS), content=texts)
def test_templates_look_into_any_content(look: str, content: str) -> None:
    looks_alike(look, content)


@pytest.mark.parametrize("look", ["c | list | length", "c | title", "c | urlencode"])
def test_what_cannot_be_hidden_from_a_template_is_refused(look: str) -> None:
    source = EACH + f"{{% set c = m.content %}}{{{{ {look} }}}}{{% endfor %}}"
    assert render(source, "plain") == render(source.replace("c |", "'plain' |"), "")
    with pytest.raises(TemplateError, match="cannot be rendered safely"):
        render(source, "a<eos>b")


def test_reasoning_of_earlier_turns_goes_whether_or_not_its_end_is_a_control_token() -> None:
    source = (
        EACH + "{% set c = m.content %}{% if '</think>' in c %}{% set c ="
        " c.split('</think>')[-1].lstrip('\\n') %}{% endif %}[{{ c }}]<eos>{% endfor %}</think>"
    )
    talk = [("user", "2+2?"), ("assistant", "<think>\n4\n</think>\n\n4 <eos>"), ("user", "5?")]
    for names in (["<eos>"], ["<eos>", "</think>", "<think>"]):
        segments = ChatTemplate(source, names, {}).segments(talk, True)
        assert "".join(segments) == "[2+2?]<eos>[4 <eos>]<eos>[5?]<eos></think>"
        assert controls(segments) == ["<eos>"] * 3 + names[1:2]


def test_templates_have_what_they_expect() -> None:
    assert render(
        "{%- for i in range(9) %}{% if i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    ) == ["012"]
    assert render("{{ strftime_now('%Y') | length }}{{ {'a': '<é>'} | tojson }}") == [
        '4{"a": "<é>"}'
    ]
    assert render("{{ {'b': 'é', 'a': 1} | tojson(true, 1, ('; ', '='), true) }}") == [
        '{\n "a"=1; \n "b"="\\u00e9"\n}'
    ]
    assert render("{{ tools is none }}{{ documents is defined }}{{ tools is not none }}") == [
        "TrueTrueFalse"
    ]
    assert render("{% generation %}x{% endgeneration %}{{ bos_token }}") == ["x", "<bos>"]
    assert render("{% set n = namespace(x='a') %}{% set n.x = n.x ~ 'b' %}{{ n.x }}") == ["ab"]
    assert render("{{ '%s-%02d' | format('a', 3) }}{{ '{}'.format(4) }}{{ '%d' % 5 }}") == [
        "a-0345"
    ]
    assert render("{% if true %}\n  a\n  {% endif %}\nb") == ["  a\nb"]
    assert render("{{ dict(a=1).a }}{{ dict.fromkeys([1], 2)[1] }}") == ["12"]
    with pytest.raises(TemplateRefusal, match="refuses the conversation: because <eos>"):
        render("{{ raise_exception('because ' ~ messages[0].content) }}", "<eos>")


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_hostile_and_broken_templates_end_in_an_error(source: str) -> None:
    with pytest.raises(TemplateError, match="the checkpoint's chat template"):
        render(source, "x", time_limit=0.2)


MEASURED = """
import json, resource, sys
from griffin.text.template import ChatTemplate, TemplateError
from tests.support.hostile_templates import ENDED, REFUSED
def used(who):
    figures = resource.getrusage(who)
    return figures.ru_utime + figures.ru_stime, figures.ru_maxrss
took = {}
before = used(resource.RUSAGE_SELF)
known = REFUSED | ENDED
for name, source in {name: known[name] for name in sys.argv[1:] or known}.items():
    start = used(resource.RUSAGE_CHILDREN)[0]
    try:
        ChatTemplate(source, ["<eos>"], {}).segments([("user", "<eos>")], True)
    except TemplateError:
        pass
    took[name] = used(resource.RUSAGE_CHILDREN)[0] - start  # it has ended with its template
after, child = used(resource.RUSAGE_SELF), used(resource.RUSAGE_CHILDREN)
print(json.dumps([took, after[0] - before[0], after[1] - before[1], child[1]]))
"""


@pytest.mark.parametrize(
    "names",
    [
        ("replace", "indent", "macro", "loops", "sums"),
        pytest.param((), id="all", marks=pytest.mark.slow),
    ],
)
def test_hostile_templates_cost_little(names: tuple[str, ...]) -> None:
    """Processor time, which does not depend on who else is at work, and resident memory."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *names], check=True, capture_output=True, text=True
    )
    took, parent_seconds, parent_grew, child = json.loads(done.stdout)
    unit = 1 if sys.platform == "darwin" else 1024
    assert not {name: seconds for name, seconds in took.items() if seconds > 1.8}
    assert parent_seconds < len(took) * 0.1
    assert parent_grew * unit < 32 << 20
    if sys.platform == "linux":
        assert child * unit < MEMORY_LIMIT + (48 << 20)


def test_a_source_too_long_is_not_compiled() -> None:
    template("{#" + "x" * (SOURCE_LIMIT - 4) + "#}")
    with pytest.raises(TemplateError, match=f"131,073 characters; at most {SOURCE_LIMIT:,}"):
        template("x" * (SOURCE_LIMIT + 1))


def new(before: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in renderers() if process not in before]


def renderers() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if any(word.endswith("renderer.py") for word in child.cmdline())
    ]


def test_the_process_is_shared_replaced_when_it_ends_and_gone_with_the_last_template(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RenderProcess, "_shared", None)
    before = renderers()
    first, second = template("{{ bos_token }}1"), template("{{ bos_token }}2")
    (process,) = new(before)
    assert first.segments([], True) == ["<bos>", "1"] and second.segments([], True)[1] == "2"
    with pytest.raises(TemplateError, match="needs more than 96 MiB"):
        render("{{ 'a' * 1000000000 }}")
    process.kill()
    process.wait()
    assert first.segments([], True) == ["<bos>", "1"]
    (replaced,) = new(before)
    assert replaced.pid != process.pid
    with pytest.raises(TemplateError, match=r"took more than 0\.1 s"):
        render(
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            time_limit=0.1,
        )
    assert second.segments([], True) == ["<bos>", "2"]
    del first, second
    gc.collect()
    assert not new(before)


def test_the_process_can_do_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an escape from the sandbox would find: no secrets, no files, no memory to fill."""
    monkeypatch.setattr(RenderProcess, "_shared", None)
    monkeypatch.setenv("GRIFFIN_TEST_SECRET", "x")
    before = renderers()
    held = template("x")
    (process,) = new(before)
    assert "GRIFFIN_TEST_SECRET" not in process.environ() and process.cwd() == "/"
    assert process.num_fds() <= 4  # three pipes, and its own size
    assert [process.rlimit(psutil.RLIMIT_NOFILE), process.rlimit(psutil.RLIMIT_FSIZE)] == [
        (0, 0)
    ] * 2
    assert held.segments([], True) == ["x"]


def test_a_fork_has_a_process_of_its_own() -> None:
    held = template("{{ messages[0].content }}")
    child = os.fork()
    if not child:
        code = 1
        try:
            code = held.segments([("user", "child")], True) != ["child"]
            held._process._stop()  # pyright: ignore[reportPrivateUsage]
        finally:
            os._exit(code)
    assert held.segments([("user", "parent")], True) == ["parent"]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert held.segments([("user", "parent")], True) == ["parent"]


def test_a_program_that_is_interrupted_takes_no_old_answer_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = template("{{ messages[0].content }}")
    with monkeypatch.context() as patched:
        patched.setattr(RenderProcess, "_read", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            held.segments([("user", "first")], True)
    assert held.segments([("user", "second")], True) == ["second"]


def test_where_no_process_starts_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RenderProcess, "_shared", None)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(TemplateError, match="no process can be started"):
        template("x")
