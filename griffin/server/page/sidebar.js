// The list of conversations, and what is said of the model.

import { make } from "./messages.js";
import { size, whole } from "./meters.js";

const PAUSE = 150;

/** Show sessions as a list of buttons. choose(id): called by them. */
export function showSessions(list, sessions, choose) {
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  list.replaceChildren(...sessions.map((session) => {
    const title = make("span", { className: "name", textContent: session.title || session.id });
    const tokens = `${whole(session.tokens)} ${session.tokens === 1 ? "token" : "tokens"}`;
    const size_ = session.bytes ? ` · ${size(session.bytes)}` : "";
    const text = `${when(session.last_used)} · ${tokens}${size_}`;
    const numbers = make("span", { className: "faint", textContent: text });
    const button = make("button", { type: "button" }, title, numbers);
    button.dataset.id = session.id;
    button.addEventListener("click", () => choose(session.id));
    return make("li", {}, button);
  }));
  if (focused !== null) list.querySelector(`button[data-id="${CSS.escape(focused)}"]`)?.focus();
}

/** Search as words are typed. search(words): called with them, at most once in PAUSE ms. */
export function onSearch(input, search) {
  let waiting = 0;
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(input.value.trim()), PAUSE);
  });
}

/** Return a line about a model. about: what the server tells of it. */
export function described(model, about) {
  const millions = (about.parameters ?? 0) / 1e6;
  const thousands = `${(millions / 1e3).toFixed(1)} B`;
  const count = millions < 1000 ? `${millions.toPrecision(2)} M` : thousands;
  const parts = [model, millions ? `${count} parameters` : "", about.weights, about.caution];
  return parts.filter(Boolean).join(" · ");
}

function when(seconds) {
  const time = new Date(seconds * 1000);
  const today = new Date().toDateString() === time.toDateString();
  return today
    ? time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : time.toLocaleDateString([], { day: "numeric", month: "short" });
}
