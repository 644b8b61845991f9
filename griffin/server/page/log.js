// The messages of the open conversation, and the place where people look at them.

import { MessageView } from "./messages.js";

/** The list of messages.
 *
 * place: the element that scrolls; list: the <ol> in it; empty: shown without messages.
 */
export class MessageLog {
  #place;
  #list;
  #empty;
  #actions;
  #views = [];
  #follows = true;

  constructor(place, list, empty, actions) {
    this.#place = place;
    this.#list = list;
    this.#empty = empty;
    this.#actions = actions;
    place.addEventListener("scroll", () => {
      this.#follows = place.scrollHeight - place.scrollTop - place.clientHeight < 40;
    });
  }

  /** Show messages. A view whose message is the same stays, and keeps its focus. */
  show(messages, idle) {
    this.#views = messages.map((message, number) => {
      const old = this.#views[number];
      const same = old && old.message.role === message.role && old.message.text === message.text;
      return same ? old : new MessageView(message, this.#actions);
    });
    const elements = this.#views.map((view) => view.element);
    while (this.#list.children.length > elements.length) this.#list.lastElementChild.remove();
    elements.forEach((element, number) => {
      const there = this.#list.children[number];
      if (there === undefined) this.#list.append(element);
      else if (there !== element) there.replaceWith(element);
    });
    this.offer(messages, idle);
  }

  /** Offer what can be done with the messages now. */
  offer(messages, idle) {
    const last = messages.findLastIndex((message) => message.role === "assistant");
    messages.forEach((message, number) => {
      const end = number === messages.length - 1;
      this.#views[number].offer(message, { last: number === last, end, idle });
    });
    this.#empty.hidden = this.#list.children.length > 0;
  }

  /** Add a message that the conversation does not have yet, and return its view. */
  add(message) {
    for (const lost of this.#list.querySelectorAll(".lost")) lost.remove();
    const view = new MessageView(message, this.#actions);
    this.#views.push(view);
    this.#list.append(view.element);
    this.#empty.hidden = true;
    return view;
  }

  /** Return the view of the last message. */
  last() {
    return this.#views.at(-1);
  }

  /** Leave messages that did not come to be on the page, until the next one is added. */
  lose(views) {
    this.#views = this.#views.filter((view) => !views.includes(view));
    for (const view of views) {
      view.element.classList.add("lost");
      this.#list.append(view.element);
    }
    this.#empty.hidden = true;
  }

  /** Keep the end in sight of those who look at it. must: of everybody. */
  scroll(must = false) {
    this.#follows ||= must;
    if (this.#follows) this.#place.scrollTop = this.#place.scrollHeight;
  }
}
