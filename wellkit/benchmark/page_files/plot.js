// A line plot in SVG. Lines differ by colour, by dashes and by markers, so that none of these is needed alone.
const WIDE = 720, NARROW = 440, HEIGHT = 340, LEFT = 62, RIGHT = 16, TOP = 14, BOTTOM = 44;
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2 1 2"];
const MARKERS = ["circle", "square", "triangle", "diamond", "cross", "plus", "down"];
const COLOURS = 8;

// The look of line n: any two of the first 168 differ.
function look(n) {
  return { colour: `line-${n % COLOURS}`, dash: DASHES[n % DASHES.length], marker: MARKERS[n % MARKERS.length] };
}
const BOLD = { colour: "line-bold", dash: "", marker: null };

function marker(kind, x, y, colour) {
  const r = 3.6;
  const at = (points) => points.map(([a, b]) => `${(x + a * r).toFixed(1)},${(y + b * r).toFixed(1)}`).join(" ");
  const shapes = {
    circle: () => svg("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r }),
    square: () => svg("polygon", { points: at([[-1, -1], [1, -1], [1, 1], [-1, 1]]) }),
    triangle: () => svg("polygon", { points: at([[0, -1.3], [1.2, 1], [-1.2, 1]]) }),
    down: () => svg("polygon", { points: at([[0, 1.3], [1.2, -1], [-1.2, -1]]) }),
    diamond: () => svg("polygon", { points: at([[0, -1.4], [1.4, 0], [0, 1.4], [-1.4, 0]]) }),
    cross: () => svg("path", { d: `M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}` }),
    plus: () => svg("path", { d: `M${x - r * 1.2} ${y}H${x + r * 1.2}M${x} ${y - r * 1.2}V${y + r * 1.2}` }),
  };
  const made = shapes[kind]();
  made.setAttribute("class", `marker ${colour}`);
  return made;
}

// The short line of a legend.
function sample(style) {
  return svg("svg", { class: "sample", width: 38, height: 14, "aria-hidden": "true" },
    svg("path", { d: "M1 7H37", class: `line ${style.colour}`, "stroke-dasharray": style.dash }),
    style.marker ? marker(style.marker, 19, 7, style.colour) : null);
}

class Scale {
  constructor(values, from, to, log, whole) {
    this.log = log;
    this.from = from;
    this.to = to;
    this.whole = whole;
    const used = values.filter((v) => Number.isFinite(v) && (!log || v > 0));
    let low = used.length ? Math.min(...used) : log ? 0.1 : 0;
    let high = used.length ? Math.max(...used) : 1;
    if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
    this.low = log ? Math.log10(low) : low;
    this.high = log ? Math.log10(high) : high;
  }
  at(value) {
    const v = this.log ? Math.log10(value) : value;
    return this.from + (this.to - this.from) * (v - this.low) / (this.high - this.low);
  }
  ticks() {
    if (this.log) return this.decades();
    const raw = (this.high - this.low) / 6;
    const power = 10 ** Math.floor(Math.log10(raw));
    let step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw);
    if (this.whole) step = Math.max(1, Math.round(step));
    const ticks = [];
    for (let n = Math.ceil(this.low / step); n * step <= this.high + 1e-9 * step; n += 1) ticks.push(n * step);
    return ticks.map((v) => [v, String(Number(v.toPrecision(6)))]);
  }
  decades() {
    const span = this.high - this.low;
    const parts = span > 3 ? [1] : span > 1.2 ? [1, 3] : [1, 2, 3, 5, 7];
    const every = Math.max(1, Math.ceil(span / 7));
    const ticks = [];
    for (let d = Math.floor(this.low); d <= Math.ceil(this.high); d += 1) {
      if (parts.length === 1 && d % every !== 0) continue;
      for (const part of parts) {
        const v = part * 10 ** d, l = Math.log10(v);
        if (l >= this.low - 1e-9 && l <= this.high + 1e-9) ticks.push([v, decimal(v, d)]);
      }
    }
    return ticks;
  }
}
function decimal(v, d) {
  if (d < -3 || d > 4) return v.toExponential(0).replace("e+", "e").replace("-", "−");
  return String(Number(v.toPrecision(2)));
}

// options: name (for screen readers), narrow, x, y (labels), logX, logY, whole, level (a horizontal line), levelName
class Plot {
  constructor(options) {
    this.options = options;
    this.width = options.narrow || matchMedia("(max-width: 700px)").matches ? NARROW : WIDE;
    this.element = svg("svg", { class: "plot", viewBox: `0 0 ${this.width} ${HEIGHT}`, role: "img",
      "aria-label": options.name, tabindex: options.onread ? "0" : null });
    this.points = [];
    if (options.onread) this.listen();
  }

  // lines: [{x, y, style, ranges: [low[], high[]] or null}]
  draw(lines) {
    const { options } = this;
    this.lines = lines;
    const xs = lines.flatMap((line) => line.x);
    const ys = lines.flatMap((line) => line.y).concat(options.level === undefined ? [] : [options.level]);
    this.logY = options.logY === "auto" ? spans(ys) : options.logY;
    this.xScale = new Scale(xs, LEFT, this.width - RIGHT, options.logX, options.whole);
    this.yScale = new Scale(pad(ys, this.logY), HEIGHT - BOTTOM, TOP, this.logY, false);
    this.points = [...new Set(xs)].sort((a, b) => a - b);
    this.guide = svg("path", { class: "guide" });
    this.element.replaceChildren(...this.frame(), this.guide,
      ...lines.flatMap((line) => this.line(line)), ...this.level());
    if (options.onread && this.points.length) this.read(Math.min(this.index ?? 0, this.points.length - 1));
  }

