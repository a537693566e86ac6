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
  summary: "text",
};
const SHOWN = {
  all: () => true,
  signals: (type) => ["signal", "order_submitted", "order_canceled"].includes(type),
  fills: (type) => ["order_filled", "trade_closed"].includes(type),
  stops: (type) => ["stop_moved", "naked"].includes(type),
  alerts: (type, level) => level !== "info" || ["circuit_breaker", "error", "order_rejected", "halted", "resumed", "naked"].includes(type),
};

export class ActivityFeed {
  #list = document.getElementById("activity");
  #empty = document.getElementById("activity-empty");
  #ids = new Set();
  #show = "all";
  #symbol = "";
  #isNarrowed = document.getElementById("activity-symbol");

  constructor() {
    const chips = document.querySelectorAll("[data-show]");
    for (const chip of chips) {
      chip.addEventListener("click", () => {
        this.#show = chip.dataset.show;
        for (const other of chips) other.setAttribute("aria-pressed", String(other === chip));
        this.#filter();
      });
    }
    this.#isNarrowed.addEventListener("click", () => {
      this.#isNarrowed.setAttribute("aria-pressed", String(this.#isNarrowed.ariaPressed !== "true"));
      this.#filter();
    });
  }

  /** The symbol to which the feed can be narrowed. */
  only(symbol) {
    this.#symbol = symbol;
    this.#isNarrowed.textContent = symbol ? `Only ${symbol}` : "This symbol";
    this.#filter();
  }

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
    line.dataset.type = item.type;
    line.dataset.level = item.level ?? "info";
    line.dataset.symbol = item.symbol;
    line.hidden = !this.#wants(line);
    const time = Object.assign(document.createElement("time"), { dateTime: item.timestamp, textContent: second(item.timestamp) });
    time.title = `${day(item.timestamp)}, ${second(item.timestamp)} New York`;
    const mark = document.createElement("span");
    mark.className = `mark ${KINDS[item.type] ? `mark-${KINDS[item.type]}` : ""}`;
    const what = document.createElement("span");
    what.className = "what";
    const words = withSymbol(item.message.charAt(0).toUpperCase() + item.message.slice(1), item.symbol);
    if (item.correlation_id) {
      const link = Object.assign(document.createElement("a"), { href: `/orders/?signal=${encodeURIComponent(item.correlation_id)}`, title: "The orders of this signal" });
      link.append(...words);
      what.append(link);
    } else {
      what.append(...words);
    }
    line.append(time, mark, what);
    this.#list.prepend(line);
    return line;
  }

  #wants(line) {
    const isIts = this.#isNarrowed.ariaPressed !== "true" || line.dataset.symbol === this.#symbol;
    return isIts && SHOWN[this.#show](line.dataset.type, line.dataset.level);
  }

  #filter() {
    for (const line of this.#list.children) line.hidden = !this.#wants(line);
    this.#toggle();
  }

  #toggle() {
    const isEmpty = ![...this.#list.children].some((line) => !line.hidden);
    this.#list.hidden = isEmpty;
    this.#empty.hidden = !isEmpty;
    const isFiltered = this.#ids.size > 0;
    this.#empty.querySelector("h3").textContent = isFiltered ? "Nothing of this kind" : "Nothing has happened yet";
    this.#empty.querySelector("p").textContent = isFiltered
      ? "Choose All to see everything again."
      : "Signals, orders, fills, stops and everything an operator does are listed here as they happen.";
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
