// One table: cells that are buttons, columns that sort.
const REASON = { ascending: "ascending", descending: "descending" };

function cellText(kind, cell) {
  if (cell.t !== undefined) return cell.t;
  if (kind === "count") return count(cell.v);
  if (kind === "seconds") return duration(cell.v);
  if (kind === "ratio") return cell.v === null ? "–" : `${score(cell.v)}×`;
  if (kind === "step") return cell.v === null ? "–" : String(cell.v);
  return score(cell.v);
}

class BoardTable {
  constructor(data, number, onsort) {
    this.data = data;
    this.onsort = onsort;
    this.sort = null;
    this.heads = new Map();
    const id = `table-${number}`;
    this.bodies = data.rows.map((row) => this.line(row));
    this.body = el("tbody", {}, this.bodies);
    this.element = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": `${id}-title` },
      el("table", { class: "board", "aria-describedby": `${id}-notes` },
        el("caption", {}, el("h2", { id: `${id}-title`, class: "stay" }, foreign(data.title), " — protocol ",
          el("b", {}, data.protocol.name))),
        el("thead", {}, el("tr", {}, data.columns.map((column) => this.head(column)))),
        this.body));
  }

  head(column) {
    const button = el("button", { type: "button", title: `Sort by: ${column.label}`,
      onclick: () => this.turn(column.key) }, column.label, el("span", { class: "arrow", "aria-hidden": "true" }));
    const th = el("th", { scope: "col", class: column.kind, "data-key": column.key }, button);
    this.heads.set(column.key, th);
    return th;
  }

  line(row) {
    return el("tr", { class: row.kind }, this.data.columns.map((column) => this.cell(row, column)));
  }

  cell(row, column) {
    const { key, kind } = column;
    if (kind === "model") {
      const mark = row.taints.length
        ? el("sup", {}, el("span", { "aria-hidden": "true" }, "†"), el("span", { class: "hidden" }, " tainted")) : null;
      return el("th", { scope: "row", class: kind }, foreign(row.name), mark);
    }
    if (kind === "status") {
      return el("td", { class: kind }, el("button", { type: "button", class: `value badge ${row.kind}`,
        "aria-haspopup": "dialog", onclick: () => openProvenance(this.data, row, column) }, row.kind));
    }
    const cell = row.cells[key];
    if (kind === "rank") {
      return row.why === null ? el("td", { class: kind }, this.button(row, column, cell.t, null))
        : el("td", { class: kind, title: row.why },
          el("span", { "aria-hidden": "true" }, cell.t), el("span", { class: "hidden" }, row.why));
    }
    if (kind === "seeds") return this.seeds(row, column);
    const text = cellText(kind, cell);
    if (text === "–") {
      return el("td", { class: kind }, el("span", { "aria-hidden": "true" }, "–"),
        el("span", { class: "hidden" }, "no figure"));
    }
    return el("td", { class: kind }, this.button(row, column, text, kind === "ratio" ? this.interval(row) : null));
  }

  button(row, column, text, below) {
    return el("button", { type: "button", class: "value", "aria-haspopup": "dialog",
      onclick: () => openProvenance(this.data, row, column) },
    text === "∞" ? [el("span", { "aria-hidden": "true" }, "∞"), el("span", { class: "hidden" }, "infinite")] : text,
    below ? el("small", {}, " ", below) : null);
  }

  interval(row) {
    const compared = row.comparison;
    if (!compared) return null;
    return compared.low === null ? "no interval" : `Δ ${score(compared.low, 3)} to ${score(compared.high, 3)}`;
  }

  seeds(row, column) {
    const values = row.seed_values;
    if (!row.results.length || !values.length) {
      return el("td", { class: "seeds" }, el("span", { "aria-hidden": "true" }, "–"),
        el("span", { class: "hidden" }, "no seeds"));
    }
    if (values.length === 1) {
      const seed = row.results[0].model.seed;
      return el("td", { class: "seeds" }, seed === undefined ? "no seed" : this.button(row, column, "1 seed", null));
    }
    const listed = values.length <= 3 ? values.map((v) => score(v)).join(" · ") : `${values.length} seeds`;
    return el("td", { class: "seeds" }, this.button(row, column, listed, `spread ${score(row.cells.seeds.v, 2)}`));
  }

  // Third press: back to the order of the board.
  turn(key) {
    const now = this.sort && this.sort.key === key ? this.sort.direction : null;
    const next = now === null ? "ascending" : now === "ascending" ? "descending" : null;
    this.order(next === null ? null : { key, direction: next });
    this.onsort(next === null ? `${this.label(key)}: order of the board` : `sorted by ${this.label(key)}, ${next}`);
  }

  label(key) {
    return this.data.columns.find((column) => column.key === key).label;
  }

  order(sort) {
    if (sort && !this.heads.has(sort.key)) return;
    this.sort = sort;
    for (const [key, th] of this.heads) {
      if (sort && sort.key === key) th.setAttribute("aria-sort", REASON[sort.direction]);
      else th.removeAttribute("aria-sort");
    }
    const numbers = this.data.rows.map((row, n) => n);
    if (sort) numbers.sort((a, b) => this.compare(a, b, sort) || a - b);
    this.body.append(...numbers.map((n) => this.bodies[n]));
  }

  // What is missing, NaN or infinite is last in both directions.
  compare(a, b, { key, direction }) {
    const [x, y] = [a, b].map((n) => this.key(this.data.rows[n], key));
    const [lost, gone] = [x, y].map((value) => value === null || (typeof value === "number" && !Number.isFinite(value)));
    if (lost || gone) return lost - gone;
    const order = typeof x === "string" ? x.localeCompare(y, "en") : x - y;
    return direction === "ascending" ? order : -order;
  }

  key(row, key) {
    if (key === "model") return row.name;
    if (key === "status") return row.kind;
    const value = num(row.cells[key].v);
    // A bound such as ">10" is beyond the number it names.
    return value !== null && /^[>≥]/.test(row.cells[key].t || "") ? value * (1 + 1e-9) : value;
  }

  // Shows the rows a filter lets through; returns their numbers.
  filter(passes) {
    const shown = [];
    this.data.rows.forEach((row, n) => {
      const is = passes(row);
      this.bodies[n].hidden = !is;
      if (is) shown.push(n);
    });
    return shown;
  }
}
