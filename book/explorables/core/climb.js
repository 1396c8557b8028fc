// The picture that a network likes best, as course_utils.activation: gradient ascent.

// Yields the image after each step. `slopeOf(image)` is the gradient of the score. What is not 0
// helps: l2 is a price of ink, tv one of edges between neighbours; blur smooths the start and
// what each step makes.
export function* climb(slopeOf, start, size, { steps, stepSize = 0.05, l2 = 0, tv = 0, blur = 0 }) {
  let image = blur ? smooth(start, size, blur) : start;
  for (let step = 0; step < steps; step++) {
    const slope = slopeOf(image).slice(), edges = tv ? variationSlope(image, size) : image;
    for (let i = 0; i < slope.length; i++) slope[i] -= 2 * l2 * image[i] + tv * edges[i];
    const rms = Math.sqrt(slope.reduce((sum, g) => sum + g * g, 0) / slope.length) || 1;
    const length = stepSize * (1 - step / steps);
    image = image.map((value, i) => value + (length * slope[i]) / rms);
    if (blur) image = smooth(image, size, blur);
    image = image.map((value) => Math.min(Math.max(value, 0), 1));
    yield image;
  }
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
