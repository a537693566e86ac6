// The dashboard page: hands the state that the server reports to the parts of the page.

import { showAccount } from "./account.js";
import { connectActions, showActions } from "./actions.js";
import { ActivityFeed } from "./activity.js";
import { SymbolChart } from "./chart.js";
import { second } from "./format.js";
import { showLimits } from "./limits.js";
import { changed, hear, paint, state } from "./live.js";
import { showNotices } from "./notices.js";
import { showPositions } from "./positions.js";
import { setText } from "./rows.js";
import { showStrategies } from "./strategies.js";

const PLACES = { built_in: "the built-in market", paper: "Alpaca paper", live: "Alpaca, with real money" };

const chart = new SymbolChart(JSON.parse(document.getElementById("desk-settings").textContent));
const feed = new ActivityFeed();

state.symbol = "";

function chosenSymbol() {
  const asked = state.symbol || new URLSearchParams(location.search).get("symbol")?.toUpperCase();
  state.symbol = asked || symbols()[0] || "";
  return state.symbol;
}

const symbols = () => [...new Set([...state.strategies, ...state.positions].map((item) => item.symbol))];

function choose(symbol) {
  state.symbol = symbol;
  const url = new URL(location.href);
  url.searchParams.set("symbol", symbol);
  history.pushState(null, "", url);
  chart.show(symbol);
  feed.only(symbol);
  changed();
}

function showHead({ account, connection, isStale, heardAt }) {
  const place = PLACES[connection.account_mode] ?? "";
  const number = account?.account_id?.split(":")[1] ?? "";
  const named = connection.account_mode === "built_in" ? "" : ` ${number}`; // that of the built-in market says nothing
  const head = document.getElementById("running-on");
  setText(head, connection.engine ? "" : `Trading${named} on ${place}`);
  head.title = number;
  const since = document.getElementById("stale-since");
  since.hidden = !isStale;
  setText(since, `Stale since ${second(new Date(heardAt))}`);
}

/** The first position ends what is said to newcomers. */
function showWelcome({ positions }) {
  if (positions.length) document.querySelector(".welcome")?.remove();
}

hear("snapshot", (data) => {
  feed.replace(data.recent_activity);
  chart.show(chosenSymbol());
});
hear("activity", (item) => {
  feed.add(item);
  if (item.symbol === state.symbol && ["order_filled", "trade_closed", "stop_moved"].includes(item.type)) chart.refreshMarks();
});
hear("candle", (candle) => chart.update(candle));

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = event.target.closest("[data-choose]");
  if (!link) return;
  event.preventDefault();
  choose(link.textContent);
});
document.addEventListener("next-symbol", ({ detail: step }) => {
  const all = symbols();
  if (all.length) choose(all[(all.indexOf(state.symbol) + step + all.length) % all.length]);
});
document.addEventListener("theme-changed", () => chart.recolour());
addEventListener("popstate", () => {
  state.symbol = "";
  chart.show(chosenSymbol());
  feed.only(state.symbol);
  changed();
});

feed.replace(state.recent_activity);
chart.show(chosenSymbol());
feed.only(state.symbol);
connectActions();
for (const part of [showWelcome, showHead, showAccount, showLimits, showPositions, showStrategies, showActions, showNotices]) paint(part);
paint(({ positions }) => chart.showLevels(positions.find((position) => position.symbol === state.symbol)));
