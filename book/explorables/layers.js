// Layers as maps: what does a layer group by, and what does the map invent?

import {
  button, bytesOf, challenge, choose, decode, drawMark, explorable, load, make, makeCanvas, play, slide,
  statusLine,
} from "./core/index.js";

const SIZE = 320;

explorable("layers", async (live, root) => {
  const file = await load("layers");
  const sentences = bytesOf(file.sentences), speakers = bytesOf(file.speakers);
  const count = sentences.length;
  let shown, reach, stop = () => {};

  // -- What the reader can move

  const what = choose("Map of", { trained: "the trained network", untrained: "an untrained one",
    noise: "pure noise" }, show);
  const layer = slide("Layer", { min: 1, max: 8, value: 1 }, show);
  const perplexity = choose("Perplexity", { 2: "2", 30: "30" }, show, "30");
  const status = statusLine();
  const task = challenge("Make a map that shows groups where there are none.");
  const maps = [
    { name: "speaker", labels: speakers, across: sentences, chance: 1 / 6 },
    { name: "sentence", labels: sentences, across: speakers, chance: 1 / 10 },
  ];
  for (const map of maps) {
    map.canvas = makeCanvas([SIZE, SIZE], "", 2);
    map.caption = make("p", { className: "hint" });
  }

  // -- What comes out

  function show() {
    stop();
    const noise = what.value === "noise", from = file.maps[what.value][noise ? 0 : layer.value - 1];
    layer.querySelector("input").disabled = noise;
    const points = decode(from.maps[perplexity.value]), start = shown ?? points;
    const near = nearestOverMean(points);
    const found = maps.map(({ labels, across }) => purity(points, labels, across));
    const begun = reach ?? largest(points);
    shown = start; // the first picture may come before the first step: clocks are coarse
    reach = begun;
    stop = play((function* () {
      for (let step = 1; step <= 20; step++) {
        const part = (1 - Math.cos((Math.PI * step) / 20)) / 2;
        shown = points.map((to, i) => start[i] + part * (to - start[i]));
        reach = begun + part * (largest(points) - begun);
        yield;
      }
    })(), 20, 500, draw, draw);
    maps.forEach((map, i) => {
      map.caption.textContent = noise ? `The colours mean nothing here: noise has no ${map.name}s.`
        : `On the map ${percent(found[i])} of the nearest neighbours have the same ${map.name}, ` +
          `in the layer itself ${percent(from.purity[1 - i])}; chance is ${percent(map.chance)}.`;
      map.canvas.setAttribute("aria-label",
        `Map of 120 points, coloured by ${map.name}. ${map.caption.textContent}`);
    });
    task.check(noise && perplexity.value === "2", "in the noise itself the nearest point lies at " +
      `${from.near.toFixed(2)} of the mean distance, so there is no group at all. On the map it lies ` +
      `at ${near.toFixed(2)}.`);
    root.result = { what: what.value, layer: layer.value, perplexity: Number(perplexity.value),
      points, purity: [found[1], found[0]], near, features: from };
    status.say(noise
      ? `Pure noise, perplexity ${perplexity.value}: on the map the nearest point lies at ` +
        `${near.toFixed(2)} of the mean distance, in the noise itself at ${from.near.toFixed(2)}.`
      : `Layer ${layer.value} of ${what.value === "trained" ? "the trained" : "an untrained"} network, ` +
        `perplexity ${perplexity.value}: of the nearest neighbours on the map ${percent(found[0])} are the same speaker's ` +
        `(another sentence), ${percent(found[1])} the same sentence (another speaker).`);
  }

  function draw() {
    for (const { canvas, labels } of maps) {
      const context = canvas.getContext("2d"), wide = canvas.width, scale = (0.46 * wide) / reach;
      context.fillStyle = "#fff";
      context.fillRect(0, 0, wide, wide);
      context.strokeStyle = "#222";
      for (let i = 0; i < count; i++)
        drawMark(context, labels[i], wide / 2 + scale * shown[2 * i], wide / 2 - scale * shown[2 * i + 1]);
    }
  }

  live.append(
    make("p", { className: "question" }, "Which groups does a layer make, and which only the map?"),
    make("p", {}, "Six speakers say ten sentences, in 120 clips, and a network turns each clip into many " +
      "numbers, layer by layer. A map by t-SNE puts those clips near each other whose numbers are; its " +
      "perplexity is about how many neighbours it heeds."),
    what, layer, perplexity,
    make("div", { className: "pair" }, ...maps.map(({ name, canvas, caption }) =>
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, `Coloured by ${name}`)), canvas, caption))),
    make("p", { className: "hint" }, "The maps were made beforehand with the package; each is turned to lie " +
      "on the one before it."),
    make("div", { className: "buttons" }, button("Reset", () => {
      what.value = "trained";
      layer.value = 1;
      perplexity.value = "30";
      task.reset();
      show();
    })), status, task);
  show();
});

// How often a point's nearest neighbour, among those that differ in `across`, bears its label.
function purity(points, labels, across) {
  let hits = 0;
  labels.forEach((label, i) => {
    let nearest = Infinity, where = i;
    labels.forEach((_, j) => {
      const d = distance(points, i, j);
      if (across[j] !== across[i] && d < nearest) [nearest, where] = [d, j];
    });
    hits += labels[where] === label;
  });
  return hits / labels.length;
}

function nearestOverMean(points) {
  const count = points.length / 2;
  let sum = 0, closest = 0;
  for (let i = 0; i < count; i++) {
    let nearest = Infinity;
    for (let j = 0; j < count; j++) {
      if (i === j) continue;
      const d = distance(points, i, j);
      sum += d;
      nearest = Math.min(nearest, d);
    }
    closest += nearest;
  }
  return closest / count / (sum / count / (count - 1));
}

const distance = (points, i, j) =>
  Math.hypot(points[2 * i] - points[2 * j], points[2 * i + 1] - points[2 * j + 1]);
const largest = (points) => points.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const percent = (part) => `${Math.round(100 * part)}\u00a0%`;
