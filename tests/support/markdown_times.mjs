// Times of the page's markdown on texts of growing length, without a browser: the DOM is a stand-in
// that only counts. Reads JSON from standard input, {module, texts: {name: [shape, piece]}, lengths},
// and writes {name: [seconds of CPU for each length]}.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

class Node {
  constructor(tagName) {
    this.tagName = tagName.toUpperCase();
    this.childNodes = [];
  }
  append(...nodes) {
    for (const node of nodes) this.childNodes.push(node);
  }
  appendChild(node) {
    this.append(node);
    if (node instanceof Node) node.parentNode = this;
    return node;
  }
  moved = 0;
  get firstChild() {
    return this.childNodes[this.moved] ?? null;
  }
  insertBefore(node, before) {
    before.moved += 1; // it is taken from there
    this.childNodes.push(node);
  }
  remove() {}
  get firstElementChild() {
    return this.childNodes.find((node) => node instanceof Node) ?? null;
  }
  replaceChildren(...nodes) {
    this.childNodes = nodes;
  }
  replaceWith() {}
  querySelectorAll() {
    return [];
  }
}

globalThis.document = {
  createElement: (tag) => new Node(tag),
  createDocumentFragment: () => new Node("fragment"),
};

const SHAPES = {
  repeat: (piece, length) => piece.repeat(Math.ceil(length / piece.length)).slice(0, length),
  // Then something that undoes what it looked like.
  ended: (piece, length) => SHAPES.repeat(piece, length) + "x",
  odd: (piece, length) => SHAPES.repeat(piece, length) + "\u2028x",
  // Runs of all lengths: "` `` ``` ...".
  growing: (piece, length) => {
    let text = "";
    for (let n = 1; text.length < length; n += 1) text += piece.repeat(n) + " ";
    return text;
  },
  stairs: (piece, length) => {
    const lines = [];
    for (let n = 1, all = 0; all < length; n += 1) {
      lines.push(piece.repeat(n));
      all += lines.at(-1).length + 1;
    }
    return lines.join("\n");
  },
  lines: (piece, length) => SHAPES.repeat(`${piece}\n`, length),
  blocks: (piece, length) => SHAPES.repeat(`${piece}\n\n`, length),
  // As many columns as rows.
  table: (piece, length) => {
    const half = Math.ceil(length / 2);
    return `${SHAPES.repeat("|a", half)}\n${SHAPES.repeat("|-", half)}|\n${SHAPES.repeat(`${piece}\n`, half)}`;
  },
  nested: (piece, length) => {
    const [open, close] = piece.split(" ");
    const n = Math.ceil(length / (open.length + close.length));
    return open.repeat(n) + "a" + close.repeat(n);
  },
  within: (piece, length) => {
    const [before, inner] = piece.split("…");
    return before + SHAPES.repeat(inner, length);
  },
};

const asked = JSON.parse(readFileSync(0, "utf8"));
const { render, settled } = await import(pathToFileURL(asked.module).href);

function seconds(text) {
  let best = Infinity;
  for (let tries = 0; tries < 3 && (best > 0.002 || tries < 2); tries += 1) {
    const begun = process.cpuUsage();
    settled(text, 0);
    render(new Node("div"), text);
    const { user, system } = process.cpuUsage(begun);
    best = Math.min(best, (user + system) / 1e6);
    if (best > 2) break;
  }
  return best;
}

const found = {};
for (const [shape, piece] of asked.texts) {
  const text = (length) => (asked.prefix ?? "") + SHAPES[shape](piece, length);
  seconds(text(500)); // warm
  found[`${shape} ${JSON.stringify(piece)}`] = asked.lengths.map((length) => seconds(text(length)));
}
console.log(JSON.stringify(found));
