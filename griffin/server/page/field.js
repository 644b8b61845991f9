// The field that messages are written in, and the options beside it.

const [field, temperature, most] = ["message", "temperature", "max-tokens"].map((id) =>
  document.getElementById(id));
const MOST_ROWS = 8;

/** Put a text into the field. */
export function put(text) {
  field.value = text;
  fit();
}

/** Return what is in the field. */
export function written() {
  return field.value.trim();
}

/** Return the fields of a request that were chosen; what was left empty is the server's to say. */
export function options() {
  const chosen = {};
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

field.addEventListener("input", fit);
