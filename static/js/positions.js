// The table of open positions.

import { isNaked } from "./alarms.js";
import { gain, money, NOTHING, percent, price, shares, trend } from "./format.js";
import { atRisk } from "./limits.js";
import { flash, keepRows, setText } from "./rows.js";

const table = document.getElementById("positions");
const empty = document.getElementById("positions-empty");
const count = document.getElementById("positions-count");
const lastPrices = new Map();

export function showPositions({ positions }) {
  table.hidden = positions.length === 0;
  empty.hidden = positions.length > 0;
  setText(count, positions.length ? String(positions.length) : "");
  keepRows(table.tBodies[0], "position-row", positions, (position) => position.symbol, fill);
  for (const symbol of lastPrices.keys()) if (!positions.some((position) => position.symbol === symbol)) lastPrices.delete(symbol);
}

function fill(cells, position, row) {
  row.classList.toggle("naked", isNaked(position));
  setText(cells.symbol, position.symbol);
  cells.symbol.href = `?symbol=${encodeURIComponent(position.symbol)}`;
  setText(cells.side, position.side);
  cells.side.className = `pill ${position.side === "short" ? "pill-accent" : ""}`;
  setText(cells.strategy, position.leaving ? "being closed" : position.strategy);
  setText(cells.qty, shares(Math.abs(position.qty)));
  setText(cells.entry, price(position.avg_entry_price));
  setText(cells.price, price(position.current_price));
  flash(cells.price, lastPrices.get(position.symbol), position.current_price);
  lastPrices.set(position.symbol, position.current_price);
  setText(cells.stop, position.stop_price === null ? "No stop" : price(position.stop_price));
  cells.stop.className = position.stop_price === null ? "stop-missing" : "";
  setText(cells.distance, distance(position));
  setText(cells.naked, naked(position));
  setText(cells.risk, position.stop_price === null ? NOTHING : money(atRisk(position)));
  setText(cells.pnl, gain(position.unrealized_pnl));
  cells.pnl.className = trend(position.unrealized_pnl);
  setText(cells.return, [ofEntry(position), inR(position)].filter(Boolean).join(" · "));
}

/** How far the price is from the stop. */
function distance({ current_price: last, stop_price: stop, stop_moving_to: next }) {
  if (next) return `moving to ${price(next)}`;
  if (stop === null || last === null || !last) return "";
  return `${money(Math.abs(last - stop))} · ${((100 * Math.abs(last - stop)) / last).toFixed(2)}%`;
}

/** Seconds for which shares had no stop: while it lasts, and in the whole life of the position. */
function naked({ naked_seconds: seconds, stop_price: stop }) {
  if (typeof seconds !== "number") return stop === null ? "now" : NOTHING;
  return `${seconds.toFixed(1)} s`;
}

function ofEntry({ side, avg_entry_price: entry, current_price: last }) {
  return last === null ? "" : percent(((last - entry) / entry) * (side === "long" ? 1 : -1));
}

/** Profit as a multiple of what was risked at the start. */
function inR({ avg_entry_price: entry, initial_stop_price: stop, current_price: last, side }) {
  if (last === null || stop === null || stop === entry) return "";
  const multiple = ((last - entry) / Math.abs(entry - stop)) * (side === "long" ? 1 : -1);
  return `${multiple > 0 ? "+" : multiple < 0 ? "−" : ""}${Math.abs(multiple).toFixed(2)} R`;
}
