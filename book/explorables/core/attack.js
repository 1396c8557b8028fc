// A picture with the same answer and another saliency map, as course_utils.attack.

import { strongest } from "./explain.js";
import { KINDS, makeNetwork } from "./network.js";

// A network's twin tells how its gradient answers to a change of the image. What it takes is a
// change; convolutions and dense layers pass it on, ReLUs and pooling where they did for the image.
// On the way back each ReLU adds how its slope answers, as if that were a sigmoid and not a step.
export function makeTwin(network, file) {
  const same = ({ name, kind }) => network.layers.find((one) => one.name === name && one.kind === kind);
  const linear = (kind) => (kernels, layer, [weights, bias], ...rest) =>
    KINDS[kind](kernels, layer, [weights, bias.fill(0)], ...rest);
  const kinds = { conv: linear("conv"), dense: linear("dense") };

  kinds.relu = (kernels, { name, kind, before, output, gradient }) => {
    const relu = same({ name, kind }), x = relu.before.output;
    return {
      forward() {
        for (let i = 0; i < x.length; i++) output[i] = x[i] > 0 ? before.output[i] : 0;
      },
      backward() {
        const width = deviation(x) / SHARPNESS + 1e-7;
        for (let i = 0; i < x.length; i++) {
          before.gradient[i] = x[i] > 0 ? gradient[i] : 0;
          const soft = 1 / (1 + Math.exp(-x[i] / width)), bend = (soft * (1 - soft)) / width;
          before.gradient[i] += relu.gradient[i] * bend * before.output[i];
        }
      },
    };
  };

  kinds.maxPool = (kernels, { name, kind, before, output, gradient }) => {
    const { places } = same({ name, kind });
    return {
      forward() {
        for (let i = 0; i < places.length; i++) output[i] = before.output[places[i]];
      },
      backward() {
        before.gradient.fill(0);
        for (let i = 0; i < places.length; i++) before.gradient[places[i]] += gradient[i];
      },
    };
  };

  const twin = makeNetwork(file, undefined, kinds);

  // The slope of the sum of the gradient's numbers, each times its number in `weights`; valid
  // after network.gradient(image, ...), and for that image.
  return (weights) => {
    twin.forward(weights);
    return twin.backward(twin.layers.at(-1).output.slice().fill(0));
  };
}

const SHARPNESS = 10; // of the sigmoid, over the spread of a layer's inputs

// The share of a saliency map that lies off a region, and the slope of that share.
function look(network, bend, image, region) {
  const gradient = network.gradient(image, 0).slice(), channels = network.shape[2];
  const logit = network.layers.at(-1).output[0], heat = strongest(gradient, channels);
  let total = 0, away = 0;
  heat.forEach((value, pixel) => {
    total += value;
    if (!region[pixel]) away += value;
  });
  const missed = away / total;
  const weights = gradient.map((value, i) => {
    const pixel = Math.floor(i / channels);
    if (Math.abs(value) < heat[pixel]) return 0; // the map holds the largest of the channels alone
    return (Math.sign(value) * ((region[pixel] ? 0 : 1) - missed)) / total;
  });
  return { logit, missed, gradient, slope: () => bend(weights) };
}

// Searches, within `epsilon` of an image that a network says yes to, for a picture whose map lies
// on `region`. Yields after each step the nearest so far whose logit and probability stayed.
export function* attack(network, bend, image, { region, epsilon, noise, steps = 60, tolerance = 0.05 }) {
  const lowest = image.map((value) => Math.max(value - epsilon, 0));
  const highest = image.map((value) => Math.min(value + epsilon, 1));
  const first = look(network, bend, image, region);
  let best = { image, missed: first.missed };
  let points = image.map((value, i) => between(value + epsilon * noise[i], lowest[i], highest[i]));
  for (let step = 0; step <= steps; step++) {
    const now = look(network, bend, points, region), error = now.logit - first.logit;
    if (Math.abs(error) <= 0.999 * tolerance && now.logit * first.logit > 0
        && now.missed < best.missed)
      best = { image: points, missed: now.missed };
    yield best;
    const length = 0.2 * epsilon * (1 - step / steps) ** 2;
    points = move(points, now.slope(), now.gradient, error, length, lowest, highest);
  }
}

// Each value steps against the slope, but so that the logit stays, and what it moved is taken back.
function move(points, slope, gradient, error, length, lowest, highest) {
  const free = (i) => (points[i] > lowest[i] || slope[i] < 0) && (points[i] < highest[i] || slope[i] > 0);
  let squares = 0, along = 0;
  for (let i = 0; i < points.length; i++) {
    if (!free(i)) continue;
    squares += gradient[i] ** 2;
    along -= Math.sign(slope[i]) * gradient[i];
  }
  if (!squares) squares = Infinity; // no pixel that is free moves the logit
  return points.map((value, i) => {
    if (!free(i)) return value;
    const back = ((length * along + error) / squares) * gradient[i];
    return between(value - length * Math.sign(slope[i]) - back, lowest[i], highest[i]);
  });
}

const between = (value, low, high) => Math.min(Math.max(value, low), high);

function deviation(values) {
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
  return Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length);
}
