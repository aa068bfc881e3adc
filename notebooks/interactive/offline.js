// What Python does for the pad, for pages without Python: raster.py and network.py once more, and a
// stand-in for the model that a widget shares with Python. A test compares both.

const SIZE = 28;
const BOX = 20;
const PEN = 1.4;
const MIDDLE = 14;
const DOT = 0.1;
const SMALLEST = 1e-30;

export function rasterise(strokes, centred = true) {
  let lines = strokes.filter((stroke) => stroke.length);
  if (!lines.length) return new Array(SIZE * SIZE).fill(0);
  const move = (change) => lines.map((line) => line.map(change));
  if (!centred) return ink(move(([x, y]) => [x * SIZE - 0.5, y * SIZE - 0.5]));
  const [xs, ys] = [0, 1].map((axis) => lines.flat().map((point) => point[axis]));
  const [left, right, top, bottom] =
    [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = (BOX - 2 * PEN - 1) / Math.max(right - left, bottom - top, DOT);
  lines = move(([x, y]) => [
    (x - (left + right) / 2) * scale + MIDDLE,
    (y - (top + bottom) / 2) * scale + MIDDLE,
  ]);
  const [x, y] = centreOfMass(ink(lines));
  return ink(move((point) => [point[0] + MIDDLE - x, point[1] + MIDDLE - y]));
}

// From 0 for paper to 1 for ink. A pixel is darker the nearer it is to a line.
function ink(lines) {
  const segments = lines.flatMap((line) =>
    line.length > 1 ? line.slice(1).map((end, place) => [line[place], end]) : [[line[0], line[0]]]);
  return Array.from({ length: SIZE * SIZE }, (_, place) => {
    const [x, y] = [place % SIZE, Math.floor(place / SIZE)];
    let near = Infinity;
    for (const [[x0, y0], [x1, y1]] of segments) {
      const [dx, dy] = [x1 - x0, y1 - y0];
      const squared = Math.max(dx * dx + dy * dy, 1e-12);
      const part = Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / squared));
      near = Math.min(near, Math.hypot(x0 + part * dx - x, y0 + part * dy - y));
    }
    const shade = Math.min(1, Math.max(0, PEN + 0.5 - near));
    return Math.floor(shade * 255 + 0.5) / 255;
  });
}

function centreOfMass(image) {
  let [sum, x, y] = [1e-12, 0, 0];
  image.forEach((value, place) => {
    sum += value;
    x += value * (place % SIZE);
    y += value * Math.floor(place / SIZE);
  });
  return [x / sum, y / sum];
}

function numbers(text, Kind) {
  return new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

// A packed network, ready to compute: the logits of an image.
export function network(steps) {
  const layers = steps.map((step) => step.kind !== "dense" ? step : {
    ...step,
    weights: numbers(step.weights, Int8Array),
    scale: numbers(step.scale, Float32Array),
    bias: numbers(step.bias, Float32Array),
  });
  return (image) => layers.reduce((values, layer) => {
    if (layer.kind === "relu") return values.map((value) => Math.max(0, value));
    if (layer.kind === "softmax") {
      const most = Math.max(...values);
      const sum = values.reduce((total, value) => total + Math.exp(value - most), 0);
      return values.map((value) => Math.log(Math.max(Math.exp(value - most) / sum, SMALLEST)));
    }
    const results = new Array(layer.units).fill(0);
    values.forEach((value, from) => {
      if (!value) return; // paper, or a unit that is off
      for (let to = 0; to < layer.units; to += 1) {
        results[to] += value * layer.weights[from * layer.units + to];
      }
    });
    return results.map((result, to) => result * layer.scale[to] + layer.bias[to]);
  }, [...image]);
}

// The model of a widget, without Python behind it; `changed` is called before others hear of it.
export function standIn(state, changed = () => {}) {
  const heard = new Map();
  const model = {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      changed(name, model);
      for (const does of heard.get(`change:${name}`) ?? []) does();
    },
    on: (name, does) => heard.set(name, [...(heard.get(name) ?? []), does]),
    off: (name, does) => heard.set(name, (heard.get(name) ?? []).filter((each) => each !== does)),
    save_changes() {},
    send() {},
  };
  return model;
}

// The pad's model, from what a notebook has stored.
export function padModel({ strokes, temperature, centred, network: steps }, note = "") {
  const logitsOf = network(steps);
  const look = (name, model) => {
    if (name !== "strokes" && name !== "centred") return;
    const image = rasterise(model.get("strokes"), model.get("centred"));
    model.set("seen", { pixels: image.map((v) => Math.round(v * 255)), logits: logitsOf(image) });
  };
  const state = { strokes, temperature, centred, example: true, seen: {}, problem: "", note };
  const model = standIn(state, look);
  look("strokes", model);
  return model;
}

// The film's model; only pictures that are in the notebook itself.
export function filmModel({ title, captions, frames, width, pixelated }) {
  const own = frames.map((frame) => (String(frame).startsWith("data:image/") ? frame : ""));
  return standIn({ title, captions, frames: own, width, pixelated, at: 0 });
}
