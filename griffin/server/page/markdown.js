// Markdown to DOM nodes. Text gets into the page by textContent alone, so nothing a model writes is
// ever markup. Links lead to http, https and mailto; images become links, because loading one would
// tell somebody. Every loop is linear in the text, or bounded, whatever is written
// (tests/server/page/test_markdown_times.py): what follows a star in a pattern matches any rest, or
// nothing the star does, so that no pattern tries a text in two ways.

import { DEEPEST, inline, unwrap } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}(?!`)|~{3,}(?!~))([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+([^]*)$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?([^]*)$/;
const ITEM = /^( {0,40})([-*+]|\d{1,9}[.)])(?:[ \t]+([^]*))?$/;
const TASK = /^\[([ xX])\][ \t]+([^]*)$/;

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
    else if (line.includes("|") && isRuled(lines[at + 1] ?? "")) at = table(parent, lines, at);
    else at = paragraph(parent, lines, at);
  }
}

/** Say whether a line is what stands below the head of a table: "|:--|--:|". */
function isRuled(line) {
  return line.includes("|") && /^[-:| \t]*$/.test(line) && /^\|?[ \t]*:?-/.test(line.trimStart());
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
  const task = TASK.exec(lines[0]);
  if (task) lines[0] = `${task[1] === " " ? "☐" : "☑"} ${task[2]}`;
  blocks(parent, lines, depth + 1);
  const only = parent.firstElementChild;
  // A short item is its text, not a paragraph in it.
  if (only?.tagName === "P") unwrap(only);
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
    aligned.slice(0, texts.length).forEach((side, number) => {
      const cell = element(tag, one);
      if (side) cell.className = side;
      inline(cell, texts[number], 0);
    });
    // One for all that are missing: a short line may be below a head of thousands.
    if (texts.length < aligned.length) element(tag, one).colSpan = aligned.length - texts.length;
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
