"use strict";
/* The page: a state, controls that change it, and pictures that follow. Every number comes from Core. */

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const { rows, columns, structures, colours } = data, N = rows * columns, K = structures.length + 1;
  const truth = bytes(data.labels), image = bytes(data.image), palette = bytes(data.palette);
  const WITHIN = 2; // mm
  const $ = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const { dataset, ...others } = properties, element = Object.assign(document.createElement(tag), others);
    Object.assign(element.dataset, dataset);
    element.append(...children);
    return element;
  };
  const names = ["background", ...structures];

  const SLIDERS = [
    ["right", "Shift to the right", -10, 10, 0.1, "mm",
      "Two crescents appear, one missed and one false. Do both cost the same?"],
    ["up", "Shift up", -10, 10, 0.1, "mm", "Dice of the small patella falls faster than that of the femur."],
    ["grow", "Grow or shrink", -5, 5, 0.1, "mm", "A whole millimetre all around: look at boundary Dice, then at Dice."],
    ["blur", "Blur of the boundary, b", 0.2, 10, 0.1, "mm",
      "The labels stay the same, and so do the scores. Do the losses?"],
    ["confidence", "Confidence, c", 0.2, 12, 0.1, "logits",
      "Low: every voxel is pulled. High: only the wrong ones, and hard."],
    ["island", "False island, radius", 0, 10, 0.5, "mm", "Far from every boundary: which loss sees it, and which HD95?"],
    ["rowMm", "Spacing between rows", 0.4, 3.2, 0.1, "mm", "φ is a distance in mm: it changes, while cross-entropy does not."],
    ["columnMm", "Spacing between columns", 0.4, 3.2, 0.1, "mm", "A wrong spacing moves the weight, and nothing complains."],
  ];
  const UNITS = { ce: "nats", dpce: "nats × (1 + φ)", focal: "nats", pcol: "nats", dice: "no unit", boundary: "mm" };
  const NAMES = {
    ce: "Cross-entropy", dpce: "Distance-penalised cross-entropy", dice: "Dice loss", focal: "Focal loss",
    pcol: "Confidence penalty (PCOL)", boundary: "Boundary loss",
  };
  const OPTIONS = { // of losses: [key, label, kind, …]
    dpce: ["variant", "φ", Object.keys(Core.VARIANTS)],
    focal: ["gamma", "γ", 0, 5, 0.1],
    pcol: ["beta", "β", 0, 1, 0.01],
  };
  const NOTES = {
    ce: "−log p of the true class. Each voxel counts the same, wherever it lies.",
    dpce: "Cross-entropy times 1 + φ: look how little, or how much, φ moves towards the boundary.",
    dice: "A ratio over the whole structure: a small structure's voxels weigh more.",
    focal: "(1 − p)^γ times cross-entropy: voxels that are nearly right are let go.",
    pcol: "Cross-entropy minus β times the entropy: being very sure is pulled back, even where it is right.",
    boundary: "The signed distance times p: far errors cost most, and what is inside earns (negative values).",
  };

  const initial = () => ({
    right: 0, up: 0, grow: 0, blur: 2, confidence: 4, missed: 0, island: 0, islandLabel: 1,
    rowMm: data.spacing[0], columnMm: data.spacing[1], log: false, painted: new Uint8Array(N).fill(255),
    losses: [{ name: "ce", variant: "compartment", gamma: 2, beta: 0.1 },
      { name: "dpce", variant: "compartment", gamma: 2, beta: 0.1 }],
  });
  let state = initial(), brush = 1, cross = [rows >> 1, columns >> 1], maps = null, shown = null, waiting = false;

  /** Truth's maps for a spacing; φ of each variant when it is first asked for. */
  function mapsOf(grid) {
    const signed = Core.signedDistances(truth, grid, K), distance = Core.boundaryDistance(truth, signed), kept = {};
    const phi = (variant) => (kept[variant] ??= Core.distancePenalty(truth, distance, variant));
    return { grid, signed, distance, phi };
  }

  function compute() {
    const spacing = [state.rowMm, state.columnMm];
    if (!maps || String(maps.grid.spacing) !== String(spacing)) maps = mapsOf({ rows, columns, spacing });
    const { grid } = maps;
    const labels = Core.alteredLabels(truth, maps.signed, grid, K, { ...state, islandAt: data.island });
    const logits = Core.logitsOf(labels, grid, K, state.blur, state.confidence), soft = Core.softmax(logits);
    const worst = Math.hypot(data.thickness, rows * spacing[0], columns * spacing[1]);
    return {
      labels, logits, soft,
      losses: state.losses.map((loss) => Core.measure(loss.name, truth, soft, maps, loss, WITHIN)),
      scores: structures.map((_, n) => Core.scores(truth, labels, n + 1, grid, worst)),
    };
  }

  /* Pictures. Maps have a pixel for each voxel and are scaled by the browser; outlines need finer pixels. */
  const FINE = 4;
  const outline = (labels) => {
    const path = new Path2D();
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        const i = r * columns + c;
        if (c + 1 < columns && labels[i] !== labels[i + 1]) {
          path.moveTo((c + 1) * FINE, r * FINE);
          path.lineTo((c + 1) * FINE, (r + 1) * FINE);
        }
        if (r + 1 < rows && labels[i] !== labels[i + columns]) {
          path.moveTo(c * FINE, (r + 1) * FINE);
          path.lineTo((c + 1) * FINE, (r + 1) * FINE);
        }
      }
    }
    return path;
  };
  const truthOutline = outline(truth);
  const small = new OffscreenCanvas(columns, rows), pixels = new ImageData(columns, rows);

  function paintPixels(canvas, colour) {
    for (let i = 0; i < N; i++) colour(i, pixels.data, 4 * i);
    small.getContext("2d").putImageData(pixels, 0, 0);
    if (canvas.width !== columns * FINE) [canvas.width, canvas.height] = [columns * FINE, rows * FINE];
    canvas.style.aspectRatio = `${columns * state.columnMm} / ${rows * state.rowMm}`;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    return context;
  }

  function drawPrediction() {
    const context = paintPixels($("prediction"), (i, out, at) => {
      const k = shown.labels[i], share = k ? 0.45 : 0;
      for (let channel = 0; channel < 3; channel++) {
        out[at + channel] = image[i] * (1 - share) + (k ? colours[k - 1][channel] : 0) * share;
      }
      out[at + 3] = 255;
    });
    for (const [path, colour, width] of [[truthOutline, "#000", 4], [truthOutline, "#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke(path);
    }
    if (document.activeElement === $("prediction")) {
      const [r, c] = cross;
      context.strokeStyle = "#fff";
      context.strokeRect((c - 2) * FINE, (r - 2) * FINE, 5 * FINE, 5 * FINE);
    }
  }

  /** The lowest and the highest value of both maps: one scale for both. */
  function scaleOf(pair) {
    let low = 0, high = 1e-12;
    for (const map of pair) {
      for (const value of map) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    if (!state.log) return { low, high, at: (value) => (value - low) / (high - low) };
    return { low: high / 1000, high, at: (value) => Math.max(0, 1 + Math.log10(Math.max(value, 1e-300) / high) / 3) };
  }

  function drawMaps(row, bar, pair, unit) {
    const scale = scaleOf(pair);
    pair.forEach((map, n) => {
      const context = paintPixels($(row).children[n], (i, out, at) => {
        const from = 3 * Math.round(255 * Math.min(1, Math.max(0, scale.at(map[i]))));
        [out[at], out[at + 1], out[at + 2], out[at + 3]] = [palette[from], palette[from + 1], palette[from + 2], 255];
      });
      context.strokeStyle = "#fff9";
      context.lineWidth = 1.5;
      context.stroke(truthOutline);
    });
    const middle = state.log ? scale.high / 10 ** 1.5 : (scale.low + scale.high) / 2;
    $(bar).lastChild.replaceChildren(...[scale.low, middle, scale.high].map((value, n) =>
      make("span", { textContent: `${state.log && !n ? "≤ " : ""}${short(value)}${n === 2 ? ` ${unit}` : ""}` })));
  }

  const short = (value) => (Number.isFinite(value) ? value === 0 ? "0" : Number(value.toPrecision(3)).toString() : "–");

  function show() {
    waiting = false;
    shown = compute();
    drawPrediction();
    const units = state.losses.map(({ name }) => UNITS[name]);
    const [a, b] = shown.losses;
    drawMaps("maps", "map-bar", [a.map, b.map], units[0] === units[1] ? units[0] : `(${units.join("; ")})`);
    drawMaps("pulls", "pull-bar", [a.pull, b.pull], "of the loss's unit per logit");
    shown.losses.forEach((loss, n) => {
      const name = state.losses[n].name;
      $(`value-${n}`).innerHTML = `L = <b>${loss.value.toFixed(4)}</b> ${UNITS[name]}<br>` +
        `mean pull ${loss.mean.toFixed(4)}; <b>${(100 * loss.share).toFixed(1)} %</b> of it within ${WITHIN} mm`;
      $(`note-${n}`).textContent = NOTES[name];
    });
    $("scores").tBodies[0].replaceChildren(...shown.scores.map((score, n) => make("tr", {},
      make("th", { scope: "row", textContent: structures[n] }),
      ...[score.dice.toFixed(3), score.strict.toFixed(3), score.relaxed.toFixed(3), score.hd95.toFixed(2)]
        .map((text) => make("td", { textContent: text })))));
    for (const [key, , , , , unit] of SLIDERS) {
      $(key).value = state[key];
      $(`${key}-value`).textContent = `${state[key].toFixed(1)} ${unit}`;
    }
    $("missed").value = state.missed;
    $("log").checked = state.log;
    state.losses.forEach((loss, n) => showLoss(loss, n));
    clearTimeout(show.later);
    show.later = setTimeout(() => { $("spoken").textContent = inWords(); }, 600);
  }

  function inWords() {
    const losses = shown.losses.map(({ value, share }, n) =>
      `${NAMES[state.losses[n].name]} ${value.toFixed(3)}, ${(100 * share).toFixed(0)} percent near the boundary`);
    const dice = shown.scores.map(({ dice }, n) => `${structures[n]} ${dice.toFixed(3)}`);
    return `${losses.join("; ")}. Dice: ${dice.join(", ")}.`;
  }

  const update = () => { if (!waiting) { waiting = true; requestAnimationFrame(show); } };
  const change = (values) => { Object.assign(state, values); update(); };

  /* Controls. */
  function slider(key, label, min, max, step, unit, hint) {
    const input = make("input", { type: "range", id: key, min, max, step });
    input.setAttribute("aria-describedby", `${key}-hint`);
    input.addEventListener("input", () => change({ [key]: Number(input.value) }));
    return make("div", { className: "slider" },
      make("label", { htmlFor: key }, label, make("output", { id: `${key}-value` })), input,
      make("p", { className: "hint", id: `${key}-hint`, textContent: hint }));
  }

  function chooser(id, label, values, picked, hint) {
    const select = make("select", { id }, ...values.map(([value, text]) => make("option", { value, textContent: text })));
    select.addEventListener("change", () => picked(select.value));
    return make("div", { className: "slider field" }, make("label", { htmlFor: id, textContent: label }), select,
      ...(hint ? [make("p", { className: "hint", textContent: hint })] : []));
  }

  function build() {
    const missed = chooser("missed", "Missed structure", names.map((name, k) => [k, k ? name : "none"]),
      (value) => change({ missed: Number(value) }), "Dice loss of a missing structure is 1: where does it pull?");
    $("sliders").append(...SLIDERS.map((row) => slider(...row)));
    $("sliders").insertBefore(missed, $("sliders").children[5]);
    $("brushes").append(...names.map((name, k) => {
      const input = make("input", { type: "radio", name: "brush", value: k, checked: k === brush });
      input.addEventListener("change", () => { brush = k; });
      return make("label", {}, input, ` ${name}`);
    }));
    $("legend").append(make("span", {}, make("i", { style: "border: 2px solid #000; background: #fff" }), "truth's outline"),
      ...structures.map((name, n) => make("span", {}, make("i", { style: `background: rgb(${colours[n]})` }), name)));
    for (const n of [0, 1]) {
      $("choosers").append(make("div", {},
        chooser(`loss-${n}`, n ? "Loss B" : "Loss A", Object.entries(NAMES), (name) => setLoss(n, { name })),
        make("div", { id: `options-${n}` }), make("p", { className: "value", id: `value-${n}` }),
        make("p", { className: "hint", id: `note-${n}` })));
      for (const [row, what] of [["maps", "loss of each voxel"], ["pulls", "pull on each voxel"]]) {
        const canvas = make("canvas");
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", `${n ? "Loss B" : "Loss A"}: ${what}`);
        $(row).append(canvas);
      }
    }
    const steps = Array.from({ length: 9 }, (_, n) => `rgb(${[...palette.slice(3 * Math.round(n * 31.875)).slice(0, 3)]})`);
    for (const bar of ["map-bar", "pull-bar"]) {
      $(bar).append(make("i", { style: `background: linear-gradient(to right, ${steps})` }), make("span"));
    }
    $("questions").querySelector("ol").append(...data.questions.map(({ ask, answer, set }) => {
      const button = make("button", { type: "button", textContent: "Set up" });
      button.addEventListener("click", () => {
        setUp(set);
        window.scrollTo({ top: 0, behavior: "smooth" });
      });
      return make("li", {}, ask, " ", button, make("details", {}, make("summary", { textContent: "Answer" }), answer));
    }));
    $("log").addEventListener("change", () => change({ log: $("log").checked }));
    $("unpaint").addEventListener("click", () => change({ painted: new Uint8Array(N).fill(255) }));
    $("reset").addEventListener("click", () => { state = initial(); update(); });
  }

  const setLoss = (n, values) => { Object.assign(state.losses[n], values); update(); };

  /** The start, with the values of a question: {losses: […], and those of the sliders}. */
  function setUp({ losses = [], ...values }) {
    state = { ...initial(), ...values };
    losses.forEach((loss, n) => Object.assign(state.losses[n], loss));
    update();
  }

  function showLoss(loss, n) {
    $(`loss-${n}`).value = loss.name;
    const place = $(`options-${n}`), option = OPTIONS[loss.name];
    if (place.dataset.name !== loss.name) {
      place.dataset.name = loss.name;
      place.replaceChildren();
      if (option) {
        const [key, label, first, max, step] = option, id = `${key}-${n}`;
        if (Array.isArray(first)) {
          place.append(chooser(id, label, first.map((name) => [name, name]), (value) => setLoss(n, { [key]: value })));
        } else {
          const input = make("input", { type: "range", id, min: first, max, step });
          input.addEventListener("input", () => setLoss(n, { [key]: Number(input.value) }));
          place.append(make("div", { className: "slider" },
            make("label", { htmlFor: id }, label, make("output", { id: `${id}-value` })), input));
        }
      }
    }
    if (!option) return;
    $(`${option[0]}-${n}`).value = loss[option[0]];
    const output = $(`${option[0]}-${n}-value`);
    if (output) output.textContent = loss[option[0]].toFixed(2);
  }

  /* Painting and pointing. */
  function voxelAt(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const r = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const c = Math.floor(((event.clientX - box.left) / box.width) * columns);
    return r >= 0 && r < rows && c >= 0 && c < columns ? [r, c] : null;
  }

  function paint([r, c]) {
    for (let y = Math.max(0, r - 2); y <= Math.min(rows - 1, r + 2); y++) {
      for (let x = Math.max(0, c - 2); x <= Math.min(columns - 1, c + 2); x++) {
        if ((y - r) ** 2 + (x - c) ** 2 <= 5) state.painted[y * columns + x] = brush;
      }
    }
    update();
  }

  function point(at) {
    if (!at || !shown) return;
    const i = at[0] * columns + at[1], k = truth[i];
    const losses = shown.losses.map(({ map, pull }, n) => `${"AB"[n]}: loss ${short(map[i])}, pull ${short(pull[i])}`);
    $("pointer").textContent = `Truth ${names[k]}, p = ${shown.soft.p[k][i].toFixed(3)}, ` +
      `${maps.distance[i].toFixed(1)} mm from the boundary. ${losses.join("; ")}.`;
  }

  function listen() {
    const canvas = $("prediction");
    let down = null;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      down = voxelAt(canvas, event);
      if (down) paint(down);
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = voxelAt(canvas, event);
      if (down && at) { // all voxels on the way, however fast the pointer is
        const steps = Math.max(Math.abs(at[0] - down[0]), Math.abs(at[1] - down[1]), 1);
        for (let n = 1; n <= steps; n++) paint(down.map((from, axis) => Math.round(from + ((at[axis] - from) * n) / steps)));
        down = at;
      }
      point(at);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { down = null; });
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    canvas.addEventListener("keydown", (event) => {
      if (event.key === " ") paint(cross);
      else if (moves[event.key]) {
        const [y, x] = moves[event.key];
        cross = [Math.min(rows - 1, Math.max(0, cross[0] + 2 * y)), Math.min(columns - 1, Math.max(0, cross[1] + 2 * x))];
        point(cross);
        update();
      } else return;
      event.preventDefault();
    });
    for (const event of ["focus", "blur"]) canvas.addEventListener(event, update);
    for (const other of document.querySelectorAll(".row canvas")) {
      other.addEventListener("pointermove", (event) => point(voxelAt(other, event)));
    }
  }

  build();
  listen();
  show();
  /* For teachers' own experiments in the console, and for tests: set values, read everything that is shown. */
  window.explorer = {
    set: (values) => { setUp(values); show(); },
    read: () => ({ ...shown, truth, phi: maps.phi, distance: maps.distance, grid: maps.grid, state }),
  };
})();
