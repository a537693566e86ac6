// The report of a backtest: its equity curve, prices with trades, and a table that sorts. Runs without any network.

/* global LightweightCharts */

(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const part = (id) => document.getElementById(id);
  const redraws = [];
  const PAPER = { width: 690, height: 230 }; // see the print rules in report.css

  // --- numbers, times, colours ------------------------------------------------------------------------------------

  const inNewYork = (options) => new Intl.DateTimeFormat("en-CA", { timeZone: "America/New_York", hourCycle: "h23", ...options });
  const dayForm = inNewYork({ year: "numeric", month: "2-digit", day: "2-digit" });
  const clockForm = inNewYork({ hour: "2-digit", minute: "2-digit" });
  const at = (seconds) => new Date(seconds * 1000);
  const day = (seconds) => dayForm.format(at(seconds));
  const clock = (seconds) => clockForm.format(at(seconds));
  const signed = (value, text) => (value < 0 ? `−${text}` : text);
  const money = (value) => signed(value, `$${Math.abs(value).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`);
  const percent = (value) => signed(value, `${(Math.abs(value) * 100).toFixed(2)}%`);
  const price = (value) => value.toFixed(value < 1 ? 4 : 2);

  /** A colour of the style sheet as it is in the current theme. */
  const probe = document.body.appendChild(document.createElement("i"));
  probe.hidden = true;
  const color = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };

  const element = (name, attributes = {}, ...content) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...content);
    return made;
  };

  const bold = (label, value) => {
    const span = document.createElement("span");
    span.className = "plain";
    span.append(`${label} `, Object.assign(document.createElement("b"), { textContent: value }));
    return span;
  };

  // --- equity and drawdown ------------------------------------------------------------------------------------------

  /** Round values that divide a range into about so many steps. */
  function steps(low, high, count) {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const size = power * [1, 2, 2.5, 5, 10].find((each) => each * power >= rough);
    const found = [];
    for (let value = Math.ceil(low / size) * size; value <= high + size * 1e-9; value += size) found.push(value);
    return found;
  }

  function falls(points) {
    let peak = data.capital;
    return points.map(([, equity]) => {
      peak = Math.max(peak, equity);
      return peak > 0 ? (equity - peak) / peak : 0;
    });
  }

  /** Marks below the time axis: at most so many, each the first point of its month or day. */
  function timeMarks(points, count) {
    const long = points.at(-1)[0] - points[0][0] > 75 * 86400;
    const name = long ? (seconds) => day(seconds).slice(0, 7) : (seconds) => day(seconds).slice(5);
    const firsts = points.filter((point, index) => index === 0 || name(point[0]) !== name(points[index - 1][0]));
    const every = Math.ceil(firsts.length / count);
    return firsts.filter((_, index) => index % every === 0).map(([seconds]) => [seconds, name(seconds)]);
  }

  function drawEquity({ width, height }) {
    const box = part("equity");
    const points = data.equity;
    if (points.length < 2) return;
    const [left, right, gap, axis] = [6, 66, 16, 20];
    const upper = (height - axis - gap) * 0.74, lower = height - axis - upper - gap;
    const equities = points.map(([, equity]) => equity), drops = falls(points);
    const low = Math.min(data.capital, ...extremes(equities)), high = Math.max(data.capital, ...extremes(equities));
    const pad = (high - low || high * 0.01) * 0.06, deepest = Math.min(...extremes(drops));
    const [first, last] = [points[0][0], points.at(-1)[0]];
    const x = (seconds) => left + ((seconds - first) / (last - first)) * (width - left - right);
    const y = (equity) => upper - ((equity - low + pad) / (high - low + 2 * pad)) * upper;
    const depth = (drop) => upper + gap + (drop / (deepest || -1)) * lower;
    const path = (values, place) => points.map(([seconds], index) => `${index ? "L" : "M"}${x(seconds).toFixed(1)} ${place(values[index]).toFixed(1)}`).join("");
    const line = path(equities, y), fall = path(drops, depth);
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" });
    for (const value of steps(low, high, 4)) {
      svg.append(element("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
      svg.append(element("text", { x: width - right + 8, y: y(value) + 4 }, money(value).replace(/\.00$/, "")));
    }
    svg.append(element("line", { class: "base", x1: left, x2: width - right, y1: y(data.capital), y2: y(data.capital) }));
    svg.append(element("path", { class: "area", d: `${line}L${x(last)} ${upper}L${x(first)} ${upper}Z` }), element("path", { class: "line", d: line }));
    svg.append(element("path", { class: "fall", d: `${fall}L${x(last)} ${upper + gap}L${x(first)} ${upper + gap}Z` }));
    svg.append(element("text", { x: width - right + 8, y: upper + gap + 6 }, "0%"));
    if (deepest < 0) svg.append(element("text", { x: width - right + 8, y: height - axis }, percent(deepest)));
    for (const [seconds, text] of timeMarks(points, Math.max(2, Math.floor(width / 92)))) {
      if (x(seconds) < width - right - 20) svg.append(element("text", { x: x(seconds), y: height - 3 }, text));
    }
    const cursor = element("line", { class: "cursor", y1: 0, y2: height - axis, visibility: "hidden" });
    const point = element("circle", { class: "point", r: 4.5, visibility: "hidden" });
    svg.append(cursor, point);
    svg.addEventListener("pointermove", (event) => {
      const seconds = first + ((event.offsetX - left) / (width - left - right)) * (last - first);
      const index = nearest(points, seconds);
      const where = x(points[index][0]);
      for (const [name, value] of [["x1", where], ["x2", where], ["visibility", "visible"]]) cursor.setAttribute(name, value);
      for (const [name, value] of [["cx", where], ["cy", y(equities[index])], ["visibility", "visible"]]) point.setAttribute(name, value);
      part("equity-legend").replaceChildren(
        bold(`${day(points[index][0])}, ${clock(points[index][0])}`, ""), bold("Equity", money(equities[index])),
        bold("Gain", percent(equities[index] / data.capital - 1)), bold("Down", percent(drops[index])),
      );
    });
    svg.addEventListener("pointerleave", () => {
      for (const each of [cursor, point]) each.setAttribute("visibility", "hidden");
      part("equity-legend").replaceChildren();
    });
    box.replaceChildren(svg);
  }

  /** Lowest and highest of many values (spreading them all would be too many arguments). */
  function extremes(values) {
    let low = values[0], high = values[0];
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return [low, high];
  }

  /** The last position whose time, the first of its values, is not after `seconds`; 0 before all. */
  function before(points, seconds, time = (each) => each[0]) {
    let low = 0, high = points.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (time(points[middle]) <= seconds) low = middle;
      else high = middle;
    }
    return low;
  }

  function nearest(points, seconds) {
    const index = before(points, seconds);
    const next = Math.min(index + 1, points.length - 1);
    return points[next][0] - seconds < seconds - points[index][0] ? next : index;
  }

  const screen = () => ({ width: part("equity").clientWidth - 12, height: part("equity").clientHeight - 10 });
  new ResizeObserver(() => drawEquity(screen())).observe(part("equity"));
  addEventListener("beforeprint", () => drawEquity(PAPER));
  addEventListener("afterprint", () => drawEquity(screen()));

  // --- prices -------------------------------------------------------------------------------------------------------

  /** The candles of a symbol: `[{time, open, high, low, close}]`. See `_packed` in backtests/report.py. */
  async function unpack(symbol) {
    const text = document.querySelector(`[data-candles="${symbol}"]`).textContent;
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const packed = await new Response(stream).json();
    let minute = 0, last = 0;
    return packed.start.map((since, index) => {
      minute += since;
      const open = last + packed.open[index];
      last = open + packed.close[index];
      const high = Math.max(open, last) + packed.high[index], low = Math.min(open, last) - packed.low[index];
      return { time: minute * 60, open: open / packed.units, high: high / packed.units, low: low / packed.units, close: last / packed.units };
    });
  }

  /** Candles of so many minutes, or of a day each. */
  function longer(candles, minutes) {
    if (minutes === data.minutes) return candles;
    const key = minutes === "day" ? (candle) => day(candle.time) : (candle) => Math.floor(candle.time / 60 / minutes);
    const made = [];
    let current;
    for (const candle of candles) {
      const own = key(candle);
      if (own === current) {
        const whole = made.at(-1);
        whole.high = Math.max(whole.high, candle.high);
        whole.low = Math.min(whole.low, candle.low);
        whole.close = candle.close;
      } else {
        made.push({ ...candle });
        current = own;
      }
    }
    return made;
  }

  /** Draws entries, exits and stops over the candles; what lies outside the view is skipped. */
  class TradeMarks {
    constructor(panel) {
      this.panel = panel;
    }
    attached({ requestUpdate }) {
      this.update = requestUpdate;
    }
    paneViews() {
      return [{ zOrder: () => "top", renderer: () => ({ draw: (target) => target.useMediaCoordinateSpace((scope) => this.draw(scope.context)) }) }];
    }
    draw(context) {
      const { panel } = this;
      const range = panel.chart.timeScale().getVisibleLogicalRange();
      if (!range || !panel.candles.length) return;
      const [from, to] = [panel.timeAt(range.from - 1), panel.timeAt(range.to + 1)];
      const seen = [range.from, range.to].map((each) => Math.max(0, Math.min(Math.round(each), panel.candles.length - 1)));
      const isFar = panel.candles[seen[1]].time - panel.candles[seen[0]].time > 15 * 86400;
      for (const trade of panel.trades) {
        if (trade.exit_at < from || trade.entry_at > to) continue;
        this.drawTrade(context, trade, isFar);
      }
    }
    drawTrade(context, trade, isFar) {
      const { panel } = this;
      const [x1, x2] = [panel.x(trade.entry_at), panel.x(trade.exit_at)];
      const [y1, y2] = [panel.y(trade.entry), panel.y(trade.exit)];
      context.lineWidth = trade === panel.shown ? 2 : 1.25;
      context.strokeStyle = trade.pnl > 0 ? panel.colors.up : trade.pnl < 0 ? panel.colors.down : panel.colors.faint;
      line(context, [[x1, y1], [x2, y2]]);
      if (!isFar && trade.stops.length) {
        context.strokeStyle = panel.colors.down;
        context.setLineDash([4, 3]);
        const path = [];
        trade.stops.forEach(([from, level], index) => {
          const end = trade.stops[index + 1]?.[0] ?? trade.exit_at;
          path.push([panel.x(from), panel.y(level)], [Math.max(panel.x(end), panel.x(from) + 4), panel.y(level)]);
        });
        line(context, path);
        context.setLineDash([]);
      }
      const size = isFar ? 3 : 6;
      triangle(context, x1, y1, trade.long ? size : -size, panel.colors.accent, panel.colors.ground);
      triangle(context, x2, y2, trade.long ? -size : size, panel.colors.text, panel.colors.ground);
    }
  }

  function line(context, points) {
    context.beginPath();
    points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  }

  /** A triangle whose tip is at the price: it points up for a positive size. */
  function triangle(context, x, y, size, fill, edge) {
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x - size, y + size * 1.7);
    context.lineTo(x + size, y + size * 1.7);
    context.closePath();
    context.fillStyle = fill;
    context.strokeStyle = edge;
    context.lineWidth = 1;
    context.fill();
    context.stroke();
  }

  class PricePanel {
    constructor() {
      this.place = -1;
      const box = part("price").appendChild(document.createElement("div"));
      this.chart = LightweightCharts.createChart(box, { autoSize: true });
      this.series = this.chart.addSeries(LightweightCharts.CandlestickSeries, { borderVisible: false, priceLineVisible: false, lastValueVisible: false });
      this.marks = new TradeMarks(this);
      this.series.attachPrimitive(this.marks);
      this.chart.subscribeCrosshairMove((event) => this.tell(event));
      this.paint();
      const choices = [data.minutes, ...[5, 10, 30].filter((each) => each > data.minutes && each % data.minutes === 0), "day"];
      part("price-minutes").replaceChildren(...choices.map((each) => new Option(each === "day" ? "1 day" : `${each} min`, each)));
      // More than a month of short candles is a picture of nothing: a day each, until one looks at a trade.
      if (data.equity.at(-1)[0] - data.equity[0][0] > 31 * 86400) part("price-minutes").value = "day";
      part("price-symbol").addEventListener("change", () => this.show(part("price-symbol").value));
      part("price-minutes").addEventListener("change", () => this.redraw());
      part("trade-before").addEventListener("click", () => this.goTo(this.place - 1));
      part("trade-after").addEventListener("click", () => this.goTo(this.place + 1));
      redraws.push(() => this.paint());
      addEventListener("beforeprint", () => this.toPaper());
      addEventListener("afterprint", () => this.fromPaper());
    }

    /** Paper takes the chart as a picture: by the time the chart has its new size the paper is printed. */
    toPaper() {
      const picture = this.chart.takeScreenshot(true);
      picture.className = "price-picture";
      part("price").append(picture);
    }

    fromPaper() {
      part("price").querySelector(".price-picture")?.remove();
    }

    async show(symbol, trade) {
      part("price-symbol").value = symbol;
      if (symbol !== this.symbol) {
        this.symbol = symbol;
        this.own = await unpack(symbol);
        this.trades = data.trades.filter((each) => each.symbol === symbol);
        this.place = -1;
        this.shown = undefined;
        this.redraw();
      }
      if (trade) this.goTo(this.trades.indexOf(trade));
      else this.tellPlace();
    }

    redraw() {
      const chosen = part("price-minutes").value;
      this.candles = longer(this.own, chosen === "day" ? "day" : Number(chosen));
      this.series.applyOptions({ priceFormat: this.candles.some((each) => each.low < 1) ? { type: "price", precision: 4, minMove: 0.0001 } : { type: "price", precision: 2, minMove: 0.01 } });
      this.series.setData(this.candles);
      if (this.shown) this.goTo(this.place);
      else this.chart.timeScale().fitContent();
    }

    /** Shows the trade at a place among the symbol's, with some candles on both sides. */
    goTo(place) {
      if (!this.trades.length) return;
      this.place = Math.max(0, Math.min(place, this.trades.length - 1));
      const isFirst = !this.shown;
      this.shown = this.trades[this.place];
      if (isFirst && part("price-minutes").value === "day") {
        part("price-minutes").value = data.minutes;
        return this.redraw();
      }
      const [from, to] = [this.shown.entry_at, this.shown.exit_at].map((seconds) => before(this.candles, seconds, (each) => each.time));
      const around = Math.max(24, (to - from) * 0.8);
      this.chart.timeScale().setVisibleLogicalRange({ from: from - around, to: to + around });
      this.tellPlace();
      markRow(data.trades.indexOf(this.shown));
    }

    tellPlace() {
      part("trade-place").textContent = this.trades.length ? `${this.place >= 0 ? `${this.place + 1} of ` : ""}${this.trades.length} trades` : "no trades";
      part("trade-before").disabled = this.place <= 0;
      part("trade-after").disabled = this.place >= this.trades.length - 1;
    }

    tell(event) {
      const candle = event.seriesData?.get(this.series);
      const box = part("price-info");
      if (!candle) return box.replaceChildren();
      const index = before(this.candles, candle.time, (each) => each.time), end = this.candles[index + 1]?.time ?? Infinity;
      const words = [bold(`${day(candle.time)}, ${clock(candle.time)}`, "")];
      for (const name of ["open", "high", "low", "close"]) words.push(bold(name[0].toUpperCase(), price(candle[name])));
      const inside = (seconds) => seconds >= candle.time && seconds < end;
      for (const trade of this.trades.filter((each) => inside(each.entry_at) || inside(each.exit_at)).slice(0, 3)) {
        if (inside(trade.entry_at)) words.push(bold(trade.long ? "bought" : "sold short", price(trade.entry)));
        if (inside(trade.exit_at)) words.push(bold(trade.long ? "sold" : "bought back", `${price(trade.exit)}, ${money(trade.pnl)}`));
      }
      box.replaceChildren(...words);
    }

    timeAt(logical) {
      const index = Math.round(logical);
      if (index < 0) return -Infinity;
      return index >= this.candles.length ? Infinity : this.candles[index].time;
    }

    x(seconds) {
      const candle = this.candles[before(this.candles, seconds, (each) => each.time)];
      return this.chart.timeScale().timeToCoordinate(candle.time);
    }

    y(level) {
      return this.series.priceToCoordinate(level);
    }

    paint() {
      const grid = { color: "rgb(131 144 164 / 16%)" }; // for paper too, which is light whatever the theme
      this.colors = { up: color("up"), down: color("down"), accent: color("accent"), text: color("text"), faint: color("text-faint"), ground: color("surface") };
      this.series.applyOptions({ upColor: this.colors.up, downColor: this.colors.down, wickUpColor: this.colors.up, wickDownColor: this.colors.down });
      const kinds = LightweightCharts.TickMarkType;
      this.chart.applyOptions({
        layout: { background: { color: "transparent" }, textColor: this.colors.faint, fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 11, attributionLogo: false },
        grid: { vertLines: grid, horzLines: grid },
        rightPriceScale: { borderColor: grid.color, scaleMargins: { top: 0.12, bottom: 0.08 } },
        timeScale: {
          borderColor: grid.color, timeVisible: true, secondsVisible: false, minBarSpacing: 0.01,
          tickMarkFormatter: (time, kind) => (kind === kinds.Time ? clock(time) : day(time).slice(kind === kinds.Year ? 0 : 5, kind === kinds.Year ? 4 : undefined)),
        },
        localization: { timeFormatter: (time) => `${day(time)}, ${clock(time)}` },
        crosshair: { mode: 0, vertLine: { color: this.colors.faint }, horzLine: { color: this.colors.faint } },
      });
    }
  }

  // --- the table of trades ------------------------------------------------------------------------------------------

  const table = part("trades");
  const rows = table ? [...table.tBodies[0].rows] : [];

  function sortBy(header) {
    const isNumber = header.dataset.sort === "number", column = header.cellIndex;
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const value = isNumber
      ? (row) => (row.cells[column].dataset.value === "" ? -Infinity : Number(row.cells[column].dataset.value))
      : (row) => row.cells[column].textContent;
    const compare = isNumber ? (one, other) => one - other : (one, other) => (one < other ? -1 : one > other ? 1 : 0);
    const sorted = rows.map((row) => [value(row), row]).sort((one, other) => compare(one[0], other[0]) * (descending ? -1 : 1));
    table.tBodies[0].append(...sorted.map(([, row]) => row));
  }

  function markRow(index) {
    for (const row of table.querySelectorAll(".is-shown")) row.classList.remove("is-shown");
    rows[index]?.classList.add("is-shown");
  }

  for (const header of table?.querySelectorAll("th[data-sort]") ?? []) {
    header.tabIndex = 0;
    header.addEventListener("click", () => sortBy(header));
    header.addEventListener("keydown", (event) => event.key === "Enter" && sortBy(header));
  }

  // --- start --------------------------------------------------------------------------------------------------------

  if (window.LightweightCharts && part("price")) {
    const panel = new PricePanel();
    panel.show(part("price-symbol").value);
    rows.forEach((row, index) => {
      row.classList.add("can-show");
      row.addEventListener("click", () => {
        panel.show(data.trades[index].symbol, data.trades[index]);
        part("price").scrollIntoView({ behavior: "smooth", block: "center" });
      });
    });
  }

  const toggle = part("theme");
  const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => (toggle.textContent = isDark() ? "Light" : "Dark");
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    name();
    redraws.forEach((redraw) => redraw());
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    name();
    redraws.forEach((redraw) => redraw());
  });
  name();
})();
