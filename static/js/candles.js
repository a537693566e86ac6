// Candles with their averages, executions and a stop's path, as the pages of a trade and of a replay draw them.

/* global LightweightCharts */

import { averageOptions, candleOptions, chartOptions, colours, seconds, toCandle, toPoint } from "./chart.js";

export class StoryChart {
  #chart;
  #candles;
  #fast;
  #slow;
  #stop;
  #marks;
  #length = 60;

  constructor(element) {
    const { LineSeries, CandlestickSeries, LineType } = LightweightCharts;
    this.#chart = LightweightCharts.createChart(element, chartOptions());
    this.#candles = this.#chart.addSeries(CandlestickSeries, candleOptions());
    this.#fast = this.#chart.addSeries(LineSeries, averageOptions(colours().fast));
    this.#slow = this.#chart.addSeries(LineSeries, averageOptions(colours().slow));
    this.#stop = this.#chart.addSeries(LineSeries, { ...averageOptions(colours().down), lineType: LineType.WithSteps, lineStyle: 2, lineWidth: 2 });
    this.#marks = LightweightCharts.createSeriesMarkers(this.#candles, []);
    document.addEventListener("theme-changed", () => this.#recolour());
  }

  /** Draws everything anew. `stops` say where the stop was from each moment on; nothing is drawn after `until`. */
  draw({ candles, marks, stops, interval_minutes: minutes, until = Infinity }) {
    this.#length = minutes * 60;
    const known = (point) => (candle) => (seconds(candle.timestamp) + this.#length <= until ? point(candle) : { time: seconds(candle.timestamp) });
    this.#candles.setData(candles.map(known(toCandle)));
    this.#fast.setData(candles.map(known((candle) => toPoint(candle, "sma_fast"))));
    this.#slow.setData(candles.map(known((candle) => toPoint(candle, "sma_slow"))));
    this.#stop.setData(this.#steps(candles, stops));
    this.#marks.setMarkers(marks.map((mark) => ({
      time: this.#windowOf(mark.timestamp),
      position: mark.buys ? "belowBar" : "aboveBar",
      shape: mark.buys ? "arrowUp" : "arrowDown",
      color: mark.kind === "entry" ? colours().accent : colours().text,
      text: `${mark.qty} at ${mark.price.toFixed(2)}`,
    })));
  }

  /** Shows all of it. */
  fit() {
    this.#chart.timeScale().fitContent();
  }

  /** One point a candle, so that the line ends where the stop did. */
  #steps(candles, stops) {
    if (stops.length === 0) return [];
    const first = this.#windowOf(stops[0].timestamp);
    const last = this.#windowOf(stops.at(-1).timestamp);
    return candles.map((candle) => seconds(candle.timestamp)).map((time) => {
      if (time < first || time > last) return { time };
      const known = stops.filter((stop) => this.#windowOf(stop.timestamp) <= time).at(-1);
      if (known.price !== null) return { time, value: known.price };
      const before = stops.filter((stop) => stop.price !== null && this.#windowOf(stop.timestamp) <= time).at(-1);
      return before ? { time, value: before.price, color: "transparent" } : { time }; // a gap would be bridged by a line
    });
  }

  #windowOf(timestamp) {
    return Math.floor(seconds(timestamp) / this.#length) * this.#length;
  }

  #recolour() {
    this.#chart.applyOptions(chartOptions());
    this.#candles.applyOptions(candleOptions());
    for (const [series, name] of [[this.#fast, "fast"], [this.#slow, "slow"], [this.#stop, "down"]]) series.applyOptions({ color: colours()[name] });
  }
}
