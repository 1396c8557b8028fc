// The inner loops of a network, in AssemblyScript, compiled to WebAssembly with SIMD: four numbers
// at a time. The same functions in plain JavaScript, easier to read, are in kernels.js.
// Arrays are given as the byte at which they begin in the memory; all hold float32, images in the
// order row, column, channel.

// @ts-ignore: decorator
@inline
function at(array: usize, index: i32): usize {
  return array + ((<usize>index) << 2);
}

// out (m, n) = a (m, k) b (k, n) + bias (n). Blocks of 4 rows and 8 columns stay in registers.
export function matmul(
  a: usize, b: usize, bias: usize, out: usize, m: i32, k: i32, n: i32,
): void {
  if (m == 1) return timesVector(a, b, bias, out, k, n);
  const row = <usize>(k << 2);
  let i = 0;
  for (; i + 4 <= m; i += 4) {
    let j = 0;
    for (; j + 8 <= n; j += 8) {
      let l0 = v128.load(at(bias, j)), r0 = v128.load(at(bias, j), 16);
      let l1 = l0, l2 = l0, l3 = l0, r1 = r0, r2 = r0, r3 = r0;
      let from = at(a, i * k), weights = at(b, j);
      for (let p = 0; p < k; p++) {
        const left = v128.load(weights), right = v128.load(weights, 16);
        let x = v128.load_splat<f32>(from);
        l0 = f32x4.add(l0, f32x4.mul(x, left));
        r0 = f32x4.add(r0, f32x4.mul(x, right));
        x = v128.load_splat<f32>(from + row);
        l1 = f32x4.add(l1, f32x4.mul(x, left));
        r1 = f32x4.add(r1, f32x4.mul(x, right));
        x = v128.load_splat<f32>(from + 2 * row);
        l2 = f32x4.add(l2, f32x4.mul(x, left));
        r2 = f32x4.add(r2, f32x4.mul(x, right));
        x = v128.load_splat<f32>(from + 3 * row);
        l3 = f32x4.add(l3, f32x4.mul(x, left));
        r3 = f32x4.add(r3, f32x4.mul(x, right));
        from += 4;
        weights = at(weights, n);
      }
      v128.store(at(out, i * n + j), l0);
      v128.store(at(out, i * n + j), r0, 16);
      v128.store(at(out, (i + 1) * n + j), l1);
      v128.store(at(out, (i + 1) * n + j), r1, 16);
      v128.store(at(out, (i + 2) * n + j), l2);
      v128.store(at(out, (i + 2) * n + j), r2, 16);
      v128.store(at(out, (i + 3) * n + j), l3);
      v128.store(at(out, (i + 3) * n + j), r3, 16);
    }
    for (let r = i; r < i + 4; r++) oneByOne(a, b, bias, out, r, j, k, n);
  }
  for (; i < m; i++) oneByOne(a, b, bias, out, i, 0, k, n);
}

// What is left at the edges of the blocks.
function oneByOne(
  a: usize, b: usize, bias: usize, out: usize, i: i32, j: i32, k: i32, n: i32,
): void {
  for (; j < n; j++) {
    let sum = load<f32>(at(bias, j));
    for (let p = 0; p < k; p++) sum += load<f32>(at(a, i * k + p)) * load<f32>(at(b, p * n + j));
    store<f32>(at(out, i * n + j), sum);
  }
}

// The same for one row, b read once in its order; what a ReLU has set to 0 is passed over.
function timesVector(a: usize, b: usize, bias: usize, out: usize, k: i32, n: i32): void {
  memory.copy(out, bias, <usize>(n << 2));
  for (let p = 0; p < k; p++) {
    const x = load<f32>(at(a, p));
    if (x != 0) addTimes(at(out, 0), at(b, p * n), x, n);
  }
}

