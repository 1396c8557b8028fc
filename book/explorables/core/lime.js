// LIME's line through the scores of pictures with parts hidden, as course_utils.lime_image.

// Numbers in 0..1 that a seed decides: a small generator of pseudo-random numbers, mulberry32.
export function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// Numbers of a normal distribution around 0, by Box and Muller from those.
export function normalNumbers(seed) {
  const random = randomNumbers(seed);
  return () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

// The image with the parts that are not shown replaced by a fill, an image of the same size.
export function showParts(image, fill, segments, shown) {
  const channels = image.length / segments.length;
  return image.map((value, i) => (shown[segments[Math.floor(i / channels)]] ? value : fill[i]));
}

// Every part's mean colour, as an image.
export function meanColours(image, segments) {
  const channels = image.length / segments.length, sums = {}, counts = {};
  image.forEach((value, i) => {
    const key = segments[Math.floor(i / channels)] * channels + (i % channels);
    sums[key] = (sums[key] ?? 0) + value;
    counts[key] = (counts[key] ?? 0) + 1;
  });
  return image.map((_, i) => {
    const key = segments[Math.floor(i / channels)] * channels + (i % channels);
    return sums[key] / counts[key];
  });
}

// Weighted least squares with an intercept: { weights, intercept, r2 }. Near samples count more:
// a row of zeros and ones is as near as its cosine distance from the row of ones.
export function fitLine(rows, scores, width = 0.25) {
  const n = rows[0].length;
  const proximity = rows.map((row) => {
    const distance = 1 - Math.sqrt(row.reduce((sum, one) => sum + one, 0) / n);
    return Math.exp(-((distance / width) ** 2) / 2);
  });
  const total = proximity.reduce((sum, p) => sum + p, 0);
  const mean = (of) => proximity.reduce((sum, p, i) => sum + p * of(i), 0) / total;
  const centre = Array.from({ length: n }, (_, j) => mean((i) => rows[i][j]));
  const middle = mean((i) => scores[i]);
  const normal = Array.from({ length: n }, () => new Float64Array(n));
  const right = new Float64Array(n);
  rows.forEach((row, i) => {
    for (let j = 0; j < n; j++) {
      const x = proximity[i] * (row[j] - centre[j]);
      right[j] += x * (scores[i] - middle);
      for (let k = 0; k < n; k++) normal[j][k] += x * (row[k] - centre[k]);
    }
  });
  const weights = solve(normal, right);
  const intercept = middle - weights.reduce((sum, w, j) => sum + w * centre[j], 0);
  const said = (row) => row.reduce((sum, one, j) => sum + one * weights[j], intercept);
  const left = mean((i) => (scores[i] - said(rows[i])) ** 2);
  const variance = mean((i) => (scores[i] - middle) ** 2);
  return { weights, intercept, r2: 1 - left / variance };
}

// The smallest x with A x = b, or nearest to it; A is symmetric. Jacobi's rotations give A its own
// axes, along which every equation stands for itself, and those without content are left out.
export function solve(matrix, b) {
  const n = b.length, a = matrix.map((row) => Float64Array.from(row));
  const axes = Array.from({ length: n }, (_, i) => Float64Array.from({ length: n }, (_, j) => +(i === j)));
  for (let round = 0; round < 30; round++) {
    let rotated = false;
    for (let p = 0; p < n; p++)
      for (let q = p + 1; q < n; q++) {
        if (Math.abs(a[p][q]) <= 1e-15 * Math.sqrt(Math.abs(a[p][p] * a[q][q])) + 1e-300) continue;
        rotated = true;
        const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
        const cosine = 1 / Math.hypot(t, 1), sine = t * cosine;
        for (let k = 0; k < n; k++)
          [a[k][p], a[k][q]] = [cosine * a[k][p] - sine * a[k][q], sine * a[k][p] + cosine * a[k][q]];
        for (let k = 0; k < n; k++) {
          [a[p][k], a[q][k]] = [cosine * a[p][k] - sine * a[q][k], sine * a[p][k] + cosine * a[q][k]];
          [axes[p][k], axes[q][k]] = [
            cosine * axes[p][k] - sine * axes[q][k], sine * axes[p][k] + cosine * axes[q][k]];
        }
      }
    if (!rotated) break;
  }
  const most = Math.max(...a.map((row, i) => row[i])), x = new Float64Array(n);
  axes.forEach((axis, i) => {
    if (a[i][i] <= 1e-12 * most) return;
    const part = axis.reduce((sum, value, k) => sum + value * b[k], 0) / a[i][i];
    axis.forEach((value, k) => (x[k] += part * value));
  });
  return x;
}
