// Closing a position, moving its stop and flattening everything, each after a question.

import { ask } from "./call.js";
import { money, price, shares } from "./format.js";
import { changed, state } from "./live.js";
import { fields, setText } from "./rows.js";
import { toast } from "./toast.js";

const part = (id) => document.getElementById(id);
const flatten = part("flatten");
const mayTrade = flatten !== null;
const busy = new Set();
const PAINTED_MS = 300;

export function showActions({ positions, connection, isStale }) {
  if (!mayTrade) return;
  const running = !connection.engine && !isStale;
  flatten.hidden = !running || positions.length === 0;
  flatten.disabled = busy.has("");
  for (const row of part("positions").tBodies[0].rows) {
    const position = positions.find((one) => one.symbol === row.dataset.key);
    const parts = fields(row);
    const waits = !running || busy.has(row.dataset.key) || Boolean(position?.leaving);
    parts.close.disabled = waits;
    parts.move.disabled = waits || Boolean(position?.stop_moving_to);
    parts.close.setAttribute("aria-label", `Close the position in ${row.dataset.key}`);
    parts.move.setAttribute("aria-label", `Move stop of ${row.dataset.key}`);
  }
}

export function connectActions() {
  if (!mayTrade) return;
  part("positions").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const position = state.positions.find((one) => one.symbol === button?.closest("tr").dataset.key);
    if (!position) return;
    if (button.dataset.field === "close") askToClose(position);
    else askToMove(position);
  });
  part("move-price").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return; // which else presses the first button, that leaves the stop where it is
    event.preventDefault();
    event.target.form.requestSubmit(event.target.form.querySelector("[value=do]"));
  });
  flatten.addEventListener("click", async () => {
    const list = state.positions.map((one) => `${shares(Math.abs(one.qty))} ${one.symbol}`).join(", ");
    if (await confirmed("flatten-dialog", { text: `Working entries are cancelled and every position is closed at market: ${list}.` })) {
      await carryOut("", "/api/flatten", undefined, "Everything is being closed.");
    }
  });
}

async function askToClose(position) {
  const { symbol, qty, current_price: last, unrealized_pnl: pnl } = position;
  const text = `${shares(Math.abs(qty))} shares at about ${price(last)}, result so far ${money(pnl)}.`;
  if (await confirmed("close-dialog", { symbol, text })) {
    await carryOut(symbol, `/api/positions/${encodeURIComponent(symbol)}/close`, undefined, `${symbol} is being closed.`);
  }
}

async function askToMove(position) {
  const { symbol, stop_price: stop, current_price: last, side } = position;
  const input = part("move-price");
  const step = last < 1 ? 0.0001 : 0.01;
  input.step = step;
  input.value = (stop ?? "") && stop.toFixed(last < 1 ? 4 : 2);
  const where = side === "long" ? "up" : "down";
  const text = `It is at ${stop === null ? "no price" : price(stop)}, the last price is ${price(last)}. A stop only moves ${where}, and stays ${side === "long" ? "below" : "above"} the price.`;
  if (await confirmed("move-dialog", { symbol, text })) {
    const wanted = input.value;
    await carryOut(symbol, `/api/positions/${encodeURIComponent(symbol)}/move-stop`, { stop_price: wanted }, `The stop of ${symbol} is being moved to ${price(Number(wanted))}.`);
  }
}

/** Fills the dialog and shows it; whether the user said yes. */
function confirmed(id, texts) {
  const dialog = part(id);
  const parts = fields(dialog);
  for (const [name, text] of Object.entries(texts)) setText(parts[name], text);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "do"), { once: true });
  });
}

async function carryOut(symbol, url, body, done) {
  const opener = document.activeElement; // the dialog has given the focus back to it
  busy.add(symbol);
  changed();
  const { ok, message } = await ask(url, body);
  toast(ok ? done : message, ok ? "up" : "down");
  busy.delete(symbol);
  changed();
  setTimeout(() => keepFocus(opener), PAINTED_MS);
}

/** A button that is disabled or goes with its row loses the focus; whoever has only keys need not begin at the top. */
function keepFocus(opener) {
  if (document.activeElement !== document.body) return;
  const place = opener.isConnected && !opener.disabled && !opener.hidden ? opener : part("positions-title");
  place.focus();
}
