// Climb: the picture that a network likes best, and the smallest rectangle that a finder accepts.

import {
  an, bytesOf, button, challenge, choose, clamp, climb, correlation, decode, drawFrame, drawImage, explorable,
  fixed, load, make, makeCanvas, makeNetwork, makePlot, more, oncePerFrame, pick, pixels, play, slide,
  softmax, stage, statusLine,
} from "./core/index.js";

const DIGIT = [28, 28, 1], FIELD = [64, 64, 3];
// What each help is called, how strong it is, what it does and what for.
const HELP = {
  l2: ["ink has a price", 0.1, "bright pixels lower the score: the empty ground goes dark"],
  tv: ["edges have a price", 0.1, "neighbours that differ lower the score: speckles go"],
  blur: ["blur", 0.4, "after each step the picture is blurred: only broad strokes stay"],
  shifts: ["jitter", undefined, "before each step the picture is moved a little: nothing hangs on one place"],
  fourier: ["Fourier", 1, "each step changes waves, not pixels: broad shapes come first"],
};

explorable("climb", async (live, root) => {
  const [file, judgeFile, finderFile] = await Promise.all(["climb", "judge", "squares"].map(load));
  const judge = makeNetwork(judgeFile), finder = makeNetwork(finderFile);
  const start = decode(file.start), real = pixels(file.digits), labels = bytesOf(file.labels);
  const empty = pixels(file.empty);
  const numberOf = (k) => real.subarray(k * 784, (k + 1) * 784);
  const status = statusLine();
  const subject = choose("Sure of", { digit: "a digit", rectangle: "a rectangle" }, showHalf);
  const halves = { digit: make("div", {}), rectangle: make("div", { hidden: true }) };

  function showHalf() {
    for (const [name, half] of Object.entries(halves)) half.hidden = name !== subject.value;
    if (subject.value === "digit") draw();
    else paint();
  }

  // -- Climb

  let network, image, taken, likes, stop = () => {}, said = {};
  const digit = pick("A picture of a", Object.fromEntries([..."0123456789"].map((d) => [d, d])), begin);
  digit.value = "3";
  const helps = Object.fromEntries(Object.entries(HELP).map(([key, [text, , why]]) => {
    const box = make("input", { type: "checkbox", onchange: () => without(key) });
    const element = make("p", {}, make("label", { className: "check" }, box, text), " ",
      make("span", { className: "hint" }, why));
    return [key, { box, element }];
  }));
  const steps = slide("Steps", { min: 8, max: 64, step: 8, value: 64 }, begin);
  const size = slide("Step size", { min: 0.01, max: 0.1, step: 0.01, value: 0.05 }, begin);
  const go = button("Climb (fetches the network, 2.4 MB)", fetchAndClimb);
  const picture = makeCanvas(DIGIT, "", 10), nearest = makeCanvas(DIGIT, "", 10);
  const own = make("p", { className: "answer" }), second = make("p", { className: "answer" });
  const alike = make("p", { className: "answer" });
  const plot = makePlot("", 1);

  // Blur acts on pixels, and with Fourier the search is not for pixels: one or the other.
  function without(key) {
    const other = { blur: "fourier", fourier: "blur" }[key];
    if (other) helps[other].box.checked = false;
    begin();
  }

  function begin() {
    stop();
    image = start;
    taken = 0;
    likes = [];
    draw();
  }

  async function fetchAndClimb() {
    if (!network) {
      go.disabled = true;
      try {
        network = makeNetwork(await load("digits"));
      } catch {
        status.say("The digit network could not be loaded.");
        go.disabled = false;
        return;
      }
      go.disabled = false;
      go.textContent = "Climb";
    }
    begin();
    const options = { steps: steps.value, stepSize: size.value };
    for (const [key, { box }] of Object.entries(helps)) if (box.checked) options[key] = HELP[key][1] ?? file.shifts;
    const way = climb((x) => network.gradient(x, Number(digit.value)), start, 28, options);
    stop = play(follow(way), steps.value, 3000, draw, draw);
  }

  function* follow(way) {
    for (const next of way) {
      image = next;
      taken += 1;
      likes.push([taken / steps.value, ask(network).of, ask(judge).of]);
      yield;
    }
  }

  function ask(who) {
    const logits = who.forward(image).slice(), parts = softmax(logits), wanted = Number(digit.value);
    const top = parts.indexOf(Math.max(...parts));
    return { top, of: parts[wanted], logit: logits[wanted] };
  }

  function draw() {
    const wanted = Number(digit.value), answers = [network && ask(network), ask(judge)];
    let best = -2, which = 0;
    labels.forEach((label, k) => {
      const r = label === wanted ? correlation(image, numberOf(k)) : -2;
      if (r > best) [best, which] = [r, k];
    });
    drawImage(picture, image, DIGIT);
    picture.setAttribute("aria-label", `The picture after ${taken} steps.`);
    drawImage(nearest, numberOf(which), DIGIT);
    nearest.setAttribute("aria-label", `The real ${wanted} that is most like it.`);
    own.replaceChildren("the network: ", ...(network ? words(answers[0]) : ["not fetched yet"]));
    second.replaceChildren("a second network: ", ...words(answers[1]));
    alike.replaceChildren(`likeness to this real ${wanted}: `, make("b", {}, fixed(best, 2)),
      `; of two real ones: ${file.alike[wanted].toFixed(2)}`);
    plot.draw(likes.map(([x, p]) => [x, p]), taken / steps.value);
    plot.setAttribute("aria-label", "The network's probability after each step.");
    const certain = likes.findIndex(([, p]) => p > 0.99) + 1;
    said = { digit: wanted, taken, likeness: best, certain, image, network: answers[0], judge: answers[1] };
    tell("digit", taken < steps.value
      ? taken ? `${taken} of ${steps.value} steps.` : `Noise. Climb, and see when the network is sure of ${an(wanted)}.`
      : `${certain ? `After ${certain} of ${steps.value} steps the network was 99\u00a0% sure of ${an(wanted)}` :
        `The network never was 99\u00a0% sure of ${an(wanted)}`}, and a second one gives it a probability of ` +
        `${answers[1].of.toFixed(2)}. But the likeness to a real ${wanted} is ${fixed(best, 2)}, that of two ` +
        `real ones ${file.alike[wanted].toFixed(2)}, and that of a picture to itself 1.` +
        (Math.max(...image) < 0.05 ? " Nothing is left of the picture: it is black." : ""));

    function words({ top, of }) {
      return [make("b", {}, an(top)), `${top === wanted ? "," : `; ${an(wanted)} has`} probability ${of.toFixed(2)}`];
    }
  }

  // -- Paint

  let box = { row: 20, column: 20, height: 24, width: 24 }, corner, smallest, logit;
  const task = challenge('Go on to "a rectangle", and paint one of at most 60 pixels that its finder accepts.');
  const field = stage(makeCanvas(FIELD, ""), FIELD, {
    hover: false,
    label: "Drag to paint a rectangle. Arrow keys move it, with Shift they change its size.",
    onPoint(y, x, { type }) {
      if (type === "pointerdown") corner = [y, x];
      set({
        row: Math.min(corner[0], y), height: Math.abs(corner[0] - y) + 1,
        column: Math.min(corner[1], x), width: Math.abs(corner[1] - x) + 1 });
    },
    onKey(down, right, { shiftKey }) {
      if (!down && !right) return false;
      set(shiftKey ? { height: box.height + down, width: box.width + right }
        : { row: box.row + down, column: box.column + right });
    },
  });
  const along = { min: 0, max: 63 }, wide = { min: 1, max: 64 };
  const sliders = {
    row: slide("Row", along, (row) => set({ row })),
    column: slide("Column", along, (column) => set({ column })),
    height: slide("Height", wide, (height) => set({ height })),
    width: slide("Width", wide, (width) => set({ width })),
  };
  const verdict = make("p", { className: "answer" });
  const record = make("p", { className: "hint" });
  const showPaint = oncePerFrame(paint);

  function set(change) {
    box = { ...box, ...change };
    box.height = clamp(box.height, 1, 64);
    box.width = clamp(box.width, 1, 64);
    box.row = clamp(box.row, 0, 64 - box.height);
    box.column = clamp(box.column, 0, 64 - box.width);
    showPaint();
  }

  function paint() {
    const { row, column, height, width } = box;
    for (const [key, slider] of Object.entries(sliders)) slider.value = box[key];
    const painted = empty.slice();
    for (let y = row; y < row + height; y++)
      painted.fill(0.5, (y * 64 + column) * 3, (y * 64 + column + width) * 3);
    drawImage(field, painted, FIELD);
    if (document.activeElement === field) drawFrame(field, FIELD, row, column, height, width);
    logit = finder.forward(painted)[0];
    const area = height * width;
    if (logit > 0 && area < (smallest ?? Infinity)) smallest = area;
    const span = make("span", { className: "verdict" }, logit > 0 ? "a rectangle" : "none");
    span.dataset.yes = logit > 0;
    verdict.replaceChildren(span, ` ${height} × ${width}, logit ${fixed(logit, 1)}`);
    record.textContent = smallest ? `Smallest accepted so far: ${smallest} pixels.` : "";
    task.check(smallest <= 60, `${smallest} pixels are a rectangle to the finder; those that ` +
      "it was trained on had a thousand on average. As in the climb: to be sure, a network does not need " +
      "what it has learned from.");
    tell("rectangle", `${height} by ${width} pixels: the finder says ${logit > 0 ? "rectangle" : "none"}, ` +
      `logit ${fixed(logit, 1)}.`);
  }

  function tell(half, sentence) {
    root.result = { ...said, box, finder: logit, smallest };
    if (half === subject.value) status.say(sentence);
  }

  halves.digit.append(
    make("p", {}, "A network reads digits. Climb from grey noise: in each step every pixel changes a little, " +
      "in the direction in which the network's score for a digit, the logit, rises."),
    make("div", { className: "controls" }, digit, go),
    more("Help it to look like a digit", ...Object.values(helps).map(({ element }) => element)),
    make("div", { className: "pair" },
      make("div", { className: "column" }, make("p", { className: "title" }, make("b", {}, "From noise")),
        picture, own, second),
      make("div", { className: "column" }, make("p", { className: "title" },
        make("b", {}, "The real digit most like it")), nearest, alike)),
    plot, make("p", { className: "hint" }, "The network's probability of the digit after each step, from 0 to 1."),
    more("More settings", steps, size));
  halves.rectangle.append(
    make("p", {}, "A finder looks for grey rectangles; its score, the logit, is above 0 where it sees one. Here " +
      "is a picture without any: paint one, and see how small it may be."),
    make("div", { className: "columns" },
      make("div", { className: "column" }, field),
      make("div", { className: "column" },
        make("p", { className: "hint" }, "Drag to paint; arrow keys move the rectangle, with Shift they " +
          "change its size."),
        verdict, record)),
    more("More settings", ...Object.values(sliders)));
  live.append(
    make("p", { className: "question" }, "How little does a network need to be sure?"),
    make("div", { className: "controls" }, subject), halves.digit, halves.rectangle,
    make("div", { className: "buttons" }, button("Reset", () => {
      digit.value = "3";
      for (const { box: one } of Object.values(helps)) one.checked = false;
      steps.value = 64;
      size.value = 0.05;
      smallest = undefined;
      task.reset();
      begin();
      set({ row: 20, column: 20, height: 24, width: 24 });
    })),
    status, task);
  field.addEventListener("focus", showPaint);
  field.addEventListener("blur", showPaint);
  paint();
  begin();
});
