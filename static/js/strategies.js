// One card a symbol and strategy: its state, and which condition of an entry fails. A click chooses the chart's symbol.

import { NOTHING, price } from "./format.js";
import { keepRows, setText } from "./rows.js";

const list = document.getElementById("strategies");
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
  list.hidden = strategies.length === 0;
  empty.hidden = strategies.length > 0;
  setText(counter, strategies.length ? String(strategies.length) : "");
  keepRows(list, "strategy-card", strategies, (item) => `${item.name} ${item.symbol}`, (parts, item, card) => {
    const [label, kind] = connection.engine ? ["Off", ""] : STATES[item.status];
    const isChosen = item.symbol === symbol;
    card.toggleAttribute("data-selected", isChosen);
    if (isChosen) parts.symbol.setAttribute("aria-current", "true");
    else parts.symbol.removeAttribute("aria-current");
    setText(parts.symbol, item.symbol);
    parts.symbol.href = `?symbol=${encodeURIComponent(item.symbol)}`;
    setText(parts.name, item.enabled ? item.name.replaceAll("_", " ") : `${item.name.replaceAll("_", " ")} · off`);
    setText(parts.price, price(item.last_price));
    setText(parts.status, label);
    parts.status.className = `pill ${kind}`;
    setText(parts.why, why(item, connection));
    showConditions(parts, item, isChosen && !connection.engine);
    parts.progress.max = item.bars_needed;
    parts.progress.value = Math.min(item.bar_count, item.bars_needed);
    parts.progress.hidden = Boolean(connection.engine) || item.bar_count >= item.bars_needed;
  });
}

function why(item, connection) {
  if (connection.engine) return item.indicators.sma_fast === null ? "No candles recorded" : "As of the last recorded candle";
  if (item.blocked) return item.blocked;
  if (!item.enabled) return "Switched off in the settings";
  if (item.status === "paused") return connection.halted ? "Trading is halted" : "A limit of the session has tripped";
  if (item.status === "in_position") return "Manages its position";
  if (item.status === "signal_active") return "Its entry waits at the broker";
  if (item.bar_count < item.bars_needed) return `${item.bar_count} of ${item.bars_needed} candles`;
  const failing = item.conditions.filter((condition) => !condition.met);
  if (!item.conditions.length) return "Waits for the next candle";
  if (!failing.length) return "All conditions met at the last candle";
  return `Not now: ${failing.map((condition) => condition.name).join(", ")}`;
}

/** A mark for each condition, and for the chosen symbol the numbers. */
function showConditions(parts, { conditions, indicators }, isChosen) {
  const shown = JSON.stringify([conditions, indicators, isChosen]);
  if (parts.marks.dataset.shown === shown) return;
  parts.marks.dataset.shown = shown;
  parts.marks.replaceChildren(...conditions.map((condition) => {
    const mark = document.createElement("i");
    mark.className = condition.met ? "met" : "";
    mark.title = `${condition.name}: ${condition.value}, needed ${condition.needed}`;
    return mark;
  }));
  parts.conditions.hidden = !isChosen || conditions.length === 0;
  parts.conditions.replaceChildren(...(isChosen ? conditions : []).map((condition) => {
    const row = document.createElement("div");
    row.className = condition.met ? "met" : "unmet";
    const value = document.createElement("dd");
    value.append(condition.value || NOTHING, Object.assign(document.createElement("span"), { className: "faint", textContent: ` ${condition.met ? "" : "not "}${condition.needed}` }));
    row.append(Object.assign(document.createElement("dt"), { textContent: condition.name }), value);
    return row;
  }));
}