  frame() {
    const { options, xScale, yScale } = this;
    const parts = [];
    for (const [v, text] of yScale.ticks()) {
      const y = yScale.at(v).toFixed(1);
      parts.push(svg("path", { class: "grid", d: `M${LEFT} ${y}H${this.width - RIGHT}` }),
        svg("text", { x: LEFT - 7, y, dy: "0.35em", "text-anchor": "end" }, text));
    }
    for (const [v, text] of xScale.ticks()) {
      const x = xScale.at(v).toFixed(1);
      parts.push(svg("path", { class: "grid", d: `M${x} ${HEIGHT - BOTTOM}v5` }),
        svg("text", { x, y: HEIGHT - BOTTOM + 19, "text-anchor": "middle" }, text));
    }
    parts.push(svg("path", { class: "axis", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${this.width - RIGHT}` }),
      svg("text", { class: "label", x: (LEFT + this.width - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" },
        options.x + (options.logX ? " (log)" : "")),
      svg("text", { class: "label", transform: `translate(13 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`,
        "text-anchor": "middle" }, options.y + (this.logY ? " (log)" : "")));
    return parts;
  }

  level() {
    const { level, levelName } = this.options;
    if (level === undefined) return [];
    const y = this.yScale.at(level);
    return [svg("path", { class: "level", d: `M${LEFT} ${y.toFixed(1)}H${this.width - RIGHT}` }),
      svg("text", { class: "level-name", x: this.width - RIGHT - 4, y: (y + 15).toFixed(1), "text-anchor": "end" }, levelName)];
  }

  line({ x, y, style, ranges }) {
    const parts = [];
    if (ranges) parts.push(this.area(x, ranges, style));
    let path = "", on = false;
    const seen = [];
    x.forEach((value, n) => {
      if (!Number.isFinite(y[n]) || ((this.logY) && y[n] <= 0)) { on = false; return; }
      const [a, b] = [this.xScale.at(value), this.yScale.at(y[n])];
      path += `${on ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`;
      on = true;
      seen.push([a, b]);
    });
    parts.push(svg("path", { class: `line ${style.colour}`, d: path, "stroke-dasharray": style.dash }));
    // Where a line goes to infinity: an arrow at the top.
    const lost = y.findIndex((v) => v === Infinity);
    if (lost >= 0) {
      const a = this.xScale.at(x[lost]);
      parts.push(svg("text", { class: `beyond ${style.colour}`, x: a.toFixed(1), y: TOP + 8, "text-anchor": "middle" }, "∞"));
    }
    if (style.marker) {
      const every = Math.max(1, Math.ceil(seen.length / 9));
      seen.forEach(([a, b], n) => {
        if (n % every === 0) parts.push(marker(style.marker, a, b, style.colour));
      });
    }
    return parts;
  }

  area(x, [low, high], style) {
    const good = x.map((v, n) => n).filter((n) => Number.isFinite(low[n]) && Number.isFinite(high[n])
      && (!this.logY || low[n] > 0));
    const at = (n, values) => `${this.xScale.at(x[n]).toFixed(1)} ${this.yScale.at(values[n]).toFixed(1)}`;
    const d = good.length ? `M${good.map((n) => at(n, high)).join("L")}L${good.reverse().map((n) => at(n, low)).join("L")}Z` : "";
    return svg("path", { class: `area ${style.colour}`, d });
  }

  listen() {
    this.element.addEventListener("pointermove", (event) => {
      const box = this.element.getBoundingClientRect();
      if (!this.points.length || !box.width) return;
      const x = (event.clientX - box.left) / box.width * this.width;
      let best = 0;
      this.points.forEach((v, n) => {
        if (Math.abs(this.xScale.at(v) - x) < Math.abs(this.xScale.at(this.points[best]) - x)) best = n;
      });
      this.read(best);
    });
    this.element.addEventListener("keydown", (event) => {
      const last = this.points.length - 1;
      const to = { ArrowLeft: this.index - 1, ArrowRight: this.index + 1, Home: 0, End: last }[event.key];
      if (to === undefined || last < 0) return;
      event.preventDefault();
      this.read(Math.max(0, Math.min(last, to)), true);
    });
  }

  read(index, aloud) {
    this.index = index;
    const x = this.points[index];
    this.guide.setAttribute("d", `M${this.xScale.at(x).toFixed(1)} ${TOP}V${HEIGHT - BOTTOM}`);
    this.options.onread(x, Boolean(aloud));
  }
}
const positive = (values) => values.filter((v) => Number.isFinite(v) && v > 0);
function spans(values) {
  const used = positive(values);
  return used.length > 0 && Math.max(...used) / Math.min(...used) > 12;
}
function pad(values, log) {
  const used = log ? positive(values) : values.filter(Number.isFinite);
  if (!used.length) return used;
  const [low, high] = [Math.min(...used), Math.max(...used)];
  return log ? [low / 1.2, high * 1.3] : [Math.min(0, low), high + 0.08 * (high - Math.min(0, low))];
}
