// Where a layer's feature maps speak for a class, as course_utils.cam.

import { largestOf } from "./draw.js";

// Grad-CAM's cells: each feature map of the layer weighs as much as the score's mean gradient by it,
// and what is negative in their sum becomes 0. `seed` says of which outputs the score is the sum.
export function gradCam(network, image, seed, name) {
  network.forward(image);
  network.backward(seed);
  const { output, gradient, shape } = network.layers.findLast((layer) => layer.name === name);
  const channels = shape[2], cells = new Float32Array(shape[0] * shape[1]);
  const weights = new Float64Array(channels);
  gradient.forEach((slope, i) => (weights[i % channels] += slope / cells.length));
  for (let cell = 0; cell < cells.length; cell++) {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += weights[c] * output[cell * channels + c];
    cells[cell] = Math.max(sum, 0);
  }
  return cells;
}

// Cells stretched to the size of the image: a value stands in the middle of its cell, and between
// the middles it is interpolated. Divided by the maximum, unless all is 0.
export function stretch(cells, [h, w], [rows, columns]) {
  const places = (many, few) => Array.from({ length: many }, (_, i) => {
    const at = Math.min(Math.max(((i + 0.5) * few) / many - 0.5, 0), few - 1);
    const low = Math.min(Math.floor(at), Math.max(few - 2, 0));
    return { low, high: Math.min(low + 1, few - 1), part: at - low };
  });
  const map = new Float32Array(rows * columns), across = places(columns, w), row = new Float64Array(w);
  places(rows, h).forEach(({ low, high, part }, y) => {
    for (let k = 0; k < w; k++) row[k] = (1 - part) * cells[low * w + k] + part * cells[high * w + k];
    for (let x = 0; x < columns; x++) {
      const at = across[x]; // taken apart as a list, it would be slow
      map[y * columns + x] = (1 - at.part) * row[at.low] + at.part * row[at.high];
    }
  });
  const most = largestOf(map) || 1;
  for (let i = 0; i < map.length; i++) map[i] /= most;
  return map;
}
