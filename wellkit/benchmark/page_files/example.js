// One rollout of a row to look at: fields on canvases, and their spectra.
// Viridis by its stops (CC0, Nathaniel Smith and Stefan van der Walt), straight between them.
const VIRIDIS = ["440154", "472c7a", "3b518b", "2c718e", "21908d", "27ad81", "5cc863", "aadc32", "fde725"];
const DIVERGING = ["2166ac", "67a9cf", "d1e5f0", "f7f7f7", "fddbc7", "ef8a62", "b2182b"];

function colours(stops) {
  const rgb = stops.map((hex) => [0, 2, 4].map((n) => parseInt(hex.slice(n, n + 2), 16)));
  return Array.from({ length: 256 }, (_, n) => {
    const at = n / 255 * (rgb.length - 1), k = Math.min(Math.floor(at), rgb.length - 2);
    return rgb[k].map((v, c) => Math.round(v + (rgb[k + 1][c] - v) * (at - k)));
  });
}
const SEQUENTIAL = colours(VIRIDIS), SIGNED = colours(DIVERGING);

const bytes = (name) => Uint8Array.from(atob(BOARD.pictures[name]), (c) => c.charCodeAt(0));

// values: (x, y), row after row; drawn with the longer side lying flat, the other axis upwards.
function canvas(values, example, map, name) {
  const [nx, ny] = example.shape;
  const upright = lengths(example)[1] > 1.3 * lengths(example)[0];
  const [width, height] = upright ? [ny, nx] : [nx, ny];
  const element = el("canvas", { width, height, role: "img", "aria-label": name });
  const [long, tall] = upright ? [1, 0] : [0, 1];
  element.style.aspectRatio = String(Math.max(0.4, Math.min(4, lengths(example)[long] / lengths(example)[tall])));
  const context = element.getContext("2d");
  const image = context.createImageData(width, height);
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const up = height - 1 - row;
      const [r, g, b] = map[values[upright ? up * ny + column : column * ny + up]];
      image.data.set([r, g, b, 255], 4 * (row * width + column));
    }
  }
  context.putImageData(image, 0, 0);
  return element;
}
function lengths(example) {
  return example.extent[0] > 0 && example.extent[1] > 0 ? example.extent : example.shape;
}

function bar(map, low, high, name) {
  const element = el("canvas", { width: 256, height: 1, class: "bar", role: "img", "aria-label": name });
  const context = element.getContext("2d");
  const image = context.createImageData(256, 1);
  map.forEach(([r, g, b], n) => image.data.set([r, g, b, 255], 4 * n));
  context.putImageData(image, 0, 0);
  return el("div", { class: "scale" }, el("span", {}, low), element, el("span", {}, high));
}

function fieldPictures(example, model) {
  const shots = example.pictures.map((picture) => {
    const [truth, prediction] = [bytes(picture.truth), bytes(picture.prediction)];
    return { step: picture.step, truth, prediction, difference: Array.from(prediction, (v, n) => v - truth[n]) };
  });
  const most = Math.max(1, ...shots.flatMap((shot) => [shot.difference.reduce((a, v) => Math.max(a, Math.abs(v)), 0)]));
  const unit = (example.high - example.low) / 255;
  const where = `${example.component}, trajectory ${example.trajectory}`;
  const rows = shots.map((shot) => {
    const signed = shot.difference.map((v) => Math.round(127.5 + 127.5 * v / most));
    const off = Math.sqrt(shot.difference.reduce((a, v) => a + v * v, 0) / shot.difference.length) * unit;
    return ["truth", "prediction", "difference"].map((what) => el("figure", {},
      canvas(what === "difference" ? signed : shot[what], example, what === "difference" ? SIGNED : SEQUENTIAL,
        `${what} of ${where}, step ${shot.step}${what === "truth" ? "" : `, by ${model}`}`
        + (what === "difference" ? `: ${score(off)} root mean square` : "")),
      el("figcaption", {}, `step ${shot.step}: ${what}`)));
  });
  const [long, tall] = lengths(example)[1] > 1.3 * lengths(example)[0] ? [1, 0] : [0, 1];
  return [
    el("p", { class: "sub" }, "Component ", foreign(example.component), `, trajectory ${example.trajectory}; `,
      ...directions(example, long, tall), ". Values beyond the scale are drawn as its ends",
      example.reduced > 1 ? `; means of ${example.reduced} × ${example.reduced} points.` : "."),
    el("div", { class: "pictures" }, rows),
    el("div", { class: "scales" },
      el("div", {}, "values", bar(SEQUENTIAL, score(example.low), score(example.high), "colours of values")),
      el("div", {}, "prediction − truth", bar(SIGNED, score(-most * unit), score(most * unit), "colours of differences"))),
  ];
}

