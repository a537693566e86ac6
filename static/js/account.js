// The figures of the account at the top of the dashboard.

import { gain, money, percent, trend } from "./format.js";
import { setText } from "./rows.js";

const figures = Object.fromEntries([...document.querySelectorAll("[data-figure]")].map((element) => [element.dataset.figure, element]));

export function showAccount({ account, pnl }) {
  if (!account || !pnl) return;
  setText(figures.equity, money(account.equity));
  setText(figures["buying-power"], money(account.buying_power));
  setText(figures.cash, money(account.cash));
  setText(figures["today-percent"], pnl.today_pnl_pct === null ? "" : percent(pnl.today_pnl_pct));
  signed(figures.today, pnl.today_pnl);
  signed(figures.unrealized, pnl.unrealized_pnl);
  signed(figures.realized, pnl.realized_pnl);
  figures["today-percent"].className = trend(pnl.today_pnl_pct);
}

function signed(element, value) {
  setText(element, gain(value));
  element.classList.toggle("up", value > 0);
  element.classList.toggle("down", value < 0);
}
