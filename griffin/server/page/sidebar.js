// The list of conversations.

import { make } from "/page/messages.js";
import { size, whole } from "/page/meters.js";

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

function when(seconds) {
  const time = new Date(seconds * 1000);
  const today = new Date().toDateString() === time.toDateString();
  return today
    ? time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : time.toLocaleDateString([], { day: "numeric", month: "short" });
}
