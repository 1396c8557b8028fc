// Walk the path: from a baseline to the picture, where does the score come from?

import {
  alongTheWay, button, choose, challenge, drawImage, drawMap, drawOutline, explorable, fixed, gradientOf,
  integrate, largestOf, load, make, makeCanvas, makeNetwork, makePlot, massInside, more, oncePerFrame, pick,
  play, readRectangle, share, slide, statusLine,
} from "./core/index.js";

const SHAPE = [64, 64, 3];
const BASELINES = { black: 0, grey: 0.5, white: 1 };

explorable("path", async (live, root) => {
  const [file, weights] = await Promise.all(["rectangles", "squares"].map(load));
  const network = makeNetwork(weights);
  const pictures = file.map(readRectangle);
  const score = (image) => network.forward(image)[0];
  // `steps` holds what each step of the way has given: its slope, and the map up to there; `most`
  // is the largest value of all these maps, so that one scale does for the whole way.
  let picture, baseline, start, end, steps, most, stop = () => {}, stopWalk = () => {};

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
  const task = challenge("The network goes by the rectangle. Find a baseline from which the whole way " +
    "leaves nothing on it.");
  const point = makeCanvas(SHAPE, ""), map = makeCanvas(SHAPE, "");
  const answer = make("p", { className: "answer" }), sums = make("p", { className: "answer" });
  const plot = makePlot(""), plotted = make("p", { className: "hint" });
  const legend = make("p", { className: "legend" }), bar = make("span", { className: "bar" });
  bar.style.background = gradientOf("signed");

  function begin() {
    stop();
    stopWalk();
    picture = pictures[which.value];
    baseline = new Float32Array(picture.image.length).fill(BASELINES[from.value]);
    [start, end] = [baseline, picture.image].map(score);
    steps = [];
    most = 0;
    const count = Number(fineness.value);
    stop = play(takeSteps(count), count, 1, show, show);
    show();
  }

  function* takeSteps(count) {
    for (const { alpha, slope, map } of integrate(network, picture.image, 0, baseline, count)) {
      steps.push({ alpha, slope, map: Float32Array.from(map) });
      most = Math.max(most, largestOf(map));
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
    drawMap(map, heat, picture.image, SHAPE, { limit: most });
    legend.replaceChildren(`each pixel: lowers the logit by ${most.toFixed(2)} `, bar,
      ` raises it by ${most.toFixed(2)}`);
    drawOutline(map, picture.rectangle, SHAPE);
    map.setAttribute("aria-label", `The map so far, the rectangle outlined: ${mapSentence()}`);
    const curve = steps.map((step) => [step.alpha, step.slope]);
    if (curve.length) curve.unshift([0, curve[0][1]]); // a slope holds for its whole step
    if (steps.length === count) curve.push([1, curve.at(-1)[1]]);
    plot.draw(curve, alpha);
    const [low, high] = plot.range.map((value) => fixed(value, 0));
    plotted.textContent = `How fast the logit rises at each point of the way, from ${low} to ${high}. ` +
      "Speed times way is gain: the filled area is what the pixels of the map share.";
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
      ? `The whole way from ${from.value}: the logit has changed by ${fixed(change, 2)}, and the pixels of ` +
        `the map add up to ${fixed(sum, 2)} (with ${count} steps a gap of ${(100 * gap).toFixed(1)}\u00a0%). ` +
        mapSentence()
      : alpha ? `After ${way.value}\u00a0% of the way from ${from.value} the logit has changed by ` +
        `${fixed(change, 2)}, and the map adds up to ${fixed(sum, 2)}.`
        : `All ${from.value}, and the logit is ${fixed(logit, 2)}. Move the slider, or walk.`);

    function mapSentence() {
      if (heat.every((value) => !value)) return "It is empty.";
      return `${Math.round(100 * inside)}\u00a0% of the map's red lies on the rectangle, ` +
        `which is ${Math.round(100 * share(picture.rectangle))}\u00a0% of the picture.`;
    }
  }

  live.append(
    make("p", { className: "question" },
      "As a blank picture turns into this one, which pixels bring the score?"),
    make("p", {}, "A network looks for grey rectangles in coloured noise; its score, the logit, is above 0 " +
      "where it finds one. Walk to the picture from a blank one, the baseline: at each step the map gives " +
      "every pixel what its own change did to the logit."),
    make("div", { className: "controls" }, from, button("Walk", walk)), way,
    make("div", { className: "pair" },
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "On the way")), answer, point),
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "The map so far")), sums, map),
      legend),
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
