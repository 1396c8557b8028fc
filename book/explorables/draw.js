// Draw a digit: what does the network see in it, where does it look, and which stroke turns it?

import {
  an, button, challenge, choose, clamp, collectDrops, cover, drawImage, drawMap, explorable, fixed,
  gradientOf, load, make, makeCanvas, makeNetwork, more, normalNumbers, oncePerFrame, patchPlaces,
  pick, pixels, play, saliencyMap, slide, smoothGrad, softmax, stage, statusLine,
} from "./core/index.js";

const SHAPE = [28, 28, 1], PATCH = 4, DIGITS = [..."0123456789"];
const MAPS = {
  saliency: ["saliency", "magnitude", "a little ink changes nothing", "changes much"],
  smooth: ["SmoothGrad: mean of 50 noisy copies", "magnitude", "a little ink changes nothing", "changes much"],
  signed: ["gradient with its sign", "signed", "ink here lowers the answer", "raises it"],
  cover: ["covering", "signed", "covered, the answer rises", "falls"],
};

explorable("draw", async (live, root) => {
  const [digits, small] = await Promise.all(["draw", "judge"].map(load));
  const samples = digits.map(pixels), networks = { small: makeNetwork(small) };
  // `strokes` are the pictures before each of the reader's strokes, for taking them back.
  let image, before, strokes, pen, heat, complete, stop = () => {};
  const place = { row: 14, column: 14 };

  // -- What the reader can move

  const show = oncePerFrame(draw);
  const from = pick("Begin with", { 3: "a 3", ...Object.fromEntries(DIGITS.filter((d) => d !== "3")
    .map((d) => [d, an(d)])), nothing: "nothing" }, begin);
  from.value = "3";
  const which = pick("Map", Object.fromEntries(Object.entries(MAPS).map(([k, [name]]) => [k, name])), ask);
  const ink = choose("Pen", { draw: "draws", rub: "rubs out" }, () => {});
  const width = slide("Width", { min: 1, max: 4, step: 0.5, value: 2 }, () => {});
  const who = choose("Network", { small: "small", digits: "the course's (2.4 MB)" }, fetchNetwork);
  const along = { min: 0, max: 27, value: 14 };
  const row = slide("Row", along, (to) => step({ ...place, row: to }));
  const column = slide("Column", along, (to) => step({ ...place, column: to }));
  const lower = button("Put the pen down", togglePen);
  const back = button("Take the stroke back", takeBack);
  const canvas = stage(makeCanvas(SHAPE, "", 16), SHAPE, {
    hover: false,
    label: "Draw with the mouse or a finger. Keys: arrows move the pen, Space puts it down or lifts it.",
    onPoint(y, x, { type }) {
      if (type === "pointerdown") {
        lift();
        Object.assign(place, { row: y, column: x });
        touchDown();
      } else if (pen) step({ row: y, column: x });
    },
    onKey(down, right, { key }) {
      if (key === " " || key === "Enter") return togglePen();
      if (!down && !right) return false;
      step({ row: clamp(place.row + down, 0, 27), column: clamp(place.column + right, 0, 27) });
    },
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => {
    lift();
    show();
  });
  canvas.addEventListener("focus", show);
  canvas.addEventListener("blur", show);
  const map = makeCanvas(SHAPE, "", 16);
  const answer = make("p", { className: "answer" }), caption = make("p", { className: "hint" });
  const bars = DIGITS.map((digit) => bar(digit));
  const legend = make("p", { className: "legend" });
  const status = statusLine();
  const task = challenge("Begin with a digit, and turn the answer with one stroke. The gradient " +
    "with its sign tells where.");

  function begin() {
    pen = false;
    strokes = [];
    image = from.value === "nothing" ? new Float32Array(784) : samples[from.value];
    before = from.value === "nothing" ? undefined : answerTo(image);
    ask();
  }

  function togglePen() {
    if (pen) lift();
    else touchDown();
    show();
  }

  function touchDown() {
    strokes = [...strokes, image].slice(-50);
    pen = true;
    mark(place, place);
  }

  function lift() {
    pen = false;
  }

  function step(to) {
    const was = { ...place };
    Object.assign(place, to);
    if (pen) mark(was, place);
    else show();
  }

  function takeBack() {
    lift();
    image = strokes.pop() ?? image;
    ask();
  }

  // A line of ink, soft at its edge as those that the networks have learned from.
  function mark(a, b) {
    const radius = width.value / 2 + 0.5, dy = b.row - a.row, dx = b.column - a.column;
    image = image.map((value, i) => {
      const y = Math.floor(i / 28) - a.row, x = (i % 28) - a.column;
      const part = clamp((y * dy + x * dx) / (dy * dy + dx * dx || 1), 0, 1);
      const cover = clamp(radius + 0.3 - Math.hypot(y - part * dy, x - part * dx), 0, 1);
      return ink.value === "draw" ? Math.max(value, cover) : Math.min(value, 1 - cover);
    });
    ask();
  }

  async function fetchNetwork() {
    if (!networks[who.value]) {
      const wanted = who.value;
      who.value = "small";
      try {
        networks[wanted] = makeNetwork(await load(wanted));
      } catch {
        return status.say("The course's digit network could not be loaded; the small one still answers.");
      }
      who.value = wanted;
    }
    begin();
  }

  // -- What comes out

  const answerTo = (picture) => {
    const logits = networks[who.value].forward(picture);
    return logits.indexOf(Math.max(...logits));
  };

  // Ask the network, and begin the map anew: some maps take longer than a picture on the screen.
  function ask() {
    stop();
    const network = networks[who.value], top = answerTo(image);
    complete = false;
    const signed = () => network.gradient(image, top).slice();
    if (which.value === "saliency") heat = saliencyMap(network, image, top);
    else if (which.value === "signed") heat = signed();
    else {
      heat = new Float32Array(784);
      const [ways, count] = which.value === "smooth" ? [smoothGrad(network, image, top, normalNumbers(1)), 50]
        : [covering(network, top), patchPlaces(SHAPE, PATCH, PATCH / 2).length];
      stop = play(keep(ways), count, 1, show, () => {
        complete = true;
        show();
      });
      return show();
    }
    complete = true;
    show();
  }

  function* keep(maps) {
    for (const one of maps) {
      heat = one;
      yield;
    }
  }

  function* covering(network, top) {
    const score = (picture) => network.forward(picture)[top];
    const whole = score(image), drops = collectDrops(SHAPE);
    for (const patch of patchPlaces(SHAPE, PATCH, PATCH / 2)) {
      drops.add(patch, PATCH, whole - score(cover(image, SHAPE, patch, PATCH, [0])));
      yield drops.map();
    }
  }

  function draw() {
    const logits = networks[who.value].forward(image).slice(), parts = softmax(logits);
    const top = logits.indexOf(Math.max(...logits)), [name, table, low, high] = MAPS[which.value];
    drawImage(canvas, image, SHAPE);
    if (document.activeElement === canvas || pen) drawPen(canvas, place, pen);
    [row.value, column.value] = [place.row, place.column];
    lower.textContent = pen ? "Lift the pen" : "Put the pen down";
    back.disabled = !strokes.length;
    bars.forEach((one, k) => one.draw(parts[k], k === top));
    const verdict = make("span", { className: "verdict" }, an(top));
    answer.replaceChildren(verdict, ` probability ${parts[top].toFixed(2)}, logit ${fixed(logits[top], 1)}`);
    const limit = drawMap(map, heat, image, SHAPE, { table, alpha: 0.85 });
    const strip = make("span", { className: "bar" });
    strip.style.background = gradientOf(table);
    legend.replaceChildren(`${low} `, strip, ` ${high}`);
    caption.textContent = `For the answer, ${an(top)}. Scale ${table === "signed" ? "±" : "0 to "}` +
      `${limit.toFixed(1)}${complete ? "" : ", still growing"}.`;
    map.setAttribute("aria-label", `The map (${name}) over the digit. ${caption.textContent}`);
    const turned = before !== undefined && strokes.length === 1 && top !== before;
    task.check(turned, `one stroke, and the ${before} is ${an(top)} to the network. Look at the map ` +
      "of the digit without it (take the stroke back): it marked where.");
    root.result = { image, logits, probabilities: parts, top, before, map: heat, kind: which.value,
      network: who.value, complete, strokes: strokes.length, place, pen };
    const second = parts.indexOf(Math.max(...parts.filter((_, k) => k !== top)));
    status.say(!image.some((value) => value) ? `An empty picture, and the network says ${an(top)}, ` +
      `probability ${parts[top].toFixed(2)}: it has no word for nothing. Draw.`
      : `${pen ? "The pen is down. " : ""}The network says ${an(top)}, probability ` +
        `${parts[top].toFixed(2)}; next ${an(second)}, ${parts[second].toFixed(2)}.` +
        (before === undefined || !strokes.length ? "" : ` It began as ${an(before)}, ` +
          `${strokes.length} ${strokes.length === 1 ? "stroke" : "strokes"} ago.`));
  }

  live.append(
    make("p", { className: "question" }, "Where does the answer hang on your ink?"),
    make("p", {}, "A network reads the digit as you draw it: each digit gets a number, the logit, and the " +
      "largest is its answer. The map marks the pixels in which a little more or less ink would change " +
      "that number, or those it would miss if they were covered."),
    make("div", { className: "controls" }, from, which),
    make("div", { className: "pair" },
      make("div", { className: "column" }, make("p", { className: "title" }, make("b", {}, "Draw here")),
        canvas, make("p", { className: "hint" },
          "Mouse or finger; or arrow keys, and Space for the pen.")),
      make("div", { className: "column" }, make("p", { className: "title" }, make("b", {}, "The map")),
        map, caption), legend),
    answer, make("div", { className: "bars" }, ...bars.map(({ element }) => element)),
    make("div", { className: "buttons" }, back, button("Reset", () => {
      from.value = "3";
      which.value = "saliency";
      ink.value = "draw";
      width.value = 2;
      who.value = "small";
      Object.assign(place, { row: 14, column: 14 });
      task.reset();
      begin();
    })),
    more("More settings", who, make("p", { className: "hint" }, "The small network is the second one of " +
      "chapter 13: two convolutions, 98 kB. Both know digits that fill the middle of the picture."),
      ink, width, row, column, lower),
    status, task);
  begin();
  draw();
});


// A digit, how probable it is, and a bar as long.
function bar(digit) {
  const fill = make("span", { className: "fill" }), value = make("span", { className: "value" });
  const element = make("span", { className: "bar-row" }, make("b", {}, digit),
    make("span", { className: "track" }, fill), value);
  return {
    element,
    draw(part, top) {
      fill.style.width = `${100 * part}%`;
      value.textContent = part.toFixed(2);
      element.classList.toggle("top", top);
    },
  };
}

// Where the pen is: a ring, full when it is down.
function drawPen(canvas, { row, column }, down) {
  const context = canvas.getContext("2d"), scale = canvas.width / 28;
  context.beginPath();
  context.arc((column + 0.5) * scale, (row + 0.5) * scale, 0.6 * scale, 0, 2 * Math.PI);
  context.fillStyle = "#f0b429";
  if (down) context.fill();
  context.strokeStyle = "#f0b429";
  context.lineWidth = 3;
  context.stroke();
}
