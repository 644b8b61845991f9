// The chat page: which conversation is open, and what happens when somebody does something.
import { ApiError, call, events, onLocked } from "./api.js";
import { ask } from "./ask.js";
import { exportIt } from "./export.js";
import * as field from "./field.js";
import { MessageLog } from "./log.js";
import { closeMenu, leaveMenu } from "./menu.js";
import { isSend } from "./messages.js";
import { Meters } from "./meters.js";
import { choose, letChoose, meet, model } from "./models.js";
import { onSearch, showSessions } from "./sidebar.js";
import { attempt, calm, complain, tell } from "./telling.js";
import { messagesOf, open, pathOf } from "./threads.js";

const $ = (id) => document.getElementById(id);
const meters = new Meters($("meters"));
const does = { edit, again, goOn, fork: forkAfter };
const log = new MessageLog($("log"), $("messages"), $("empty"), does);
const FORKED = "Forked. What you say now is said in the fork.";

let store = null; // where conversations are
let listed = []; // those in the sidebar
let sought = ""; // what they have in common
let session = null; // the one that is open; null for one that nothing was said in yet
let path = []; // its turns up to where it stands
let undone = []; // turns that Undo left, for Redo
let answering = null; // the AbortController of the answer that is coming
let acting = null; // what is being done, a Promise

onLocked((problem) => ask("This server asks for a key", {
  text: problem || "It stays in this tab, until you close it.",
  field: { label: "API key", type: "password", most: 4096 },
  yes: "Use it",
}));

/** Do one thing at a time. What is asked for meanwhile, a second click say, is passed over. */
async function act(action) {
  if (acting || store === null) return;
  acting = attempt(action);
  await acting;
  acting = null;
}

// Which conversation is open.

async function start() {
  let first;
  [store, first] = await open();
  showList(first, false);
  const about = await meet();
  meters.bytes = about.state_bytes ?? 0;
  meters.window = about.window ?? 0;
  field.suggest(about.sampling ?? {});
  await go(asked());
  const server = await call("GET", "v1/server");
  const where = store.kept ? "" : " · conversations end with this page";
  $("server").textContent = `${server.model} · griffin ${server.version}${where}`;
}

function asked() {
  return new URLSearchParams(location.hash.slice(1)).get("s");
}

function hashOf(id) {
  return `#${new URLSearchParams({ s: id })}`;
}

function showList({ data, next }, more) {
  listed = more ? [...listed, ...data] : data;
  $("older").hidden = next === null;
  $("older").onclick = () => act(async () => showList(await store.list(sought, next), true));
  $("none-found").hidden = !sought || listed.length > 0;
  $("none-found").textContent = `No conversation has “${sought}”.`;
  showSessions($("session-list"), listed, (id) => {
    closeMenu();
    location.hash = hashOf(id);
  });
  showSession();
}

/** Open a conversation; null opens a new one. */
async function go(id) {
  calm();
  undone = [];
  meters.clear();
  [session, path] = id === null ? [null, []] : await read(id);
  choose(session?.model);
  field.showSystem(session === null ? null : session.system ?? "");
  log.show(messagesOf(path), true);
  showSession();
  log.scroll(true);
}

async function read(id) {
  return Promise.all([store.get(id), store.turns(id).then(pathOf)]);
}

/** Take up again what the server knows, after something was said or undone. */
async function refresh() {
  [session, path] = await read(session.id);
  log.show(messagesOf(path), answering === null);
  await list();
}

async function list() {
  showList(await store.list(sought), false);
}

/** Show what the open conversation is called, and what can be done with it now. */
function showSession() {
  const name = session === null ? "New chat" : session.title || session.id;
  const idle = answering === null;
  $("title").textContent = name;
  document.title = session === null ? "griffin" : `${name} · griffin`;
  for (const id of ["fork", "rename", "export", "delete"]) $(id).hidden = session === null;
  letChoose(idle && session === null);
  $("undo").hidden = !path.length;
  $("redo").hidden = !undone.length;
  for (const id of ["new", "undo", "redo", "fork", "rename", "export", "delete"]) {
    $(id).disabled = !idle;
  }
  $("send").hidden = !idle;
  $("stop").hidden = idle;
  meters.state(session?.tokens ?? 0);
  for (const item of $("session-list").querySelectorAll("button")) {
    const current = item.dataset.id === session?.id;
    if (current) item.setAttribute("aria-current", "page");
    else item.removeAttribute("aria-current");
    item.disabled = !idle && !current;
  }
}

