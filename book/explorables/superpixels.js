// Superpixels on and off: which parts does the answer need, and what does LIME's line make of them?

import {
  button, challenge, choose, drawImage, drawMap, drawOutline, explorable, fitLine, fixed, gradientOf, load,
  make, makeCanvas, makeNetwork, mask, massInside, meanColours, more, oncePerFrame, pick, pixels,
  play, randomNumbers, share, showParts, slide, stage, statusLine, bytesOf,
} from "./core/index.js";

const SHAPE = [64, 64, 3];
// All maps, of few masks or many, have the colours of this weight for their ends.
const LIMIT = 5;

explorable("superpixels", async (live, root) => {
  const [file, weights] = await Promise.all(["superpixels", "scenes_fair"].map(load));
  const network = makeNetwork(weights);
  const image = pixels(file.image), tank = mask(file.tank), segments = bytesOf(file.segments);
  const count = Math.max(...segments) + 1;
  const fills = { black: new Float32Array(image.length), mean: meanColours(image, segments) };
  const centres = centresOf(segments, count);
  const holding = [...centres.keys()].filter((k) => shareOf(tank, segments, k) > 0.5);
  const all = () => new Uint8Array(count).fill(1);
  const whole = network.forward(image)[0];
  const withoutTank = network.forward(
    showParts(image, fills.black, segments, all().map((one, k) => one - holding.includes(k))))[0];
  // While masks are drawn, the last one is shown in place of the reader's own until they click.
  let shown = all(), part = 0, logit = whole, seed = 0, earlier, lime, watching, stop = () => {};
  let tell = "parts"; // or "masks": what the reader has asked about last
  const drawn = { rows: [], scores: [] };

  // -- What the reader can move

  const show = oncePerFrame(draw);
  const canvas = stage(makeCanvas(SHAPE), SHAPE, {
    hover: false,
    label: "The scene in parts. Arrow keys go from part to part; Space hides a part, or shows it.",
    onPoint(y, x, { type }) {
      if (type === "pointerdown") toggle(segments[y * 64 + x]);
    },
    onKey(down, right, { key }) {
      if (key === " " || key === "Enter") return toggle(part);
      if (!down && !right) return false;
      move(nextPart(centres, part, down, right));
    },
  });
  const size = pick("Masks", { 10: "10", 100: "100", 1000: "1,000" }, () => {});
  const fill = choose("Hide with", { black: "black", mean: "the part's mean colour" }, () => {
    forget();
    ask();
  });
  const chosen = slide("Part", { min: 0, max: count - 1 }, move);
  const status = statusLine();
  const task = challenge("Make the network say no tank by hiding as few parts as you can. " +
    "With black, two are enough.");
  const map = makeCanvas(SHAPE, "");
  const answer = make("p", { className: "answer" });
  const caption = make("p", { className: "hint" });
  canvas.addEventListener("focus", show);
  canvas.addEventListener("blur", show);

  function move(to) {
    part = chosen.value = to;
    show();
  }

  function toggle(which) {
    watching = false;
    tell = "parts";
    shown[which] = 1 - shown[which];
    move(which);
    ask();
  }

  function ask() {
    logit = network.forward(showParts(image, fills[fill.value], segments, shown))[0];
    show();
  }

  function forget() {
    stop();
    watching = false;
    tell = "parts";
    drawn.rows = [];
    drawn.scores = [];
    lime = earlier = undefined;
  }

  // Every draw takes another seed; the first of its samples shows all parts.
  function drawMasks() {
    const before = lime?.complete && drawn.rows.length === Number(size.value) ? lime : undefined;
    forget();
    earlier = before;
    seed += 1;
    watching = true;
    tell = "masks";
    stop = play(sample(randomNumbers(seed)), Number(size.value), 2000, fit, () => {
      watching = false;
      fit(true);
    });
  }

  function* sample(random) {
    for (let i = 0; i < Number(size.value); i++) {
      const row = i ? Uint8Array.from({ length: count }, () => +(random() < 0.5)) : all();
      drawn.rows.push(row);
      const picture = showParts(image, fills[fill.value], segments, row);
      drawn.scores.push(network.forward(picture)[0]);
      yield;
    }
  }

  function fit(complete = false) {
    if (drawn.rows.length > 1) lime = { ...fitLine(drawn.rows, drawn.scores), complete };
    draw();
  }

  // -- What comes out

  function draw() {
    const now = watching && drawn.rows.length ? drawn.rows.at(-1) : shown;
    drawImage(canvas, showParts(image, fills[fill.value], segments, now), SHAPE);
    drawBorders(canvas, segments, document.activeElement === canvas ? part : -1);
    const hidden = count - shown.reduce((sum, one) => sum + one, 0);
    const score = now === shown ? logit : drawn.scores.at(-1);
    answer.replaceChildren(verdict(score), ` logit ${fixed(score, 1)}`,
      now === shown ? "" : `, mask ${drawn.rows.length}`);
    const heat = Float32Array.from(segments, (k) => lime?.weights[k] ?? 0);
    drawMap(map, heat, image, SHAPE, { limit: LIMIT });
    drawOutline(map, tank, SHAPE);
    caption.textContent = lime ? `${percent(massInside(heat, tank))} of the red lies on the tank, which is ` +
      `${percent(share(tank))} of the picture.` : "A mask hides each part or not, by the toss of a coin. " +
      "From many, each part gets a weight: what showing it adds to the logit.";
    map.setAttribute("aria-label", `LIME's weights over the scene, the tank outlined. ${caption.textContent}`);
    task.check(logit < 0 && hidden <= 2, `no tank, with ${hidden} of ${count} parts black, though the two ` +
      `that hold the tank would leave it a tank (logit ${withoutTank.toFixed(1)}). Black does not only take ` +
      "away, it puts something new there: hide them with their mean colour, for which no two are enough.");
    root.result = {
      logit, shown: [...shown], fill: fill.value, rows: drawn.rows, complete: !!lime?.complete,
      weights: lime?.weights, intercept: lime?.intercept, r2: lime?.r2,
    };
    status.say(tell === "masks" ? aboutMasks() : `${hidden} of ${count} parts hidden: ` +
      `${logit > 0 ? "tank" : "no tank"}, logit ${fixed(logit, 1)}${hidden ? `, ` +
      `${Math.abs(whole - logit).toFixed(1)} ${logit > whole ? "higher" : "lower"} than with all shown` : ""}.`);
  }

  function aboutMasks() {
    const masks = drawn.rows.length;
    if (!lime?.complete) return `Mask ${masks} of ${size.value}.`;
    const fit = masks <= count
      ? `${masks} logits cannot settle ${count} weights: these fit all of them, and so would others`
      : `From the weights alone, the logits of the ${masks} masks come out with R² ${lime.r2.toFixed(2)} ` +
        "(1 is exactly)";
    return `${fit}. ` + (earlier ? `Other masks, as many, moved a weight by ${
      meanOf(lime.weights.map((w, i) => Math.abs(w - earlier.weights[i]))).toFixed(1)} on average.`
      : "Draw masks again: how far do the weights move?");
  }

  const bar = make("span", { className: "bar" });
  bar.style.background = gradientOf("signed");
  live.append(
    make("p", { className: "question" }, "Which parts does the answer need?"),
    make("p", {}, "A network looks for a tank; its score, the logit, is above 0 where it says tank. Hide parts " +
      "and see what the score loses, or let LIME, a method, hide them at random and work out what each adds."),
    make("div", { className: "controls" }, fill),
    make("div", { className: "columns" },
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "Hide them yourself")), answer, canvas,
        make("p", { className: "hint" },
          "Click or tap a part to hide it or show it. Keys: arrows, and Space.")),
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "Or let LIME, at random")),
        make("div", { className: "controls" }, size, button("Draw masks", drawMasks)), map, caption,
        make("p", { className: "legend" }, `takes ${LIMIT} or more off the logit `, bar,
          ` adds ${LIMIT} or more`))),
    make("div", { className: "buttons" }, button("Reset", () => {
      forget();
      shown = all();
      fill.value = "black";
      size.value = "10";
      seed = 0;
      task.reset();
      ask();
    })),
    more("More settings", chosen,
      button("Hide or show this part", () => toggle(chosen.value))),
    status, task);
  draw();
});

