// Markdown to DOM nodes. Text gets into the page by textContent alone, so nothing a model writes is
// ever markup. Links lead to http, https and mailto; images become links, because loading one would
// tell somebody. Every loop is linear in the text, or bounded, whatever is written.

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const ITEM = /^( {0,40})([-*+]|\d{1,9}[.)])(?:[ \t]+(.*))?$/;
const TABLE = /^[ \t]*\|?[ \t]*:?-[-:| \t]*$/;
const PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
const DEEPEST = 8;
const LONGEST_LINK = 1000;

/** Replace what is in `target` by the rendered text. */
export function render(target, text) {
  target.replaceChildren(fragment(text));
}

/** Return a DocumentFragment of a text. */
export function fragment(text) {
  const made = document.createDocumentFragment();
  blocks(made, text.replace(/\r\n?/g, "\n").split("\n"), 0);
  return made;
}

/** Return where the text from `start` on can be cut so that what comes before will not change. */
export function settled(text, start) {
  let cut = start;
  let fence = null;
  let blank = false;
  for (let at = start; at < text.length; ) {
    let end = text.indexOf("\n", at);
    if (end < 0) break; // the last line is still growing
    const line = text.slice(at, end);
    const opened = FENCE.exec(line);
    const fresh = fence === null && blank && line.trim();
    if (fresh && !/^[ \t>]/.test(line) && !ITEM.test(line)) cut = at;
    if (fence !== null) {
      if (closes(line, fence)) fence = null;
    } else if (opened) fence = opened[1];
    blank = fence === null && !line.trim();
    at = end + 1;
  }
  return cut;
}

function closes(line, fence) {
  const bare = line.trim();
  return bare.length >= fence.length && bare === fence[0].repeat(bare.length);
}

function element(tag, parent) {
  return parent.appendChild(document.createElement(tag));
}

function blocks(parent, lines, depth) {
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    let found;
    if (!line.trim()) at += 1;
    else if ((found = FENCE.exec(line))) at = code(parent, lines, at, found);
    else if ((found = HEADING.exec(line))) {
      // The page has its own first two levels.
      const heading = element(`h${Math.min(6, found[1].length + 2)}`, parent);
      inline(heading, found[2].trim(), 0);
      at += 1;
    } else if (RULE.test(line)) {
      element("hr", parent);
      at += 1;
    } else if (QUOTE.test(line) && depth < DEEPEST) at = quote(parent, lines, at, depth);
    else if (ITEM.test(line) && depth < DEEPEST) at = list(parent, lines, at, depth);
    else if (line.includes("|") && TABLE.test(lines[at + 1] ?? "") && lines[at + 1].includes("|"))
      at = table(parent, lines, at);
    else at = paragraph(parent, lines, at);
  }
}

function begins(line) {
  return !line.trim() || FENCE.test(line) || HEADING.test(line) || RULE.test(line)
    || QUOTE.test(line) || ITEM.test(line);
}

function paragraph(parent, lines, at) {
  let end = at + 1;
  while (end < lines.length && !begins(lines[end])) end += 1;
  inline(element("p", parent), lines.slice(at, end).map((l) => l.trim()).join("\n"), 0);
  return end;
}

function code(parent, lines, at, opened) {
  let end = at + 1;
  while (end < lines.length && !closes(lines[end], opened[1])) end += 1;
  const language = opened[2].trim().split(/\s/, 1)[0].slice(0, 40);
  const figure = element("figure", parent);
  if (language) element("figcaption", figure).textContent = language;
  const block = element("pre", figure);
  block.tabIndex = 0; // so that a keyboard can scroll it
  element("code", block).textContent = lines.slice(at + 1, end).join("\n");
  return end + 1;
}

function quote(parent, lines, at, depth) {
  const inside = [];
  let found;
  while (at < lines.length && (found = QUOTE.exec(lines[at]))) {
    inside.push(found[1]);
    at += 1;
  }
  blocks(element("blockquote", parent), inside, depth + 1);
  return at;
}

function list(parent, lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  const numbered = /\d/.test(first[2]);
  const made = element(numbered ? "ol" : "ul", parent);
  if (numbered && parseInt(first[2], 10) !== 1) made.start = parseInt(first[2], 10);
  while (at < lines.length) {
    const found = ITEM.exec(lines[at]);
    if (!found || /\d/.test(found[2]) !== numbered || RULE.test(lines[at])) break;
    if (found[1].length < first[1].length) break;
    const indent = found[1].length + found[2].length + 1;
    const inside = [found[3] ?? ""];
    at += 1;
    for (; at < lines.length; at += 1) {
      const line = lines[at];
      const depthOf = line.length - line.trimStart().length;
      if (!line.trim()) {
        const next = lines[at + 1] ?? "";
        // A blank line goes on with the item only if something indented follows.
        if (next.trim() && next.length - next.trimStart().length > found[1].length) inside.push("");
        else break;
      } else if (depthOf > found[1].length) inside.push(line.slice(Math.min(depthOf, indent)));
      else if (!begins(line)) inside.push(line);
      else break;
    }
    item(element("li", made), inside, depth);
    if (!(lines[at] ?? "x").trim() && ITEM.test(lines[at + 1] ?? "")) at += 1;
  }
  return at;
}

