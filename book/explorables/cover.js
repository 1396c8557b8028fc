// Cover a piece: which part of a scene does each of two detectors go by?

import {
  button, challenge, choose, clamp, collectDrops, cover, drawFrame, drawImage, drawMap, drawOutline,
  explorable, fixed, gradientOf, load, make, makeCanvas, makeNetwork, massInside, more, oncePerFrame,
  patchPlaces, pick, play, readScene, share, sigmoid, slide, stage, statusLine,
} from "./core/index.js";

const SHAPE = [64, 64, 3];
// Both maps, whatever was covered, have the colours of this change of the logit for their ends.
const LIMIT = 3;
const FILLS = { black: [0, 0, 0], grey: [0.5, 0.5, 0.5], white: [1, 1, 1] };

explorable("cover", async (live, root) => {
  const [scenes, confounded, fair] = await Promise.all(
    ["scenes", "scenes_confounded", "scenes_fair"].map(load));
  const all = scenes.map(readScene);
  const panels = [
    panel("A", confounded),
    panel("B", fair),
  ];
  let scene, image, place, drops, swept, sweeping, stopPlaying = () => {};

  // -- What the reader can move

  const titles = all.map(({ hasTank }, i) => `${hasTank ? "with" : "without"} a tank, ${i + 1}`);
  const which = pick("Scene", { ...titles }, begin);
  const sky = choose("Sky", { cloudy: "cloudy", sunny: "sunny" }, begin);
  const fill = choose("Cover with", { black: "black", grey: "grey", white: "white" }, begin);
  const patch = slide("Patch", { min: 4, max: 32, step: 4, value: 8, show: (n) => `${n} × ${n}` },
    begin);
  const show = oncePerFrame(() => {
    if (place) measure();
    draw();
  });
  const along = { min: 0, max: 60, value: 28 };
  const row = slide("Row", along, (y) => moveTo([y, place?.[1] ?? column.value]));
  const column = slide("Column", along, (x) => moveTo([place?.[0] ?? row.value, x]));
  const canvas = stage(makeCanvas(SHAPE), SHAPE, {
    label: "The scene. Arrow keys move the patch by 4 pixels, with Shift by 1; Escape takes it away.",
    onPoint: (y, x, { buttons }) => {
      if (buttons || !sweeping) moveTo([y - patch.value / 2, x - patch.value / 2]);
    },
    onKey(down, right, { key, shiftKey }) {
      if (key === "Escape") return moveTo(undefined);
      if (!down && !right) return false;
      const step = shiftKey ? 1 : 4, [y, x] = place ?? [row.value, column.value];
      return moveTo(place ? [y + down * step, x + right * step] : [y, x]);
    },
  });
  canvas.addEventListener("pointerleave", ({ pointerType }) => {
    if (pointerType === "mouse" && !sweeping) moveTo(undefined);
  });
  const status = statusLine();
  const task = challenge("Make the two networks give different answers.");

  function stop() {
    stopPlaying();
    sweeping = false;
  }

  function moveTo(to) {
    stop();
    const most = 64 - patch.value;
    place = to?.map((n) => clamp(Math.round(n), 0, most));
    if (place) [row.value, column.value] = place;
    show();
  }

  function begin() {
    stop();
    scene = all[which.value];
    image = scene[sky.value];
    place = undefined;
    swept = false;
    drops = panels.map(() => collectDrops(SHAPE));
    for (const one of panels) one.whole = one.now = one.score(image);
    draw();
  }

  // -- What comes out

  // Ask both networks of the covered picture. A map that is complete stays as it is.
  function measure() {
    const covered = cover(image, SHAPE, place, patch.value, FILLS[fill.value]);
    panels.forEach((one, i) => {
      one.now = one.score(covered);
      if (!swept) drops[i].add(place, patch.value, one.whole - one.now);
    });
  }

  function* sweep() {
    for (place of patchPlaces(SHAPE, patch.value, patch.value / 2)) {
      measure();
      yield;
    }
  }

  function startSweep() {
    begin();
    const count = patchPlaces(SHAPE, patch.value, patch.value / 2).length;
    sweeping = true;
    stopPlaying = play(sweep(), count, 1500, draw, () => {
      sweeping = false;
      place = undefined;
      swept = true;
      draw();
    });
  }

  function draw() {
    const size = patch.value;
    if (!place) for (const one of panels) one.now = one.whole;
    drawImage(canvas, place ? cover(image, SHAPE, place, size, FILLS[fill.value]) : image, SHAPE);
    if (place) drawFrame(canvas, SHAPE, ...place, size);
    const maps = drops.map((one) => one.map());
    panels.forEach((one, i) => one.draw(maps[i], image, scene, swept));
    const [a, b] = panels.map(({ now }) => now > 0);
    if (!sweeping) task.check(a !== b, `of one picture, network A says ${word(a)} and B says ${word(b)}. ` +
      "A has learned from scenes in which every tank stood under clouds and nothing else did (it is " +
      "confounded); B, the fair one, has seen tanks under either sky.");
    root.result = {
      scene: Number(which.value), sky: sky.value, patch: size, fill: fill.value, place, swept,
      logits: panels.map(({ now }) => now), maps,
      shares: panels.map(({ shares }) => shares),
    };
    status.say(sweeping ? "The picture is covered piece by piece." : sentence());
  }

  function sentence() {
    if (swept && !place) return panels.map(({ letter, shares }) => `Of ${letter}'s red, ` +
      `${percent(shares.sky)} lies on the sky${scene.hasTank ? ` and ${percent(shares.tank)} on the tank` : ""}`)
      .join("; ").replace("; Of", "; of") + ".";
    const [a, b] = panels.map(({ letter, whole, now }) => `${letter} says ${word(now > 0)}, logit ` +
      fixed(now, 1) + (place ? `, ${Math.abs(whole - now).toFixed(1)} ${now > whole ? "more" : "less"} than ` +
        "uncovered" : ""));
    return `${place ? `Covered from row ${place[0]}, column ${place[1]}: network` : "Network"} ${a}; ${b}.`;
  }

  live.append(
    make("p", { className: "question" }, "Which part of the scene does each network go by?"),
    make("p", {}, "Two networks look for tanks. Exchange the sky, or point at the picture to cover a " +
      "piece: whose answer turns?"),
    make("div", { className: "columns" },
      make("div", { className: "column scene" }, sky, canvas),
      make("div", { className: "pair" }, ...panels.map(({ element }) => element), legend()),
      make("div", { className: "column tools" },
        make("p", { className: "hint" }, "Point at the picture, drag, or use the arrow keys."),
        which,
        make("div", { className: "buttons" },
          button("Sweep the picture", startSweep),
          button("Reset", () => {
            which.value = "0";
            sky.value = "cloudy";
            fill.value = "black";
            patch.value = 8;
            task.reset();
            begin();
          })),
        more("More settings", fill, patch, row, column))),
    status, task);
  begin();
});

