// The state that the server reports, shared by all parts of a page: a snapshot first, then what changed.

import { toLogin } from "./call.js";
import { DashboardSocket } from "./socket.js";

const OLD_MS = 25000; // the server says something at least every 15 s
const FRAME_MS = 100;

const stored = document.getElementById("initial-snapshot");

/** `connection` is null until something is known. `lostUntil` is when a lost connection is tried again. */
export const state = {
  account: null, positions: [], pnl: null, strategies: [], recent_activity: [], connection: null,
  ...(stored ? JSON.parse(stored.textContent) : {}),
  lostUntil: null, heardAt: Date.now(), isStale: false, marketTime: null,
};

const socket = new DashboardSocket();
const painters = [];
const listeners = new Map();
let showing = null;
let pace = null;

/** Paints now and whenever something may look different, at most ten times a second. */
export function paint(painter) {
  painters.push(painter);
  changed();
}

/** Hears each message of one type, after the state has taken it in. */
export function hear(type, listener) {
  listeners.set(type, [...(listeners.get(type) ?? []), listener]);
}

/** Connects at once if a pause is running. */
export const retry = () => socket.retryNow();

/** Market time now in milliseconds: the latest the engine told, carried on at the pace at which it was told. */
export function marketNow() {
  const told = state.marketTime;
  return told && (state.isStale ? told.at : told.at + (Date.now() - told.heardAt) * (pace ?? 1));
}

export function changed() {
  showing ??= setTimeout(() => {
    showing = null;
    state.isStale = state.lostUntil !== null || Date.now() - state.heardAt > OLD_MS;
    document.body.classList.toggle("stale", state.isStale);
    for (const painter of painters) painter(state);
  }, FRAME_MS);
}

const takes = {
  snapshot: (data) => Object.assign(state, data),
  position_update: (positions) => Object.assign(state, { positions }),
  pnl_update(pnl) {
    state.pnl = pnl;
    state.account = { ...state.account, equity: pnl.total_equity, buying_power: pnl.buying_power, cash: pnl.cash ?? state.account?.cash };
  },
  strategy_state(strategy) {
    const same = (other) => other.symbol === strategy.symbol && other.name === strategy.name;
    const known = state.strategies.some(same);
    state.strategies = known ? state.strategies.map((other) => (same(other) ? strategy : other)) : [...state.strategies, strategy];
  },
  connection_status: (connection) => Object.assign(state, { connection }),
};

function keepTime(message) {
  if (message.type === "heartbeat" || state.connection?.engine) return; // those are told by the wall clock
  const told = { at: Date.parse(message.timestamp), heardAt: Date.now() };
  const before = state.marketTime;
  if (!before || message.type === "snapshot") {
    state.marketTime = told;
  } else if (told.heardAt - before.heardAt > 900) {
    pace = Math.min(Math.max(Math.round((told.at - before.at) / (told.heardAt - before.heardAt)), 1), 600);
    state.marketTime = told;
  }
}

socket.addEventListener("message", ({ detail: message }) => {
  state.heardAt = Date.now();
  state.lostUntil = null;
  takes[message.type]?.(message.data);
  keepTime(message);
  for (const listener of listeners.get(message.type) ?? []) listener(message.data);
  changed();
});
socket.addEventListener("lost", ({ detail }) => {
  state.lostUntil = detail.retryAt;
  changed();
});
socket.addEventListener("expired", toLogin);
setInterval(changed, 1000);
socket.start();
