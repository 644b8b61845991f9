// The field that messages are written in, and the options beside it.

const [field, temperature, most] = ["message", "temperature", "max-tokens"].map((id) =>
  document.getElementById(id));
const MOST_ROWS = 8;
let suggested = {};

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
  temperature.placeholder = fields.temperature ?? "default";
  most.placeholder = fields.max_tokens ?? "default";
}

/** Return the fields of a request that were chosen or suggested; others are the server's to say. */
export function options() {
  const chosen = { ...suggested };
  if (temperature.value !== "" && temperature.validity.valid) {
    chosen.temperature = temperature.valueAsNumber;
  }
  if (most.value !== "" && most.validity.valid) chosen.max_tokens = most.valueAsNumber;
  return chosen;
}

/** Return whether an option cannot be used; the browser then says why. */
export function isWrong() {
  return [temperature, most].some((input) => !input.reportValidity());
}

function fit() {
  field.rows = 1;
  while (field.rows < MOST_ROWS && field.scrollHeight > field.clientHeight + 2) field.rows += 1;
}

// What was chosen stays chosen, in this browser.
for (const input of [temperature, most]) {
  input.value = localStorage.getItem(input.id) ?? "";
  input.addEventListener("change", () => localStorage.setItem(input.id, input.value));
}

field.addEventListener("input", fit);
