// The equity curves of two backtests in one chart.

/* global LightweightCharts */

import { day, minute, money } from "./format.js";

const COLORS = ["#5fb7ff", "#c79bff"];
const at = (time) => new Date(time * 1000);

const chart = LightweightCharts.createChart(document.getElementById("equity"), {
  autoSize: true,
  layout: { background: { color: "transparent" }, textColor: "#8390a4", fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 11, attributionLogo: false },
  grid: { vertLines: { color: "#161a22" }, horzLines: { color: "#161a22" } },
  rightPriceScale: { borderColor: "#1d222d" },
  timeScale: { borderColor: "#1d222d", timeVisible: true, tickMarkFormatter: (time, kind) => (kind === LightweightCharts.TickMarkType.Time ? minute(at(time)) : day(at(time))) },
  localization: { timeFormatter: (time) => `${day(at(time))}, ${minute(at(time))}`, priceFormatter: money },
});
const curves = JSON.parse(document.getElementById("equity-curves").textContent);
for (const [index, { points }] of curves.entries()) {
  const series = chart.addSeries(LightweightCharts.LineSeries, { color: COLORS[index], lineWidth: 2, priceLineVisible: false });
  // Several points of one moment count as the last of them.
  const values = new Map(points.map(({ timestamp, equity }) => [Math.floor(Date.parse(timestamp) / 1000), Number(equity)]));
  series.setData([...values].map(([time, value]) => ({ time, value })));
}
chart.timeScale().fitContent();
