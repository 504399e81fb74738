// Rollout curves of a table: score against step, a line a row.
const AT_FIRST = 8; // lines that are drawn before anybody chooses

class Curves {
  constructor(data, number) {
    this.data = data;
    let styles = 0;
    this.lines = data.rows.map((row) => {
      if (!row.curves.length) return null;
      const bold = row.name === "persistence" && row.kind === "baseline";
      return { row, style: bold ? BOLD : look(styles++), bold, on: true, shown: true, ...merge(row.curves) };
    });
    const there = this.lines.filter(Boolean);
    this.element = el("section", { class: "curves", "aria-labelledby": `curves-${number}` });
    if (!there.length) return;
    let drawn = 0;
    for (const line of there) line.on = line.bold || drawn++ < AT_FIRST;
    const figure = data.protocol.median ? "median over trajectories" : "mean over trajectories";
    this.readout = el("div", { class: "readout" });
    this.spoken = el("p", { class: "hidden", role: "status", "aria-live": "polite" });
    this.plot = new Plot({
      name: `Rollout VRMSE by step, ${figure}; arrow keys read values, the table below lists them`,
      x: "step of the rollout", y: "VRMSE", logY: "auto", whole: true,
      level: data.protocol.threshold, levelName: data.protocol.threshold === 1 ? "1: as good as the mean of the frame" : "valid until here",
      onread: (step, aloud) => this.read(step, aloud),
    });
    this.legend = el("div", { class: "legend", role: "group", "aria-label": "Lines to draw" });
    for (const line of there) {
      line.button = el("button", { type: "button", "aria-pressed": String(line.on), onclick: () => {
        line.on = !line.on;
        line.button.setAttribute("aria-pressed", String(line.on));
        this.draw();
      } }, sample(line.style), foreign(line.row.name));
      this.legend.append(line.button);
    }
    this.element.append(el("h3", { id: `curves-${number}` }, "Rollout"),
      el("p", { class: "sub" }, `VRMSE of each step, ${figure}. `
        + (there.some((line) => line.ranges) ? "Shaded: from the best to the worst seed." : "")),
      this.legend, el("div", { class: "plotted" }, this.plot.element, this.readout), this.spoken,
      later("Show as table", () => this.table(there)));
    this.draw();
  }

  drawn() {
    return this.lines.filter((line) => line && line.on && line.shown);
  }

  draw() {
    this.plot.draw(this.drawn());
  }

  show(numbers) {
    const shown = new Set(numbers);
    this.lines.forEach((line, n) => {
      if (!line) return;
      line.shown = shown.has(n);
      line.button.hidden = !line.shown;
    });
    if (this.plot) this.draw();
  }

  read(step, aloud) {
    const values = this.drawn().map((line) => ({ line, v: line.y[step - 1] })).filter(({ v }) => v !== undefined)
      .sort((a, b) => a.v - b.v);
    this.readout.replaceChildren(el("b", {}, `Step ${step}`), el("ol", {}, values.map(({ line, v }) =>
      el("li", {}, sample(line.style), el("span", { class: "of" }, foreign(line.row.name)), el("span", { class: "v" }, score(v))))));
    if (aloud) this.spoken.textContent = `Step ${step}: ${values.map(({ line, v }) => `${line.row.name} ${score(v)}`).join(", ")}`;
  }

  table(lines) {
    const steps = Math.max(...lines.map((line) => line.y.length));
    const rows = Array.from({ length: steps }, (_, n) => [n + 1, ...lines.map((line) => score(line.y[n] ?? null))]);
    return small("Rollout VRMSE by step", ["step", ...lines.map((line) => foreign(line.row.name))], rows);
  }
}

// Mean over seeds, and from the least to the largest.
function merge(curves) {
  const values = curves.map((curve) => curve.map(Number));
  const length = Math.min(...values.map((curve) => curve.length));
  const x = Array.from({ length }, (_, n) => n + 1);
  const each = x.map((_, n) => values.map((curve) => curve[n]));
  return {
    x,
    y: each.map((v) => v.reduce((a, b) => a + b, 0) / v.length),
    ranges: values.length > 1 ? [each.map((v) => Math.min(...v)), each.map((v) => Math.max(...v))] : null,
  };
}
