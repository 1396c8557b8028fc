// A trained network: what it says of an image, and how that answers to a change of each pixel.
//
//   const network = makeNetwork(await load("scenes_fair"));
//   network.forward(image)[0]            the logit
//   network.gradient(image, 0)           its gradient, one number for each of the image's
//   network.layers.find(...).output      feature maps, .gradient their gradient, after the above
//
// An image is a Float32Array in the order row, column, channel. What a call returns is valid until
// the next call: copy it with .slice() to keep it.

import { makeKernels } from "./kernels.js";

// `file` is what export.py has written: the input's shape, and for each layer its kind, its
// numbers and its weights.
export function makeNetwork(file, kernelsFor = makeKernels, kinds = KINDS) {
  const weights = file.layers.map((layer) => (layer.weights ?? []).map(decode));
  const kernels = kernelsFor(bytesNeeded(file, weights));
  const input = kernels.floats(size(file.shape));
  const layers = [];
  let before = { output: input, gradient: kernels.floats(input.length), shape: file.shape };
  const patches = kernels.floats(largest(file, patchesOf)), zeros = kernels.floats(largest(file, zerosOf));
  for (const [i, { weights: _, ...layer }] of file.layers.entries()) {
    layer.before = before;
    layer.output = kernels.floats(size(layer.shape));
    layer.gradient = kernels.floats(size(layer.shape));
    Object.assign(layer, kinds[layer.kind](kernels, layer, weights[i], zeros, patches));
    layers.push(layer);
    before = layer;
  }
  const last = layers.at(-1);

  function forward(image) {
    input.set(image);
    for (const layer of layers) layer.forward();
    return last.output;
  }

  // The gradient of the sum of outputs, each times its number in `seed`; after `forward`.
  function backward(seed) {
    last.gradient.set(seed);
    for (const layer of [...layers].reverse()) layer.backward();
    return layers[0].before.gradient;
  }

  function gradient(image, target) {
    forward(image);
    return backward(Float32Array.from(last.output, (_, i) => (i === target ? 1 : 0)));
  }

  return { forward, backward, gradient, layers, shape: file.shape, fast: kernels.fast };
}

const size = (shape) => shape.reduce((product, n) => product * n, 1);