// One network: its answer, its map, and where the map's red lies.
function panel(letter, file) {
  const network = makeNetwork(file), title = `Network ${letter}`;
  const bar = make("span", { className: "verdict" });
  const logit = make("b", {});
  const canvas = makeCanvas(SHAPE, "");
  const caption = make("p", { className: "hint" });
  const element = make("section", { className: "column", aria: { label: title } },
    make("p", { className: "title" }, make("b", {}, title)),
    make("p", { className: "answer" }, bar, " logit ", logit), canvas, caption);
  return {
    letter, element,
    score: (image) => network.forward(image)[0],
    draw(map, image, { sky, tank, hasTank }, complete) {
      bar.textContent = word(this.now > 0);
      bar.dataset.yes = this.now > 0;
      bar.title = `probability ${sigmoid(this.now).toFixed(2)}`;
      logit.textContent = fixed(this.now, 1);
      drawMap(canvas, map, image, SHAPE, { limit: LIMIT });
      drawOutline(canvas, sky, SHAPE);
      if (hasTank) drawOutline(canvas, tank, SHAPE);
      this.shares = { sky: massInside(map, sky), tank: massInside(map, tank) };
      const onTank = hasTank
        ? `, ${percent(this.shares.tank)} on the tank (${percent(share(tank))})` : "";
      caption.textContent = complete
        ? `Of the red, ${percent(this.shares.sky)} on the sky (${percent(share(sky))} of the area)${onTank}.`
        : map.some((value) => value) ? "Coloured where you have covered it so far." : "Nothing covered yet.";
      canvas.setAttribute("aria-label", `Map of network ${letter}. ${caption.textContent}`);
    },
  };
}

function legend() {
  const bar = make("span", { className: "bar" });
  bar.style.background = gradientOf("signed");
  return make("p", { className: "legend" }, "The logit is the number that a network answers with: " +
    "above 0 it says tank. A piece of a map is red where the logit drops when it is covered, so that " +
    "piece spoke for a tank, and blue where the logit rises. Drop of the logit: ",
  make("span", { className: "key" }, `−${LIMIT} `, bar, ` +${LIMIT}`),
  `. The colours end there, in both maps: a change of more than ${LIMIT} looks like one of ${LIMIT}.`);
}

const word = (yes) => (yes ? "tank" : "no tank");
const percent = (part) => `${Math.round(100 * part)}\u00a0%`;
