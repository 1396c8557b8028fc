// Walk the path: from a baseline to the picture, where does the score come from?

import {
  alongTheWay, button, choose, challenge, drawImage, drawMap, drawOutline, explorable, fixed, gradientOf,
  integrate, load, make, makeCanvas, makeNetwork, makePlot, massInside, more, oncePerFrame, pick,
  play, readRectangle, share, slide, statusLine,
} from "./core/index.js";

const SHAPE = [64, 64, 3];
const BASELINES = { black: 0, grey: 0.5, white: 1 };

explorable("path", async (live, root) => {
  const [file, weights] = await Promise.all(["rectangles", "squares"].map(load));
  const network = makeNetwork(weights);
  const pictures = file.map(readRectangle);
  const score = (image) => network.forward(image)[0];
  // `steps` holds what each step of the way has given: its slope, and the map up to there.
  let picture, baseline, start, end, steps, stop = () => {}, stopWalk = () => {};

  // -- What the reader can move

  const show = oncePerFrame(draw);
  const from = choose("Baseline", { black: "black", grey: "grey", white: "white" }, begin);
  const way = slide("Way", { min: 0, max: 100, show: (n) => `${n}\u00a0%` }, () => {
    stopWalk();
    show();
  });
  const which = pick("Picture", { 0: "first", 1: "second", 2: "third", 3: "fourth" }, begin);
  const fineness = pick("Steps", { 8: "8", 16: "16", 64: "64", 256: "256" }, begin);
  fineness.value = "64";
  const status = statusLine();
  const task = challenge("The network goes by the rectangle. Find a baseline from which the map " +
    "of the whole way finds nothing of it.");
  const point = makeCanvas(SHAPE, ""), map = makeCanvas(SHAPE, "");
  const answer = make("p", { className: "answer" }), sums = make("p", { className: "answer" });
  const plot = makePlot(""), plotted = make("p", { className: "hint" });

  function begin() {
    stop();
    stopWalk();
    picture = pictures[which.value];
    baseline = new Float32Array(picture.image.length).fill(BASELINES[from.value]);
    [start, end] = [baseline, picture.image].map(score);
    steps = [];
    const count = Number(fineness.value);
    stop = play(takeSteps(count), count, 1, show, show);
    show();
  }

  function* takeSteps(count) {
    for (const { alpha, slope, map } of integrate(network, picture.image, 0, baseline, count)) {
      steps.push({ alpha, slope, map: Float32Array.from(map) });
      yield;
    }
  }

  function walk() {
    stopWalk();
    way.value = 0;
    function* stride() {
      for (let n = 0; n <= 100; n++) {
        way.value = n;
        yield;
      }
    }
    stopWalk = play(stride(), 100, 4000, draw, draw);
  }

  // -- What comes out

  function draw() {
    const alpha = way.value / 100, count = Number(fineness.value);
    const passed = steps.filter((step) => step.alpha <= alpha);
    const heat = passed.at(-1)?.map ?? new Float32Array(64 * 64);
    const here = alongTheWay(baseline, picture.image, alpha);
    const logit = score(here);
    const sum = heat.reduce((total, value) => total + value, 0);
    const inside = massInside(heat, picture.rectangle), complete = passed.length === count;
    const gap = Math.abs(sum - (end - start)) / Math.abs(end - start);
    drawImage(point, here, SHAPE);
    point.setAttribute("aria-label", `The picture after ${way.value} percent of the way.`);
    drawMap(map, heat, picture.image, SHAPE);
    drawOutline(map, picture.rectangle, SHAPE);
    map.setAttribute("aria-label", `The map so far, the rectangle outlined: ${mapSentence()}`);
    plot.draw(steps.map((step) => [step.alpha, step.slope]), alpha);
    const [low, high] = plot.range.map((value) => fixed(value, 0));
    plotted.textContent = `How fast the logit rises along the way, from ${low} to ${high}. ` +
      "The filled area is what the map adds up to.";
    plot.setAttribute("aria-label", `The slope of the logit along the way, from ${low} to ${high}.`);
    const change = logit - start;
    answer.replaceChildren(`logit ${fixed(logit, 2)}, changed by `, make("b", {}, fixed(change, 2)));
    sums.replaceChildren("adds up to ", make("b", {}, fixed(sum, 2)));
    if (steps.length === count) task.check(complete && inside === 0, "the rectangle is as grey as this " +
      "baseline, so its pixels never change on the way. What does not change gets nothing, though the " +
      "answer hangs on it.");
    root.result = { picture: Number(which.value), baseline: from.value, steps: count, alpha, logit,
      slopes: steps.map(({ slope }) => slope), map: heat, sum, gap, inside, complete };
    status.say(complete
      ? `The whole way from ${from.value}, in ${count} steps: the map adds up to ` +
        `${fixed(sum, 2)}, the logit has changed by ${fixed(change, 2)}: a gap of ` +
        `${(100 * gap).toFixed(1)}\u00a0%. ${mapSentence()}`
      : alpha ? `After ${way.value}\u00a0% of the way from ${from.value} the logit has changed by ` +
        `${fixed(change, 2)}, and the map adds up to ${fixed(sum, 2)}.`
        : `All ${from.value}, and the logit is ${fixed(logit, 2)}. Move the slider, or walk.`);

    function mapSentence() {
      if (heat.every((value) => !value)) return "It is empty.";
      return `${Math.round(100 * inside)}\u00a0% of its red lies on the rectangle, ` +
        `which is ${Math.round(100 * share(picture.rectangle))}\u00a0% of the picture.`;
    }
  }

  const bar = make("span", { className: "bar" });
  bar.style.background = gradientOf("signed");
  live.append(
    make("p", { className: "question" },
      "On the way from nothing to the picture, where does the score come from?"),
    make("p", {}, "A network looks for grey rectangles in coloured noise; its score, the logit, is above 0 " +
      "where it finds one. The picture grows out of a plain one, the baseline, and the logit changes on " +
      "the way. Each pixel gets its part of that change: this is the map."),
    make("div", { className: "controls" }, from, button("Walk", walk)), way,
    make("div", { className: "pair" },
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "On the way")), answer, point),
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "The map so far")), sums, map),
      make("p", { className: "legend" }, "lowers the logit ", bar, " raises it")),
    plot, plotted,
    make("div", { className: "buttons" }, button("Reset", () => {
      from.value = "black";
      which.value = "0";
      fineness.value = "64";
      way.value = 0;
      task.reset();
      begin();
    })),
    more("More settings", which, fineness), status, task);
  begin();
  draw();
});