// Saying something.

/** Say something and show the answer as it comes. Returns whether the conversation went on by it.
 *
 * text: null to go on with an answer that was cut. retry: called by the button that an error gets.
 */
async function say(text, retry = () => sayAgain(text)) {
  calm();
  undone = [];
  answering = new AbortController();
  const before = session?.head ?? null;
  const said = text === null ? [] : ["user", "assistant"].map((role) =>
    log.add({ role, text: role === "user" ? text : "" }));
  const view = log.last();
  log.offer(messagesOf(path), false);
  const growing = view.grow();
  const held = growing.text.length;
  showSession();
  log.scroll(true);
  const answer = { usage: null, extras: null, reason: null, system: field.newSystem() };
  let problem = null;
  try {
    await begin(text);
    await listen(text, growing, answer);
  } catch (error) {
    if (!answering.signal.aborted) problem = error;
  }
  meters.end(answer.usage, answer.extras);
  const cut = answer.reason === null ? "cancelled" : answer.reason;
  view.grown(growing.text, cut);
  const stopped = answering.signal.aborted;
  answering = null;
  const got = growing.text.slice(held);
  return settle({ text, got, said, before, answer, stopped, problem, retry });
}

/** Make a session of a conversation that was none. */
async function begin(text) {
  if (session !== null) return;
  const line = text.split("\n", 1)[0];
  const title = line.length > 60 ? `${line.slice(0, 59).trimEnd()}…` : line;
  session = await store.create(title, model());
  history.replaceState(null, "", hashOf(session.id));
  showSession();
}

async function listen(text, growing, answer) {
  meters.begin();
  const streamed = { stream: true, stream_options: { include_usage: true } };
  const goesOn = store.request(session.id, path, text, answer.system);
  const body = { model: model(), ...goesOn, ...field.options(), ...streamed };
  for await (const chunk of events("v1/chat/completions", body, answering.signal)) {
    if (chunk.usage) Object.assign(answer, { usage: chunk.usage, extras: chunk.griffin ?? null });
    const choice = chunk.choices[0];
    if (choice?.delta?.content) {
      meters.piece(choice.delta.content);
      growing.push(choice.delta.content, () => log.scroll());
    }
    answer.reason = choice?.finish_reason ?? answer.reason;
  }
}

/** Learn what became of what was said, and give it back to the user if nothing did. */
async function settle({ text, got, said, before, answer, stopped, problem, retry }) {
  let kept = false;
  try {
    if (session !== null) {
      const whole = (got || answer.reason) && !problem;
      if (whole) await store.answered(session.id, text, got, answer);
      kept = await writtenDown(before, stopped || problem !== null);
    }
  } catch (error) {
    problem ??= error;
  }
  if (!kept) {
    problem ??= stopped ? null : new ApiError(0, "The server did not keep this answer.");
    log.lose(said);
    if (text !== null && !field.written()) field.put(text);
  }
  if (kept) field.noteSystem(session.system ?? "");
  showSession();
  if (problem) complain(problem, kept ? null : retry);
  const lost = "Stopped. Nothing of it was kept; your message is in the field again.";
  const long = `${got}\nCut: the answer reached its greatest length.`;
  if (stopped) tell(kept ? "Stopped." : lost);
  else if (!problem) tell(answer.reason === "length" ? long : got);
  log.scroll();
  return kept;
}

/** Return whether the session went on.
 *
 * A server that was left in mid-answer may still be writing it down.
 */
