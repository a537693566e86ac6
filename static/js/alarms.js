// What the operator has to know now, in words: no engine, lost connection, halted, a limit that tripped, no stop.

import { day, minute, shortAge } from "./format.js";

const BREAKERS = {
  daily_loss: "The daily loss limit is reached.",
  consecutive_losses: "Too many losing trades in a row.",
};

/** Each with key, kind (info, warn, down), title, text, and a command for a terminal if one helps. */
export function alarmsOf({ connection, positions, strategies, lostUntil, heardAt, isStale }) {
  const alarms = [];
  const add = (key, kind, title, text, command = "") => alarms.push({ key, kind, title, text, command });
  if (isStale) {
    const wait = lostUntil === null ? 0 : Math.max(0, Math.ceil((lostUntil - Date.now()) / 1000));
    const next = wait > 0 ? `Trying again in ${wait} s.` : "Trying again …";
    add("lost", "warn", "Connection to the server lost.", `What is shown is from ${minute(new Date(heardAt))}, ${shortAge(Date.now() - heardAt)} ago. ${next}`);
  }
  if (!connection) return alarms;
  if (isStale) {
    // nothing else is known about the engine
  } else if (connection.engine === "silent") {
    add("silent", "warn", "The engine does not answer.", "Figures are from the database; positions keep their stops at the broker.");
  } else if (connection.engine === "off") {
    add("off", "info", "The engine is not running.", offText(connection), "make run");
  } else if (connection.status === "shutting_down") {
    add("down", "warn", "The engine is shutting down.", "Working entries are cancelled; open positions keep their stops at the broker.");
  } else if (connection.status !== "connected") {
    add("reconnecting", "warn", "Connecting to the market.", reconnectText(connection));
  }
  const naked = positions.filter(isNaked).map((position) => position.symbol);
  if (naked.length) {
    add("naked", "down", `No working stop: ${naked.join(", ")}.`, "The engine places one as soon as the broker takes it; look at the position now.");
  }
  if (connection.ledger_problem) {
    add("ledger", "down", "The ledger cannot be written.", `No entries and no trailing until it can (${connection.ledger_problem}). Stops and exits still go out.`);
  }
  if (connection.halted) {
    const reason = `${connection.halted.charAt(0).toUpperCase()}${connection.halted.slice(1)}.`;
    add("halted", "down", "Trading is halted.", `${reason} No new entries until somebody resumes; positions keep their stops.`);
  }
  for (const problem of connection.problems ?? []) {
    add(`problem-${problem}`, "warn", "No entries for now.", `${problem.charAt(0).toUpperCase()}${problem.slice(1)}. Positions keep their stops.`);
  }
  for (const breaker of connection.breakers) {
    add(breaker, "warn", BREAKERS[breaker], "No new entries until the next session; positions keep their stops.");
  }
  for (const { symbol, blocked } of strategies.filter((strategy) => strategy.blocked)) {
    add(`blocked-${symbol}`, "warn", `${symbol} takes no entries.`, `${blocked.charAt(0).toUpperCase()}${blocked.slice(1)}.`);
  }
  return alarms;
}

/** Without a stop, and not just being sold. */
export const isNaked = (position) => position.stop_price === null && !position.leaving && position.strategy !== "foreign";

function offText({ engine_ended_at: endedAt, engine_failure: failure }) {
  const ended = endedAt ? `It stopped ${day(endedAt)} at ${minute(endedAt)}${failure ? `: ${failure}.` : "."}` : "";
  return `${ended} Nothing is traded, and figures are from the database. Start it in a terminal:`.trim();
}

function reconnectText({ bar_stream: bars, trade_stream: trades, detail, retry_at: retryAt }) {
  const missing = [bars ? "" : "prices", trades ? "" : "order updates"].filter(Boolean).join(" and ");
  const wait = retryAt ? Math.ceil((Date.parse(retryAt) - Date.now()) / 1000) : 0;
  const next = wait > 0 ? `Trying again in ${wait} s.` : retryAt ? "Trying again …" : "";
  const why = detail && `${detail.charAt(0).toUpperCase()}${detail.slice(1)}.`;
  return [missing && `Waiting for ${missing}; missed minutes are fetched afterwards.`, why, next].filter(Boolean).join(" ");
}
