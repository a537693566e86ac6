// How close the account is to each limit of the session.

import { money } from "./format.js";
import { fields, setText } from "./rows.js";

const NEAR = 0.6;
const FULL = 1;
const WORDS = {
  daily_loss: { used: money, limit: (value) => `of ${money(value)}` },
  losses_in_a_row: { used: String, limit: (value) => `of ${value}` },
  positions: { used: String, limit: (value) => `of ${value}` },
};

export function showLimits({ pnl, positions }) {
  for (const gauge of document.querySelectorAll("[data-gauge]")) {
    const words = WORDS[gauge.dataset.gauge];
    const known = pnl?.limits?.[gauge.dataset.gauge];
    const parts = fields(gauge);
    const share = known && known.limit > 0 ? known.used / known.limit : 0;
    setText(parts.used, known ? words.used(known.used) : "–");
    setText(parts.limit, known ? words.limit(known.limit) : "no engine");
    gauge.querySelector("meter").value = Math.min(share, 1);
    gauge.className = `gauge ${share >= FULL ? "gauge-full" : share >= NEAR ? "gauge-near" : ""}`;
  }
  showRisk(positions, pnl);
}

function showRisk(positions, pnl) {
  const parts = fields(document.getElementById("risk-gauge"));
  const unknown = positions.filter((position) => position.stop_price === null).length;
  const total = positions.reduce((sum, position) => sum + atRisk(position), 0);
  setText(parts.used, money(total));
  const share = pnl?.total_equity ? `${((100 * total) / pnl.total_equity).toFixed(2)}% of equity` : "";
  setText(parts.limit, unknown ? `and ${unknown} without stop` : share);
}

/** What is lost, seen from the entry, if the stop fills; nothing once the stop has passed the entry. */
export function atRisk({ side, qty, avg_entry_price: entry, stop_price: stop }) {
  if (stop === null) return 0;
  return Math.max(0, (side === "long" ? entry - stop : stop - entry) * Math.abs(qty));
}
