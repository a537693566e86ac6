// What the operator has to know now, in words: no engine, lost connection, halted, a limit that tripped.

import { day, minute, shortAge } from "./format.js";
import { copyOf, fields, keepRows, setText } from "./rows.js";

const BREAKERS = {
  daily_loss: "The daily loss limit is reached.",
  consecutive_losses: "Too many losing trades in a row.",
};
const ICONS = { info: "#i-info", warn: "#i-warn", down: "#i-warn" };

export class Notices {
  #box = document.getElementById("notices");
  #announcer = document.getElementById("announcer");
  #titles = "";
  #retry;

  constructor({ retry }) {
    this.#retry = retry;
  }

  /** Says something to a screen reader. */
  announce(text) {
    setText(this.#announcer, text);
  }

  show(state) {
    const notices = noticesOf(state);
    keepRows(this.#box, "notice", notices, (notice) => notice.key, (parts, notice, row) => {
      row.className = `notice notice-${notice.kind}`;
      row.querySelector("use").setAttribute("href", ICONS[notice.kind]);
      setText(parts.title, notice.title);
      setText(parts.text, notice.text);
      const side = row.querySelector(".notice-side");
      if (notice.command && !side.firstChild) side.append(commandBox(notice.command));
      if (notice.key === "lost" && !side.firstChild) side.append(this.#retryButton());
    });
    const titles = notices.map((notice) => notice.title).join(" ");
    if (titles !== this.#titles) this.announce(titles || (this.#titles && "Everything is back to normal."));
    this.#titles = titles;
  }

  #retryButton() {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "button", textContent: "Try now" });
    button.addEventListener("click", () => this.#retry());
    return button;
  }
}

function noticesOf({ connection, lostUntil, heardAt, isStale }) {
  const notices = [];
  const add = (key, kind, title, text, command = "") => notices.push({ key, kind, title, text, command });
  if (isStale) {
    const wait = lostUntil === null ? 0 : Math.max(0, Math.ceil((lostUntil - Date.now()) / 1000));
    const next = wait > 0 ? `Trying again in ${wait} s.` : "Trying again …";
    add("lost", "warn", "Connection to the server lost.", `Figures are ${shortAge(Date.now() - heardAt)} old. ${next}`);
  } else if (connection.engine === "silent") {
    add("silent", "warn", "The engine does not answer.", "Figures are from the database; positions keep their stops at the broker.");
  } else if (connection.engine === "off") {
    add("off", "info", "The engine is not running.", offText(connection), "make run");
  } else if (connection.status === "shutting_down") {
    add("down", "warn", "The engine is shutting down.", "Working entries are cancelled; open positions keep their stops at the broker.");
  } else if (connection.status !== "connected") {
    add("reconnecting", "warn", "Connecting to the market.", reconnectText(connection));
  }
  if (connection.halted) {
    const reason = `${connection.halted.charAt(0).toUpperCase()}${connection.halted.slice(1)}.`;
    add("halted", "down", "Trading is halted.", `${reason} No new entries until somebody resumes; positions keep their stops.`);
  }
  for (const breaker of connection.breakers) {
    add(breaker, "warn", BREAKERS[breaker], "No new entries until the next session; positions keep their stops.");
  }
  return notices;
}

function offText({ engine_ended_at: endedAt, engine_failure: failure }) {
  const ended = endedAt ? `It stopped ${day(endedAt)} at ${minute(endedAt)}${failure ? `: ${failure}.` : "."}` : "";
  return `${ended} Nothing is traded, and figures are from the database. Start it in a terminal:`.trim();
}

function reconnectText({ bar_stream: bars, trade_stream: trades, detail }) {
  const missing = [bars ? "" : "prices", trades ? "" : "order updates"].filter(Boolean).join(" and ");
  return [missing && `Waiting for ${missing}; missed minutes are fetched afterwards.`, detail].filter(Boolean).join(" ");
}

function commandBox(command) {
  const box = copyOf("command");
  setText(fields(box).command, command);
  box.querySelector("button").dataset.copy = command;
  return box;
}
