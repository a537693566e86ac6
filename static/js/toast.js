// A short message at the lower right that goes away by itself.

const SHOWN_MS = 5000;
const ICONS = { up: "#i-check", down: "#i-warn" };

/** Shows text; kind is "up" for success, "down" for failure. */
export function toast(text, kind = "up") {
  const toasts = document.getElementById("toasts");
  if (!toasts) return;
  const box = document.createElement("div");
  box.className = `toast toast-${kind}`;
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("class", "icon");
  icon.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", ICONS[kind]);
  icon.append(use);
  box.append(icon, Object.assign(document.createElement("span"), { textContent: text }));
  toasts.append(box);
  setTimeout(() => box.remove(), SHOWN_MS);
}
