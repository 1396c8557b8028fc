// The inner loops of a network: once in WebAssembly (kernels.ts), once in plain JavaScript, for
// browsers without it. Both take Float32Arrays, images in the order row, column, channel.

import binary from "./kernels.wasm"; // compiled from kernels.ts when the site is built

// Kernels with a memory of their own, in which `floats(n)` hands out arrays, `bytes` at most.
export function makeKernels(bytes) {
  try {
    return webAssembly(bytes);
  } catch {
    return { ...plain, fast: false, floats: (n) => new Float32Array(n) };
  }
}

function webAssembly(bytes) {
  // All of it at once: a memory that grows takes the arrays away from those who hold them.
  const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / 65536) + 1 });
  const made = new WebAssembly.Instance(new WebAssembly.Module(binary), { env: { memory } });
  const kernels = { fast: true };
  for (const name of Object.keys(plain))
    kernels[name] = (...given) => made.exports[name](...given.map((a) => a.byteOffset ?? a));
  let next = 1024;
  kernels.floats = (n) => {
    const array = new Float32Array(memory.buffer, next, n);
    next += Math.ceil(n / 4) * 16;
    return array;
  };
  return kernels;
}

export const plain = {
  // out (m, n) = a (m, k) b (k, n) + bias (n)
  matmul(a, b, bias, out, m, k, n) {
    for (let i = 0; i < m; i++) {
      const row = out.subarray(i * n, (i + 1) * n);
      row.set(bias.subarray(0, n));
      for (let p = 0; p < k; p++) {
        const x = a[i * k + p];
        if (x !== 0) for (let j = 0; j < n; j++) row[j] += x * b[p * n + j];
      }
    }
  },

  // Each place's patch of the image x (h, w, c) as a row: patches (oh * ow, kh * kw * c).
  unfold(x, patches, ...sizes) {
    patches.fill(0);
    eachPixelOfPatches(sizes, (pixel, place) => (patches[place] = x[pixel]));
  },

  // The way back: each row of patches is added to x where unfold would read it.
  fold(x, patches, ...sizes) {
    x.fill(0);
    eachPixelOfPatches(sizes, (pixel, place) => (x[pixel] += patches[place]));
  },

  // What is below 0 becomes 0.
  relu(x, n) {
    for (let i = 0; i < n; i++) if (x[i] < 0) x[i] = 0;
  },

  // The gradient passes where the ReLU's output is above 0.
  reluBack(output, gradient, n) {
    for (let i = 0; i < n; i++) if (output[i] <= 0) gradient[i] = 0;
  },

  // The largest of each square of size x size, channel by channel, and in `best` where it lies
  // (the first in reading order, as in Keras). What does not fill a square is left out.
  maxPool(x, out, best, w, c, size, oh, ow) {
    const places = new Int32Array(best.buffer, best.byteOffset, best.length);
    for (let i = 0; i < oh * ow * c; i++) {
      const row = Math.floor(i / (ow * c)), column = Math.floor(i / c) % ow;
      const first = (row * w + column) * size * c + (i % c);
      let where = first;
      for (let y = 0; y < size; y++)
        for (let z = 0; z < size; z++) {
          const here = first + (y * w + z) * c;
          if (x[here] > x[where]) where = here;
        }
      out[i] = x[where];
      places[i] = where;
    }
  },
};

function eachPixelOfPatches([h, w, c, kh, kw, stride, top, left, oh, ow], visit) {
  let place = 0;
  for (let oy = 0; oy < oh; oy++)
    for (let ox = 0; ox < ow; ox++)
      for (let y = oy * stride - top; y < oy * stride - top + kh; y++)
        for (let x = ox * stride - left; x < ox * stride - left + kw; x++) {
          const inside = y >= 0 && y < h && x >= 0 && x < w;
          if (inside) for (let i = 0; i < c; i++) visit((y * w + x) * c + i, place + i);
          place += c;
        }
}
