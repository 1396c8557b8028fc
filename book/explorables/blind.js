// A blind test: do maps tell which of twelve networks relies on the sky?

import {
  bytesOf, button, challenge, drawImage, drawMap, explorable, load, make, makeCanvas, pixels,
  randomNumbers, statusLine,
} from "./core/index.js";

const SHAPE = [64, 64, 3];
const METHODS = ["Occlusion", "Saliency", "Grad-CAM", "Edges"];

explorable("blind", async (live, root) => {
  const file = await load("blind");
  const all = file.map(({ sky, image, maps }) => ({ sky, image: pixels(image), maps: maps.map(readMap) }));
  const odd = all.pop(); // for the last question
  let number, time = 0, deck, letters, answers, picked;
  const status = statusLine();
  const task = challenge("After the twelve: find the map that never saw its network.");
  const heading = make("p", { className: "title" }), hint = make("p", { className: "hint" });
  const scene = makeCanvas(SHAPE, ""), shown = METHODS.map(() => makeCanvas(SHAPE, ""));
  const titles = METHODS.map(() => make("b"));
  const columns = shown.map((canvas, i) =>
    make("div", { className: "column" }, make("p", { className: "title" }, titles[i]), canvas));
  const pictures = make("div", { className: "gallery" },
    make("div", { className: "column" }, make("p", { className: "title" }, make("b", {}, "The scene")), scene),
    ...columns);
  const guess = make("div", { className: "buttons" },
    button("It relies on the sky", () => take(true)), button("It looks at the tank", () => take(false)));
  const choices = make("div", { className: "buttons" },
    ...METHODS.map((_, i) => button("ABCD"[i], () => choose(i))));
  const score = make("p"), detail = make("p", { className: "hint" });
  const line = make("textarea", { readOnly: true, rows: 2, aria: { label: "A line for a teacher" } });
  const hand = button("Make a line to hand to a teacher", () => {
    line.value = text();
    line.hidden = false;
    line.focus();
    line.select();
    status.say("The line is selected: copy it. Nothing was sent.");
  });
  const result = make("div", { className: "result" }, score, detail, hand, line);

  // Half of each kind with maps, in an order that the test's number decides.
  function begin() {
    number = 1 + Math.floor(Math.random() * 99999);
    time += 1;
    const next = randomNumbers(number);
    const shuffle = (list) => {
      for (let i = list.length - 1; i > 0; i--) {
        const j = Math.floor(next() * (i + 1));
        [list[i], list[j]] = [list[j], list[i]];
      }
      return list;
    };
    const kinds = [true, false].map((sky) => shuffle(all.flatMap((one, i) => (one.sky === sky ? [i] : []))));
    deck = shuffle(kinds.flatMap((kind) => kind.map((network, i) => ({ network, maps: i < kind.length / 2 }))));
    letters = shuffle([0, 1, 2, 3]);
    answers = [];
    picked = undefined;
    line.hidden = true;
    task.reset();
    draw();
  }

  function take(sky) {
    answers.push(sky);
    draw();
  }

  function choose(i) {
    picked = letters[i];
    task.check(picked === 3, `${"ABCD"[i]} is nothing but the edges of the picture. It looks like an ` +
      "explanation, and would be the same for any network.");
    draw();
  }

  // -- What comes out

  const done = () => answers.length === deck.length;
  const right = (maps) => deck.filter((one, i) =>
    i < answers.length && one.maps === maps && answers[i] === all[one.network].sky).length;

  function draw() {
    const finished = done(), now = finished ? undefined : deck[answers.length];
    const one = now ? all[now.network] : odd, order = finished ? letters : [0, 1, 2];
    drawImage(scene, one.image, SHAPE);
    scene.setAttribute("aria-label", "A tank under a grey sky. The network says tank.");
    columns.forEach((column, i) => {
      column.hidden = i >= order.length || (now && !now.maps);
      if (column.hidden) return;
      const which = order[i], named = !finished || picked !== undefined;
      titles[i].textContent = (finished ? "ABCD"[i] : "") + (finished && named ? ": " : "") +
        (named ? METHODS[which] : "");
      const map = finished ? one.maps[which].map(Math.abs) : one.maps[which]; // a sign would tell
      drawMap(shown[i], map, one.image, SHAPE, { table: finished || which > 0 ? "magnitude" : "signed" });
      shown[i].setAttribute("aria-label", `${titles[i].textContent}: ${where(map)}`);
    });
    heading.replaceChildren(make("b", {}, finished ? "Which of these maps never saw its network?"
      : `Network ${answers.length + 1} of ${deck.length}`), finished ? "" : " says: tank");
    hint.textContent = finished
      ? "One of the twelve again, with another scene. Three of the maps were made with it, one " +
        "without; all are bright where they are large, whatever their sign." : now.maps
        ? "Occlusion: red where the score for a tank falls when that piece is exchanged for one of an " +
          "empty field under a blue sky, blue where it rises. The others: bright where they are large. " +
          "Each map has its own scale."
        : "No maps for this one: the scene is all there is.";
    guess.hidden = finished;
    choices.hidden = !finished || picked !== undefined;
    result.hidden = !finished;
    if (finished) tell();
    else status.say(`Network ${answers.length + 1} of ${deck.length}, ` +
      `${now.maps ? "with" : "without"} maps. It says tank. Does it rely on the sky?`);
    root.result = { number, time, deck, answers, picked, letters, withMaps: right(true),
      without: right(false), sky: all.map(({ sky }) => sky), maps: one.maps, done: finished };
  }

  function tell() {
    const [a, b] = [right(true), right(false)], half = deck.length / 2;
    score.replaceChildren("With maps ", make("b", {}, `${a} of ${half}`), " right, without ",
      make("b", {}, `${b} of ${half}`), ".");
    const said = (hits) => `a coin does as well as ${hits} of ${half} ` +
      `in ${percent(atLeast(hits, half))} of such tests`;
    const missed = deck.flatMap((one, i) =>
      answers[i] === all[one.network].sky ? [] : [`${i + 1} (${all[one.network].sky ? "sky" : "tank"}, ` +
        `${one.maps ? "with" : "without"} maps)`]);
    detail.textContent = `By chance: ${said(a)}` + (b === a ? "" : `; ${said(b)}`) + ". " +
      (missed.length ? `Wrong about ${missed.join(", ")}.` : "None wrong.") + " Without maps there " +
      "is nothing to go by: there you measure your luck. Nothing of this leaves the page.";
    status.say(`With maps ${a} of ${half} right, without ${b} of ${half}; chance would be ${half / 2}.` +
      (picked === undefined ? " One last question: which map never saw its network?"
        : picked === 3 ? " You found the map that never saw its network."
          : ` ${METHODS[picked]} is a method; the edges of the picture never saw a network.`));
  }

  function text() {
    const found = picked === undefined ? "not asked" : picked === 3 ? "found" : "not found";
    return `blind test ${number}, time ${time}: with maps ${right(true)} of 6, ` +
      `without ${right(false)} of 6, odd map ${found}`;
  }

  live.append(
    make("p", { className: "question" }, "Do maps tell you which network relies on the sky?"),
    make("p", { className: "hint" }, "Twelve networks, each asked about a scene of its own. Half of them " +
      "rely on the sky, half on the tank: exchange that, and the answer turns; exchange the other, and it " +
      "stays. Half of each kind come with maps, made beforehand with the package."),
    heading, pictures, hint, guess, choices, result,
    make("div", { className: "buttons" }, button("Begin anew", begin)), status, task);
  begin();
});

// A map of numbers from -1 to 1.
function readMap(base64) {
  return Float32Array.from(bytesOf(base64), (byte) => (byte - 128) / 127);
}

// In words for those who do not see a map: how much of it lies in the upper half.
function where(map) {
  let above = 0, total = 0;
  map.forEach((value, i) => {
    total += Math.max(value, 0);
    if (i < map.length / 2) above += Math.max(value, 0);
  });
  return `${percent(above / total)} of it in the upper half, which the sky fills for the most part.`;
}

// How likely a coin is right at least so often.
function atLeast(hits, count) {
  let sum = 0, ways = 1;
  for (let k = 0; k <= count; k++) {
    if (k >= hits) sum += ways;
    ways = (ways * (count - k)) / (k + 1);
  }
  return sum / 2 ** count;
}

const percent = (part) => `${Math.round(100 * part)}\u00a0%`;
