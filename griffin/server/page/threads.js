// Where conversations are: on the server as sessions, or in this page where the server keeps none.
// Both kinds answer to the same names, so the rest of the page does not ask which it has.

import { ApiError, call } from "./api.js";

/** Sessions of the server: they outlive page and process. */
export class Sessions {
  kept = true;

  /** Return a page of sessions, newest first, and the id that the next one comes after, or null.
   *
   * words: those alone that have them in title or text; "" for all. What programs keep with
   * /v1/conversations is theirs to go on with, and is left out.
   */
  async list(words = "", after = null) {
    const asked = { ...(words && { search: words }), ...(after !== null && { after }) };
    const query = new URLSearchParams({ limit: "50", ...asked });
    const { data, has_more: more, last_id: last } = await call("GET", `v1/sessions?${query}`);
    return { data: data.filter(({ id }) => !id.startsWith("conv_")), next: more ? last : null };
  }

  get(id) {
    return call("GET", at(id));
  }

  create(title, model) {
    return call("POST", "v1/sessions", { title, model });
  }

  /** Return all turns, those of other branches too. */
  async turns(id) {
    return (await call("GET", `${at(id)}/turns`)).data;
  }

  /** Begin another conversation with what was said up to a turn; null is before the first. */
  fork(id, turn, title, model) {
    if (turn === null) return this.create(title, model);
    return call("POST", `${at(id)}/fork`, { at: turn, title });
  }

  undo(id, turns) {
    return call("POST", `${at(id)}/rewind`, { turns });
  }

  goto(id, turn) {
    return call("POST", `${at(id)}/rewind`, { to: turn });
  }

  rename(id, title) {
    return call("PATCH", at(id), { title });
  }

  remove(id) {
    return call("DELETE", at(id));
  }

  /** Return what a chat request says about where it goes on: the session knows what was said.
   *
   * text: the new message; null to go on with the last answer. system: a new system text, or null.
   */
  request(id, path, text, system) {
    const said = text === null ? talkOf(path) : [{ role: "user", content: text }];
    return { session_id: id, messages: [...instructed(system), ...said] };
  }

  /** Take note of an answer; the server has done so itself. */
  async answered() {}
}

/** Conversations that live as long as the page does: the whole of one is sent each time. */
export class Here {
  kept = false;
  #all = new Map();

