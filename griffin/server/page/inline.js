// Markdown inside a paragraph to DOM nodes; `markdown.js` has the rules that hold for both.

export const DEEPEST = 8; // levels of quotes, lists and emphases in one another
const PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
const LONGEST_LINK = 1000;

/** Add the nodes of a text to `parent`. depth: levels that it lies in. */
export function inline(parent, text, depth) {
  const known = new Known(text);
  let plain = "";
  let at = 0;
  const flush = () => {
    if (plain) parent.append(plain);
    plain = "";
  };
  while (at < text.length) {
    const taken = depth < DEEPEST ? span(text, at, known, depth) : null;
    if (taken === null) {
      plain += text[at];
      at += 1;
    } else {
      if (taken.node === null) plain += taken.text;
      else {
        flush();
        parent.append(taken.node);
      }
      at = taken.end;
    }
  }
  flush();
}

/** What is found out about a text once, when first asked for, in one pass. */
class Known {
  missing = new Set(); // marks that nothing closes any more
  #text;
  #ticks = null;
  #pairs = null;

  constructor(text) {
    this.#text = text;
  }

  /** Return where the last run of so many backticks begins, -1 if there is none. */
  lastTicks(length) {
    if (this.#ticks === null) {
      this.#ticks = new Map();
      for (let at = this.#text.indexOf("`"); at >= 0; ) {
        const found = run(this.#text, at);
        this.#ticks.set(found, at);
        at = this.#text.indexOf("`", at + found);
      }
    }
    return this.#ticks.get(length) ?? -1;
  }

  /** Return where the bracket or parenthesis that opens here is closed, -1 if nowhere. */
  pair(at) {
    if (this.#pairs === null) {
      this.#pairs = new Map();
      const open = { "]": [], ")": [] };
      for (let here = 0, skipped = -1; here < this.#text.length; here += 1) {
        const char = this.#text[here];
        // A backslash before a bracket makes it a letter; in the target of a link it is one itself.
        const bracket = here !== skipped;
        if (char === "\\" && bracket) skipped = here + 1;
        else if (char === "[" && bracket) open["]"].push(here);
        else if (char === "(") open[")"].push(here);
        else if ((char === "]" && bracket) || char === ")") {
          const opened = open[char].pop();
          if (opened !== undefined) this.#pairs.set(opened, here);
        }
      }
    }
    return this.#pairs.get(at) ?? -1;
  }
}

function span(text, at, known, depth) {
  const char = text[at];
  switch (char) {
    case "\\":
      if (at + 1 === text.length || !PUNCTUATION.includes(text[at + 1])) return null;
      return { node: null, text: text[at + 1], end: at + 2 };
    case "\n":
      return { node: document.createElement("br"), end: at + 1 };
    case "`":
      return codeSpan(text, at, known);
    case "!":
      return text[at + 1] === "[" ? link(text, at + 1, known, depth) : null;
    case "[":
      return link(text, at, known, depth);
    case "*":
    case "_":
    case "~":
      return emphasis(text, at, known, depth);
    case "<":
    case "h":
      return address(text, at);
    default:
      return null;
  }
}

function run(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

function codeSpan(text, at, known) {
  const length = run(text, at);
  const close = ticksAfter(text, at + length, length, known);
  if (close < 0) return { node: null, text: text.slice(at, at + length), end: at + length };
  const node = document.createElement("code");
  const inside = text.slice(at + length, close).replaceAll("\n", " ");
  const padded = inside.startsWith(" ") && inside.endsWith(" ") && inside.trim();
  node.textContent = padded ? inside.slice(1, -1) : inside;
  return { node, end: close + length };
}

/** Return where the next run of exactly so many backticks begins, -1 if there is none. */
function ticksAfter(text, from, length, known) {
  if (known.lastTicks(length) < from) return -1;
  for (let at = text.indexOf("`", from); ; ) {
    const found = run(text, at);
    if (found === length) return at;
    at = text.indexOf("`", at + found);
  }
}

function emphasis(text, at, known, depth) {
  const char = text[at];
  const length = run(text, at);
  const marks = text.slice(at, at + length);
  const literal = { node: null, text: marks, end: at + length };
  if (length > 3 || (char === "~" && length !== 2) || known.missing.has(marks)) return literal;
  if (isSpace(text[at + length]) || (char === "_" && isWord(text[at - 1]))) return literal;
  const close = closing(text, at + length, marks, known);
  if (close < 0) {
    known.missing.add(marks);
    return literal;
  }
  const outer = document.createElement(char === "~" ? "del" : length === 1 ? "em" : "strong");
  const inner = length === 3 ? outer.appendChild(document.createElement("em")) : outer;
  inline(inner, text.slice(at + length, close), depth + 1);
  return { node: outer, end: close + length };
}

/** Return where the marks that close an emphasis begin, -1 if nothing closes it. */
function closing(text, from, marks, known) {
  const [char, length] = [marks[0], marks.length];
  for (let at = from; at < text.length; ) {
    if (text[at] === "\\") at += 2;
    else if (text[at] === "`") {
      const ticks = run(text, at);
      const end = ticksAfter(text, at + ticks, ticks, known);
      at = end < 0 ? at + ticks : end + ticks;
    } else if (text[at] !== char) at += 1;
    else {
      const found = run(text, at);
      const extra = found - length;
      // Of a longer run the last marks close, the others belong to what is inside: "*a **b***".
      const apart = extra > 0 && extra !== length && length < 3;
      const inside = apart && text.slice(from, at).includes(char);
      const word = char === "_" && isWord(text[at + found]);
      if ((extra === 0 || inside) && !isSpace(text[at - 1]) && !word) return at + extra;
      at += found;
    }
  }
  return -1;
}

function isSpace(char) {
  return char === undefined || /\s/.test(char);
}

function isWord(char) {
  return char !== undefined && /[\p{L}\p{N}]/u.test(char);
}

function link(text, at, known, depth) {
  const close = known.pair(at);
  if (close < 0 || close - at > LONGEST_LINK || text[close + 1] !== "(") return null;
  const end = known.pair(close + 1);
  if (end < 0 || end - close > LONGEST_LINK) return null;
  const target = text.slice(close + 2, end).trim().split(/\s/, 1)[0].replace(/^<(.*)>$/, "$1");
  const node = anchor(target);
  if (node === null) return null;
  inline(node, text.slice(at + 1, close) || target, DEEPEST - 1 > depth ? depth + 1 : DEEPEST);
  for (const nested of node.querySelectorAll("a")) unwrap(nested);
  return { node, end: end + 1 };
}

function address(text, at) {
  const pointed = text[at] === "<";
  const start = pointed ? at + 1 : at;
  if (!text.startsWith("http://", start) && !text.startsWith("https://", start)) return null;
  if (!pointed && isWord(text[at - 1])) return null;
  let end = start;
  while (end < text.length && end - start < LONGEST_LINK && !/[\s<>"`]/.test(text[end])) end += 1;
  if (pointed && text[end] !== ">") return null;
  if (!pointed) {
    const ends = text.slice(start, end).includes("(") ? ".,;:!?'*_~" : ".,;:!?'*_~)";
    while (ends.includes(text[end - 1])) end -= 1;
  }
  const node = anchor(text.slice(start, end));
  if (node === null) return null;
  node.textContent = text.slice(start, end);
  return { node, end: pointed ? end + 1 : end };
}

function anchor(target) {
  const url = URL.parse?.(target) ?? parsed(target);
  if (url === null || !["http:", "https:", "mailto:"].includes(url.protocol)) return null;
  const node = document.createElement("a");
  node.href = url.href;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  return node;
}

function parsed(target) {
  return URL.canParse(target) ? new URL(target) : null;
}

/** Leave what is in an element in its place. One by one: a call has room for so many arguments. */
export function unwrap(inner) {
  while (inner.firstChild) inner.parentNode.insertBefore(inner.firstChild, inner);
  inner.remove();
}
