// The pictures that export.py has written, as arrays.

import { bytesOf } from "./network.js";

// Bytes as numbers in 0..1, rounded to float32 as numpy does.
export const pixels = (base64) => Float32Array.from(bytesOf(base64), (byte) => byte / 255);

// A mask of one bit for each pixel.
export function mask(base64) {
  const bytes = bytesOf(base64);
  return Uint8Array.from({ length: bytes.length * 8 }, (_, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1);
}

// A scene as export.py writes it: both skies, and the masks of the truth.
export function readScene({ hasTank, cloudy, sunny, sky, tank }) {
  return { hasTank, cloudy: pixels(cloudy), sunny: pixels(sunny), sky: mask(sky), tank: mask(tank) };
}

// A picture with a rectangle, which is exactly 0.5.
export function readRectangle(file) {
  const image = pixels(file.image), rectangle = mask(file.mask);
  return { image: image.map((value, i) => (rectangle[Math.floor(i / 3)] ? 0.5 : value)), rectangle };
}