async function writtenDown(before, cut) {
  for (let wait = 50; ; wait *= 2) {
    await refresh();
    if (session.head !== before || !cut || (!session.busy && wait > 100) || wait > 3000) break;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  return session.head !== before;
}

function sayAgain(text) {
  act(async () => {
    if (field.written() === text) field.put("");
    await say(text);
  });
}

// Going elsewhere.

/** Return the place in the path that the last thing the user said has. */
function lastSaid() {
  const messages = messagesOf(path);
  return messages.findLast((message) => message.role === "user") ?? messages.at(-1);
}

async function undo() {
  const head = session.head;
  await store.undo(session.id, path.length - lastSaid().index);
  undone.push(head);
  await refresh();
  if (!path.length) $("message").focus(); // the button is gone
  tell("Undone.");
}

async function redo() {
  await store.goto(session.id, undone.at(-1));
  undone.pop();
  await refresh();
  if (!undone.length) $("message").focus(); // the button is gone
  tell("Redone.");
}

/** Answer the last message anew, on a branch of its own. */
function again() {
  $("message").focus();
  return act(async () => {
    const [head, last] = [session.head, lastSaid()];
    await store.undo(session.id, path.length - last.index);
    await refresh();
    if (await say(last.text, again)) return;
    await store.goto(session.id, head); // nothing came; the old answer stays
    const lost = [...$("messages").querySelectorAll(".lost")];
    await refresh();
    for (const element of lost) element.remove();
    if (field.written() === last.text) field.put("");
  });
}

/** Go on with an answer that was cut, if it is still the last thing that was said. */
async function goOn(message) {
  $("message").focus();
  while (acting) await acting; // it may still be written down
  if (messagesOf(path).at(-1)?.turn === message.turn) {
    await act(() => say(null, () => goOn(message)));
  }
}

/** Say something else instead of an earlier message: in a fork, so that nothing is lost. */
function edit(message, text) {
  $("message").focus();
  return act(async () => {
    const system = session.system ?? "";
    await follow(await store.fork(session.id, message.before, titled("edited"), model()));
    field.showSystem(session.system ?? "", system); // a fork before the first message has none yet
    await say(text);
  });
}

function forkAfter(message) {
  return act(async () => {
    await follow(await store.fork(session.id, message.turn, titled("fork")));
    tell(FORKED);
    $("message").focus();
  });
}

async function fork() {
  await follow(await store.fork(session.id, session.head, titled("fork")));
  tell(FORKED);
  $("message").focus();
}

async function follow(made) {
  history.pushState(null, "", hashOf(made.id));
  await go(made.id);
  await list();
}

function titled(word) {
  const old = (session.title || session.id).replace(/ \((edited|fork)\)$/, "");
  return `${old.slice(0, 180)} (${word})`;
}

async function rename() {
  const input = { label: "Title", value: session.title, most: 200 };
  const given = await ask("Rename this conversation", { field: input, yes: "Rename" });
  if (given === null) return;
  await store.rename(session.id, given);
  await refresh();
}

async function exportThis() {
  if (await exportIt(session, path, () => store.turns(session.id), model())) tell("Exported.");
}

async function remove() {
  const text = `“${session.title || session.id}” will be gone for good. Forks of it stay.`;
  if ((await ask("Delete this conversation?", { text, yes: "Delete" })) === null) return;
  await store.remove(session.id);
  history.replaceState(null, "", "#");
  await go(null);
  await list();
  tell("Deleted.");
  $("message").focus();
}

// Hands on keys and buttons.

$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = field.written();
  if (!text || answering || store === null || field.isWrong()) return;
  field.put("");
  $("message").focus();
  while (acting) await acting; // an answer that has ended is still being put in order
  act(() => say(text));
});
$("message").addEventListener("keydown", (event) => {
  if (!isSend(event)) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || $("ask").open) return;
  if (!leaveMenu()) answering?.abort();
});
$("stop").addEventListener("click", () => {
  answering?.abort();
  $("message").focus();
});
$("new").addEventListener("click", () => {
  closeMenu();
  act(() => {
    history.pushState(null, "", "#");
    return go(null);
  });
  $("message").focus();
});
onSearch($("search"), (words) => attempt(async () => {
  sought = words;
  const found = await store?.list(words);
  if (found && words === sought) showList(found, false); // others may be asked for by now
}));
const actions = { undo, redo, fork, rename, export: exportThis, delete: remove };
for (const [id, action] of Object.entries(actions)) {
  $(id).addEventListener("click", () => act(action));
}
window.addEventListener("popstate", () => {
  if (asked() !== (session?.id ?? null)) act(() => go(asked()));
});

showSession();
attempt(start);
$("message").focus();