// A line of points has one axis only, whichever of the two names it.
function directions(example, long, tall) {
  if (example.shape.includes(1)) return [foreign(example.axes.find(Boolean) || "x"), " to the right"];
  return [foreign(example.axes[long]), " to the right, ", foreign(example.axes[tall]), " upwards"];
}

function spectra(example) {
  const parts = example.spectra.map((one) => {
    const plot = new Plot({ name: `Power by wavenumber at step ${one.step}, truth and prediction; the table below lists it`,
      narrow: true, x: "wavenumber, radians a cell", y: "power", logX: true,
      logY: true });
    const kept = one.wavenumber.map((k, n) => n).filter((n) => one.wavenumber[n] > 0);
    const x = kept.map((n) => one.wavenumber[n]);
    const y = (values) => kept.map((n) => (values[n] === null ? NaN : values[n]));
    plot.draw([{ x, y: y(one.truth), style: BOLD, ranges: null },
      { x, y: y(one.prediction), style: { ...look(1), marker: "square" }, ranges: null }]);
    return el("figure", {}, plot.element, el("figcaption", {}, `step ${one.step}`));
  });
  const rows = example.spectra.flatMap((one) => one.wavenumber.map((k, n) =>
    [one.step, score(k), score(one.truth[n]), score(one.prediction[n])]));
  return [
    el("div", { class: "legend" }, el("span", {}, sample(BOLD), "truth"),
      el("span", {}, sample({ ...look(1), marker: "square" }), "prediction")),
    el("div", { class: "spectra" }, parts),
    later("Show as table", () => small("Power by wavenumber", ["step", "wavenumber", "truth", "prediction"], rows)),
  ];
}

class Examples {
  constructor(data, number) {
    this.rows = data.rows.map((row, n) => [row, n]).filter(([row]) => row.example);
    this.element = el("section", { class: "examples", "aria-labelledby": `examples-${number}` });
    if (!this.rows.length) return;
    this.choice = el("select", { id: `example-${number}`, onchange: () => this.draw() });
    this.box = el("div", {});
    this.element.append(el("h3", { id: `examples-${number}` }, "An example, and its spectra"),
      el("p", {}, el("label", { for: `example-${number}` }, "Model "), this.choice), this.box);
    this.show(data.rows.map((row, n) => n));
  }

  show(numbers) {
    if (!this.choice) return;
    const before = this.choice.value;
    const shown = this.rows.filter(([, n]) => numbers.includes(n));
    this.choice.replaceChildren(...shown.map(([row, n]) => el("option", { value: n }, row.name)));
    if (shown.some(([, n]) => String(n) === before)) this.choice.value = before;
    this.element.hidden = !shown.length;
    if (shown.length && this.choice.value !== this.drawn) this.draw();
  }

  draw() {
    this.drawn = this.choice.value;
    const [row] = this.rows.find(([, n]) => String(n) === this.choice.value);
    this.box.replaceChildren(...(row.example.pictures.length ? fieldPictures(row.example, row.name) : []),
      ...(row.example.spectra.length ? [el("h4", {}, "Spectra"), ...spectra(row.example)] : []));
  }
}
