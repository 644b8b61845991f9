// The field that messages are written in, and the options beside it.

const $ = (id) => document.getElementById(id);
const field = $("message");
const system = $("system");
// Options that are numbers, by the names that requests have for them.
const numbers = Object.fromEntries([
  "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens",
].map((name) => [name, $(name.replaceAll("_", "-"))]));
const MOST_ROWS = 8;
let suggested = {};
let ofConversation = null; // the system text of the one that is open; null for a new one

/** Put a text into the field. */
export function put(text) {
  field.value = text;
  fit();
}

/** Return what is in the field. */
export function written() {
  return field.value.trim();
}

/** Say what is asked for where nothing is chosen: fields of a request. */
export function suggest(fields) {
  suggested = fields;
  for (const [name, input] of Object.entries(numbers)) {
    input.placeholder = fields[name] ?? (name === "seed" ? "random" : "default");
  }
}

/** Return the fields of a request that were chosen or suggested; others are the server's to say. */
export function options() {
  const chosen = { ...suggested };
  for (const [name, input] of Object.entries(numbers)) {
    if (input.value !== "" && input.validity.valid) chosen[name] = input.valueAsNumber;
  }
  return chosen;
}

/** Show the system text of a conversation; null for a new one, which gets what was chosen last.
 *
 * shown: what the field is to have, if something else.
 */
export function showSystem(text, shown = text) {
  ofConversation = text;
  system.value = shown ?? localStorage.getItem("system") ?? "";
}

/** Take note of the system text that a conversation has by now. */
export function noteSystem(text) {
  ofConversation = text;
}

/** Return the system text that was written, and null where the conversation has it already. */
export function newSystem() {
  const text = system.value.trim();
  return text === (ofConversation ?? "") ? null : text;
}

/** Return whether an option cannot be used; the browser then says why. */
export function isWrong() {
  const wrong = Object.values(numbers).filter((input) => !input.validity.valid);
  if (wrong.length) $("options").open = true; // what is hidden cannot say anything
  return wrong.some((input) => !input.reportValidity());
}

function fit() {
  field.rows = 1;
  while (field.rows < MOST_ROWS && field.scrollHeight > field.clientHeight + 2) field.rows += 1;
}

// What was chosen stays chosen, in this browser.
for (const input of Object.values(numbers)) {
  input.value = localStorage.getItem(input.id) ?? "";
  input.addEventListener("change", () => localStorage.setItem(input.id, input.value));
}
system.addEventListener("change", () => {
  if (ofConversation === null) localStorage.setItem("system", system.value);
});
$("reset").addEventListener("click", () => {
  for (const input of Object.values(numbers)) {
    input.value = "";
    localStorage.removeItem(input.id);
  }
});

field.addEventListener("input", fit);