function verdict(logit) {
  const span = make("span", { className: "verdict" }, logit > 0 ? "tank" : "no tank");
  span.dataset.yes = logit > 0;
  return span;
}

const meanOf = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const percent = (part) => `${Math.round(100 * part)}\u00a0%`;

// The share of a part that lies on a mask.
function shareOf(mask, segments, part) {
  let size = 0, inside = 0;
  segments.forEach((k, i) => {
    size += k === part;
    inside += k === part && mask[i];
  });
  return inside / size;
}

// A pixel of each part near its middle, as [row, column].
function centresOf(segments, count) {
  const of = Array.from({ length: count }, () => []);
  segments.forEach((k, i) => of[k].push([Math.floor(i / 64), i % 64]));
  return of.map((places) => {
    const [y, x] = [0, 1].map((axis) => places.reduce((sum, p) => sum + p[axis], 0) / places.length);
    return places.reduce((a, b) => (Math.hypot(a[0] - y, a[1] - x) <= Math.hypot(b[0] - y, b[1] - x) ? a : b));
  });
}

// The nearest part in the direction of an arrow key: those straight ahead first.
function nextPart(centres, part, down, right) {
  const [y, x] = centres[part];
  const cost = ([row, column], k) => {
    const ahead = (row - y) * down + (column - x) * right;
    const aside = Math.abs((row - y) * right) + Math.abs((column - x) * down);
    return k === part || ahead <= aside / 2 ? Infinity : ahead + 2 * aside;
  };
  const costs = centres.map(cost), least = Math.min(...costs);
  return least === Infinity ? part : costs.indexOf(least);
}

// White borders between the parts; the one that the keys have reached has a yellow one.
function drawBorders(canvas, segments, part) {
  const context = canvas.getContext("2d"), scale = canvas.width / 64;
  for (const [colour, width, only] of [["#fff8", 1, -1], ["#000", 7, part], ["#ffd500", 4, part]]) {
    if (width > 1 && part < 0) continue;
    context.beginPath();
    segments.forEach((k, i) => {
      const y = Math.floor(i / 64), x = i % 64;
      const parts = (other) => k !== other && (only < 0 || k === only || other === only);
      if (x < 63 && parts(segments[i + 1])) {
        context.moveTo((x + 1) * scale, y * scale);
        context.lineTo((x + 1) * scale, (y + 1) * scale);
      }
      if (y < 63 && parts(segments[i + 64])) {
        context.moveTo(x * scale, (y + 1) * scale);
        context.lineTo((x + 1) * scale, (y + 1) * scale);
      }
    });
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }
}
