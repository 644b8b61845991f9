// Which of the models that are served answers; where there are several, the user chooses.
import { call } from "./api.js";
import { described } from "./sidebar.js";

const $ = (id) => document.getElementById(id);
let models = []; // all that are served, the base first
let chosen = ""; // what the one that answers is called

/** Return what the model that answers is called. */
export function model() {
  return chosen;
}

/** Learn which models there are; return what the server tells of the first. */
export async function meet() {
  models = (await call("GET", "v1/models")).data;
  $("choose").replaceChildren(...models.map(({ id }) => new Option(id)));
  $("models").hidden = models.length < 2;
  choose(models[0].id);
  return models[0].griffin ?? {};
}

/** Let a model answer from now on; one that is not served, or null, changes nothing. */
export function choose(id) {
  const served = models.find((one) => one.id === id);
  if (served === undefined) return;
  const about = served.griffin ?? {};
  chosen = $("choose").value = id;
  $("model").textContent = described(id, about);
  $("greeting").textContent = about.caution || `Ask ${id} something.`;
}

/** Say whether there is a choice: what one model has read, only that one goes on with. */
export function letChoose(free) {
  $("choose").disabled = !free;
}

$("choose").addEventListener("change", () => choose($("choose").value));
