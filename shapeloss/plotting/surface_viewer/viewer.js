"use strict";
/* Surfaces of one case in WebGL 2: a state, controls that change it, and two pictures that follow with one camera.
   Lengths are mm, in world coordinates (RAS); in the camera's, x points right, y up and z towards the viewer. */

(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const { dataset, ...others } = properties, element = Object.assign(document.createElement(tag), others);
    Object.assign(element.dataset, dataset);
    element.append(...children);
    return element;
  };
  const MODES = { absolute: "distance", signed: "signed distance", region: "regions" };
  const TURN = 5, ZOOM = 1.2; // degrees and factor of a key press
  const state = { azimuth: 0, elevation: 0, zoom: 1, x: 0, y: 0, mode: "absolute", two: innerWidth > 720, region: "",
    shown: data.structures.map(() => true), surfaces: data.surfaces.length > 2 ? [1, 2] : [1, 0] };

  /* Meshes: what `pack` of Python made into text. */
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  async function unpack(text, columns) {
    if (!text) return new Uint16Array(0);
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    const raw = new Uint8Array(await new Response(stream).arrayBuffer());
    const count = raw.length / 2, rows = count / columns, values = new Uint16Array(count);
    for (let column = 0; column < columns; column++) {
      for (let row = 0, sum = 0; row < rows; row++) {
        const at = column * rows + row;
        sum += raw[at] + 256 * raw[count + at];
        values[row * columns + column] = sum; // modulo 65536
      }
    }
    return values;
  }

  async function meshOf(packed) {
    const points = Float32Array.from(await unpack(packed.points, 3), (n, i) => data.origin[i % 3] + n * data.step);
    const triangles = await unpack(packed.triangles, 3);
    const errors = Float32Array.from(new Int16Array((await unpack(packed.errors, 1)).buffer), (n) => n * data.step);
    return { points, triangles, errors, regions: Uint8Array.from(await unpack(packed.regions, 1)),
      normals: normalsOf(points, triangles), turned: new Float32Array(points.length) };
  }

  /** The mean normal of the triangles around each point, weighted by their area; not of unit length. */
  function normalsOf(points, triangles) {
    const normals = new Float32Array(points.length);
    for (let t = 0; t < triangles.length; t += 3) {
      const [a, b, c] = [0, 1, 2].map((k) => 3 * triangles[t + k]);
      const u = [0, 1, 2].map((k) => points[b + k] - points[a + k]), v = [0, 1, 2].map((k) => points[c + k] - points[a + k]);
      const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
      for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) normals[corner + k] += n[k];
    }
    return normals;
  }

  /* Camera: seen from `azimuth` (0 behind, 90 the right) and `elevation`, in parallel projection. */
  const [low, high] = data.bounds, centre = low.map((value, k) => (value + high[k]) / 2);
  const tall = (high[2] - low[2]) / 2 + 4, wide = 0.55 * Math.max(high[0] - low[0], high[1] - low[1]) + 4;

  /** Rows: where right, up and towards the viewer lie in the world. */
  function camera() {
    const a = state.azimuth * Math.PI / 180, e = state.elevation * Math.PI / 180;
    return [Math.cos(a), Math.sin(a), 0, -Math.sin(e) * Math.sin(a), Math.sin(e) * Math.cos(a), Math.cos(e),
      Math.cos(e) * Math.sin(a), -Math.cos(e) * Math.cos(a), Math.sin(e)];
  }

  const pixelsPerMm = (canvas) => state.zoom * Math.min(canvas.clientHeight / 2 / tall, canvas.clientWidth / 2 / wide);

  /* Drawing. */
  const VERTEX = `#version 300 es
    in vec3 point, normal; in float error, region;
    uniform mat3 turn; uniform vec3 centre; uniform vec2 scale, move; uniform float depth;
    out vec3 n; out float mm; flat out int part;
    void main() {
      vec3 p = turn * (point - centre);
      n = turn * normal; mm = error; part = int(region);
      gl_Position = vec4(p.xy * scale + move, -p.z * depth, 1);
    }`;
  const FRAGMENT = `#version 300 es
    precision highp float;
    in vec3 n; in float mm; flat in int part;
    uniform sampler2D palettes; uniform int mode, chosen; uniform float limit; uniform vec3 shades[16];
    out vec4 result;
    void main() {
      float at = mode == 0 ? abs(mm) / limit : 0.5 + 0.5 * mm / limit;
      vec3 colour = mode == 2 ? shades[part] : texture(palettes, vec2(clamp(at, 0.002, 0.998), mode == 0 ? 0.25 : 0.75)).rgb;
      if (chosen >= 0 && part != chosen) colour = mix(colour, vec3(0.86), 0.85);
      vec3 m = normalize(gl_FrontFacing ? n : -n);
      float key = max(dot(m, normalize(vec3(-0.6, 0.9, 1))), 0.0), fill = max(dot(m, normalize(vec3(0.9, -0.3, 1))), 0.0);
      float shine = pow(max(dot(m, normalize(vec3(-0.3, 0.45, 1.6))), 0.0), 24.0);
      vec3 lit = colour * (0.3 + 0.62 * key + 0.3 * fill) + 0.1 * shine;
      result = vec4(gl_FrontFacing ? lit : lit * 0.6, 1);
    }`;
  const ATTRIBUTES = [["point", "points", 3, "FLOAT"], ["normal", "normals", 3, "FLOAT"], ["error", "errors", 1, "FLOAT"],
    ["region", "regions", 1, "UNSIGNED_BYTE"]];

  /** A picture: one canvas with its own context. Null where the browser has no WebGL 2. */
  function screenOf(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: true, premultipliedAlpha: false });
    if (!gl) return null;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    gl.enable(gl.DEPTH_TEST);
    const texels = new Uint8Array([...bytes(data.palettes[0]), ...bytes(data.palettes[1])]);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB8, 256, 2, 0, gl.RGB, gl.UNSIGNED_BYTE, texels);
    for (const edge of ["WRAP_S", "WRAP_T"]) gl.texParameteri(gl.TEXTURE_2D, gl[`TEXTURE_${edge}`], gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    const uniform = (name) => gl.getUniformLocation(program, name), kept = new Map();

    function uploaded(mesh) {
      if (!kept.has(mesh)) {
        const array = gl.createVertexArray();
        gl.bindVertexArray(array);
        for (const [name, values, size, type] of ATTRIBUTES) {
          const place = gl.getAttribLocation(program, name);
          gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
          gl.bufferData(gl.ARRAY_BUFFER, mesh[values], gl.STATIC_DRAW);
          gl.enableVertexAttribArray(place);
          gl.vertexAttribPointer(place, size, gl[type], false, 0, 0);
        }
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
        gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.triangles, gl.STATIC_DRAW);
        kept.set(mesh, array);
      }
      return kept.get(mesh);
    }

    return (meshes) => {
      const ratio = devicePixelRatio || 1, [width, height] = [canvas.clientWidth, canvas.clientHeight];
      if (!width || !height) return;
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      const s = pixelsPerMm(canvas), scale = [2 * s / width, 2 * s / height];
      gl.uniformMatrix3fv(uniform("turn"), true, camera());
      gl.uniform3fv(uniform("centre"), centre);
      gl.uniform2fv(uniform("scale"), scale);
      gl.uniform2f(uniform("move"), state.x * scale[0], state.y * scale[1]);
      gl.uniform1f(uniform("depth"), 0.4 / Math.hypot(tall, wide));
      gl.uniform1f(uniform("limit"), data.limit);
      gl.uniform1i(uniform("mode"), Object.keys(MODES).indexOf(state.mode));
      meshes.forEach((mesh, n) => {
        if (!state.shown[n] || !mesh.triangles.length) return;
        const { name, regions, colors } = data.structures[n];
        gl.uniform3fv(uniform("shades"), colors.flatMap((text) => [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16) / 255)));
        const chosen = regions.findIndex((region) => state.region === `${name}/${region}`);
        gl.uniform1i(uniform("chosen"), state.region ? (chosen < 0 ? 99 : chosen) : -1);
        gl.bindVertexArray(uploaded(mesh));
        gl.drawElements(gl.TRIANGLES, mesh.triangles.length, gl.UNSIGNED_SHORT, 0);
      });
    };
  }

  /* Reading: the foremost triangle under a place of a canvas, in CSS pixels from its top left corner. */
  function toCamera(mesh) {
    const { points, turned } = mesh, m = camera();
    for (let i = 0; i < points.length; i += 3) {
      const x = points[i] - centre[0], y = points[i + 1] - centre[1], z = points[i + 2] - centre[2];
      for (let k = 0; k < 3; k++) turned[i + k] = m[3 * k] * x + m[3 * k + 1] * y + m[3 * k + 2] * z;
    }
    return turned;
  }

  function read(panel, left, top) {
    const { canvas } = panels[panel], s = pixelsPerMm(canvas);
    const x = (left - canvas.clientWidth / 2) / s - state.x, y = (canvas.clientHeight / 2 - top) / s - state.y;
    let best = null;
    meshes[state.surfaces[panel]].forEach((mesh, n) => {
      if (!state.shown[n]) return;
      const p = toCamera(mesh), { triangles, errors, regions } = mesh;
      for (let t = 0; t < triangles.length; t += 3) {
        const i = triangles[t], j = triangles[t + 1], k = triangles[t + 2];
        const ax = p[3 * i] - x, ay = p[3 * i + 1] - y, bx = p[3 * j] - x, by = p[3 * j + 1] - y;
        const cx = p[3 * k] - x, cy = p[3 * k + 1] - y;
        const a = bx * cy - by * cx, b = cx * ay - cy * ax, c = ax * by - ay * bx, area = a + b + c;
        if (!area || (a < 0 || b < 0 || c < 0) && (a > 0 || b > 0 || c > 0)) continue;
        const depth = (a * p[3 * i + 2] + b * p[3 * j + 2] + c * p[3 * k + 2]) / area;
        if (best && depth <= best.depth) continue;
        const mm = (a * errors[i] + b * errors[j] + c * errors[k]) / area, structure = data.structures[n];
        best = { depth, mm, structure: structure.name, region: structure.regions[regions[k]], corners: [i, j, k] };
      }
    });
    return best;
  }

  /** Where a point of the world lies on a canvas: CSS pixels from its top left corner. */
  function place(panel, point) {
    const { canvas } = panels[panel], s = pixelsPerMm(canvas), m = camera(), p = point.map((value, k) => value - centre[k]);
    const [x, y] = [0, 1].map((row) => m[3 * row] * p[0] + m[3 * row + 1] * p[1] + m[3 * row + 2] * p[2]);
    return [canvas.clientWidth / 2 + (x + state.x) * s, canvas.clientHeight / 2 - (y + state.y) * s];
  }

  /* Words. */
  const title = (structure, region) => (structure === region ? structure : `${structure}, ${region}`);
  const side = (mm) => (Math.abs(mm) < 0.005 ? "" : mm > 0 ? " outside the truth" : " inside the truth");
  const millimetres = (hit, surface) =>
    surface.key === "truth" ? "truth" : `${Math.abs(hit.mm).toFixed(2)} mm${side(hit.mm)}`;

  function viewName() {
    const a = ((state.azimuth % 360) + 360) % 360;
    const found = Object.entries(data.views).find(([, [b, e]]) => (b + 360) % 360 === a && e === state.elevation);
    return found ? `${found[0]} view` : "";
  }

  /* Panels. */
  let waiting = false, pointer = null; // pointer: [left, top] as shares of a canvas
  const panels = [0, 1].map((number) => {
    const canvas = make("canvas", { tabIndex: 0 }), tip = make("div", { className: "tip", hidden: true });
    const cross = make("div", { className: "cross", hidden: true }), note = make("span", { className: "side" });
    canvas.setAttribute("role", "application");
    const select = make("select", {}, ...data.surfaces.map(({ name }, value) => make("option", { value, textContent: name })));
    select.setAttribute("aria-label", `Surface in picture ${number + 1}`);
    select.addEventListener("change", () => set({ surfaces: state.surfaces.with(number, +select.value) }));
    const zoom = make("div", { className: "zoom" }, ...[["+", "Zoom in", () => zoomBy(ZOOM)], ["−", "Zoom out", () => zoomBy(1 / ZOOM)],
      ["⟲", "Start again", reset]].map(([text, label, action]) => {
      const button = make("button", { type: "button", textContent: text, title: label });
      button.setAttribute("aria-label", label);
      button.addEventListener("click", action);
      return button;
    }));
    const screen = make("div", { className: "screen" }, canvas, cross, tip, note, zoom);
    const root = make("div", { className: "panel" }, select, screen);
    $("panels").append(root);
    return { canvas, tip, cross, note, select, root };
  });

  function draw() {
    waiting = false;
    panels.forEach((panel, n) => {
      const surface = data.surfaces[state.surfaces[n]];
      panel.root.hidden = n === 1 && !state.two;
      panel.select.value = state.surfaces[n];
      panel.select.style.borderLeftColor = surface.color;
      panel.note.textContent = viewName();
      panel.canvas.setAttribute("aria-label", `${surface.name}: arrow keys turn, plus and minus zoom, Enter reads the middle`);
      if (!panel.root.hidden) panel.render(meshes[state.surfaces[n]]);
    });
    drawControls();
    showPointer();
  }

  function set(change) {
    Object.assign(state, change);
    state.elevation = Math.max(-90, Math.min(90, state.elevation));
    state.zoom = Math.max(0.5, Math.min(20, state.zoom));
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  }

  function reset() { set({ azimuth: 0, elevation: 0, zoom: 1, x: 0, y: 0 }); }
  function zoomBy(factor) { set({ zoom: state.zoom * factor }); }

  function showPointer() {
    panels.forEach(({ canvas, tip, cross, root }, n) => {
      const [left, top] = pointer ? [pointer[0] * canvas.clientWidth, pointer[1] * canvas.clientHeight] : [0, 0];
      const hit = pointer && !root.hidden ? read(n, left, top) : null, surface = data.surfaces[state.surfaces[n]];
      tip.hidden = cross.hidden = !hit;
      marks[n].hidden = !hit || state.mode === "region" || surface.key === "truth";
      if (!hit) return;
      tip.replaceChildren(title(hit.structure, hit.region), make("br"), make("b", { textContent: millimetres(hit, surface) }));
      Object.assign(cross.style, { left: `${left}px`, top: `${top}px` });
      const aside = Math.min(left + 14, canvas.clientWidth - tip.offsetWidth - 4), above = top - tip.offsetHeight - 12;
      Object.assign(tip.style, { left: `${Math.max(2, aside)}px`, top: `${above > 2 ? above : top + 16}px` });
      const share = state.mode === "signed" ? 0.5 + hit.mm / data.limit / 2 : Math.abs(hit.mm) / data.limit;
      Object.assign(marks[n].style, { left: `${100 * Math.max(0, Math.min(1, share))}%`, color: surface.color });
    });
  }

  function speak() {
    const parts = panels.filter(({ root }) => !root.hidden).map(({ canvas }, n) => {
      const hit = read(n, canvas.clientWidth / 2, canvas.clientHeight / 2), surface = data.surfaces[state.surfaces[n]];
      return `${surface.name}: ${hit ? `${title(hit.structure, hit.region)}, ${millimetres(hit, surface)}` : "nothing here"}`;
    });
    $("spoken").textContent = [viewName(), ...parts].filter(Boolean).join(". ");
  }

  /* Mouse, touch and keys: one finger turns, two zoom and move. */
  function listen({ canvas }) {
    const fingers = new Map();
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      pointer = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      if (!waiting) requestAnimationFrame(draw);
      waiting = true;
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      point(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (before) {
        const dx = event.clientX - before[0], dy = event.clientY - before[1], s = pixelsPerMm(canvas);
        const apart = () => Math.hypot(...[0, 1].map((k) => [...fingers.values()][0][k] - [...fingers.values()][1][k]));
        const was = fingers.size === 2 ? apart() : 0;
        fingers.set(event.pointerId, [event.clientX, event.clientY]);
        if (fingers.size === 2) set({ zoom: state.zoom * apart() / was, x: state.x + dx / 2 / s, y: state.y - dy / 2 / s });
        else if (event.shiftKey || event.buttons === 2) set({ x: state.x + dx / s, y: state.y - dy / s });
        else set({ azimuth: state.azimuth - dx * 0.45, elevation: state.elevation + dy * 0.45 });
      }
      point(event);
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "mouse") return; // a touched value stays
      pointer = null;
      showPointer();
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // the page scrolls
      event.preventDefault();
      zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const action = {
        ArrowLeft: () => set({ azimuth: state.azimuth + TURN }), ArrowRight: () => set({ azimuth: state.azimuth - TURN }),
        ArrowUp: () => set({ elevation: state.elevation - TURN }), ArrowDown: () => set({ elevation: state.elevation + TURN }),
        "+": () => zoomBy(ZOOM), "=": () => zoomBy(ZOOM), "-": () => zoomBy(1 / ZOOM), 0: reset,
        Enter: () => { pointer = [0.5, 0.5]; showPointer(); speak(); },
      }[event.key];
      if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      action();
    });
    canvas.addEventListener("webglcontextlost", () => document.body.classList.remove("alive"));
  }

  /* Controls, scale and table. */
  const marks = panels.map(() => make("i", { className: "mark", hidden: true }));

  function makeControls() {
    for (const [name, [azimuth, elevation]] of Object.entries(data.views)) {
      const button = make("button", { type: "button", textContent: name });
      button.addEventListener("click", () => set({ azimuth, elevation, x: 0, y: 0 }));
      $("views").append(button);
    }
    for (const [value, text] of Object.entries(MODES)) {
      const input = make("input", { type: "radio", name: "mode", value });
      input.addEventListener("change", () => set({ mode: value }));
      $("modes").append(make("label", {}, input, ` ${text}`));
    }
    data.structures.forEach(({ name }, n) => {
      const input = make("input", { type: "checkbox" });
      input.addEventListener("change", () => set({ shown: state.shown.with(n, input.checked) }));
      $("structures").append(make("label", {}, input, ` ${name}`));
    });
    $("two").addEventListener("change", () => set({ two: $("two").checked }));
    $("choose").hidden = false;
    const choose = () => {
      const [statistic, scope] = ["statistic", "scope"].map((name) => document.querySelector(`[name=${name}]:checked`).value);
      for (const part of document.querySelectorAll("#tables .scroll")) {
        part.hidden = part.dataset.statistic !== statistic || part.dataset.scope !== scope;
      }
    };
    $("choose").addEventListener("change", choose);
    choose();
    for (const row of document.querySelectorAll("#tables tbody tr")) {
      const key = `${row.dataset.structure}/${row.dataset.region}`, head = row.cells[0];
      const button = make("button", { type: "button", textContent: head.textContent, dataset: { key } });
      button.addEventListener("click", () => set({ region: state.region === key ? "" : key }));
      head.replaceChildren(button);
    }
  }

  let drawn = "";
  function drawControls() {
    for (const button of document.querySelectorAll("#tables tbody button")) {
      button.setAttribute("aria-pressed", button.dataset.key === state.region);
    }
    document.querySelector(`#modes [value=${state.mode}]`).checked = true;
    document.querySelectorAll("#structures input").forEach((input, n) => { input.checked = state.shown[n]; });
    $("two").checked = state.two;
    const shown = state.surfaces.slice(0, state.two ? 2 : 1);
    for (const row of document.querySelectorAll("#tables tr")) {
      [...row.cells].forEach((cell, column) => cell.classList.toggle("shown", column > 0 && shown.includes(column)));
    }
    if (drawn !== state.mode) drawScale();
    drawn = state.mode;
  }

  function drawScale() {
    if (state.mode === "region") {
      const items = data.structures.flatMap(({ name, regions, colors }) => regions.map((region, n) => {
        const swatch = make("i");
        swatch.style.background = colors[n];
        return make("span", {}, swatch, title(name, region));
      }));
      $("scale").replaceChildren(make("div", { className: "legend" }, ...items));
      return;
    }
    const signed = state.mode === "signed", from = signed ? -data.limit : 0, range = data.limit - from;
    const colours = bytes(data.palettes[signed ? 1 : 0]), bar = make("div", { className: "bar" });
    const stops = Array.from({ length: 33 }, (_, n) => colours.slice(3 * Math.min(255, 8 * n), 3 * Math.min(255, 8 * n) + 3));
    bar.style.background = `linear-gradient(to right, ${stops.map((stop) => `rgb(${stop.join(" ")})`).join(", ")})`;
    const ticks = make("div", { className: "ticks" }), step = [0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 50].find((mm) => range / mm <= 6) ?? range;
    for (let n = Math.ceil(from / step); n * step <= data.limit; n++) {
      const end = n * step === data.limit ? "≥ " : n * step === -data.limit ? "≤ " : "";
      const tick = make("span", { textContent: `${end}${n < 0 ? "−" : ""}${+Math.abs(n * step).toFixed(2)}` });
      tick.style.left = `${100 * (n * step - from) / range}%`;
      ticks.append(tick);
    }
    const words = signed ? ["inside the truth", "signed distance, mm", "outside the truth"] : ["", "distance from the truth, mm", ""];
    const unit = make("div", { className: "unit" }, ...words.map((textContent) => make("span", { textContent })));
    $("scale").replaceChildren(bar, ticks, unit, make("div", { className: "marks" }, ...marks));
  }

  /* Start. Without WebGL 2 the picture and the tables stay as they are. */
  const start = panels.map(({ canvas }) => screenOf(canvas));
  if (start.includes(null) || !window.DecompressionStream) return;
  const meshes = await Promise.all(data.surfaces.map((surface) => Promise.all(surface.meshes.map(meshOf))));
  panels.forEach((panel, n) => { panel.render = start[n]; });
  document.body.classList.add("alive");
  document.body.classList.toggle("framed", parent !== window); // in a report, which has its own heading
  makeControls();
  panels.forEach(listen);
  new ResizeObserver(() => {
    set({});
    parent.postMessage({ surfacesHeight: Math.ceil(document.documentElement.getBoundingClientRect().height) }, "*"); // of a frame in a report
  }).observe(document.body);
  window.surfaces = { state, set, read, place, meshes, data };
  draw();
})();
