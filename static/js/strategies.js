// The table of strategies, one row a symbol; a click on a row chooses the chart's symbol.

import { count, NOTHING, price } from "./format.js";
import { keepRows, setText } from "./rows.js";

const table = document.getElementById("strategies");
const empty = document.getElementById("strategies-empty");
const counter = document.getElementById("strategies-count");

const STATES = {
  warming_up: ["Warming up", "pill-warn"],
  cold: ["Cold", "pill-warn"],
  watching: ["Watching", ""],
  signal_active: ["Signal", "pill-accent"],
  in_position: ["In position", "pill-up"],
  paused: ["Paused", "pill-down"],
};

export function showStrategies({ strategies, symbol, connection }) {
  table.hidden = strategies.length === 0;
  empty.hidden = strategies.length > 0;
  setText(counter, strategies.length ? String(strategies.length) : "");
  keepRows(table.tBodies[0], "strategy-row", strategies, (item) => `${item.name} ${item.symbol}`, (cells, item, row) => {
    const [label, kind] = connection.engine ? ["Off", ""] : STATES[item.status];
    const isChosen = item.symbol === symbol;
    row.toggleAttribute("data-selected", isChosen);
    if (isChosen) cells.symbol.setAttribute("aria-current", "true");
    else cells.symbol.removeAttribute("aria-current");
    setText(cells.symbol, item.symbol);
    cells.symbol.href = `?symbol=${encodeURIComponent(item.symbol)}`;
    setText(cells.name, item.enabled ? item.name : `${item.name} · off`);
    setText(cells.status, label);
    cells.status.className = `pill ${kind}`;
    setText(cells.fast, price(item.indicators.sma_fast));
    setText(cells.slow, price(item.indicators.sma_slow));
    setText(cells.bars, connection.engine ? NOTHING : `${count(item.bar_count)} / ${count(item.bars_needed)}`);
    cells.progress.max = item.bars_needed;
    cells.progress.value = Math.min(item.bar_count, item.bars_needed);
    cells.progress.hidden = Boolean(connection.engine) || item.bar_count >= item.bars_needed;
  });
}