// to (n) += x from (n)
// @ts-ignore: decorator
@inline
function addTimes(to: usize, from: usize, x: f32, n: i32): void {
  const four = f32x4.splat(x);
  let j = 0;
  for (; j + 4 <= n; j += 4) {
    const sum = f32x4.add(v128.load(at(to, j)), f32x4.mul(four, v128.load(at(from, j))));
    v128.store(at(to, j), sum);
  }
  for (; j < n; j++) store<f32>(at(to, j), load<f32>(at(to, j)) + x * load<f32>(at(from, j)));
}

// Each place's patch of the image x (h, w, c) as a row: patches (oh * ow, kh * kw * c).
export function unfold(
  x: usize, patches: usize, h: i32, w: i32, c: i32, kh: i32, kw: i32,
  stride: i32, top: i32, left: i32, oh: i32, ow: i32,
): void {
  const length = kw * c;
  for (let oy = 0; oy < oh; oy++)
    for (let ox = 0; ox < ow; ox++)
      for (let ky = 0; ky < kh; ky++) {
        const y = oy * stride + ky - top, x0 = ox * stride - left;
        const from = max(0, -x0) * c, to = y < 0 || y >= h ? from : min(kw, w - x0) * c;
        const source = at(x, (y * w + x0) * c);
        let i = 0;
        for (; i < from; i++) store<f32>(at(patches, i), 0);
        for (; i + 4 <= to; i += 4) v128.store(at(patches, i), v128.load(at(source, i)));
        for (; i < to; i++) store<f32>(at(patches, i), load<f32>(at(source, i)));
        for (; i < length; i++) store<f32>(at(patches, i), 0);
        patches = at(patches, length);
      }
}

// The way back: each row of patches is added to x where unfold would read it.
export function fold(
  x: usize, patches: usize, h: i32, w: i32, c: i32, kh: i32, kw: i32,
  stride: i32, top: i32, left: i32, oh: i32, ow: i32,
): void {
  memory.fill(x, 0, <usize>((h * w * c) << 2));
  for (let oy = 0; oy < oh; oy++)
    for (let ox = 0; ox < ow; ox++)
      for (let ky = 0; ky < kh; ky++) {
        const y = oy * stride + ky - top, x0 = ox * stride - left;
        const from = max(0, -x0) * c, to = y < 0 || y >= h ? from : min(kw, w - x0) * c;
        addTimes(at(x, (y * w + x0) * c + from), at(patches, from), 1, to - from);
        patches = at(patches, kw * c);
      }
}

// What is below 0 becomes 0.
export function relu(x: usize, n: i32): void {
  let i = 0;
  for (; i + 4 <= n; i += 4) v128.store(at(x, i), f32x4.pmax(f32x4.splat(0), v128.load(at(x, i))));
  for (; i < n; i++) if (load<f32>(at(x, i)) < 0) store<f32>(at(x, i), 0);
}

// The gradient passes where the ReLU's output is above 0.
export function reluBack(output: usize, gradient: usize, n: i32): void {
  for (let i = 0; i < n; i++) if (load<f32>(at(output, i)) <= 0) store<f32>(at(gradient, i), 0);
}

// The largest of each square of size x size, channel by channel, and in `best` where it lies (the
// first in reading order, as in Keras). What does not fill a square is left out.
export function maxPool(
  x: usize, out: usize, best: usize, w: i32, c: i32, size: i32, oh: i32, ow: i32,
): void {
  for (let oy = 0; oy < oh; oy++)
    for (let ox = 0; ox < ow; ox++)
      for (let ch = 0; ch < c; ch++) {
        let first = (oy * size * w + ox * size) * c + ch, largest = load<f32>(at(x, first));
        let where = first;
        for (let y = 0; y < size; y++)
          for (let i = 0; i < size; i++) {
            const value = load<f32>(at(x, first + (y * w + i) * c));
            if (value > largest) {
              largest = value;
              where = first + (y * w + i) * c;
            }
          }
        store<f32>(out, largest);
        store<i32>(best, where);
        out += 4;
        best += 4;
      }
}
