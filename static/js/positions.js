// The table of open positions.

import { gain, money, NOTHING, price, shares, trend } from "./format.js";
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
}

function fill(cells, position) {
  setText(cells.symbol, position.symbol);
  cells.symbol.href = `?symbol=${encodeURIComponent(position.symbol)}`;
  setText(cells.side, position.side);
  cells.side.className = `pill ${position.side === "short" ? "pill-accent" : ""}`;
  setText(cells.qty, shares(Math.abs(position.qty)));
  setText(cells.entry, price(position.avg_entry_price));
  setText(cells.price, price(position.current_price));
  flash(cells.price, lastPrices.get(position.symbol), position.current_price);
  lastPrices.set(position.symbol, position.current_price);
  setText(cells.stop, position.stop_price === null ? "No stop" : price(position.stop_price));
  cells.stop.className = position.stop_price === null ? "stop-missing" : "";
  setText(cells.risk, atRisk(position));
  setText(cells.pnl, gain(position.unrealized_pnl));
  cells.pnl.className = trend(position.unrealized_pnl);
}

/** What is lost, seen from the entry, if the stop fills; nothing once the stop has passed the entry. */
function atRisk({ side, qty, avg_entry_price: entry, stop_price: stop }) {
  if (stop === null) return NOTHING;
  const distance = side === "long" ? entry - stop : stop - entry;
  return money(Math.max(0, distance * Math.abs(qty)));
}
