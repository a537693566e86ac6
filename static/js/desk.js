// The dashboard page: keeps the state that the socket reports and hands it to the parts of the page.

import { showAccount } from "./account.js";
import { ActivityFeed } from "./activity.js";
import { SymbolChart } from "./chart.js";
import { showConnection } from "./connection.js";
import { connectHalt, showHalt } from "./halt.js";
import { Notices } from "./notices.js";
import { showPositions } from "./positions.js";
import { DashboardSocket } from "./socket.js";
import { showStrategies } from "./strategies.js";

const OLD_MS = 25000; // the server says something at least every 15 s
const FRAME_MS = 100;

const stored = (id) => JSON.parse(document.getElementById(id).textContent);
const settings = stored("desk-settings");
const state = { ...stored("initial-snapshot"), settings, symbol: "", lostUntil: null, heardAt: Date.now(), isStale: false };

const chart = new SymbolChart(settings);
const feed = new ActivityFeed();
const socket = new DashboardSocket();
const notices = new Notices({ retry: () => socket.retryNow() });

const handlers = {
  snapshot(data) {
    Object.assign(state, data);
    feed.replace(data.recent_activity);
    chart.show(chosenSymbol());
  },
  position_update: (positions) => Object.assign(state, { positions }),
  pnl_update(pnl) {
    state.pnl = pnl;
    state.account = { ...state.account, equity: pnl.total_equity, buying_power: pnl.buying_power, cash: pnl.cash ?? state.account.cash };
  },
  strategy_state(strategy) {
    const same = (other) => other.symbol === strategy.symbol && other.name === strategy.name;
    const known = state.strategies.some(same);
    state.strategies = known ? state.strategies.map((other) => (same(other) ? strategy : other)) : [...state.strategies, strategy];
  },
  activity(item) {
    feed.add(item);
    if (item.symbol === state.symbol && ["order_filled", "trade_closed", "stop_moved"].includes(item.type)) chart.refreshMarks();
  },
  connection_status: (connection) => Object.assign(state, { connection }),
  candle: (candle) => chart.update(candle),
  error: (error) => notices.announce(`Error: ${error.message}`),
  heartbeat() {},
};

socket.addEventListener("message", ({ detail: message }) => {
  state.heardAt = Date.now();
  state.lostUntil = null;
  handlers[message.type]?.(message.data);
  show();
});
socket.addEventListener("lost", ({ detail }) => {
  state.lostUntil = detail.retryAt;
  show();
});
socket.addEventListener("expired", () => location.assign(`/login/?next=${encodeURIComponent(location.pathname + location.search)}`));
setInterval(show, 1000);

function chosenSymbol() {
  const asked = state.symbol || new URLSearchParams(location.search).get("symbol")?.toUpperCase();
  const symbols = [...state.strategies, ...state.positions].map((item) => item.symbol);
  state.symbol = asked || symbols[0] || "";
  return state.symbol;
}

function choose(symbol) {
  state.symbol = symbol;
  const url = new URL(location.href);
  url.searchParams.set("symbol", symbol);
  history.pushState(null, "", url);
  chart.show(symbol);
  show();
}

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = event.target.closest("[data-choose]");
  if (!link) return;
  event.preventDefault();
  choose(link.textContent);
});
addEventListener("popstate", () => {
  state.symbol = "";
  chart.show(chosenSymbol());
  show();
});

// Many messages may come in a moment: the page is brought up to date at most ten times a second.
let showing = null;
function show() {
  showing ??= setTimeout(() => {
    showing = null;
    state.isStale = state.lostUntil !== null || Date.now() - state.heardAt > OLD_MS;
    document.body.classList.toggle("stale", state.isStale);
    showAccount(state);
    showPositions(state);
    showStrategies(state);
    showConnection(state);
    showHalt(state);
    notices.show(state);
    chart.showLevels(state.positions.find((position) => position.symbol === state.symbol));
  }, FRAME_MS);
}

connectHalt(() => show());
handlers.snapshot(stored("initial-snapshot"));
show();
socket.start();
