"use strict";
/* Distances, φ, losses with their gradients, and metrics of one slice: the equations of the Python package.
   A map is a typed array in row-major order, `grid` is {rows, columns, spacing: [mm between rows, mm between columns]},
   K is the number of classes, the background included. Nothing here knows of the page. */

const Core = (() => {
  const VARIANTS = {
    compartment: {}, inside: { sides: "inside" }, outside: { sides: "outside" }, common: { common: true },
    mm: { mm: true }, mm_inside: { mm: true, sides: "inside" }, mm_common: { mm: true, common: true },
    exponential: { decay: 2 },
  };

  /** Squared distance in mm² from each voxel to the nearest one where `isTarget`: lower envelopes of parabolas
      (Felzenszwalb & Huttenlocher 2012), exact; infinity where there is no target. */
  function squaredDistance(isTarget, { rows, columns, spacing: [dy, dx] }) {
    const squared = new Float64Array(rows * columns);
    for (let c = 0; c < columns; c++) { // along a column: the nearest target above and below
      for (let pass = 0, last = -Infinity; pass < 2; pass++, last = Infinity) {
        for (let n = 0; n < rows; n++) {
          const r = pass ? rows - 1 - n : n, i = r * columns + c;
          if (isTarget[i]) last = r;
          const d = ((r - last) * dy) ** 2;
          squared[i] = pass ? Math.min(squared[i], d) : d;
        }
      }
    }
    const apex = new Int32Array(columns), start = new Float64Array(columns + 1), line = new Float64Array(columns);
    for (let r = 0; r < rows; r++) {
      const first = r * columns;
      line.set(squared.subarray(first, first + columns));
      let top = -1;
      for (let c = 0; c < columns; c++) {
        if (line[c] === Infinity) continue;
        let from = -Infinity;
        while (top >= 0) {
          const a = apex[top];
          from = (line[c] - line[a] + ((c * dx) ** 2 - (a * dx) ** 2)) / (2 * dx * dx * (c - a));
          if (from > start[top]) break;
          top--;
        }
        apex[++top] = c;
        start[top] = top ? from : -Infinity;
      }
      if (top < 0) continue;
      start[top + 1] = Infinity;
      for (let c = 0, n = 0; c < columns; c++) {
        while (start[n + 1] < c) n++;
        squared[first + c] = ((c - apex[n]) * dx) ** 2 + line[apex[n]];
      }
    }
    return squared;
  }

  /** Signed distance in mm to the boundary of each class, K maps: negative inside; 0 throughout without a boundary. */
  function signedDistances(labels, grid, K) {
    const inside = new Uint8Array(labels.length), outside = new Uint8Array(labels.length);
    return Array.from({ length: K }, (_, k) => {
      let count = 0;
      for (let i = 0; i < labels.length; i++) {
        inside[i] = labels[i] === k ? 1 : 0;
        outside[i] = 1 - inside[i];
        count += inside[i];
      }
      const signed = new Float64Array(labels.length);
      if (count === 0 || count === labels.length) return signed;
      const toClass = squaredDistance(inside, grid), toOthers = squaredDistance(outside, grid);
      for (let i = 0; i < signed.length; i++) signed[i] = inside[i] ? -Math.sqrt(toOthers[i]) : Math.sqrt(toClass[i]);
      return signed;
    });
  }

  /** Distance in mm to the nearest voxel of another compartment, out of the signed distances. */
  function boundaryDistance(labels, signed) {
    const alone = labels.every((value) => value === labels[0]);
    return Float64Array.from(labels, (k, i) => (alone ? Infinity : -signed[k][i]));
  }

  /** φ of one of VARIANTS. */
  function distancePenalty(labels, distance, variant) {
    const { sides = "both", common = false, mm = false, decay = 0 } = VARIANTS[variant];
    const phi = new Float64Array(labels.length);
    if (distance[0] === Infinity) return phi;
    const selected = (k) => sides === "both" || (k !== 0) === (sides === "inside");
    const highest = {}, lowest = {};
    labels.forEach((k, i) => {
      const key = common ? 0 : k;
      if (!selected(k)) return;
      highest[key] = Math.max(highest[key] ?? -Infinity, distance[i]);
      lowest[key] = Math.min(lowest[key] ?? Infinity, distance[i]);
    });
    labels.forEach((k, i) => {
      const key = common ? 0 : k;
      if (!selected(k)) return;
      const high = highest[key], low = lowest[key];
      if (decay) phi[i] = Math.exp((low - distance[i]) / decay);
      else if (mm) phi[i] = high - distance[i];
      else phi[i] = high > low ? (high - distance[i]) / (high - low) : 1;
    });
    return phi;
  }

  /** The labels of a prediction: the truth shifted, grown, without a structure, with a false island, painted over.
      `signed` are the truth's signed distances; mm throughout. Painted voxels hold a label, others 255. */
  function alteredLabels(truth, signed, grid, K, change) {
    const { rows, columns, spacing: [dy, dx] } = grid;
    const labels = new Uint8Array(truth.length);
    const up = Math.round(change.up / dy), right = Math.round(change.right / dx); // whole voxels
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        const i = r * columns + c;
        // rows run from the top, so that up is towards row 0; beyond the edge a structure goes on as it is there
        const from = Math.min(Math.max(r + up, 0), rows - 1) * columns + Math.min(Math.max(c - right, 0), columns - 1);
        let best = change.grow > 0 ? change.grow + 1e-4 : change.grow; // a distance of 2 mm is within 2 mm
        for (let k = 1; k < K; k++) {
          if (k === change.missed || !(signed[k][from] < best)) continue;
          if (signed[k][from] === 0) continue; // a class without a boundary is not there
          best = signed[k][from];
          labels[i] = k;
        }
        const [y, x] = change.islandAt;
        if (Math.hypot((r - y) * dy, (c - x) * dx) < change.island) labels[i] = change.islandLabel;
        if (change.painted[i] !== 255) labels[i] = change.painted[i];
      }
    }
    return labels;
  }

  /** Logits of a prediction: c tanh(s / b), s the distance inside a class in mm, b the blur in mm, c the confidence. */
  function logitsOf(labels, grid, K, blur, confidence) {
    return signedDistances(labels, grid, K).map((signed, k) => {
      const absent = !labels.includes(k), full = labels.every((value) => value === k);
      return signed.map((s) => (full ? confidence : absent ? -confidence : confidence * Math.tanh(-s / blur)));
    });
  }

  /** Softmax over the classes: {p, logp}, each K maps. */
  function softmax(logits) {
    const N = logits[0].length, p = logits.map(() => new Float64Array(N)), logp = logits.map(() => new Float64Array(N));
    for (let i = 0; i < N; i++) {
      let highest = -Infinity, sum = 0;
      for (const z of logits) highest = Math.max(highest, z[i]);
      for (const z of logits) sum += Math.exp(z[i] - highest);
      const logSum = highest + Math.log(sum);
      for (let k = 0; k < logits.length; k++) p[k][i] = Math.exp((logp[k][i] = logits[k][i] - logSum));
    }
    return { p, logp };
  }

  /* A loss is (truth, {p, logp}, maps, options) → {map, gradient}: map, whose mean is L; gradient, K maps of N ∂L/∂z. */
  const LOSSES = {
    ce: (truth, s) => voxelwise(truth, s, (ce) => [ce, 1]),
    dpce: (truth, s, maps, options) => {
      const phi = maps.phi(options.variant);
      return voxelwise(truth, s, (ce, p, i) => [(1 + phi[i]) * ce, 1 + phi[i]]);
    },
    focal: (truth, s, maps, { gamma }) => voxelwise(truth, s, (ce, p) => {
      const wrong = Math.max(-Math.expm1(-ce), 1.2e-38);
      return [wrong ** gamma * ce, wrong ** gamma + gamma * wrong ** (gamma - 1) * p * ce];
    }),
    pcol: (truth, s, maps, { beta }) => { // ce − β H
      const { map, gradient } = voxelwise(truth, s, (ce) => [ce, 1]);
      for (let i = 0; i < map.length; i++) {
        let entropy = 0;
        for (let k = 0; k < s.p.length; k++) entropy -= s.p[k][i] * s.logp[k][i];
        map[i] -= beta * entropy;
        for (let k = 0; k < s.p.length; k++) gradient[k][i] += beta * s.p[k][i] * (s.logp[k][i] + entropy);
      }
      return { map, gradient };
    },
    dice: (truth, { p }) => { // with squares, 1 − Dice is a sum over voxels: of (p − g)² / (Σp² + Σg² + 1)
      const N = truth.length, K = p.length, map = new Float64Array(N), slope = [null];
      for (let k = 1; k < K; k++) {
        let overlap = 0, size = 0;
        for (let i = 0; i < N; i++) {
          const g = truth[i] === k ? 1 : 0;
          overlap += p[k][i] * g;
          size += p[k][i] ** 2 + g;
        }
        const scale = N / ((K - 1) * (size + 1)), ratio = (2 * overlap + 1) / (size + 1);
        slope[k] = p[k].map((q, i) => {
          const g = truth[i] === k ? 1 : 0;
          map[i] += scale * (q - g) ** 2;
          return 2 * scale * (ratio * q - g);
        });
      }
      return { map, gradient: throughSoftmax(p, slope) };
    },
    boundary: (truth, { p }, maps) => { // mean over voxels and structures of φ p, φ the signed distance in mm
      const N = truth.length, K = p.length, map = new Float64Array(N), slope = [null];
      for (let k = 1; k < K; k++) {
        const signed = maps.signed[k];
        for (let i = 0; i < N; i++) map[i] += (signed[i] * p[k][i]) / (K - 1);
        slope[k] = signed.map((d) => d / (K - 1));
      }
      return { map, gradient: throughSoftmax(p, slope) };
    },
  };

  /** Losses f(ce) of each voxel: `f(ce, p_t, i)` gives the value and df/dce; dce/dz is p − g. */
  function voxelwise(truth, { p, logp }, f) {
    const N = truth.length, map = new Float64Array(N), gradient = p.map(() => new Float64Array(N));
    for (let i = 0; i < N; i++) {
      const t = truth[i], [value, slope] = f(-logp[t][i], p[t][i], i);
      map[i] = value;
      for (let k = 0; k < p.length; k++) gradient[k][i] = slope * (p[k][i] - (k === t ? 1 : 0));
    }
    return { map, gradient };
  }

  /** From ∂L/∂p to ∂L/∂z: p_k (a_k − Σ_j a_j p_j); null stands for a class that L does not depend on. */
  function throughSoftmax(p, slope) {
    const mean = new Float64Array(p[0].length);
    slope.forEach((a, k) => a && a.forEach((value, i) => { mean[i] += value * p[k][i]; }));
    return p.map((q, k) => q.map((value, i) => value * ((slope[k] ? slope[k][i] : 0) - mean[i])));
  }

  /** Value, the map of the loss, |N ∂L/∂z| of each voxel, and the share of it within `within` mm of the boundary. */
  function measure(name, truth, soft, maps, options, within) {
    const { map, gradient } = LOSSES[name](truth, soft, maps, options), pull = new Float64Array(truth.length);
    let value = 0, near = 0, all = 0;
    for (let i = 0; i < pull.length; i++) {
      let squares = 0;
      for (const g of gradient) squares += g[i] ** 2;
      pull[i] = Math.sqrt(squares);
      value += map[i] / pull.length;
      all += pull[i];
      if (maps.distance[i] <= within) near += pull[i];
    }
    return { value, map, pull, share: all > 0 ? near / all : NaN, mean: all / pull.length };
  }

  /** The voxels of a structure with a neighbour above, below, left or right that is none; the image's edge is open. */
  function border(labels, k, { rows, columns }) {
    const found = [];
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        const i = r * columns + c;
        if (labels[i] !== k) continue;
        if ((r > 0 && labels[i - columns] !== k) || (r < rows - 1 && labels[i + columns] !== k) ||
            (c > 0 && labels[i - 1] !== k) || (c < columns - 1 && labels[i + 1] !== k)) found.push(i);
      }
    }
    return found;
  }

  /** numpy's percentile with linear interpolation. */
  function percentile(values, q) {
    const sorted = Float64Array.from(values).sort(), at = ((sorted.length - 1) * q) / 100, low = Math.floor(at);
    return sorted[low] + (at - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
  }

  /** Dice, strict and relaxed boundary Dice and HD95 of one structure; `worst` in mm is HD95 where one is missing. */
  function scores(truth, prediction, k, grid, worst) {
    let inTruth = 0, inPrediction = 0, inBoth = 0;
    for (let i = 0; i < truth.length; i++) {
      inTruth += truth[i] === k;
      inPrediction += prediction[i] === k;
      inBoth += truth[i] === k && prediction[i] === k;
    }
    const equal = inTruth === inBoth && inPrediction === inBoth;
    const a = border(truth, k, grid), b = border(prediction, k, grid);
    const dice = inTruth + inPrediction ? (2 * inBoth) / (inTruth + inPrediction) : 1;
    if (!a.length || !b.length) {
      const none = a.length + b.length === 0 && equal;
      return { dice, strict: +none, relaxed: +none, hd95: none ? 0 : worst };
    }
    const { columns, spacing: [dy, dx] } = grid;
    const nearest = (from, to, y, x) => from.map((i) => {
      let best = Infinity;
      for (const j of to) {
        const row = (Math.floor(i / columns) - Math.floor(j / columns)) * y, column = ((i % columns) - (j % columns)) * x;
        best = Math.min(best, row * row + column * column);
      }
      return Math.sqrt(best);
    });
    const voxels = [...nearest(a, b, 1, 1), ...nearest(b, a, 1, 1)];
    const within = (tolerance) => voxels.filter((d) => d <= tolerance).length / voxels.length;
    const hd95 = Math.max(percentile(nearest(a, b, dy, dx), 95), percentile(nearest(b, a, dy, dx), 95));
    return { dice, strict: within(0), relaxed: within(1), hd95 };
  }

  return {
    VARIANTS, LOSSES, signedDistances, boundaryDistance, distancePenalty, alteredLabels, logitsOf, softmax, measure,
    scores,
  };
})();
