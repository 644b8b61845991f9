// What the page tells its user: what went wrong, for all to see, and what has happened, for those
// who listen.

import { ApiError } from "./api.js";

const [live, notice] = [document.getElementById("live"), document.getElementById("notice")];

/** Tell those who listen rather than look: a finished answer, or what has happened. */
export function tell(words) {
  live.textContent = words;
}

/** Show what went wrong. again: called by a button that tries once more, null for none. */
export function complain(problem, again = null) {
  const words = document.createElement("p");
  const wait = problem.retryAfter ? ` Try again in ${problem.retryAfter} s.` : "";
  words.textContent = `${problem.message}${wait}`;
  notice.replaceChildren(words);
  if (again !== null) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: "Try again" });
    button.addEventListener("click", again);
    notice.append(button);
  }
  notice.hidden = false;
}

/** Take back what was shown. */
export function calm() {
  notice.hidden = true;
  notice.replaceChildren();
}

/** Do something; what goes wrong is shown. */
export async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof ApiError)) console.error(error); // a fault of the page's own
    complain(error);
  }
}
