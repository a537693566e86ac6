// Keyboard shortcuts: single letters, and `g` followed by the letter of a page. The sheet behind `?` lists them.

const AFTER_G_MS = 1200;
const sheet = document.getElementById("keys-dialog");
let gPressedAt = -Infinity;

const click = (id) => {
  const element = document.getElementById(id);
  if (element && !element.hidden && !element.disabled) element.click();
};

const actions = {
  "?": () => sheet.showModal(),
  a: () => click("alarms-button"),
  h: () => (click("halt"), document.querySelector("dialog[open]") || click("resume")),
  l: () => click("theme-button"),
  "/": () => document.getElementById("symbol")?.focus(),
  j: () => document.dispatchEvent(new CustomEvent("next-symbol", { detail: 1 })),
  k: () => document.dispatchEvent(new CustomEvent("next-symbol", { detail: -1 })),
};

export function connectKeys() {
  document.getElementById("keys-button").addEventListener("click", () => sheet.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input, select, textarea, [contenteditable]") || document.querySelector("dialog[open]")) return;
    if (performance.now() - gPressedAt < AFTER_G_MS) {
      gPressedAt = -Infinity;
      document.querySelector(`[data-key="${CSS.escape(event.key)}"]`)?.click();
    } else if (event.key === "g") {
      gPressedAt = performance.now();
    } else if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  });
}
