// Elements, numbers as text. Data reach the document through text nodes and named attributes only.
const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) element.append(child.nodeType ? child : String(child));
  }
  return element;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// A name somebody sent: kept apart, so that its writing direction cannot reorder what stands beside it.
const foreign = (text) => el("bdi", {}, text);

// JSON has no word for numbers that are not finite; they come as text.
const num = (value) => (value === null || value === undefined ? null : Number(value));

function score(value, digits = 4) {
  const v = num(value);
  if (v === null || Number.isNaN(v)) return "–";
  if (!Number.isFinite(v)) return v > 0 ? "∞" : "−∞";
  const size = Math.abs(v);
  if (v === 0) return "0";
  if (size < 1e-3 || size >= 1e5) return v.toExponential(Math.min(2, digits - 1)).replace("e+", "e").replace("-", "−");
  return v.toPrecision(digits).replace(/^-/, "−");
}
function count(value) {
  const v = num(value);
  if (v === null) return "–";
  if (v >= 1e9) return `${(v / 1e9).toPrecision(3)} B`;
  if (v >= 1e6) return `${(v / 1e6).toPrecision(3)} M`;
  if (v >= 1e4) return `${(v / 1e3).toPrecision(3)} k`;
  return String(v);
}
function duration(value) {
  const v = num(value);
  if (v === null || Number.isNaN(v)) return "–";
  if (v < 120) return `${v.toPrecision(3)} s`;
  if (v < 7200) return `${(v / 60).toPrecision(3)} min`;
  return `${(v / 3600).toPrecision(3)} h`;
}

// A small table: head is a list of texts, rows of lists; numbers are set right.
function small(caption, head, rows, mark) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { class: "small" },
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, head.map((text, n) =>
        el("th", { scope: "col", class: n === mark ? "marked" : null }, text)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, n) =>
        n === 0 ? el("th", { scope: "row" }, foreign(value))
          : el("td", { class: n === mark ? "marked" : null }, value)))))));
}

// Built when it is first opened: long tables cost nothing until somebody wants them.
function later(summary, build, open) {
  const box = el("details", {}, el("summary", {}, summary));
  let built = false;
  const make = () => {
    if (!built && box.open) { built = true; box.append(...[build()].flat()); }
  };
  box.addEventListener("toggle", make);
  if (open) { box.open = true; make(); }
  return box;
}