// What each kind of layer does with its input `before.output` and, on the way back, with its
// gradient. A convolution is a product of matrices: each row a patch, each column a filter.
export const KINDS = {
  conv(kernels, layer, [weights, bias], zeros, patches) {
    const { before, output, gradient, stride, kernel: [kh, kw], padding: [top, left] } = layer;
    const [h, w, c] = layer.from, [oh, ow, n] = layer.shape, k = kh * kw * c;
    const b = copy(kernels, weights), back = copy(kernels, transpose(weights, k, n));
    const add = copy(kernels, bias);
    const sizes = [h, w, c, kh, kw, stride, top, left, oh, ow];
    return {
      forward() {
        kernels.unfold(before.output, patches, ...sizes);
        kernels.matmul(patches, b, add, output, oh * ow, k, n);
      },
      backward() {
        kernels.matmul(gradient, back, zeros, patches, oh * ow, n, k);
        kernels.fold(before.gradient, patches, ...sizes);
      },
    };
  },

  // A convolution's way back as a layer of its own, as generators have it: small to large.
  transposedConv(kernels, layer, [weights, bias], zeros, patches) {
    const { before, output, gradient, stride, kernel: [kh, kw], padding: [top, left] } = layer;
    const [oh, ow, n] = layer.from, [h, w, c] = layer.shape, k = kh * kw * c;
    const b = copy(kernels, weights), back = copy(kernels, transpose(weights, n, k));
    const sizes = [h, w, c, kh, kw, stride, top, left, oh, ow];
    return {
      forward() {
        kernels.matmul(before.output, b, zeros, patches, oh * ow, n, k);
        kernels.fold(output, patches, ...sizes);
        for (let i = 0; i < output.length; i++) output[i] += bias[i % c];
      },
      backward() {
        kernels.unfold(gradient, patches, ...sizes);
        kernels.matmul(patches, back, zeros, before.gradient, oh * ow, k, n);
      },
    };
  },

  dense(kernels, { before, output, gradient }, [weights, bias], zeros) {
    const k = before.output.length, n = output.length;
    const b = copy(kernels, weights), back = copy(kernels, transpose(weights, k, n));
    const add = copy(kernels, bias);
    return {
      forward: () => kernels.matmul(before.output, b, add, output, 1, k, n),
      backward: () => kernels.matmul(gradient, back, zeros, before.gradient, 1, n, k),
    };
  },

  relu(kernels, { before, output, gradient }) {
    return {
      forward() {
        output.set(before.output);
        kernels.relu(output, output.length);
      },
      backward() {
        before.gradient.set(gradient);
        kernels.reluBack(output, before.gradient, output.length);
      },
    };
  },

  maxPool(kernels, layer) {
    const { before, output, gradient, pool } = layer;
    const [, w, c] = layer.from, [oh, ow] = layer.shape;
    const best = kernels.floats(output.length);
    const places = new Int32Array(best.buffer, best.byteOffset, best.length);
    return {
      places,
      forward: () => kernels.maxPool(before.output, output, best, w, c, pool, oh, ow),
      backward() {
        before.gradient.fill(0);
        for (let i = 0; i < places.length; i++) before.gradient[places[i]] += gradient[i];
      },
    };
  },

  // The largest of each channel. Where several places share it they share the gradient.
  globalMax(kernels, { before, output, gradient }) {
    const x = before.output, c = output.length;
    return {
      forward() {
        output.fill(-Infinity);
        for (let i = 0; i < x.length; i++) output[i % c] = Math.max(output[i % c], x[i]);
      },
      backward() {
        const ties = new Float32Array(c);
        for (let i = 0; i < x.length; i++) ties[i % c] += x[i] === output[i % c];
        for (let i = 0; i < x.length; i++)
          before.gradient[i] = x[i] === output[i % c] ? gradient[i % c] / ties[i % c] : 0;
      },
    };
  },

  globalAverage(kernels, { before, output, gradient }) {
    const x = before.output, c = output.length, places = x.length / c;
    return {
      forward() {
        output.fill(0);
        for (let i = 0; i < x.length; i++) output[i % c] += x[i] / places;
      },
      backward() {
        for (let i = 0; i < x.length; i++) before.gradient[i] = gradient[i % c] / places;
      },
    };
  },
};

function copy(kernels, array) {
  const inMemory = kernels.floats(array.length);
  inMemory.set(array);
  return inMemory;
}

function transpose(matrix, rows, columns) {
  const turned = new Float32Array(matrix.length);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) turned[j * rows + i] = matrix[i * columns + j];
  return turned;
}

// How many numbers a convolution's patches are.
function patchesOf({ kind, kernel, shape, from }) {
  if (kind === "conv") return shape[0] * shape[1] * kernel[0] * kernel[1] * from[2];
  if (kind === "transposedConv") return from[0] * from[1] * kernel[0] * kernel[1] * shape[2];
  return 0;
}

// How many zeros the way back needs in the place of a bias.
function zerosOf({ kernel, shape, from }) {
  return kernel ? kernel[0] * kernel[1] * Math.max(from[2], shape[2]) : size(from);
}

// Each layer has its output, its gradient and, for pooling, places; weights are kept twice.
function bytesNeeded(file, weights) {
  const numbers = [2 * size(file.shape), largest(file, patchesOf), largest(file, zerosOf)];
  for (const layer of file.layers) numbers.push(3 * size(layer.shape) + 32);
  for (const array of weights.flat()) numbers.push(2 * array.length + 8);
  return 4 * numbers.reduce((sum, n) => sum + n, 1024);
}

const largest = (file, ofLayer) => Math.max(...file.layers.map(ofLayer));

// Numbers from base64: of float16 wherever nothing is lost by it, or of float32.
export function decode({ float16, float32 }) {
  const bytes = bytesOf(float16 ?? float32);
  return float16 ? fromFloat16(new Uint16Array(bytes.buffer)) : new Float32Array(bytes.buffer);
}

export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

function fromFloat16(halves) {
  return Float32Array.from(halves, (half) => {
    const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, rest = half & 1023;
    return exponent
      ? sign * (1 + rest / 1024) * 2 ** (exponent - 15)
      : sign * rest * 2 ** -24;
  });
}
