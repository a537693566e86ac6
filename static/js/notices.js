// The alarms as banners above the dashboard.

import { alarmsOf } from "./alarms.js";
import { retry } from "./live.js";
import { copyOf, fields, keepRows, setText } from "./rows.js";

const ICONS = { info: "#i-info", warn: "#i-warn", down: "#i-warn" };
const box = document.getElementById("notices");

export function showNotices(state) {
  keepRows(box, "notice", alarmsOf(state), (notice) => notice.key, (parts, notice, row) => {
    row.className = `notice notice-${notice.kind}`;
    row.querySelector("use").setAttribute("href", ICONS[notice.kind]);
    setText(parts.title, notice.title);
    setText(parts.text, notice.text);
    const side = row.querySelector(".notice-side");
    if (notice.command && !side.firstChild) side.append(commandBox(notice.command));
    if (notice.key === "lost" && !side.firstChild) side.append(retryButton());
  });
}

function retryButton() {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "button", textContent: "Try now" });
  button.addEventListener("click", retry);
  return button;
}

function commandBox(command) {
  const part = copyOf("command");
  setText(fields(part).command, command);
  part.querySelector("button").dataset.copy = command;
  return part;
}
