// One question to the user, in a dialog.

const [dialog, title, words, label, input, ok, other, cancel] = [
  "#ask", "#ask-title", "#ask-text", "#ask-label", "#ask-input", "#ask-ok", "#ask-other",
  "#ask-cancel",
].map((name) => document.querySelector(name));

/** Ask and return what was typed, "" where nothing is to be typed, or null if the user says no.
 *
 * field: {label, value, type}, or absent for a mere yes or no. yes: the button's word. or: the word
 * of another button, which is then returned.
 */
export function ask(question, { text = "", field = null, yes = "OK", or = null } = {}) {
  title.textContent = question;
  words.textContent = text;
  words.hidden = !text;
  label.hidden = field === null;
  input.disabled = field === null;
  if (field !== null) {
    label.firstElementChild.textContent = field.label;
    input.type = field.type ?? "text";
    input.value = field.value ?? "";
    input.maxLength = field.most ?? 500;
  }
  ok.textContent = yes;
  other.textContent = or ?? "";
  other.hidden = or === null;
  dialog.returnValue = "";
  dialog.showModal();
  if (field !== null) input.select();
  else cancel.focus(); // the harmless answer
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const said = input.value.trim();
      input.value = ""; // a key must not stay in the page
      if (dialog.returnValue === "other") return resolve(or);
      const yes = dialog.returnValue === "yes" && (field === null || said !== "");
      resolve(yes ? (field === null ? "" : said) : null);
    }, { once: true });
  });
}

dialog.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  dialog.close("yes");
});
other.addEventListener("click", () => dialog.close("other"));
cancel.addEventListener("click", () => dialog.close());
