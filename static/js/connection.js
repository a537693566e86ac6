// What the bar on top says about the market, the streams and the last bar.

import { day, minute } from "./format.js";
import { setText } from "./rows.js";

const MODES = { built_in: "BUILT-IN MARKET", paper: "PAPER", live: "LIVE" };

const badge = document.getElementById("mode");
const lastBar = document.getElementById("last-bar");
const hours = document.getElementById("market-hours");

export function showConnection({ connection, isStale }) {
  const mode = connection.account_mode;
  document.body.dataset.mode = mode ?? "unknown";
  badge.hidden = !MODES[mode];
  setText(badge, MODES[mode] ?? "");
  showStream("bar-stream", connection.bar_stream, connection.status, isStale);
  showStream("trade-stream", connection.trade_stream, connection.status, isStale);
  hours.hidden = isStale || Boolean(connection.engine);
  setText(hours, connection.market_open ? `Market open until ${minute(connection.session_close)}` : "Market closed");
  lastBar.hidden = !connection.last_bar_at;
  if (connection.last_bar_at) {
    const time = lastBar.querySelector("time");
    time.dateTime = connection.last_bar_at;
    setText(time, `${minute(connection.last_bar_at)}, ${day(connection.last_bar_at)}`);
  }
}

function showStream(id, isUp, status, isStale) {
  const stream = document.getElementById(id);
  const kind = isStale || status === "disconnected" ? "" : isUp ? "up" : status === "reconnecting" ? "warn" : "down";
  stream.querySelector(".dot").className = `dot ${kind ? `dot-${kind}` : ""}`;
  setText(stream.querySelector("[data-field=state]"), { "": "not connected", up: "connected", warn: "reconnecting", down: "lost" }[kind]);
}
