// What a number is, what it is made of, and where it comes from.
const dialog = document.getElementById("provenance");
let opener = null;

// Escape closes a dialog by itself; the focus goes back to the number that opened it.
dialog.addEventListener("close", () => {
  if (opener) opener.focus();
  opener = null;
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

function openProvenance(table, row, column) {
  opener = document.activeElement;
  const cell = row.cells[column.key];
  const text = column.kind === "status" ? row.kind : column.kind === "rank" ? cell.t
    : column.kind === "seeds" ? row.seed_values.map((v) => score(v)).join(", ") : cellText(column.kind, cell);
  const open = row.results.length === 1;
  dialog.replaceChildren(
    el("header", {},
      el("h2", { id: "provenance-title", tabindex: "-1" }, el("span", { class: "big" }, text), " ",
        column.label, ": ", foreign(row.name)),
      el("button", { type: "button", class: "close", onclick: () => dialog.close() }, "Close")),
    el("p", {}, table.definitions[column.key] || table.protocol.entry),
    ...ofRow(table, row, column),
    ...row.results.map((result, n) => {
      const seed = result.model.seed === undefined ? "" : `, seed ${result.model.seed}`;
      return open ? el("section", {}, ofResult(table, result, column))
        : later(`Result ${n + 1} of ${row.results.length}${seed}: ${score(row.seed_values[n] ?? null)} one step`,
          () => ofResult(table, result, column), n === 0);
    }),
    el("h3", {}, "Protocol ", table.protocol.name),
    facts([["in short", table.protocol.summary], ["comparable with", table.protocol.comparable_with],
      ...table.protocol.open_points.map((point) => ["open point", point]), ["hash of the definition", table.protocol.sha256]]));
  dialog.showModal();
  dialog.scrollTop = 0;
  document.getElementById("provenance-title").focus();
}

function ofRow(table, row, column) {
  const parts = [facts([["data and table", table.title], ["status", `${row.kind}. ${BOARD.status[row.kind]}`],
    ["rank", row.why === null ? row.cells.rank.t : row.why],
    ["source", row.source]])];
  if (row.taints.length) {
    parts.push(el("h3", {}, "† Known to be wrong with it"), el("ul", {}, row.taints.map((taint) => el("li", {}, foreign(taint)))));
  }
  if (row.results.length > 1 || column.kind === "seeds") {
    parts.push(small("Headline score by seed", ["seed", "VRMSE, one step", "result"], row.results.map((result, n) =>
      [result.model.seed ?? "none", score(row.seed_values[n] ?? null), result.id])));
  }
  const compared = row.comparison;
  if (compared && (column.kind === "rank" || column.kind === "ratio" || column.kind === "step")) {
    parts.push(facts([["mean difference from persistence", score(compared.difference)],
      ["interval (95 %)", compared.low === null
        ? `no interval: fewer than 10 independent trajectories (${compared.trajectories})`
        : `${score(compared.low)} to ${score(compared.high)}`],
      ["better than persistence on", `${compared.better} of ${compared.trajectories} trajectories`],
      ["groups of equal parameters", compared.strata]]));
  }
  return parts;
}

// Pairs; those without a value are left out.
function facts(pairs) {
  return el("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .flatMap(([name, value]) => [el("dt", {}, foreign(name)), el("dd", {}, foreign(String(value)))]));
}

function ofResult(table, result, column) {
  return [byField(result, column), figures(result), byTrajectory(table, result, column), drift(result), ...origins(result)];
}

function byField(result, column) {
  const own = result.fields[column.key] ? column.key : "headline";
  const label = own === column.key ? column.label : "VRMSE, one step";
  if (own !== "headline") {
    return small(`${label}, by component (mean over trajectories)`, ["component", label],
      Object.entries(result.fields[own]).map(([name, v]) => [name, score(v)]));
  }
  const names = Object.keys(result.fields["headline pooled"]);
  const at = (key, name) => score(result.fields[key][name] ?? null);
  return small("One-step VRMSE by component", ["component", "mean", "median", "pooled"], names.map((name) =>
    [name, at("headline", name), at("headline median", name), at("headline pooled", name)]));
}

function figures(result) {
  const head = ["figure", "one step", "rollout, all steps"];
  const names = { mean: "mean over entries", median: "median over entries", pooled: "pooled",
    of_trajectories: "median over trajectories", entries: "entries", flat: "flat entries", nonfinite: "not finite" };
  const { "one step": one, rollout } = result.figures;
  return small("Other figures of the same result", head, Object.entries(names).map(([key, label]) =>
    [label, ...[one, rollout].map((f) => (["entries", "flat", "nonfinite"].includes(key) ? String(f[key]) : score(f[key])))]));
}

function byTrajectory(table, result, column) {
  const { files, parameters, columns, rows } = result.trajectories;
  const names = Object.fromEntries(table.columns.map(({ key, label }) => [key, label]));
  const kept = columns.filter((key) => names[key]);
  const head = ["file", "trajectory", "frames", ...parameters, ...kept.map((key) => names[key]), "flat entries", "not finite"];
  const first = 3 + parameters.length;
  const mark = kept.includes(column.key) ? first + kept.indexOf(column.key) : -1;
  const lines = rows.map((row) => [files[row[0]], row[1], row[2], ...row.slice(3, first).map((v) => score(v)),
    ...columns.map((key, n) => [key, row[first + n]]).filter(([key]) => kept.includes(key))
      .map(([key, v]) => (key === "valid" ? (v ?? "–") : score(v))),
    ...row.slice(-2)]);
  return later(`Trajectory by trajectory (${rows.length})`, () =>
    small("By trajectory: mean over components, with the parameters of the simulation", head, lines, mark), rows.length <= 12);
}

function drift(result) {
  if (!result.drift.length) return null;
  return small("Conservation: largest drift along the rollout, as a share", ["quantity", "component", "of the prediction", "of the data"],
    result.drift.map(([quantity, component, mean, target]) => [quantity, foreign(component), score(mean), score(target)]));
}

function origins(result) {
  const { model, dataset, data, run, trained_on: trained } = result;
  const same = (identity) => identity && [identity.name, identity.generator ? `generated by ${identity.generator}` : "original",
    identity.split, identity.resolution, `${identity.trajectories} trajectories in ${identity.files} files`].join(", ");
  return [
    el("h4", {}, "Data"),
    facts([["dataset", same(dataset)], ["version", data.dataset_version], ["components", dataset.fields.join(", ")],
      ["constant fields", dataset.constant_fields.join(", ")], ["hash of the content", data.content_sha256],
      ["hash of the manifest", data.manifest_sha256 || "none: the tree has no manifest"],
      ["hash of the statistics", data.statistics_sha256 || "none beside the data"]]),
    el("h4", {}, "Model"),
    facts([["name", model.name], ["kind", model.kind],
      ["arguments", Object.entries(model.arguments || {}).map(([k, v]) => `${k} = ${v}`).join(", ")],
      ["parameters", model.parameters.toLocaleString("en")], ["frames it sees", model.n_steps_input], ["seed", model.seed],
      ["epochs", model.epochs], ["training time", model.training_seconds && duration(model.training_seconds)],
      ["windows seen in training", model.samples_seen && model.samples_seen.toLocaleString("en")],
      ["energy of the training", model.energy_joules && `${(model.energy_joules / 3.6e6).toPrecision(3)} kWh`],
      ["waiting for data, share of training", model.stall_share !== undefined ? share(model.stall_share) : null],
      ["trained on hardware", model.training_hardware], ["trained on data", same(trained)],
      ["hash of the weights", model.weights_sha256], ["hash of the predictions", model.predictions_sha256],
      ["hash of the normalization", model.statistics_sha256], ["checkpoint", model.checkpoint], ["more", model.url]]),
    el("h4", {}, "Evaluation"),
    facts([["code", `wellkit ${run.code_version}`], ["hardware", run.hardware], ["took", duration(run.seconds)],
      ["waiting for data", share(run.stall_share)], ["rollouts side by side", run.rollout_batch],
      ["limit of rollout steps", result.limit], ["created", run.created], ["result", result.id], ["hash of the result", result.sha256]]),
    ...(result.again ? [el("h4", {}, "Computed again"),
      facts([["from predictions", result.again.predictions_sha256], ["on the frames", result.again.content_sha256],
        ["code", `wellkit ${result.again.code_version}`], ["hardware", result.again.hardware],
        ["when", result.again.created]])] : []),
  ];
}
const share = (value) => `${(100 * value).toPrecision(2)} %`;
