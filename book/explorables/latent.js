// Walk the latent plane: what does the generator draw, and what does the classifier call it?

import {
  an, button, challenge, clamp, climbLatent, dot, drawImage, explorable, fixed, length, load, make, makeCanvas,
  makeChain, makeNetwork, more, oncePerFrame, pick, planeThrough, play, slide, softmax, stage,
  statusLine,
} from "./core/index.js";

const DIGIT = [28, 28, 1], CELLS = 32, SCALE = 12;
const REACH = 8, STEP = (2 * REACH) / CELLS / SCALE; // of the plane from its middle, of its pixels
// The typical length of a latent vector of 12 numbers, and the one that 99 of 100 do not exceed.
const TYPICAL = Math.sqrt(12), NINETY_NINE = 5.12;
const channelsOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442",
  "#7a5195", "#8c6d46", "#9a9a9a"].map(channelsOf);

explorable("latent", async (live, root) => {
  const [generatorFile, judgeFile] = await Promise.all(["generator", "judge"].map(load));
  const generator = makeNetwork(generatorFile);
  let chain = makeChain(generator, makeNetwork(judgeFile)), who = "small network";
  let plane, best, cells, point = [0, 0], path = [], ended, stop = () => {}, filling = 0, filled = 0;

  // -- What the reader can move

  const digits = Object.fromEntries([..."0123456789"].map((d) => [d, d]));
  const east = pick("A plane through the best", digits, begin);
  const north = pick("and the best", digits, begin);
  const price = make("input", { type: "checkbox", checked: true, onchange: begin });
  const steps = slide("Steps", { min: 8, max: 64, step: 8, value: 64 }, begin);
  const along = { min: -REACH, max: REACH, step: 0.25, value: 0, show: (n) => fixed(n, 2) };
  const right = slide("Right", along, (u) => moveTo(u, point[1]));
  const up = slide("Up", along, (v) => moveTo(point[0], v));
  const go = button("", climb);
  const fetched = button("Ask the chapter's network (fetches 2.4 MB)", fetchNetwork);
  const status = statusLine();
  const task = challenge("Beyond the outer ring there is hardly a vector that the generator was made for. " +
    "Find a place out there of which the classifier is at least 99 % sure.");
  const show = oncePerFrame(draw);
  const canvas = stage(makeCanvas([CELLS, CELLS], "", SCALE), [CELLS * SCALE, CELLS * SCALE], {
    label: "The plane. Arrow keys move by a quarter, with Shift by one.",
    onPoint: (y, x) => moveTo(x * STEP - REACH, REACH - y * STEP),
    onKey(down, across, { shiftKey }) {
      if (!down && !across) return false;
      const step = shiftKey ? 1 : 0.25;
      moveTo(point[0] + step * across, point[1] - step * down);
    },
  });
  const picture = makeCanvas(DIGIT, "", 10), found = makeCanvas(DIGIT, "", 10);
  const answer = make("p", { className: "answer" }), where = make("p", { className: "hint" });
  const end = make("p", { className: "hint" }), asked = make("p", { className: "hint" });

  async function fetchNetwork() {
    fetched.disabled = true;
    try {
      chain = makeChain(generator, makeNetwork(await load("digits")));
    } catch {
      status.say("The digit network could not be loaded.");
      fetched.disabled = false;
      return;
    }
    who = "chapter's network";
    fetched.hidden = true;
    begin();
  }

  // The plane holds 0 and the ends of two climbs from there.
  function begin() {
    stop();
    for (const [list, other] of [[east, north], [north, east]]) // two of a kind span no plane
      for (const option of list.querySelectorAll("option")) option.disabled = option.value === other.value;
    best = [east, north].map((which) => [...way(Number(which.value), new Float32Array(12))].at(-1));
    plane = planeThrough(...best);
    path = [];
    ended = undefined;
    cells = Array(CELLS * CELLS).fill(undefined);
    cancelAnimationFrame(filling);
    fill(everyCell());
    go.textContent = `Climb from here to ${an(east.value)}`;
    asked.textContent = `Colours and figures: what a ${who} calls the drawings. ` + (who === "small network"
      ? "It is the second one of chapter 13, with 18,378 weights; the chapter's has 1,199,882." : "");
    show();
  }

  function way(target, start) {
    return climbLatent(chain, target, start, { steps: steps.value, l2: price.checked ? 0.5 : 0 });
  }

  const at = ([u, v]) => Float32Array.from(plane[0], (value, i) => u * value + v * plane[1][i]);

  // The classifier's answer in each cell, coarse at first.
  function* everyCell() {
    for (const size of [8, 4, 2, 1])
      for (let y = 0; y < CELLS; y += size)
        for (let x = 0; x < CELLS; x += size) {
          if (size < 8 && y % (2 * size) === 0 && x % (2 * size) === 0) continue;
          const middle = (n) => (n + 0.5) * SCALE * STEP - REACH;
          const parts = softmax(chain.ask(at([middle(x), -middle(y)])));
          const top = parts.indexOf(Math.max(...parts)), cell = { top, p: parts[top] };
          for (let row = y; row < y + size; row++)
            cells.fill(cell, row * CELLS + x, row * CELLS + x + size);
          yield;
        }
  }

  function fill(steps) {
    const pause = performance.now() + 12;
    let done;
    while (!done && performance.now() < pause) ({ done } = steps.next());
    paint();
    filled = cells.filter(Boolean).length;
    if (!done) filling = requestAnimationFrame(() => fill(steps));
  }

  function moveTo(u, v) {
    stop();
    point = [u, v].map((n) => clamp(n, -REACH, REACH));
    [right.value, up.value] = point;
    show();
  }

  function climb() {
    stop();
    path = [at(point)];
    ended = undefined;
    stop = play(follow(way(Number(east.value), path[0])), steps.value, 1200, draw, () => {
      const z = path.at(-1), [u, v] = plane.map((direction) => dot(z, direction));
      ended = { z: Array.from(z), length: length(z), logit: chain.ask(z)[east.value],
        off: Math.sqrt(Math.max(0, length(z) ** 2 - u * u - v * v)),
        apart: length(z.map((value, i) => value - best[0][i])) };
      draw();
    });
  }

  function* follow(steps) {
    for (const z of steps) {
      path.push(z);
      yield;
    }
  }

  // -- What comes out

  function draw() {
    const z = at(point), image = chain.draw(z), logits = chain.ask(z).slice(), parts = softmax(logits);
    const top = parts.indexOf(Math.max(...parts)), far = length(z);
    paint();
    drawImage(picture, image, DIGIT);
    picture.setAttribute("aria-label", `What the generator draws there; the classifier calls it ${an(top)}.`);
    answer.replaceChildren(make("b", {}, an(top)),
      `, probability ${parts[top].toFixed(2)}, logit ${fixed(logits[top], 1)}`);
    where.textContent = `Length of the latent vector ${far.toFixed(1)}.`;
    const last = path.at(-1) ?? best[0], from = path.length ? "from your place" : "from the middle";
    drawImage(found, chain.draw(last), DIGIT);
    found.setAttribute("aria-label", `What the generator draws where the climb to ${an(east.value)} ends.`);
    end.textContent = `Climb to ${an(east.value)} ${from}: length ${length(last).toFixed(1)}, ` +
      `logit ${fixed(chain.ask(last)[east.value], 1)}.`;
    task.check(far > NINETY_NINE && parts[top] >= 0.99, `length ${far.toFixed(1)}, where 99 of 100 ` +
      `latent vectors are shorter than ${NINETY_NINE.toFixed(1)}, and ${an(top)} with probability ` +
      `${parts[top].toFixed(2)}: the classifier does not know where the generator's knowledge ends.`);
    root.result = { point, z, image, logits, best: best.map((one) => Array.from(one)), ended,
      classifier: who, get filled() { return filled; } };
    status.say(sentence(top, parts[top], far));
  }

  function sentence(top, p, far) {
    const ring = far < TYPICAL ? "inside the inner ring"
      : far < NINETY_NINE ? "between the rings" : "beyond the outer ring";
    const climbed = ended ? ` The climb ended at the red star, z*: length ${ended.length.toFixed(1)}, with a logit of ` +
      `${fixed(ended.logit, 1)} for ${an(east.value)}, ${ended.off.toFixed(1)} off this plane and ` +
      `${ended.apart.toFixed(1)} from where the one from the middle ends.` : "";
    return `Right ${fixed(point[0], 1)}, up ${fixed(point[1], 1)}, ${ring}: the classifier sees ${an(top)}, ` +
      `probability ${p.toFixed(2)}.${climbed}`;
  }

  function paint() {
    const context = canvas.getContext("2d");
    const place = ([u, v]) => [(u + REACH) / STEP, (REACH - v) / STEP];
    const onPlane = (z) => place(plane.map((direction) => dot(z, direction)));
    cells.forEach((cell, i) => {
      const share = cell ? cell.p ** 2 * 0.85 : 0;
      const mixed = cell ? COLOURS[cell.top].map((c) => 255 - share * (255 - c)) : [240, 240, 240];
      context.fillStyle = `rgb(${mixed})`;
      context.fillRect((i % CELLS) * SCALE, Math.floor(i / CELLS) * SCALE, SCALE, SCALE);
    });
    context.font = "bold 15px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let y = 2; y < CELLS; y += 4)
      for (let x = 2; x < CELLS; x += 4) {
        const cell = cells[y * CELLS + x];
        if (cell) write(context, cell.top, x * SCALE, y * SCALE, "#333");
      }
    for (const [radius, dash] of [[TYPICAL, []], [NINETY_NINE, [6, 4]]]) {
      context.setLineDash(dash);
      outline(context, 3, 1.2, () => context.arc(...place([0, 0]), radius / STEP, 0, 7));
    }
    context.setLineDash([]);
    if (path.length) outline(context, 5, 2.5, () => path.forEach((z) => context.lineTo(...onPlane(z))));
    context.font = "bold 26px system-ui, sans-serif";
    best.forEach((z) => write(context, "★", ...onPlane(z), "#000"));
    if (ended) write(context, "★", ...onPlane(ended.z), "#b2182b");
    const [x, y] = place(point);
    outline(context, 5, 2.5, () => context.arc(x, y, 9, 0, 7));
  }

  live.append(
    make("p", { className: "question" },
      "What does a classifier call what a generator draws?"),
    make("p", {}, "A generator makes a picture of twelve numbers, the latent vector: each place of this plane " +
      "is one, and colour and digit are what a classifier calls its picture. A climb changes the vector " +
      "step by step, so that the classifier's score for a digit, the logit, rises."),
    make("div", { className: "controls" }, east, north),
    make("div", { className: "columns plane" },
      make("div", { className: "column" }, canvas,
        make("p", { className: "hint" }, "Point at the plane, drag, or use the arrow keys. Solid " +
          "ring: the typical length of a latent vector; dashed: 99 of 100 are shorter. Stars: " +
          "where a climb from the middle ends; red: where yours does.")),
      make("div", { className: "pair" },
        make("div", { className: "column" }, make("p", { className: "title" }, make("b", {}, "Drawn here")),
          picture, answer, where),
        make("div", { className: "column" },
          make("p", { className: "title" }, make("b", {}, "Where the climb ends")), found, end))),
    make("div", { className: "buttons" }, go, button("Reset", reset)),
    asked,
    more("More settings", make("label", { className: "check" }, price, "length has a price"),
      make("p", { className: "hint" }, "With a price, a climb's score is lowered by half the square of the vector's length."),
      steps, right, up, fetched), status, task);

  function reset() {
    east.value = "3";
    north.value = "8";
    price.checked = true;
    steps.value = 64;
    point = [0, 0];
    [right.value, up.value] = point;
    task.reset();
    begin();
  }
  reset();
  draw();
});

// Something in white on black, so that it is seen on any colour.
function outline(context, wide, narrow, trace) {
  for (const [style, width] of [["#000", wide], ["#fff", narrow]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.beginPath();
    trace();
    context.stroke();
  }
}

function write(context, text, x, y, colour) {
  context.lineJoin = "round";
  context.lineWidth = 4;
  context.strokeStyle = "rgba(255, 255, 255, 0.85)";
  context.strokeText(text, x, y);
  context.fillStyle = colour;
  context.fillText(text, x, y);
}
