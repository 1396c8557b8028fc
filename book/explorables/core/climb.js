// The picture that a network likes best, as course_utils.activation: gradient ascent.

// Yields the image after each step. `slopeOf(image)` is the gradient of the score. What is not 0
// helps: l2 is a price of ink, tv one of edges between neighbours; blur smooths the start and what
// each step makes; shifts are by how much, [down, right], the image is moved for each step's look;
// with fourier, the search is for an image before coarse waves are enlarged and fine ones reduced.
export function* climb(slopeOf, start, size, options) {
  const { steps, stepSize = 0.05, l2 = 0, tv = 0, blur = 0, shifts = [], fourier = 0 } = options;
  const wave = fourier && waves(size, fourier);
  const imageOf = (points) => (wave ? around(points, wave, size).map(squeeze) : points);
  let points = wave ? start.map((value) => value - 0.5) : blur ? smooth(start, size, blur) : start;
  let image = imageOf(points);
  for (let step = 0; step < steps; step++) {
    const [down, right] = shifts[step] ?? [0, 0];
    let slope = roll(slopeOf(roll(image, size, down, right)), size, -down, -right);
    const edges = tv ? variationSlope(image, size) : image;
    for (let i = 0; i < slope.length; i++) slope[i] -= 2 * l2 * image[i] + tv * edges[i];
    if (wave) slope = around(slope.map((g, i) => g * image[i] * (1 - image[i])), wave, size);
    const rms = Math.sqrt(slope.reduce((sum, g) => sum + g * g, 0) / slope.length) || 1;
    const length = stepSize * (1 - step / steps);
    points = points.map((value, i) => value + (length * slope[i]) / rms);
    if (blur) points = smooth(points, size, blur);
    if (!wave) points = points.map((value) => Math.min(Math.max(value, 0), 1));
    image = imageOf(points);
    yield image;
  }
}

const squeeze = (value) => 1 / (1 + Math.exp(-value));

// A copy of the image, moved around its edges.
function roll(image, size, down, right) {
  const from = (i, by) => (i - by + size) % size;
  return image.map((_, i) => image[from(Math.floor(i / size), down) * size + from(i % size, right)]);
}

// What a single bright pixel becomes when each wave is divided by its frequency to a power, and all
// together scaled so that an image varies as much as before.
function waves(size, power) {
  const frequency = (k) => Math.min(k, size - k) / size;
  const scale = Float64Array.from({ length: size * size }, (_, i) => Math.max(
    Math.hypot(frequency(Math.floor(i / size)), frequency(i % size)), 1 / size) ** -power);
  const rms = Math.sqrt(scale.reduce((sum, s) => sum + s * s, 0) / scale.length);
  const turn = Float64Array.from({ length: size }, (_, k) => Math.cos((2 * Math.PI * k) / size));
  return Float64Array.from(scale, (_, place) => {
    const y = Math.floor(place / size), x = place % size;
    let sum = 0;
    for (let u = 0; u < size; u++)
      for (let v = 0; v < size; v++) sum += scale[u * size + v] * turn[(u * y + v * x) % size];
    return sum / rms / scale.length;
  });
}

// Each pixel becomes that pattern around it, over the edges to the other side.
function around(image, pattern, size) {
  const out = new Float64Array(image.length);
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++)
      for (let v = 0; v < size; v++) {
        const row = ((y - v + size) % size) * size;
        let sum = 0;
        for (let u = 0; u < size; u++)
          sum += image[v * size + u] * pattern[row + (x < u ? x - u + size : x - u)];
        out[y * size + x] += sum;
      }
  return Float32Array.from(out);
}

// The gradient of the sum of all differences between neighbours.
function variationSlope(image, size) {
  const slope = new Float32Array(image.length);
  const pull = (low, high) => {
    const rise = Math.sign(image[high] - image[low]);
    slope[high] += rise;
    slope[low] -= rise;
  };
  for (let i = 0; i < image.length; i++) {
    if ((i + 1) % size) pull(i, i + 1);
    if (i + size < image.length) pull(i, i + size);
  }
  return slope;
}

// Each row, then each column, a weighted mean of its neighbours; the weights fall like a bell.
function smooth(image, size, width) {
  const bell = Array.from({ length: size }, (_, d) => Math.exp(-((d / width) ** 2) / 2));
  const along = (from, step) => from.map((_, i) => {
    const place = Math.floor(i / step) % size, first = i - place * step;
    let sum = 0, total = 0;
    for (let j = 0; j < size; j++) {
      sum += bell[Math.abs(j - place)] * from[first + j * step];
      total += bell[Math.abs(j - place)];
    }
    return sum / total;
  });
  return along(along(image, size), 1);
}

// How alike two pictures are, whatever their brightness and contrast: their correlation.
export function correlation(a, b) {
  const mean = (x) => x.reduce((sum, value) => sum + value, 0) / x.length;
  const [ma, mb] = [mean(a), mean(b)];
  let ab = 0, aa = 0, bb = 0;
  for (let i = 0; i < a.length; i++) {
    ab += (a[i] - ma) * (b[i] - mb);
    aa += (a[i] - ma) ** 2;
    bb += (b[i] - mb) ** 2;
  }
  return aa && bb ? ab / Math.sqrt(aa * bb) : 0;
}