function item(parent, lines, depth) {
  const task = /^\[([ xX])\][ \t]+(.*)$/.exec(lines[0]);
  if (task) lines[0] = `${task[1] === " " ? "☐" : "☑"} ${task[2]}`;
  blocks(parent, lines, depth + 1);
  const only = parent.firstElementChild;
  // A short item is its text, not a paragraph in it.
  if (only?.tagName === "P") only.replaceWith(...only.childNodes);
}

function table(parent, lines, at) {
  const aligned = cells(lines[at + 1]).map((c) =>
    c.endsWith(":") ? (c.startsWith(":") ? "center" : "right") : "");
  const made = element("table", element("div", parent));
  made.parentNode.className = "wide";
  made.parentNode.tabIndex = 0;
  const row = (where, tag, line) => {
    const texts = cells(line);
    const one = element("tr", where);
    aligned.forEach((side, number) => {
      const cell = element(tag, one);
      if (side) cell.className = side;
      inline(cell, texts[number] ?? "", 0);
    });
  };
  row(element("thead", made), "th", lines[at]);
  const body = element("tbody", made);
  for (at += 2; at < lines.length && lines[at].includes("|"); at += 1) row(body, "td", lines[at]);
  return at;
}

function cells(line) {
  const bare = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return bare.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

// Inside a paragraph.

function inline(parent, text, depth) {
  const missing = new Set(); // marks that nothing closes any more: looked for once
  let plain = "";
  let at = 0;
  const flush = () => {
    if (plain) parent.append(plain);
    plain = "";
  };
  while (at < text.length) {
    const taken = depth < DEEPEST ? span(text, at, missing, depth) : null;
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

function span(text, at, missing, depth) {
  const char = text[at];
  switch (char) {
    case "\\":
      if (at + 1 === text.length || !PUNCTUATION.includes(text[at + 1])) return null;
      return { node: null, text: text[at + 1], end: at + 2 };
    case "\n":
      return { node: document.createElement("br"), end: at + 1 };
    case "`":
      return codeSpan(text, at, missing);
    case "!":
      return text[at + 1] === "[" ? link(text, at + 1, depth) : null;
    case "[":
      return link(text, at, depth);
    case "*":
    case "_":
    case "~":
      return emphasis(text, at, missing, depth);
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

function codeSpan(text, at, missing) {
  const length = run(text, at);
  const marks = text.slice(at, at + length);
  if (missing.has(marks)) return { node: null, text: marks, end: at + length };
  for (let from = at + length; ; ) {
    const end = text.indexOf(marks, from);
    if (end < 0) {
      missing.add(marks);
      return { node: null, text: marks, end: at + length };
    }
    const found = run(text, end);
    if (found === length) {
      const node = document.createElement("code");
      const inside = text.slice(at + length, end).replaceAll("\n", " ");
      const padded = inside.startsWith(" ") && inside.endsWith(" ") && inside.trim();
      node.textContent = padded ? inside.slice(1, -1) : inside;
      return { node, end: end + length };
    }
    from = end + found;
  }
}

function emphasis(text, at, missing, depth) {
  const char = text[at];
  const length = run(text, at);
  const marks = text.slice(at, at + length);
  const literal = { node: null, text: marks, end: at + length };
  if (length > 3 || (char === "~" && length !== 2) || missing.has(marks)) return literal;
  if (isSpace(text[at + length]) || (char === "_" && isWord(text[at - 1]))) return literal;
  const close = closing(text, at + length, marks, missing);
  if (close < 0) {
    missing.add(marks);
    return literal;
  }
  const outer = document.createElement(char === "~" ? "del" : length === 1 ? "em" : "strong");
  const inner = length === 3 ? outer.appendChild(document.createElement("em")) : outer;
  inline(inner, text.slice(at + length, close), depth + 1);
  return { node: outer, end: close + length };
}

/** Return where the marks that close an emphasis begin, -1 if nothing closes it. */
function closing(text, from, marks, missing) {
  const [char, length] = [marks[0], marks.length];
  for (let at = from; at < text.length; ) {
    if (text[at] === "\\") at += 2;
    else if (text[at] === "`") at = codeSpan(text, at, missing).end;
    else if (text[at] !== char) at += 1;
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

function link(text, at, depth) {
  let open = 0;
  let close = at;
  const last = Math.min(text.length, at + LONGEST_LINK);
  for (; close < last; close += 1) {
    if (text[close] === "\\") close += 1;
    else if (text[close] === "[") open += 1;
    else if (text[close] === "]" && --open === 0) break;
  }
  if (close >= last || text[close + 1] !== "(") return null;
  let end = close + 2;
  let round = 1;
  const furthest = Math.min(text.length, end + LONGEST_LINK);
  for (; end < furthest; end += 1) {
    if (text[end] === "(") round += 1;
    else if (text[end] === ")" && --round === 0) break;
  }
  if (end >= furthest) return null;
  const target = text.slice(close + 2, end).trim().split(/\s/, 1)[0].replace(/^<(.*)>$/, "$1");
  const node = anchor(target);
  if (node === null) return null;
  inline(node, text.slice(at + 1, close) || target, DEEPEST - 1 > depth ? depth + 1 : DEEPEST);
  for (const nested of node.querySelectorAll("a")) nested.replaceWith(...nested.childNodes);
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
  let url = text.slice(start, end);
  const overshoots = () => /[.,;:!?'*_~]$/.test(url) || (url.endsWith(")") && !url.includes("("));
  while (!pointed && overshoots()) url = url.slice(0, -1);
  const node = anchor(url);
  if (node === null) return null;
  node.textContent = url;
  return { node, end: start + url.length + (pointed ? 1 : 0) };
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
