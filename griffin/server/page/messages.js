// The messages on the page: one list item each, its text rendered, its buttons beneath.

import { render, settled } from "./markdown.js";

/** Who says what has a role. */
export const WHO = { user: "You", assistant: "Answer", note: "Read before" };

/** Make an element. attributes: properties of it; children: nodes or strings. */
export function make(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

const ENDED = {
  length: "Cut: the answer reached its greatest length.",
  cancelled: "Stopped.",
};

/** A message.
 *
 * actions: {edit(message, text), again(), goOn(message), fork(message)}, called by its buttons.
 */
export class MessageView {
  #actions;
  #body;
  #mark; // what is to be said of an answer that is not whole, or says nothing
  #buttons;

  constructor(message, actions) {
    this.message = message;
    this.#actions = actions;
    this.#body = make("div", { className: "text" });
    this.#mark = make("p", { className: "mark faint", hidden: true });
    this.#buttons = make("div", { className: "actions", role: "group" });
    this.#buttons.setAttribute("aria-label", `${WHO[message.role]}: what to do with it`);
    const who = make("h3", { className: "who", textContent: WHO[message.role] });
    const parts = [who, this.#body, this.#mark, this.#buttons];
    this.element = make("li", { className: message.role }, ...parts);
    this.show(message.text);
  }

  /** Replace the text. */
  show(text) {
    this.message.text = text;
    // What a person typed is shown as typed.
    if (this.message.role === "assistant") {
      render(this.#body, text);
      addCopyButtons(this.#body);
    } else this.#body.textContent = text;
  }

  /** Begin to show an answer as it comes, after what there is of it. */
  grow() {
    this.element.setAttribute("aria-busy", "true");
    this.#mark.hidden = true;
    return new Growing(this.#body, this.message.text);
  }

  /** End showing an answer as it comes. cut: why it is not the whole one, if it is not. */
  grown(text, cut) {
    this.element.removeAttribute("aria-busy");
    this.show(text);
    this.#tell(cut);
  }

  #tell(cut) {
    const answer = this.message.role === "assistant";
    const nothing = answer && !this.message.text.trim() ? "The model answered with nothing." : "";
    this.#mark.textContent = [nothing, answer ? ENDED[cut] : ""].filter(Boolean).join(" ");
    this.#mark.hidden = !this.#mark.textContent;
  }

  /** Offer what can be done with it now.
   *
   * last: it is the last answer; end: nothing follows it; idle: no answer is under way.
   */
  offer(message, { last, end, idle }) {
    this.message = message;
    if (!this.element.hasAttribute("aria-busy")) this.#tell(message.cut);
    const offered = [];
    if (message.role === "user") offered.push(["Edit", () => this.#edit()]);
    if (message.role === "assistant") {
      if (message.text) offered.push(["Copy", (button) => copy(this.message.text, button)]);
      if (end && message.cut && message.text) {
        offered.push(["Continue", () => this.#actions.goOn(this.message)]);
      }
      if (last) offered.push(["Regenerate", () => this.#actions.again()]);
      offered.push(["Fork here", () => this.#actions.fork(this.message)]);
    }
    const names = offered.map(([name]) => name).join();
    if (this.#buttons.dataset.names !== names) {
      this.#buttons.dataset.names = names;
      this.#buttons.replaceChildren(...offered.map(([name, does]) => {
        const button = make("button", { type: "button", className: "quiet", textContent: name });
        button.addEventListener("click", () => does(button));
        return button;
      }));
    }
    for (const button of this.#buttons.children) {
      button.disabled = !idle && button.textContent !== "Copy";
    }
  }

  #edit() {
    const field = make("textarea", { value: this.message.text, rows: 3 });
    field.setAttribute("aria-label", "Edit your message");
    const save = make("button", {
      type: "submit", className: "primary", textContent: "Send in a fork",
    });
    const cancel = make("button", { type: "button", textContent: "Cancel" });
    const bar = make("div", { className: "bar" }, cancel, save);
    const form = make("form", { className: "edit" }, field, bar);
    const leave = () => {
      form.replaceWith(this.#body);
      this.#buttons.hidden = false;
      this.#buttons.firstElementChild?.focus();
    };
    cancel.addEventListener("click", leave);
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        leave();
      } else if (isSend(event)) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = field.value.trim();
      if (!text) return;
      leave();
      this.#actions.edit(this.message, text);
    });
    this.#body.replaceWith(form);
    this.#buttons.hidden = true;
    field.focus();
  }
}

/** Say whether a key is the one that sends: Enter, with Ctrl or without.
 *
 * Not while a word is composed.
 */
export function isSend(event) {
  return event.key === "Enter" && !event.shiftKey && !event.altKey && !event.isComposing;
}

/** A text that grows on the page: what can no longer change is rendered once. */
class Growing {
  text = "";
  #target;
  #last = make("div");
  #cut = 0;
  #asked = false;
  #next = 0;

  constructor(target, text) {
    this.#target = target;
    this.text = text;
    target.replaceChildren(this.#last);
    if (text) this.#paint();
  }

  /** Add a piece. It is painted with the next frame. painted: called then. */
  push(piece, painted) {
    this.text += piece;
    if (this.#asked) return;
    this.#asked = true;
    const frame = (now) => {
      // What takes long is painted less often: a fifth of the time at most.
      if (now < this.#next) return requestAnimationFrame(frame);
      this.#asked = false;
      if (!this.#last.isConnected) return; // it has ended meanwhile
      this.#paint();
      painted();
      this.#next = now + 5 * (performance.now() - now);
    };
    requestAnimationFrame(frame);
  }

  #paint() {
    const cut = settled(this.text, this.#cut);
    if (cut > this.#cut) {
      const done = make("div");
      render(done, this.text.slice(this.#cut, cut));
      this.#target.insertBefore(done, this.#last);
      this.#cut = cut;
    }
    render(this.#last, this.text.slice(this.#cut));
  }
}

function addCopyButtons(body) {
  if (!navigator.clipboard) return; // not over plain http from elsewhere
  for (const block of body.querySelectorAll("figure > pre")) {
    const button = make("button", {
      type: "button", className: "quiet copy", textContent: "Copy code",
    });
    button.addEventListener("click", () => copy(block.textContent, button));
    block.before(button);
  }
}

async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed"; // the browser says no; it says so itself
  }
  setTimeout(() => (button.textContent = before), 1500);
}
