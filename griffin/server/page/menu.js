// The list of conversations on a narrow screen: behind a button.

const [menu, first] = ["menu", "new"].map((id) => document.getElementById(id));

/** Show the list or hide it. */
function turn(shown) {
  document.body.classList.toggle("menu", shown);
  menu.setAttribute("aria-expanded", String(shown));
}

export function closeMenu() {
  turn(false);
}

/** Hide the list if it is shown, and go back to its button. Returns whether it was. */
export function leaveMenu() {
  const shown = document.body.classList.contains("menu");
  closeMenu();
  if (shown) menu.focus();
  return shown;
}

menu.addEventListener("click", () => {
  turn(!document.body.classList.contains("menu"));
  if (document.body.classList.contains("menu")) first.focus();
});
