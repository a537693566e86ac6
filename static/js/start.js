// The check list on the way to Alpaca's paper account: one after another, up to the first that is not passed.

import { call } from "./call.js";
import { setText } from "./rows.js";

const button = document.getElementById("run-checks");
const lines = [...document.querySelectorAll("#checks li")];

button.addEventListener("click", async () => {
  button.disabled = true;
  for (const line of lines) show(line, "", "not tried", null);
  for (const line of lines) {
    show(line, "running", "trying", null);
    const { ok, message, answer } = await call(`/api/paper-check/${line.dataset.step}`);
    const isDone = ok && answer.is_done;
    show(line, isDone ? "done" : "failed", isDone ? "done" : "not yet", ok ? answer.detail : message);
    if (!isDone) break;
  }
  button.disabled = false;
  button.focus();
});

function show(line, kind, word, detail) {
  line.className = kind;
  const state = line.querySelector(".state");
  setText(state, word);
  state.className = `state ${{ done: "up", failed: "down" }[kind] ?? "faint"}`;
  if (detail !== null) setText(line.querySelector("p"), detail);
}