  async list(words = "") {
    const wanted = words.toLowerCase();
    const has = (text) => text?.toLowerCase().includes(wanted);
    const data = [...this.#all.values()]
      .filter(({ session, turns }) => has(session.title) || turns.some((turn) => has(turn.text)))
      .map((one) => one.session);
    return { data: data.sort((a, b) => b.last_used - a.last_used), next: null };
  }

  async get(id) {
    return { ...this.#of(id).session };
  }

  async create(title, model = null) {
    const now = Date.now() / 1000;
    const id = `here-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
    const session = {
      id, title, created: now, last_used: now,
      turns: 0, tokens: 0, bytes: 0, head: null, busy: false, system: null, model,
    };
    this.#all.set(id, { session, turns: [] });
    return { ...session };
  }

  async turns(id) {
    const { session, turns } = this.#of(id);
    const current = new Set();
    for (let turn = session.head; turn !== null; turn = turns[turn - 1].parent) current.add(turn);
    return turns.map((turn) => ({ ...turn, current: current.has(turn.id) }));
  }

  async fork(id, turn, title, model) {
    const made = await this.create(title, model ?? this.#of(id).session.model);
    if (turn === null) return made;
    const [from, to] = [this.#of(id), this.#of(made.id)];
    for (let one = turn; one !== null; one = from.turns[one - 1].parent) {
      to.turns.unshift({ ...from.turns[one - 1] });
    }
    to.turns.forEach((one, number) => {
      Object.assign(one, { id: number + 1, parent: number || null });
    });
    return this.goto(made.id, to.turns.length);
  }

  async undo(id, turns) {
    const { session, turns: all } = this.#of(id);
    let head = session.head;
    for (let left = turns; left > 0 && head !== null; left -= 1) head = all[head - 1].parent;
    return this.goto(id, head);
  }

  async goto(id, turn) {
    const { session, turns } = this.#of(id);
    session.head = turn;
    session.turns = 0;
    for (let one = turn; one !== null; one = turns[one - 1].parent) session.turns += 1;
    session.tokens = turn === null ? 0 : turns[turn - 1].tokens;
    return { ...session };
  }

  async rename(id, title) {
    Object.assign(this.#of(id).session, { title });
  }

  async remove(id) {
    this.#all.delete(id);
  }

  request(id, path, text, system) {
    const said = talkOf(path);
    if (text !== null) said.push({ role: "user", content: text });
    return { messages: [...instructed(system ?? this.#of(id).session.system), ...said] };
  }

  async answered(id, text, answer, { usage, reason, system }) {
    const { session, turns } = this.#of(id);
    const now = Date.now() / 1000;
    if (system !== null) session.system = system || null;
    let said = [["user", text], ["assistant", answer]];
    if (text === null) { // beside the answer that was cut
      const cut = turns[session.head - 1];
      session.head = cut.parent;
      said = [["assistant", cut.text + answer]];
    }
    for (const [role, words] of said) {
      const tokens = usage?.total_tokens ?? 0;
      const about = { tokens, finish_reason: role === "assistant" ? reason ?? "cancelled" : null };
      turns.push({ id: turns.length + 1, parent: session.head, role, text: words, ...about });
      session.head = turns.length;
    }
    session.last_used = now;
    await this.goto(id, session.head);
  }

  #of(id) {
    const found = this.#all.get(id);
    if (!found) {
      throw new ApiError(404, "That conversation was in a page that is gone.", "state_not_found");
    }
    return found;
  }
}

/** Return where this server's conversations are, and the first of them. */
export async function open() {
  const sessions = new Sessions();
  try {
    return [sessions, await sessions.list()];
  } catch (error) {
    const none = [404, 405, 501].includes(error.status) || error.code === "unsupported_parameter";
    if (!none) throw error;
    const here = new Here();
    return [here, await here.list()];
  }
}

/** Return the turns on the way to where a session stands, oldest first. */
export function pathOf(turns) {
  return turns.filter((turn) => turn.current).sort((a, b) => a.id - b.id);
}

/** Return messages as people see them, of a path of turns.
 *
 * One turn may hold a message and its answer. role, text; turn: the id of the turn that holds it;
 * index: that turn's place in the path; before: the id of the turn that comes before it, null for a
 * first one; cut: "length" or "cancelled" for an answer that is not whole, else null.
 */
export function messagesOf(path) {
  const messages = [];
  path.forEach((turn, index) => {
    const where = { turn: turn.id, index, before: index ? path[index - 1].id : null };
    const both = turn.role === "exchange" && turn.text !== null ? exchange(turn.text) : null;
    const cut = ["length", "cancelled"].includes(turn.finish_reason) ? turn.finish_reason : null;
    const last = messages.at(-1);
    if (both !== null) {
      messages.push({ role: "user", text: both[0], ...where });
      messages.push({ role: "assistant", text: both[1], cut, ...where });
    } else if (turn.role === "continuation" && last?.role === "assistant" && turn.text !== null) {
      // The terminal's way to go on with an answer that was cut.
      Object.assign(last, { text: last.text + turn.text, cut, turn: turn.id });
    } else {
      const answers = ["assistant", "model"].includes(turn.role);
      const role = turn.role === "user" ? "user" : answers ? "assistant" : "note";
      messages.push({ role, text: turn.text ?? "(the text was not kept)", cut, ...where });
    }
  });
  return messages;
}

// The form in which a session keeps a message and its answer: the message quoted, an empty line,
// the answer.
function exchange(text) {
  const lines = text.split("\n");
  const end = lines.findIndex((line) => !line.startsWith("> "));
  if (end < 1 || lines[end] !== "") return null;
  const message = lines.slice(0, end).map((line) => line.slice(2));
  return [message.join("\n"), lines.slice(end + 1).join("\n")];
}

/** Return what was said as messages of a request. */
function talkOf(path) {
  const said = messagesOf(path).filter((message) => message.role !== "note");
  return said.map(({ role, text }) => ({ role, content: text }));
}

function instructed(system) {
  return system === null ? [] : [{ role: "system", content: system }];
}

function at(id) {
  return `v1/sessions/${encodeURIComponent(id)}`;
}
