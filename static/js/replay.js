// A past day, scrubbed: everything shown follows from the records with a time up to the chosen minute.

import { StoryChart } from "./candles.js";
import { gain, minute, money, NOTHING, price, second, shares, trend } from "./format.js";
import { fields, setText } from "./rows.js";

const TICK_MS = 100;
const WORKING = ["pending_submit", "submitted", "accepted", "partially_filled"];

const story = JSON.parse(document.getElementById("story").textContent);
const slider = document.getElementById("time");
const play = document.getElementById("play");
const opens = Date.parse(story.open);
const place = document.getElementById("replay-chart");
const chart = place && new StoryChart(place);
let timer = null;

slider.max = (Date.parse(story.close) - opens) / 60000;
slider.value = slider.max;

const upTo = (items, now) => items.filter((item) => Date.parse(item.timestamp) <= now);

function show() {
  const now = opens + Number(slider.value) * 60000;
  setText(document.getElementById("now"), minute(new Date(now)));
  slider.setAttribute("aria-valuetext", minute(new Date(now)));
  const fills = upTo(story.fills, now);
  const stops = upTo(story.stops, now);
  const positions = positionsAt(fills, stops, now);
  const working = ordersAt(now).filter((order) => WORKING.includes(order.state));
  showChart(fills, stops, positions, now);
  showPositions(positions);
  showOrders(working);
  showLimits(positions, working, now);
  showActivity(now);
}

/** Open positions: the fold of the fills. */
function positionsAt(fills, stops, now) {
  const held = new Map();
  for (const { qty, price: paid, ...position } of story.carried) held.set(position.symbol, { ...position, qty, cost: qty * paid });
  for (const fill of fills) {
    const { symbol, side, signal } = fill;
    const position = held.get(symbol) ?? { symbol, side, signal, qty: 0, cost: 0 };
    if (fill.kind === "entry") {
      held.set(fill.symbol, { ...position, qty: position.qty + fill.qty, cost: position.cost + fill.qty * fill.price });
    } else {
      const left = position.qty - fill.qty;
      if (left > 1e-9) held.set(fill.symbol, { ...position, qty: left, cost: (position.cost * left) / position.qty });
      else held.delete(fill.symbol);
    }
  }
  return [...held.values()].map((position) => {
    const entry = position.cost / position.qty;
    const last = (story.prices[position.symbol] ?? []).filter(([at]) => Date.parse(at) <= now).at(-1)?.[1] ?? null;
    const stop = stops.filter((each) => each.signal === position.signal).at(-1)?.price ?? null;
    const pnl = last === null ? null : (last - entry) * position.qty * (position.side === "long" ? 1 : -1);
    return { ...position, entry, last, stop, pnl };
  });
}

function ordersAt(now) {
  const orders = new Map();
  for (const event of upTo(story.orders, now)) orders.set(event.id, event);
  return [...orders.values()];
}

function showChart(fills, stops, positions, now) {
  if (!chart) return;
  const own = (items) => items.filter((item) => item.symbol === story.symbol);
  const path = own(stops);
  const exits = own(fills).filter((fill) => fill.kind === "exit");
  const ends = exits.map((fill) => ({ timestamp: fill.timestamp, price: null }));
  const held = positions.some((position) => position.symbol === story.symbol);
  const now_ = { timestamp: new Date(now).toISOString(), price: path.at(-1)?.price ?? null };
  const all = [...path, ...ends, ...(held && path.length ? [now_] : [])].sort((a, b) => a.timestamp.localeCompare(b.timestamp));
  chart.draw({ ...story, marks: own(fills), stops: all, until: now / 1000 });
}

function showPositions(positions) {
  fill("positions", "No open positions at that time.", 6, positions.map(({ symbol, side, qty, entry, last, stop, pnl }) => [
    { text: `${symbol}${side === "short" ? " short" : ""}`, className: "symbol" }, number(shares(qty)), number(price(entry)), number(price(last)),
    number(stop === null ? "No stop" : price(stop)), { text: gain(pnl), className: `number ${trend(pnl)}` },
  ]));
}

