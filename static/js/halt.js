// Halting and resuming, each after a question.

import { call } from "./call.js";
import { toast } from "./toast.js";

const buttons = { halt: document.getElementById("halt"), resume: document.getElementById("resume") };
const DONE = { halt: "Trading is being halted.", resume: "Trading is being resumed." };
let busy = false;
let successor = null; // the button that takes the place, and the focus, of the one that was pressed

export function showHalt({ connection, isStale }) {
  const running = connection && !connection.engine && !isStale;
  for (const [action, button] of Object.entries(buttons)) {
    if (!button) continue; // this user may look but not act
    button.hidden = !running || (action === "resume") !== Boolean(connection?.halted);
    button.disabled = busy;
  }
  if (successor && !successor.hidden && !successor.disabled) {
    if (document.activeElement === document.body) successor.focus();
    successor = null;
  }
}

export function connectHalt(changed) {
  for (const [action, button] of Object.entries(buttons)) {
    if (!button) continue;
    const dialog = document.getElementById(`${action}-dialog`);
    button.addEventListener("click", () => dialog.showModal());
    dialog.addEventListener("close", async () => {
      if (dialog.returnValue !== action) return;
      dialog.returnValue = "";
      busy = true;
      changed();
      const { ok, message } = await call(`/api/${action}`);
      toast(ok ? DONE[action] : message, ok ? "up" : "down");
      successor = buttons[ok === (action === "halt") ? "resume" : "halt"];
      busy = false;
      changed();
    });
  }
}
