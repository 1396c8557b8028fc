// The package's explanations, for one image. A score is a function of an image; a map is a
// Float32Array (rows * columns), larger where a pixel matters more to the score.

// -- Cover a piece, as course_utils.occlusion -------------------------------------------------

// The upper left corners of the patches that together cover an image, as [row, column].
export function patchPlaces([rows, columns], patch, stride) {
  const places = [];
  for (let row = 0; row < rows - patch + stride; row += stride)
    for (let column = 0; column < columns - patch + stride; column += stride)
      places.push([row, column]);
  return places;
}

// A copy of the image with a patch of a colour, or of another image.
export function cover(image, shape, [row, column], patch, fill) {
  const covered = image.slice();
  const channels = shape[2];
  eachPixel(shape, row, column, patch, (pixel) => {
    for (let c = 0; c < channels; c++)
      covered[pixel * channels + c] = fill.length > channels ? fill[pixel * channels + c] : fill[c];
  });
  return covered;
}

// Collects what the score loses by each patch; a pixel's value is the mean over its patches.
export function collectDrops(shape) {
  const total = new Float64Array(shape[0] * shape[1]);
  const count = new Float64Array(total.length);
  return {
    add([row, column], patch, drop) {
      eachPixel(shape, row, column, patch, (pixel) => {
        total[pixel] += drop;
        count[pixel] += 1;
      });
    },
    map: () => Float32Array.from(total, (sum, i) => (count[i] ? sum / count[i] : 0)),
  };
}

export function occlusionMap(score, image, shape, { patch, stride = patch, fill }) {
  const whole = score(image), drops = collectDrops(shape);
  for (const place of patchPlaces(shape, patch, stride))
    drops.add(place, patch, whole - score(cover(image, shape, place, patch, fill)));
  return drops.map();
}

function eachPixel([rows, columns], row, column, patch, visit) {
  for (let y = Math.max(row, 0); y < Math.min(row + patch, rows); y++)
    for (let x = Math.max(column, 0); x < Math.min(column + patch, columns); x++)
      visit(y * columns + x);
}

// -- Ask the gradient, as course_utils.gradients ----------------------------------------------

// The largest absolute value among the channels of each pixel of a gradient.
export function strongest(gradient, channels) {
  const map = new Float32Array(gradient.length / channels);
  gradient.forEach((value, i) => {
    const pixel = Math.floor(i / channels);
    map[pixel] = Math.max(map[pixel], Math.abs(value));
  });
  return map;
}

export function saliencyMap(network, image, target) {
  return strongest(network.gradient(image, target), network.shape[2]);
}

// SmoothGrad sample by sample: yields after each the saliency of the mean gradient so far. `normal`
// gives the noise, whose deviation is a share of the image's largest value minus its smallest.
export function* smoothGrad(network, image, target, normal, { samples = 50, noise = 0.15 } = {}) {
  const values = Array.from(image), spread = noise * (Math.max(...values) - Math.min(...values));
  const total = new Float64Array(image.length);
  for (let sample = 1; sample <= samples; sample++) {
    const gradient = network.gradient(image.map((value) => value + spread * normal()), target);
    gradient.forEach((slope, i) => (total[i] += slope));
    yield strongest(total.map((sum) => sum / sample), network.shape[2]);
  }
}

// The point of the straight way from a baseline to an image after a share `alpha` of it.
export function alongTheWay(baseline, image, alpha) {
  return Float32Array.from(image, (value, i) => baseline[i] + alpha * (value - baseline[i]));
}

// Integrated gradients step by step: yields after each the map as far as it has grown.
export function* integrate(network, image, target, baseline, steps) {
  const channels = network.shape[2];
  const map = new Float64Array(image.length / channels);
  for (let step = 0; step < steps; step++) {
    const alpha = (step + 0.5) / steps;
    const gradient = network.gradient(alongTheWay(baseline, image, alpha), target);
    let slope = 0;
    for (let i = 0; i < image.length; i++) {
      const part = gradient[i] * (image[i] - baseline[i]);
      map[Math.floor(i / channels)] += part / steps;
      slope += part;
    }
    yield { alpha, slope, map, steps: step + 1 };
  }
}

// -- Score an explanation, as course_utils.metrics --------------------------------------------

// The share of a map's positive values that lies on a mask.
export function massInside(map, mask) {
  let inside = 0, total = 0;
  const constant = map.every((value) => value === map[0]);
  for (let i = 0; i < map.length; i++) {
    const positive = constant ? 1 : Math.max(map[i], 0);
    total += positive;
    if (mask[i]) inside += positive;
  }
  return total ? inside / total : 0;
}

export function share(mask) {
  let sum = 0;
  for (let i = 0; i < mask.length; i++) sum += mask[i];
  return sum / mask.length;
}

export const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));
export function softmax(logits) {
  const powers = Array.from(logits, (z) => Math.exp(z - Math.max(...logits)));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}
