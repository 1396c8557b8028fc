// A search among what a generator draws, as course_utils.activation with a generator.

// A generator and a classifier as one network, from a latent vector to logits.
export function makeChain(generator, classifier) {
  // The generator ends before its sigmoid: pixels are in 0..1 after it.
  const draw = (z) => generator.forward(z).map((logit) => 1 / (1 + Math.exp(-logit)));
  return {
    draw,
    ask: (z) => classifier.forward(draw(z)),
    // How the logit of a class answers to each number of the latent vector.
    slope(z, target) {
      const image = draw(z), slope = classifier.gradient(image, target);
      return generator.backward(image.map((pixel, i) => slope[i] * pixel * (1 - pixel)));
    },
  };
}

// Yields the latent vector after each step up; `l2` is what its squared length costs, a half where
// that is the prior's own price.
export function* climbLatent(chain, target, start, { steps, stepSize = 0.2, l2 = 0 }) {
  let z = start;
  for (let step = 0; step < steps; step++) {
    const slope = chain.slope(z, target).map((g, i) => g - 2 * l2 * z[i]);
    const rms = length(slope) / Math.sqrt(slope.length) || 1;
    const stride = stepSize * (1 - step / steps);
    z = z.map((value, i) => value + (stride * slope[i]) / rms);
    yield z;
  }
}

export const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
export const length = (a) => Math.sqrt(dot(a, a));

// Two directions at right angles, of length one, of the plane through 0 and two points.
export function planeThrough(a, b) {
  const first = a.map((value) => value / length(a));
  const rest = b.map((value, i) => value - dot(b, first) * first[i]);
  return [first, rest.map((value) => value / length(rest))];
}
