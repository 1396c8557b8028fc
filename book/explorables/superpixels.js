// Superpixels on and off: which parts does the answer need, and what does LIME's line make of them?

import {
  button, challenge, choose, drawImage, drawMap, drawOutline, explorable, fitLine, gradientOf, load,
  make, makeCanvas, makeNetwork, mask, massInside, meanColours, more, oncePerFrame, pick, pixels,
  play, randomNumbers, showParts, slide, stage, statusLine, bytesOf,
} from "./core/index.js";

const SHAPE = [64, 64, 3];

explorable("superpixels", async (live, root) => {
  const [file, weights] = await Promise.all(["superpixels", "scenes_fair"].map(load));
  const network = makeNetwork(weights);
  const image = pixels(file.image), tank = mask(file.tank), segments = bytesOf(file.segments);
  const count = Math.max(...segments) + 1;
  const fills = { black: new Float32Array(image.length), mean: meanColours(image, segments) };
  const centres = centresOf(segments, count);
  const all = () => new Uint8Array(count).fill(1);
  const whole = network.forward(image)[0];
  let shown = all(), part = 0, logit = whole, seed = 0, earlier, lime, stop = () => {};
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
    stop = play(sample(randomNumbers(seed)), Number(size.value), 2000, fit, () => fit(true));
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
    drawImage(canvas, showParts(image, fills[fill.value], segments, shown), SHAPE);
    drawBorders(canvas, segments, document.activeElement === canvas ? part : -1);
    const hidden = count - shown.reduce((sum, one) => sum + one, 0);
    answer.replaceChildren(verdict(logit), ` logit ${logit.toFixed(1)}`);
    drawMap(map, Float32Array.from(segments, (k) => lime?.weights[k] ?? 0), image, SHAPE);
    drawOutline(map, tank, SHAPE);
    caption.textContent = lime ? limeSentence() : "Draw masks, and each part gets a weight: what " +
      "showing it adds to the logit, on average over what else is shown.";
    map.setAttribute("aria-label", `LIME's weights over the scene, the tank outlined. ${caption.textContent}`);
    if (logit < 0 && hidden <= 2) {
      const onTank = [...shown.keys()].filter((k) => !shown[k] && tank[centres[k][0] * 64 + centres[k][1]]);
      task.solve(`No tank, with ${hidden} of ${count} parts hidden. ` + (onTank.length < hidden
        ? "And one of them is not on the tank: a black part is a new thing in the picture." : ""));
    }
    root.result = {
      logit, shown: [...shown], fill: fill.value, rows: drawn.rows, complete: !!lime?.complete,
      weights: lime?.weights, intercept: lime?.intercept, r2: lime?.r2,
    };
    status.say(`${hidden} of ${count} parts hidden: ${logit > 0 ? "tank" : "no tank"}, logit ` +
      `${logit.toFixed(1)}${hidden ? `, ${(whole - logit).toFixed(1)} lower than with all shown` : ""}.` +
      (lime ? ` ${limeSentence()}` : ""));
  }

  function limeSentence() {
    const heat = Float32Array.from(segments, (k) => lime.weights[k]);
    const inside = Math.round(100 * massInside(heat, tank));
    const moved = earlier && lime.complete ? ` With another seed a weight moved by ${
      rootMeanSquare(lime.weights.map((w, i) => w - earlier.weights[i])).toFixed(1)}.` : "";
    const few = drawn.rows.length <= count
      ? ` (${drawn.rows.length} samples for ${count} weights: a perfect fit that means nothing)` : "";
    return `After ${drawn.rows.length} masks: R² ${lime.r2.toFixed(2)}${few || " (1 would be a perfect fit)"}, ${inside}\u00a0% of ` +
      `the positive weight on the tank.${moved}`;
  }

  const bar = make("span", { className: "bar" });
  bar.style.background = gradientOf("signed");
  live.append(
    make("p", { className: "question" }, "Which parts does the answer need?"),
    make("p", {}, "A network looks for a tank. Its score, the logit, is above 0 where it says tank. Hide " +
      "parts, and see what the score loses. LIME does so at random, many times, and gives each part a weight."),
    make("div", { className: "columns" },
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "Click parts away")), answer, canvas,
        make("p", { className: "hint" },
          "Click or tap a part to hide it or show it. Keys: arrows, and Space.")),
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "Or hide half of them, many times")),
        make("div", { className: "controls" }, size, button("Draw", drawMasks)), map, caption,
        make("p", { className: "legend" }, "against a tank ", bar, " for a tank"))),
    make("div", { className: "buttons" }, button("Reset", () => {
      forget();
      shown = all();
      fill.value = "black";
      size.value = "10";
      seed = 0;
      task.reset();
      ask();
    })),
    more("More settings", fill, chosen,
      button("Hide or show this part", () => toggle(chosen.value))),
    status, task);
  draw();
});

function verdict(logit) {
  const span = make("span", { className: "verdict" }, logit > 0 ? "tank" : "no tank");
  span.dataset.yes = logit > 0;
  return span;
}

const rootMeanSquare = (values) =>
  Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);

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
