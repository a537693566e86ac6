// The activity feed, newest first.

import { day, second } from "./format.js";

const LONGEST = 200;
const KINDS = {
  signal: "accent",
  order_submitted: "",
  order_filled: "up",
  order_canceled: "",
  order_rejected: "down",
  stop_moved: "accent",
  circuit_breaker: "warn",
  error: "down",
  trade_closed: "text",
  halted: "warn",
  resumed: "up",
  reconciled: "",
  naked: "down",
  settings_changed: "",
};

export class ActivityFeed {
  #list = document.getElementById("activity");
  #empty = document.getElementById("activity-empty");
  #ids = new Set();

  /** Shows exactly these items, newest first. */
  replace(items) {
    this.#list.replaceChildren();
    this.#ids.clear();
    for (const item of [...items].reverse().sort(newestFirst).slice(0, LONGEST).reverse()) this.#put(item);
    this.#toggle();
  }

  /** Puts one new item on top. */
  add(item) {
    const line = this.#put(item);
    line?.classList.add("fresh");
    while (this.#list.children.length > LONGEST) {
      this.#ids.delete(this.#list.lastElementChild.dataset.id);
      this.#list.lastElementChild.remove();
    }
    this.#toggle();
  }

  #put(item) {
    if (this.#ids.has(item.id)) return null;
    this.#ids.add(item.id);
    const line = document.createElement("li");
    line.dataset.id = item.id;
    const time = Object.assign(document.createElement("time"), { dateTime: item.timestamp, textContent: second(item.timestamp) });
    time.title = `${day(item.timestamp)}, ${second(item.timestamp)} New York`;
    const mark = document.createElement("span");
    mark.className = `mark ${KINDS[item.type] ? `mark-${KINDS[item.type]}` : ""}`;
    const what = document.createElement("span");
    what.className = "what";
    what.append(...withSymbol(item.message.charAt(0).toUpperCase() + item.message.slice(1), item.symbol));
    line.append(time, mark, what);
    this.#list.prepend(line);
    return line;
  }

  #toggle() {
    this.#list.hidden = this.#ids.size === 0;
    this.#empty.hidden = this.#ids.size > 0;
  }
}

/** The message with its symbol in bold, put in front if the message does not name it. */
function withSymbol(message, symbol) {
  if (!symbol) return [message];
  const bold = Object.assign(document.createElement("b"), { textContent: symbol });
  const place = message.search(new RegExp(`\\b${symbol.replace(".", "\\.")}\\b`));
  return place < 0 ? [bold, ` ${message}`] : [message.slice(0, place), bold, message.slice(place + symbol.length)];
}

const newestFirst = (a, b) => b.timestamp.localeCompare(a.timestamp);
