// Move the explanation, keep the answer: how small a change of the picture moves its saliency map?

import {
  attack, button, challenge, choose, clamp, decode, drawFrame, drawImage, drawMap, drawOutline, explorable,
  fixed, gradientOf, largestOf, load, make, makeCanvas, makeNetwork, makeTwin, massInside, more,
  oncePerFrame, pick, play, readScene, saliencyMap, share, slide, stage, statusLine,
} from "./core/index.js";

const SHAPE = [64, 64, 3], SQUARE = 20;

explorable("attack", async (live, root) => {
  const names = ["scenes", "scenes_fair", "attack"];
  const [scenes, weights, start] = await Promise.all(names.map(load));
  const all = scenes.map(readScene).filter(({ hasTank }) => hasTank);
  const network = makeNetwork(weights), bend = makeTwin(network, weights);
  const noise = decode(start.noise);
  let scene, image, before, found, complete, corner = [8, 8], stop = () => {};

  // -- What the reader can move

  const bound = slide("Bound",
    { min: 0, max: 16, value: 0, show: (n) => `${n}\u2009/\u2009255` }, begin);
  const how = choose("Change", { searched: "searched for", random: "at random" }, begin);
  const goal = choose("Move the map", { away: "off the tank", square: "into the square" }, begin);
  const which = pick("Scene", { 0: "first", 1: "second", 2: "third", 3: "fourth" }, takeScene);
  const along = { min: 0, max: 64 - SQUARE, value: 8 };
  const row = slide("Row", along, (y) => moveTo([y, corner[1]]));
  const column = slide("Column", along, (x) => moveTo([corner[0], x]));
  const steps = slide("Steps", { min: 2, max: 60, value: 40 }, begin);
  const status = statusLine();
  const task = challenge("");
  const show = oncePerFrame(draw);
  const picture = stage(makeCanvas(SHAPE, ""), SHAPE, {
    hover: false,
    label: "The scene. Point where the map shall go; arrow keys move the square by 4 pixels.",
    onPoint: (y, x) => moveTo([y - SQUARE / 2, x - SQUARE / 2]),
    onKey(down, right) {
      if (!down && !right) return false;
      moveTo([corner[0] + 4 * down, corner[1] + 4 * right]);
    },
  });
  const changed = makeCanvas(SHAPE, ""), difference = makeCanvas(SHAPE, "");
  const maps = [makeCanvas(SHAPE, ""), makeCanvas(SHAPE, "")];
  const captions = maps.map(() => make("p", { className: "hint" }));
  const answers = maps.map(() => make("p", { className: "answer" }));

  function moveTo(to) {
    corner = to.map((n) => clamp(Math.round(n), 0, 64 - SQUARE));
    [row.value, column.value] = corner;
    goal.value = "square";
    begin();
  }

  function takeScene() {
    scene = all[which.value];
    image = scene.sunny;
    before = judge(image);
    task.reset(`On the tank lie ${finely(before.tank)} of the map. Bring that below ` +
      `${finely(before.tank / 2)}, with the logit within 0.05 of what it was.`);
    begin();
  }

  function begin() {
    stop();
    const epsilon = bound.value / 255;
    found = how.value === "random"
      ? image.map((value, i) => clamp(value + epsilon * Math.sign(noise[i]), 0, 1)) : image;
    complete = how.value === "random" || !epsilon;
    if (complete) return show();
    status.say("Searching.");
    const options = { region: region(), epsilon, noise, steps: steps.value };
    stop = play(follow(attack(network, bend, image, options)), steps.value + 1, 500, draw, () => {
      complete = true;
      draw();
    });
  }

  function* follow(search) {
    for (const best of search) {
      found = best.image;
      yield;
    }
  }

  // Where the map shall lie.
  function region() {
    const [top, left] = corner;
    return goal.value === "away" ? scene.tank.map((one) => 1 - one)
      : scene.tank.map((_, i) => Number(
        i >> 6 >= top && i >> 6 < top + SQUARE && i % 64 >= left && i % 64 < left + SQUARE));
  }

  // -- What comes out

  function judge(x) {
    const map = saliencyMap(network, x, 0), logit = network.layers.at(-1).output[0];
    return { map, logit, tank: massInside(map, scene.tank), square: massInside(map, region()) };
  }

  function draw() {
    const after = judge(found), limit = largestOf(before.map), square = goal.value === "square";
    before.square = massInside(before.map, region());
    const largest = found.reduce((most, value, i) => Math.max(most, Math.abs(value - image[i])), 0);
    drawImage(picture, image, SHAPE);
    if (square) drawFrame(picture, SHAPE, ...corner, SQUARE);
    drawImage(changed, found, SHAPE);
    changed.setAttribute("aria-label", `The scene, each value changed by at most ${bound.value}/255.`);
    drawImage(difference, found.map((value, i) => 0.5 + 8 * (value - image[i])), SHAPE);
    difference.setAttribute("aria-label", `What was changed, ${largest ? "coloured noise" : "nothing"}.`);
    [before, after].forEach((one, i) => {
      drawMap(maps[i], one.map, image, SHAPE, { table: "magnitude", limit });
      drawOutline(maps[i], scene.tank, SHAPE);
      if (square) drawFrame(maps[i], SHAPE, ...corner, SQUARE);
      captions[i].textContent = `${finely(one.tank)} of it on the tank` +
        (square ? `, ${percent(one.square)} in the square` : "") + ".";
      maps[i].setAttribute("aria-label",
        `Saliency map of the ${i ? "changed" : "first"} scene. ${captions[i].textContent}`);
      const span = make("span", { className: "verdict" }, word(one.logit));
      span.dataset.yes = one.logit > 0;
      answers[i].replaceChildren(span, ` logit ${fixed(one.logit, 2)}`);
    });
    const searched = how.value === "searched";
    const kept = Math.abs(after.logit - before.logit) <= 0.05;
    if (complete) task.check(searched && kept && after.tank < before.tank / 2,
      `with no value changed by more than ${bound.value}/255 and the logit held to 0.05, ` +
      `${finely(after.tank)} of the map lie on the tank instead of ${finely(before.tank)}.`);
    root.result = { scene: Number(which.value), bound: bound.value, change: how.value, goal: goal.value,
      corner, before, after, largest, image: found, complete };
    if (complete) status.say(sentence(after, searched, square));
  }

  function sentence(after, searched, square) {
    if (!bound.value) return `Nothing is changed. ${finely(before.tank)} of the map lie on the tank, ` +
      `which is ${percent(share(scene.tank))} of the picture. Raise the bound.`;
    const moved = square
      ? `In the square, ${percent(share(region()))} of the picture, lie ${percent(after.square)} ` +
        `of the map, before ${percent(before.square)}.`
      : `On the tank lie ${finely(after.tank)} of the map, before ${finely(before.tank)}.`;
    return `Every value changed ${searched ? "as a search found it" : "at random"}, by at most ` +
      `${bound.value}/255. ${moved} The network says ${word(after.logit)}, logit ` +
      `${fixed(after.logit, 2)}, before ${fixed(before.logit, 2)}.` +
      (searched && found === image ? " The search found no change that keeps the answer." : "");
  }

  const bar = make("span", { className: "bar" });
  bar.style.background = gradientOf("magnitude");
  const block = (title, ...children) =>
    make("div", { className: "column" },
      make("p", { className: "title" }, make("b", {}, title)), ...children);
  live.append(
    make("p", { className: "question" },
      "How small a change moves the explanation, and leaves the answer as it was?"),
    make("p", {}, "Saliency is bright where a small change of a pixel would move the network's score, the " +
      "logit, most; it says tank where that is above 0. Let every value of the picture, 0 to 255, change by " +
      "a little, at most by the bound, and watch whether the bright places wander."),
    bound, make("div", { className: "controls" }, how, goal),
    make("div", { className: "pair" },
      block("The scene", picture, answers[0]), block("Changed", changed, answers[1]),
      block("Its saliency", maps[0], captions[0]),
      block("Saliency of the changed", maps[1], captions[1]),
      make("p", { className: "legend" }, "Of both the same scale: no slope ", bar,
        " the steepest of the first. The tank is outlined. Point at the scene to say where the map shall go.")),
    make("div", { className: "buttons" }, button("Reset", () => {
      bound.value = 0;
      how.value = "searched";
      goal.value = "away";
      which.value = "0";
      steps.value = 40;
      corner = [8, 8];
      [row.value, column.value] = corner;
      takeScene();
    })),
    more("More settings", which, steps, row, column,
      make("p", { className: "hint" }, "The difference, eight times as large, on grey:"), difference),
    status, task);
  takeScene();
  draw();
});

const word = (logit) => (logit > 0 ? "tank" : "no tank");
const percent = (part) => `${Math.round(100 * part)}\u00a0%`;
const finely = (part) => `${(100 * part).toFixed(1)}\u00a0%`;