function showOrders(working) {
  fill("orders", "No working orders at that time.", 5, working.map((order) => [
    { text: order.symbol, className: "symbol", href: `/orders/${order.id}/` }, { text: order.role.replace("_", " ") }, number(shares(order.qty)),
    number(order.price === null ? "Market" : price(order.price)), { text: order.state.replaceAll("_", " ") },
  ]));
}

const number = (text) => ({ text, className: "number" });

function fill(id, empty, columns, rows) {
  const body = document.getElementById(id).tBodies[0];
  const made = rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map(({ text, className = "", href = "" }) => {
      const cell = Object.assign(document.createElement("td"), { className });
      cell.append(href ? Object.assign(document.createElement("a"), { href, textContent: text }) : text);
      return cell;
    }));
    return row;
  });
  if (!made.length) {
    const cell = Object.assign(document.createElement("td"), { colSpan: columns, className: "soft", textContent: empty });
    const row = document.createElement("tr");
    row.append(cell);
    made.push(row);
  }
  body.replaceChildren(...made);
}

function showLimits(positions, working, now) {
  const trades = upTo(story.trades, now);
  const realized = trades.reduce((sum, trade) => sum + trade.pnl, 0);
  const result = realized + positions.reduce((sum, position) => sum + (position.pnl ?? 0), 0);
  let losses = 0;
  for (const { pnl } of trades) losses = pnl < 0 ? losses + 1 : pnl > 0 ? 0 : losses;
  const held = new Set(positions.map((position) => position.symbol));
  const entries = working.filter((order) => order.role === "entry" && !held.has(order.symbol)).length;
  gauge("daily_loss", gain(result), story.limits.daily_loss === null ? "" : `stops at ${money(-story.limits.daily_loss)}`, Math.max(0, -result), story.limits.daily_loss);
  gauge("losses_in_a_row", String(losses), `of ${story.limits.losses_in_a_row}`, losses, story.limits.losses_in_a_row);
  gauge("positions", String(positions.length + entries), `of ${story.limits.positions}`, positions.length + entries, story.limits.positions);
  setText(document.getElementById("equity"), story.start_equity === null ? NOTHING : money(story.start_equity + result));
  setText(document.getElementById("trades-so-far"), `${trades.length} ${trades.length === 1 ? "trade" : "trades"} closed`);
}

function gauge(name, used, limit, value, most) {
  const box = document.querySelector(`[data-limit=${name}]`);
  const parts = fields(box);
  setText(parts.used, used);
  setText(parts.limit, limit);
  const share = most ? value / most : 0;
  box.querySelector("meter").value = Math.min(share, 1);
  box.className = `gauge ${share >= 1 ? "gauge-full" : share >= 0.6 ? "gauge-near" : ""}`;
}

function showActivity(now) {
  document.getElementById("activity").replaceChildren(...upTo(story.activities, now).reverse().map((item) => {
    const line = document.createElement("li");
    const mark = Object.assign(document.createElement("span"), { className: `mark ${item.level === "info" ? "" : "mark-down"}` });
    const time = Object.assign(document.createElement("time"), { dateTime: item.timestamp, textContent: second(item.timestamp) });
    line.append(time, mark, Object.assign(document.createElement("span"), { className: "what", textContent: item.message.charAt(0).toUpperCase() + item.message.slice(1) }));
    return line;
  }));
}

function stop() {
  clearInterval(timer);
  timer = null;
  setText(play.firstElementChild, "Play");
}

play.addEventListener("click", () => {
  if (timer) return stop();
  if (Number(slider.value) >= Number(slider.max)) slider.value = 0;
  setText(play.firstElementChild, "Pause");
  let exact = Number(slider.value);
  timer = setInterval(() => {
    exact += (Number(document.getElementById("pace").value) * TICK_MS) / 1000;
    slider.value = exact;
    show();
    if (exact >= Number(slider.max)) stop();
  }, TICK_MS);
});
slider.addEventListener("input", () => {
  stop();
  show();
});
for (const id of ["day", "symbol"]) document.getElementById(id).addEventListener("change", (event) => event.target.form.submit());

show();
chart?.fit();
