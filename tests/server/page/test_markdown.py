"""The page's markdown: what it makes of texts, and that hostile ones cost no time and make nothing
happen."""

from __future__ import annotations

import json
import random
import time

import pytest

MAKE = """async (text) => {
  const { render } = await import("/page/markdown.js");
  const place = document.createElement("div");
  render(place, text);
  return place.innerHTML;
}"""
LINK = ' target="_blank" rel="noopener noreferrer nofollow"'

CASES = {
    "plain": "<p>plain</p>",
    "two\nlines\n\nand more": "<p>two<br>lines</p><p>and more</p>",
    "# One\n### Three ###": "<h3>One</h3><h5>Three ###</h5>",
    "**bold** *it* __b__ _i_ ***both*** ~~gone~~": (
        "<p><strong>bold</strong> <em>it</em> <strong>b</strong> <em>i</em> "
        "<strong><em>both</em></strong> <del>gone</del></p>"
    ),
    "*a **b***": "<p><em>a <strong>b</strong></em></p>",
    "**a *b***": "<p><strong>a <em>b</em></strong></p>",
    "snake_case_name and 2 * 3 * 4": "<p>snake_case_name and 2 * 3 * 4</p>",
    "**use `**kwargs` now**": "<p><strong>use <code>**kwargs</code> now</strong></p>",
    "*open": "<p>*open</p>",
    r"\*not\* \\ \d": r"<p>*not* \ \d</p>",
    "`` a`b `` and `c": "<p><code>a`b</code> and `c</p>",
    "- a\n- b\n  - c\n\n- d": "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>",
    "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "- [x] done\n- [ ] not": "<ul><li>☑ done</li><li>☐ not</li></ul>",
    "1. a\n\n   more\n2. b": "<ol><li>a<p>more</p></li><li>b</li></ol>",
    "> a\n> > b": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>",
    "---": "<hr>",
    "```py\nx = '<b>'\n\n# no\n```\nafter": (
        '<figure><figcaption>py</figcaption><pre tabindex="0">'
        "<code>x = '&lt;b&gt;'\n\n# no</code></pre></figure><p>after</p>"
    ),
    "```\nopen": '<figure><pre tabindex="0"><code>open</code></pre></figure>',
    "~~~\n```\n~~~": '<figure><pre tabindex="0"><code>```</code></pre></figure>',
    "|a|b|\n|:-:|--:|\n|1|x\\|y|": (
        '<div class="wide" tabindex="0"><table><thead>'
        '<tr><th class="center">a</th><th class="right">b</th></tr></thead>'
        '<tbody><tr><td class="center">1</td><td class="right">x|y</td></tr></tbody></table></div>'
    ),
    "|a|b|c|\n|-|-|-|\n|1|\n|1|2|3|4|": (
        '<div class="wide" tabindex="0"><table><thead><tr><th>a</th><th>b</th><th>c</th></tr>'
        '</thead><tbody><tr><td>1</td><td colspan="2"></td></tr>'
        "<tr><td>1</td><td>2</td><td>3</td></tr></tbody></table></div>"
    ),
    "a | b\n--|--\n1 | 2": (
        '<div class="wide" tabindex="0"><table><thead><tr><th>a</th><th>b</th></tr></thead>'
        "<tbody><tr><td>1</td><td>2</td></tr></tbody></table></div>"
    ),
    "a | b\n | |\n:a|-": "<p>a | b<br>| |<br>:a|-</p>",
    "# a\u2028b": "<h3>a\u2028b</h3>",
    "~~~~x`y": "<p>~~~~x`y</p>",
    r"[a\]b](https://b.test/) [[c]](https://b.test/) [d](https://b.test/(e)": (
        f'<p><a href="https://b.test/"{LINK}>a]b</a> <a href="https://b.test/"{LINK}>[c]</a>'
        f' [d](<a href="https://b.test/(e)"{LINK}>https://b.test/(e)</a></p>'
    ),
    "`` ` `` ` ```": "<p><code>`</code> ` ```</p>",
    "(https://b.test/a).)": (f'<p>(<a href="https://b.test/a"{LINK}>https://b.test/a</a>).)</p>'),
    "[a](https://b.test/c_(d) 'title')": f'<p><a href="https://b.test/c_(d)"{LINK}>a</a></p>',
    "see https://b.test/x?y=1&z=2.": (
        f'<p>see <a href="https://b.test/x?y=1&amp;z=2"{LINK}>https://b.test/x?y=1&amp;z=2</a>.</p>'
    ),
    "<https://b.test/> <b>": (
        f'<p><a href="https://b.test/"{LINK}>https://b.test/</a> &lt;b&gt;</p>'
    ),
    "![alt](https://b.test/i.png)": f'<p><a href="https://b.test/i.png"{LINK}>alt</a></p>',
    "[x](javascript:alert(1)) [y](data:text/html,z) [z](/relative)": (
        "<p>[x](javascript:alert(1)) [y](data:text/html,z) [z](/relative)</p>"
    ),
    '<script>alert(1)</script> <img src=x onerror="y">': (
        '<p>&lt;script&gt;alert(1)&lt;/script&gt; &lt;img src=x onerror="y"&gt;</p>'
    ),
    "": "",
}

