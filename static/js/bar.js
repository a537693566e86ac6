// The bar on top: the market's clock, today's result, whether every position is protected, the streams.

import { isNaked } from "./alarms.js";
import { day, gain, minute, percent, span, trend } from "./format.js";
import { marketNow } from "./live.js";
import { fields, setText } from "./rows.js";

const MODES = { built_in: "BUILT-IN MARKET", paper: "PAPER", live: "LIVE" };

const part = (id) => document.getElementById(id);
const badge = part("mode");
const clock = part("market-clock");
const lastBar = part("last-bar");

export function showBar(state) {
  const { connection } = state;
  if (!connection) return;
  const mode = connection.account_mode;
  document.body.dataset.mode = mode ?? "unknown";
  badge.hidden = !MODES[mode];
  setText(badge, MODES[mode] ?? "");
  showClock(state);
  showResult(state.pnl);
  showProtection(state);
  showStream("bar-stream", connection.bar_stream, state);
  showStream("trade-stream", connection.trade_stream, state);
  if (connection.last_bar_at) {
    const time = lastBar.querySelector("time");
    time.dateTime = connection.last_bar_at;
    time.title = day(connection.last_bar_at);
    setText(time, minute(connection.last_bar_at));
  }
}

function showClock({ connection, isStale }) {
  const now = marketNow();
  const parts = fields(clock);
  const isOff = isStale || Boolean(connection.engine);
  const isOpen = connection.market_open;
  const until = isOpen ? connection.session_close : connection.next_open;
  setText(parts.state, isOff ? "No engine" : isOpen ? "Open" : "Closed");
  if (isStale) setText(parts.state, "Unknown");
  setText(parts.until, isOff || !until || !now ? "" : `${isOpen ? "closes" : "opens"} in ${span(Date.parse(until) - now)}`);
  parts.until.title = isOff || !until ? "" : `${day(until)}, ${minute(until)} New York`;
  parts.half.hidden = isOff || !isOpen || !connection.half_day;
  clock.querySelector(".dot").className = `dot ${isOff ? "" : isOpen ? "dot-up" : "dot-idle"}`;
}

function showResult(pnl) {
  const parts = fields(part("day-result"));
  setText(parts.pnl, gain(pnl?.today_pnl));
  setText(parts.percent, typeof pnl?.today_pnl_pct === "number" ? percent(pnl.today_pnl_pct) : "");
  parts.pnl.className = parts.percent.className = trend(pnl?.today_pnl);
}

function showProtection({ positions, connection, isStale }) {
  const naked = positions.filter(isNaked).length;
  const words = positions.length === 0 ? "Flat" : naked ? `${naked} without stop` : `${positions.length} of ${positions.length} stopped`;
  setText(fields(part("protection")).state, words);
  const kind = isStale || connection.engine || positions.length === 0 ? "" : naked ? "dot-down" : "dot-up";
  part("protection").querySelector(".dot").className = `dot ${naked ? "dot-down" : kind}`;
}

function showStream(id, isUp, { connection, isStale }) {
  const stream = part(id);
  const { status } = connection;
  const kind = isStale || status === "disconnected" ? "" : isUp ? "up" : status === "reconnecting" ? "warn" : "down";
  stream.querySelector(".dot").className = `dot ${kind ? `dot-${kind}` : ""}`;
  setText(stream.querySelector("[data-field=state]"), { "": "not connected", up: "connected", warn: "reconnecting", down: "lost" }[kind]);
}
