// The candle chart of one symbol with both averages, entries and exits, and the lines of the open position.

/* global LightweightCharts */

import { request } from "./call.js";
import { day, minute, price, shares } from "./format.js";
import { flash, setText } from "./rows.js";

const LOADED_CANDLES = 400;
const SHOWN_CANDLES = 130;
const MOST_NEW_CANDLES = 400; // then the oldest go: a page may stay open for weeks

/** The theme's colours, by the names of their CSS variables. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["up", "down", "fast", "slow", "text", "text-faint", "grid", "line", "line-strong", "accent"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const part = (id) => document.getElementById(id);
export const seconds = (timestamp) => Math.floor(Date.parse(timestamp) / 1000);
const newYork = (time) => new Date(time * 1000);

export class SymbolChart {
  #symbol = "";
  #settings;
  #chart;
  #candles;
  #fast;
  #slow;
  #marks;
  #fills = new Map();
  #lines = { stop: null, entry: null };
  #loading = null;
  #lastTime = 0;
  #newCandles = 0;
  #lastPrice;

  constructor(settings) {
    this.#settings = settings;
    setText(part("chart-interval"), `${settings.interval_minutes}-minute candles`);
    this.#chart = LightweightCharts.createChart(part("chart"), chartOptions());
    this.#candles = this.#chart.addSeries(LightweightCharts.CandlestickSeries, candleOptions());
    this.#fast = this.#chart.addSeries(LightweightCharts.LineSeries, averageOptions(colours().fast));
    this.#slow = this.#chart.addSeries(LightweightCharts.LineSeries, averageOptions(colours().slow));
    this.#marks = LightweightCharts.createSeriesMarkers(this.#candles, []);
    this.#chart.subscribeCrosshairMove((event) => this.#point(event));
  }

  /** Loads and shows a symbol; again for the one that is shown, to catch up. */
  async show(symbol) {
    const isNew = symbol !== this.#symbol;
    this.#symbol = symbol;
    setText(part("chart-symbol"), symbol || "Chart");
    if (isNew) this.#clear();
    if (!symbol) return this.#say("No symbol to show", "The chart follows the first symbol of the watchlist; click another one to change it.");
    const answer = await this.#load();
    if (!answer) return;
    const candles = answer.candles;
    this.#candles.setData(candles.map(toCandle));
    this.#fast.setData(candles.map((candle) => toPoint(candle, "sma_fast")));
    this.#slow.setData(candles.map((candle) => toPoint(candle, "sma_slow")));
    this.#mark(answer.marks);
    this.#newCandles = 0;
    const last = candles.at(-1);
    this.#lastTime = last ? seconds(last.timestamp) : 0;
    if (!last) return this.#say(`No candles of ${symbol} yet`, "They appear as soon as the engine has received prices of this symbol.");
    part("chart-empty").hidden = true;
    this.#showLast({ ...last, final: true });
    if (isNew) this.#chart.timeScale().setVisibleLogicalRange({ from: candles.length - SHOWN_CANDLES, to: candles.length + 4 });
  }

  /** The theme has changed. */
  recolour() {
    const theme = colours();
    this.#chart.applyOptions(chartOptions());
    this.#candles.applyOptions(candleOptions());
    this.#fast.applyOptions({ color: theme.fast });
    this.#slow.applyOptions({ color: theme.slow });
    this.#lines.stop?.applyOptions({ color: theme.down });
    this.#lines.entry?.applyOptions({ color: theme.accent });
    this.refreshMarks();
  }

  /** A candle that is forming or has closed. */
  update(candle) {
    if (candle.symbol !== this.#symbol || candle.interval !== this.#settings.interval_minutes || this.#loading) return;
    const time = seconds(candle.timestamp);
    if (time < this.#lastTime) return;
    if (!this.#lastTime) return void this.show(this.#symbol);
    if (time > this.#lastTime) this.#newCandles += 1;
    if (this.#newCandles > MOST_NEW_CANDLES && this.#chart.timeScale().scrollPosition() >= 0) return void this.show(this.#symbol);
    this.#lastTime = time;
    this.#candles.update(toCandle(candle));
    if (candle.sma_fast !== null) this.#fast.update(toPoint(candle, "sma_fast"));
    if (candle.sma_slow !== null) this.#slow.update(toPoint(candle, "sma_slow"));
    this.#showLast(candle);
  }

  /** Entries and exits again: something was filled. */
  async refreshMarks() {
    const answer = await this.#load();
    if (answer) this.#mark(answer.marks);
  }

  /** The entry and stop lines of the open position, if there is one. */
  showLevels(position) {
    this.#line("stop", position?.stop_price, { color: colours().down, title: "stop" });
    this.#line("entry", position?.avg_entry_price, { color: colours().accent, title: "entry" });
    const legend = part("legend-stop");
    legend.hidden = !position?.stop_price;
    if (position?.stop_price) setText(legend.querySelector("b"), price(position.stop_price));
  }

  async #load() {
    this.#loading?.abort();
    const loading = new AbortController();
    this.#loading = loading;
    try {
      const query = new URLSearchParams({ symbol: this.#symbol, limit: LOADED_CANDLES });
      const response = await request(`/api/candles?${query}`, { signal: loading.signal });
      if (!response.ok) throw new Error(`the server answered ${response.status}`);
      return await response.json();
    } catch (error) {
      if (error.name !== "AbortError" && !this.#lastTime) this.#say("The chart could not be loaded", `${error.message}.`);
      return null;
    } finally {
      if (this.#loading === loading) this.#loading = null;
    }
  }

  #clear() {
    for (const series of [this.#candles, this.#fast, this.#slow]) series.setData([]);
    this.#marks.setMarkers([]);
    this.#lastTime = 0;
    this.#lastPrice = undefined;
    for (const id of ["chart-price", "legend-fast", "legend-slow"]) setText(part(id), id === "chart-price" ? "" : "–");
    part("chart-empty").hidden = true;
  }

  #say(title, text) {
    const box = part("chart-empty");
    box.hidden = false;
    setText(box.querySelector("h3"), title);
    setText(box.querySelector("p"), text);
  }

  #showLast(candle) {
    const element = part("chart-price");
    setText(element, price(candle.close));
    flash(element, this.#lastPrice, candle.close);
    this.#lastPrice = candle.close;
    if (!candle.final) return; // averages are made of completed candles
    setText(part("legend-fast"), price(candle.sma_fast));
    setText(part("legend-slow"), price(candle.sma_slow));
  }

  #mark(marks) {
    const theme = colours();
    this.#marks.setMarkers(marks.map((mark) => ({
      time: this.#windowOf(mark.timestamp),
      position: mark.buys ? "belowBar" : "aboveBar",
      shape: mark.buys ? "arrowUp" : "arrowDown",
      color: mark.kind === "entry" ? theme.accent : theme.text,
    })));
    this.#fills = Map.groupBy(marks, (mark) => this.#windowOf(mark.timestamp));
  }

  /** Start of the candle that a moment belongs to. */
  #windowOf(timestamp) {
    const length = this.#settings.interval_minutes * 60;
    return Math.floor(seconds(timestamp) / length) * length; // sessions open on a full ten minutes
  }

  #line(name, level, look) {
    const line = this.#lines[name];
    if (!level) {
      if (line) this.#candles.removePriceLine(line);
      this.#lines[name] = null;
    } else if (line) {
      if (line.options().price !== level) line.applyOptions({ price: level });
    } else {
      this.#lines[name] = this.#candles.createPriceLine({ price: level, lineWidth: 1, lineStyle: 2, axisLabelVisible: true, ...look });
    }
  }

  #point(event) {
    const tooltip = part("chart-tooltip");
    const candle = event.seriesData?.get(this.#candles);
    tooltip.hidden = !candle;
    if (!candle) return;
    const at = newYork(event.time);
    const bold = (label, value) => [`${label} `, Object.assign(document.createElement("b"), { textContent: price(value) })];
    const parts = [[`${day(at)}, ${minute(at)}`], bold("O", candle.open), bold("H", candle.high), bold("L", candle.low), bold("C", candle.close)];
    for (const fill of this.#fills.get(event.time) ?? []) parts.push([`${fill.buys ? "Bought" : "Sold"} ${shares(fill.qty)} at `, bold("", fill.price)[1]]);
    tooltip.replaceChildren(...parts.map((content) => {
      const span = document.createElement("span");
      span.append(...content);
      return span;
    }));
  }
}

export const toCandle = ({ timestamp, open, high, low, close }) => ({ time: seconds(timestamp), open, high, low, close });
export const toPoint = (candle, name) => (candle[name] === null ? { time: seconds(candle.timestamp) } : { time: seconds(candle.timestamp), value: candle[name] });

/** How candles look. */
export function candleOptions() {
  const theme = colours();
  return {
    upColor: theme.up, downColor: theme.down, wickUpColor: theme.up, wickDownColor: theme.down, borderVisible: false,
    priceLineStyle: 1, priceLineColor: theme["line-strong"],
  };
}

/** How an average looks. */
export const averageOptions = (color) => ({ color, lineWidth: 1.5, priceLineVisible: false, lastValueVisible: false, crosshairMarkerVisible: false });

/** How a chart of candles looks, with New York time below it. */
export function chartOptions() {
  const kinds = LightweightCharts.TickMarkType;
  const theme = colours();
  const cross = { color: theme["line-strong"], labelBackgroundColor: theme["line-strong"] };
  return {
    autoSize: true,
    layout: { background: { color: "transparent" }, textColor: theme["text-faint"], fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 11, attributionLogo: false },
    grid: { vertLines: { color: theme.grid }, horzLines: { color: theme.grid } },
    rightPriceScale: { borderColor: theme.line, scaleMargins: { top: 0.12, bottom: 0.1 } },
    timeScale: {
      borderColor: theme.line, timeVisible: true, secondsVisible: false, rightOffset: 4, minBarSpacing: 2,
      tickMarkFormatter: (time, kind) => (kind === kinds.Time ? minute(newYork(time)) : day(newYork(time))),
    },
    localization: { timeFormatter: (time) => `${day(newYork(time))}, ${minute(newYork(time))}` },
    crosshair: { mode: 0, vertLine: cross, horzLine: cross },
  };
}
