// The equity curve of a backtest.

/* global LightweightCharts */

import { day, minute, money } from "./format.js";

const MOST_POINTS = 4000;
const at = (time) => new Date(time * 1000);

const curve = JSON.parse(document.getElementById("equity-curve").textContent);
const every = Math.max(1, Math.ceil(curve.length / MOST_POINTS));
const points = curve
  .filter((_, index) => index % every === 0 || index === curve.length - 1)
  .map(({ timestamp, equity }) => ({ time: Math.floor(Date.parse(timestamp) / 1000), value: Number(equity) }));
// Several points of one moment (the last candle and the end) count as the last of them.
const lastOfMoment = [...new Map(points.map((point) => [point.time, point])).values()];
const gained = lastOfMoment.length > 0 && lastOfMoment.at(-1).value >= lastOfMoment[0].value;
const color = gained ? "62 207 142" : "245 115 111";

const chart = LightweightCharts.createChart(document.getElementById("equity"), {
  autoSize: true,
  layout: { background: { color: "transparent" }, textColor: "#8390a4", fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 11, attributionLogo: false },
  grid: { vertLines: { color: "#161a22" }, horzLines: { color: "#161a22" } },
  rightPriceScale: { borderColor: "#1d222d" },
  timeScale: { borderColor: "#1d222d", timeVisible: true, tickMarkFormatter: (time, kind) => (kind === LightweightCharts.TickMarkType.Time ? minute(at(time)) : day(at(time))) },
  localization: { timeFormatter: (time) => `${day(at(time))}, ${minute(at(time))}`, priceFormatter: money },
});
const series = chart.addSeries(LightweightCharts.AreaSeries, {
  lineColor: `rgb(${color})`, topColor: `rgb(${color} / 22%)`, bottomColor: `rgb(${color} / 0%)`, lineWidth: 2, priceLineVisible: false,
});
series.setData(lastOfMoment);
chart.timeScale().fitContent();
