// Filters, the state in the address, and the start.
const BOARD = JSON.parse(document.getElementById("data").textContent);
const counted = document.getElementById("count");

function notes(table, id) {
  const box = el("div", { id, class: "notes" });
  if (table.notes.length) box.append(el("ul", {}, table.notes.map((note) => el("li", {}, foreign(note)))));
  const tainted = table.rows.filter((row) => row.taints.length);
  if (tainted.length) {
    box.append(el("p", {}, "† Published figures, and what is known to be wrong with them:"),
      el("ul", { class: "taints" }, tainted.map((row) => el("li", {}, el("b", {}, foreign(row.name)), ": ", foreign(row.taints.join("; ")),
        row.source ? [" — ", foreign(row.source)] : null))));
  }
  return box;
}

const boards = BOARD.tables.map((data, number) => {
  const table = new BoardTable(data, number, (said) => {
    counted.textContent = said;
    save();
  });
  const curves = new Curves(data, number);
  const examples = new Examples(data, number);
  const element = el("article", { "aria-labelledby": `table-${number}-title`, "data-id": data.id }, table.element,
    notes(data, `table-${number}-notes`), curves.element, examples.element);
  return { data, table, curves, examples, element };
});

function select(name, label, values) {
  const choice = el("select", { name, id: `filter-${name}`, onchange: () => apply(true) },
    el("option", { value: "" }, "all"), [...new Set(values)].sort().map((value) => el("option", { value }, value)));
  return [el("label", { for: `filter-${name}` }, label, choice)];
}
const filters = document.getElementById("filters");
filters.append(
  ...select("dataset", "Dataset", boards.map(({ data }) => data.dataset)),
  ...select("protocol", "Protocol", boards.map(({ data }) => data.protocol.name)),
  ...select("model", "Model", boards.flatMap(({ data }) => data.rows.map((row) => row.name))),
  el("label", { for: "filter-text" }, "Text", el("input", { type: "search", name: "text", id: "filter-text",
    placeholder: "in names, notes, status", autocomplete: "off", oninput: () => apply(true) })),
  el("button", { type: "button", onclick: () => { filters.reset(); apply(true); } }, "Show all"));
filters.addEventListener("submit", (event) => event.preventDefault());

const NAMES = ["dataset", "protocol", "model", "text"];
const wanted = (name) => filters.elements.namedItem(name).value;

function apply(changed) {
  const text = wanted("text").trim().toLowerCase();
  let rows = 0, all = 0, tables = 0;
  for (const { data, table, curves, examples, element } of boards) {
    const whole = (!wanted("dataset") || wanted("dataset") === data.dataset)
      && (!wanted("protocol") || wanted("protocol") === data.protocol.name);
    const about = [data.title, data.protocol.name, ...data.notes].join("\n").toLowerCase().includes(text);
    const shown = table.filter((row) => whole && (!wanted("model") || wanted("model") === row.name)
      && (about || [row.name, row.kind, row.source || "", ...row.taints].join("\n").toLowerCase().includes(text)));
    element.hidden = !shown.length;
    curves.show(shown);
    examples.show(shown);
    all += data.rows.length;
    rows += shown.length;
    tables += shown.length ? 1 : 0;
  }
  const of = boards.length === 1 ? "1 table" : `${boards.length} tables`;
  counted.textContent = rows ? `${rows} of ${all} rows in ${tables} of ${of}` : "No row fits these filters.";
  if (changed) save();
}

function save() {
  const state = new URLSearchParams();
  for (const name of NAMES) if (wanted(name)) state.set(name, wanted(name));
  for (const { data, table } of boards) {
    if (table.sort) state.append("sort", `${data.id} ${table.sort.direction} ${table.sort.key}`);
  }
  history.replaceState(null, "", `#${state}`);
}

function restore() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const name of NAMES) {
    const field = filters.elements.namedItem(name);
    field.value = state.get(name) || "";
    if (field.value !== (state.get(name) || "")) field.value = "";
  }
  const sorts = new Map(state.getAll("sort").map((text) => {
    const [id, direction, ...key] = text.split(" ");
    return [id, { key: key.join(" "), direction: direction === "descending" ? direction : "ascending" }];
  }));
  for (const { data, table } of boards) table.order(sorts.get(data.id) || null);
  apply(false);
}

document.getElementById("title").textContent = BOARD.title;
document.getElementById("made").textContent = BOARD.made;
document.getElementById("tables").append(...boards.map(({ element }) => element));
if (!boards.length) filters.hidden = true;
// A small screen shows the tables first.
if (matchMedia("(max-width: 600px)").matches) document.querySelector(".about").open = false;
window.addEventListener("hashchange", restore);
restore();
if (!boards.length) counted.textContent = "There are no results on this board.";
