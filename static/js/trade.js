// The chart of one trade.

import { StoryChart } from "./candles.js";

const chart = new StoryChart(document.getElementById("trade-chart"));
chart.draw(JSON.parse(document.getElementById("trade-chart-data").textContent));
chart.fit();
