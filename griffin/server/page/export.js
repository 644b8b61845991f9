// A conversation as a file, made in the page.

import { ask } from "./ask.js";
import { WHO } from "./messages.js";
import { messagesOf } from "./threads.js";

/** Ask how, and let the browser save a conversation. Returns whether it was.
 *
 * path: the turns that are seen; turns: a function that gives those of all branches.
 */
export async function exportIt(session, path, turns, model) {
  const [markdown, json] = ["As Markdown", "As JSON"];
  const text = "What you see, or everything: messages as a request has them, and all branches.";
  const given = await ask("Export this conversation", { text, yes: markdown, or: json });
  if (given === null) return false;
  if (given === json) {
    save(nameOf(session, "json"), asJson(session, path, await turns(), model), "application/json");
  } else save(nameOf(session, "md"), asMarkdown(session, path, model), "text/markdown");
  return true;
}

function asJson(session, path, turns, model) {
  const messages = messagesOf(path).filter((message) => message.role !== "note");
  const said = messages.map(({ role, text }) => ({ role, content: text }));
  const system = session.system ? [{ role: "system", content: session.system }] : [];
  const about = { title: session.title || session.id, model, exported: new Date().toISOString() };
  return `${JSON.stringify({ ...about, messages: [...system, ...said], turns }, null, 2)}\n`;
}

function asMarkdown(session, path, model) {
  const parts = [`# ${session.title || session.id}`, `Model: ${model}`];
  if (session.system) parts.push(`## System text\n\n${session.system}`);
  for (const { role, text } of messagesOf(path)) parts.push(`## ${WHO[role]}\n\n${text.trim()}`);
  return `${parts.join("\n\n")}\n`;
}

function save(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function nameOf(session, ending) {
  const plain = (session.title || session.id).replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60);
  return `${plain.replace(/^-+|-+$/g, "") || "conversation"}.${ending}`;
}