# Each of these has cost somebody's renderer minutes.
HOSTILE = [
    "*",
    "_",
    "**a ",
    "*a ",
    "`",
    "[",
    "[](",
    "> ",
    "- ",
    "<https://",
    "http://",
    "|-",
    "~~ ",
    "\\",
    "![[",
    "- - ",
    " ",
    "1. ",
]


@pytest.fixture
def place(visit):
    return visit()


def test_texts(place):
    wrong = {
        text: (made, want)
        for text, want in CASES.items()
        if (made := place.evaluate(MAKE, text)) != want
    }
    assert wrong == {}


@pytest.mark.slow
def test_hostile_texts_cost_no_time(place):
    place.evaluate(MAKE, "warm")
    for piece in HOSTILE:
        for text in (piece * (30_000 // len(piece)), "\n".join(piece * n for n in range(1, 200))):
            begun = time.perf_counter()
            place.evaluate(MAKE, text)
            assert time.perf_counter() - begun < 2, repr(piece)


def test_random_texts_make_only_harmless_elements(place):
    pieces = [
        *"*_`~[]()<>!|#-\\ \n\n",
        "a",
        "b c",
        "http://x.test",
        "```",
        "1. ",
        "- ",
        "> ",
        "javascript:x",
        "<img src=y>",
    ]
    rng = random.Random(1)
    texts = ["".join(rng.choice(pieces) for _ in range(rng.randrange(1, 80))) for _ in range(2000)]
    tags, links = place.evaluate(
        """async (texts) => {
          const { fragment } = await import("/page/markdown.js");
          const [tags, links] = [new Set(), new Set()];
          const harmless = ["class", "start", "tabindex", "target", "rel", "colspan"];
          for (const text of texts) {
            for (const element of fragment(text).querySelectorAll("*")) {
              tags.add(element.tagName.toLowerCase());
              for (const { name, value } of element.attributes) {
                if (!harmless.includes(name)) links.add(`${name}=${value}`);
              }
            }
          }
          return [[...tags], [...links]];
        }""",
        texts,
    )
    allowed = (
        "p br h3 h4 h5 h6 strong em del code pre figure figcaption ul ol li blockquote hr a div "
    )
    allowed += "table thead tbody tr th td"
    assert set(tags) <= set(allowed.split())
    assert links and all(link.startswith("href=http://") for link in links), links


def test_growing_in_pieces_ends_like_reading_at_once(place):
    """What is settled early is never rendered otherwise later: parts, each by itself, are the
    whole."""
    text = "# A\n\npara *x*\n\n```py\na\n\nb\n```\n\n- one\n\n- two\n\n  more\n\nend\n\n"
    text += "| a |\n|--|\n| b |\n\nlast"
    same = place.evaluate(
        """async (text) => {
          const { render, settled } = await import("/page/markdown.js");
          const made = (t) => {
            const d = document.createElement("div");
            render(d, t);
            return d.innerHTML;
          };
          let [cut, done] = [0, ""];
          for (let end = 0; end <= text.length; end += 1) {
            const next = settled(text.slice(0, end), cut);
            done += made(text.slice(cut, next));
            cut = next;
          }
          return [done + made(text.slice(cut)) === made(text), cut > text.length / 2];
        }""",
        text,
    )
    assert same == [True, True], json.dumps(same)
