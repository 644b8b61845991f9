// One question to the user, in a dialog.

const [dialog, title, words, label, input, ok, cancel] = [
  "#ask", "#ask-title", "#ask-text", "#ask-label", "#ask-input", "#ask-ok", "#ask-cancel",
].map((name) => document.querySelector(name));

/** Ask and return what was typed, "" where nothing is to be typed, or null if the user says no.
 *
 * field: {label, value, type}, or absent for a mere yes or no. yes: the button's word.
 */
export function ask(question, { text = "", field = null, yes = "OK" } = {}) {
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
  dialog.returnValue = "";
  dialog.showModal();
  if (field !== null) input.select();
  else cancel.focus(); // the harmless answer
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const said = input.value.trim();
      input.value = ""; // a key must not stay in the page
      const yes = dialog.returnValue === "yes" && (field === null || said !== "");
      resolve(yes ? (field === null ? "" : said) : null);
    }, { once: true });
  });
}

dialog.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  dialog.close("yes");
});
cancel.addEventListener("click", () => dialog.close());
