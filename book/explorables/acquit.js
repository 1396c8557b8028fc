// Acquit the guilty: how far does an occlusion map depend on what covers, and how much of it?

import {
  button, challenge, choose, collectDrops, cover, drawImage, drawMap, drawOutline, explorable, fixed,
  gradientOf, largestOf, load, make, makeCanvas, makeNetwork, massInside, more, occlusionMap,
  oncePerFrame, patchPlaces, pick, play, readScene, share, statusLine,
} from "./core/index.js";

const SHAPE = [64, 64, 3];

explorable("acquit", async (live, root) => {
  const [scenes, weights] = await Promise.all(["scenes", "scenes_confounded"].map(load));
  const all = scenes.map(readScene).filter(({ hasTank }) => hasTank);
  const network = makeNetwork(weights);
  const score = (image) => network.forward(image)[0];
  let scene, image, colour, drops, complete, scale, stop = () => {};

  // -- What the reader can move

  const patch = choose("Patch", { 4: "4 × 4", 8: "8 × 8", 16: "16 × 16", 32: "32 × 32" }, begin, "8");
  const fill = choose("Cover with",
    { black: "black", grey: "grey", white: "white", mean: "the scene's mean colour" }, begin);
  const overlap = choose("Patches", { 1: "side by side", 2: "overlapping by half" }, begin);
  const which = pick("Scene", { 0: "first", 1: "second", 2: "third", 3: "fourth" }, takeScene);
  const status = statusLine();
  const task = challenge("Acquit it: find a patch and a colour for which the sky gets no more of " +
    "the red than its share of the area.");
  const show = oncePerFrame(draw);
  const picture = makeCanvas(SHAPE, ""), map = makeCanvas(SHAPE, "");
  const caption = make("p", { className: "hint" }), legend = make("p", { className: "legend" });
  const bar = make("span", { className: "bar" });
  bar.style.background = gradientOf("signed");

  // All maps of a scene have the scale of the chapter's, so that a fainter one looks it.
  function takeScene() {
    scene = all[which.value];
    image = scene.cloudy;
    scale = largestOf(occlusionMap(score, image, SHAPE, { patch: 8, fill: [0, 0, 0] }));
    begin();
  }

  function begin() {
    stop();
    colour = { black: [0, 0, 0], grey: [0.5, 0.5, 0.5], white: [1, 1, 1], mean: meanOf(image) }[fill.value];
    drops = collectDrops(SHAPE);
    complete = false;
    const size = Number(patch.value), stride = size / Number(overlap.value);
    const places = patchPlaces(SHAPE, size, stride);
    stop = play(sweep(places, size), places.length, 600, show, () => {
      complete = true;
      show();
    });
  }

  function* sweep(places, size) {
    const whole = score(image);
    for (const place of places) {
      drops.add(place, size, whole - score(cover(image, SHAPE, place, size, colour)));
      yield;
    }
  }

  // -- What comes out

  function draw() {
    const heat = drops.map(), size = Number(patch.value), middle = (64 - size) / 2;
    const largest = Math.max(...heat), sky = massInside(heat, scene.sky), area = share(scene.sky);
    drawImage(picture, cover(image, SHAPE, [8, middle], size, colour), SHAPE);
    picture.setAttribute("aria-label", `The scene, a tank under clouds, with a ${fill.value} patch ` +
      `of ${size} by ${size} pixels.`);
    drawMap(map, heat, image, SHAPE, { limit: scale });
    drawOutline(map, scene.sky, SHAPE);
    drawOutline(map, scene.tank, SHAPE);
    const acquitted = complete && sky <= area;
    caption.textContent = `${percent(sky)} of the red lies on the sky, which is ${percent(area)} of ` +
      `the area. The largest drop is ${fixed(largest, 2)} of a logit of ${fixed(score(image), 1)}.`;
    map.setAttribute("aria-label", `The map, sky and tank outlined. ${caption.textContent}`);
    if (complete) task.check(acquitted, "the same network on the same scene, and its map no longer accuses " +
      `the sky (${percent(sky)}). Only the question was another: what covers, and how much of it.`);
    root.result = { scene: Number(which.value), patch: size, stride: size / Number(overlap.value),
      fill: fill.value, map: heat, sky, area, complete };
    legend.replaceChildren(`covered, the logit rises by ${scale.toFixed(1)} or more `, bar,
      ` falls by ${scale.toFixed(1)} or more`);
    const colourName = fill.value === "mean" ? "the mean colour" : fill.value;
    status.say(complete ? `Covered with ${colourName}, ${size} by ${size} pixels: ${caption.textContent} ` +
      `${acquitted ? "Not guilty, by this map." : "Guilty, by this map."}` : "The patch goes over the scene.");
  }

  live.append(
    make("p", { className: "question" },
      "This network goes by the sky. Does its map always say so?"),
    make("p", {}, "It gives the scene a number, the logit, and says tank where it is above 0. A patch covers " +
      "the scene place by place; the map is red where that lowers the logit."),
    make("div", { className: "controls" }, patch, fill),
    make("div", { className: "pair" },
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "The scene, and one patch")), picture),
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "The map")), map),
      legend),
    caption,
    make("div", { className: "buttons" }, button("Reset", () => {
      patch.value = "8";
      fill.value = "black";
      overlap.value = "1";
      which.value = "0";
      task.reset();
      takeScene();
    })),
    more("More settings", overlap, which), status, task);
  takeScene();
  draw();
});

function meanOf(image) {
  const sums = [0, 0, 0];
  image.forEach((value, i) => (sums[i % 3] += value));
  return sums.map((sum) => (3 * sum) / image.length);
}

const percent = (part) => `${Math.round(100 * part)}\u00a0%`;
