// Pictures and heat maps on a canvas, in the colours of course_utils.plots.

const RED_BLUE = ["053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582",
  "d6604d", "b2182b", "67001f"];
const MAGMA = ["000004", "0a0822", "1d1147", "36106b", "51127c", "6a1c81", "832681", "9c2e7f",
  "b73779", "d0416f", "e75263", "f56b5c", "fc8961", "fea772", "fec488", "fde2a3", "fcfdbf"];

const channelsOf = (colour) => [0, 2, 4].map((at) => parseInt(colour.slice(at, at + 2), 16));
const tables = { signed: RED_BLUE.map(channelsOf), magnitude: MAGMA.map(channelsOf) };

// The colour of a number in 0..1, as [red, green, blue] in 0..255.
export function colour(value, table) {
  const colours = tables[table], place = Math.min(Math.max(value, 0), 1) * (colours.length - 1);
  const low = Math.min(Math.floor(place), colours.length - 2);
  return colours[low].map((from, c) => from + (place - low) * (colours[low + 1][c] - from));
}

// Of each table 1,024 colours, computed once for the many pixels of a map.
const SHADES = 1024;
const shades = Object.fromEntries(Object.keys(tables).map((table) => [table,
  Float32Array.from({ length: 3 * SHADES }, (_, i) => colour(Math.floor(i / 3) / (SHADES - 1), table)[i % 3])]));

// For a colour bar in CSS.
export function gradientOf(table) {
  return `linear-gradient(to right, ${tables[table].map((c) => `rgb(${c})`).join(", ")})`;
}

// A canvas for pictures of so many pixels, each drawn as a square of `scale`.
export function makeCanvas([rows, columns], label, scale = 8) {
  const canvas = document.createElement("canvas");
  canvas.width = columns * scale;
  canvas.height = rows * scale;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

// An image in 0..1, of one channel or three.
export function drawImage(canvas, image, [rows, columns, channels]) {
  drawPixels(canvas, rows, columns, (data, at, pixel) => {
    for (let c = 0; c < 3; c++) data[at + c] = 255 * image[pixel * channels + (channels === 3 ? c : 0)];
  });
}

// A heat map over its image in grey. A signed one has its zero in the middle of the colours and
// reaches to the largest absolute value; another goes from 0 to its largest. Returns that value.
export function drawMap(canvas, map, image, [rows, columns, channels], options = {}) {
  const { table = "signed", alpha = 0.75, limit = largestOf(map) } = options;
  drawPixels(canvas, rows, columns, (data, at, pixel) => {
    let grey = 0;
    for (let k = 0; k < channels; k++) grey += (255 * image[pixel * channels + k]) / channels;
    const part = limit ? map[pixel] / limit : 0, value = table === "signed" ? (part + 1) / 2 : part;
    const shade = Math.round(Math.min(Math.max(value, 0), 1) * (SHADES - 1));
    for (let c = 0; c < 3; c++) data[at + c] = alpha * shades[table][3 * shade + c] + (1 - alpha) * grey;
  });
  return limit;
}

export function largestOf(map) {
  let most = 0;
  for (let i = 0; i < map.length; i++) most = Math.max(most, Math.abs(map[i]));
  return most;
}

// The edge of a mask.
export function drawOutline(canvas, mask, [rows, columns]) {
  const context = canvas.getContext("2d"), scale = canvas.width / columns;
  const inside = (y, x) => y >= 0 && y < rows && x >= 0 && x < columns && mask[y * columns + x];
  context.beginPath();
  for (let y = 0; y <= rows; y++)
    for (let x = 0; x <= columns; x++) {
      if (y > 0 && y < rows && x < columns && !inside(y, x) !== !inside(y - 1, x))
        line(context, x * scale, y * scale, scale, 0);
      if (x > 0 && x < columns && y < rows && !inside(y, x) !== !inside(y, x - 1))
        line(context, x * scale, y * scale, 0, scale);
    }
  context.strokeStyle = "#000";
  context.lineWidth = 0.4 * scale; // still seen when the picture is small, on a phone
  context.stroke();
}

// The edge of a rectangle of pixels, black and white, so that it is seen on any ground.
export function drawFrame(canvas, [, columns], row, column, height, width = height) {
  const context = canvas.getContext("2d"), scale = canvas.width / columns;
  for (const [style, wide] of [["#000", 4], ["#fff", 2]]) {
    context.strokeStyle = style;
    context.lineWidth = wide;
    context.strokeRect(column * scale, row * scale, width * scale, height * scale);
  }
}

// A colour and a shape for each label, no two alike.
const MARKS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#444444"];
const SHAPES = [[24, 0], [3, -Math.PI / 2], [4, Math.PI / 4], [4, 0], [5, -Math.PI / 2]]; // corners, turn
export function drawMark(context, label, x, y) {
  const [corners, turn] = SHAPES[label % 5];
  context.fillStyle = MARKS[label % 7];
  context.beginPath();
  for (let k = 0; k < corners; k++) {
    const angle = turn + (2 * Math.PI * k) / corners;
    context.lineTo(x + 9 * Math.cos(angle), y + 9 * Math.sin(angle));
  }
  context.closePath();
  context.fill();
  context.stroke();
}

function line(context, x, y, across, down) {
  context.moveTo(x, y);
  context.lineTo(x + across, y + down);
}

// `paint(data, at, pixel)` writes a pixel's three channels, in 0..255: lists for each would be slow.
function drawPixels(canvas, rows, columns, paint) {
  const small = document.createElement("canvas");
  small.width = columns;
  small.height = rows;
  const picture = new ImageData(columns, rows), { data } = picture;
  for (let pixel = 0, at = 0; at < data.length; pixel++, at += 4) {
    paint(data, at, pixel);
    data[at + 3] = 255;
  }
  small.getContext("2d").putImageData(picture, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}
