// Sixteen coalitions: four quarters of a scene come in one after the other; who gets the credit?

import {
  addsAlong, button, challenge, choose, drawFrame, drawImage, drawMap, explorable, fixed,
  gradientOf, load, make, makeCanvas, makeNetwork, meanColours, more, oncePerFrame, orders, pixels,
  play, shapleyValues, showParts, stage, statusLine,
} from "./core/index.js";

const SHAPE = [64, 64, 3], PLACES = ["upper left", "upper right", "lower left", "lower right"];
const QUARTERS = Uint8Array.from({ length: 64 * 64 }, (_, i) => 2 * (i >= 2048) + (i % 64 >= 32));
const ORDERS = [...orders(4)];
// Whatever was played, the map has the colours of this amount for its ends.
const LIMIT = 10;

explorable("coalitions", async (live, root) => {
  const [file, weights] = await Promise.all(["coalitions", "scenes_fair"].map(load));
  const network = makeNetwork(weights), image = pixels(file.image), { tank } = file;
  const flat = (value) => new Float32Array(image.length).fill(value);
  const fills = { black: flat(0), grey: flat(0.5), mean: meanColours(image, QUARTERS) };
  // `worths` are the coalitions asked so far; `rows` the orders played, with what each part added.
  let worths, rows, own, order, cursor = 0, stop = () => {};

  const picture = (coalition) =>
    showParts(image, fills[fill.value], QUARTERS, [0, 1, 2, 3].map((k) => (coalition >> k) & 1));
  const coalitionOf = (players) => players.reduce((all, k) => all | (1 << k), 0);
  const worth = (coalition) => (worths[coalition] ??= network.forward(picture(coalition))[0]);

  // -- What the reader can move

  const show = oncePerFrame(draw);
  const canvas = stage(makeCanvas(SHAPE), SHAPE, {
    hover: false,
    label: "The scene in four quarters, 0 and 1 above, 2 and 3 below. Arrow keys choose a quarter; " +
      "Space lets it in.",
    onPoint(y, x, { type }) {
      if (type === "pointerdown") letIn(QUARTERS[y * 64 + x]);
    },
    onKey(down, right, { key }) {
      if (key === " " || key === "Enter") return letIn(cursor);
      if (!down && !right) return false;
      cursor ^= right ? 1 : 2; // in two rows and columns, on is also back
      show();
    },
  });
  const fill = choose("Hide with",
    { black: "black", grey: "grey", mean: "the quarter's mean colour" }, begin);
  const all = button("Play all 24 orders", playAll);
  const map = makeCanvas(SHAPE, "");
  const answer = make("p", { className: "answer" }), shares = make("span", {});
  const caption = make("p", { className: "hint" });
  const body = make("tbody", {});
  const table = make("div", { className: "scrolls", tabIndex: 0 }, make("table", {},
    make("caption", {}, "What each added, order by order"),
    make("thead", {}, make("tr", {}, ...["order", "0", "1", "2", "3", "sum"].map((text) =>
      make("th", { scope: "col" }, text)))), body));
  table.setAttribute("role", "region");
  table.setAttribute("aria-label", "Orders played");
  const status = statusLine();
  const task = challenge(`Play two orders in which the quarter with the tank, number ${tank}, adds ` +
    "amounts that differ by more than 5.");
  canvas.addEventListener("focus", show);
  canvas.addEventListener("blur", show);

  function begin() {
    stop();
    worths = [];
    rows = new Map();
    own = [];
    order = [];
    show();
  }

  // A quarter comes in. After the fourth the order is played, and the next begins a new one.
  function letIn(quarter) {
    stop();
    if (order.length === 4) order = [];
    cursor = quarter;
    if (order.includes(quarter)) return show();
    order = [...order, quarter];
    worth(coalitionOf(order));
    if (order.length === 4) own.push(playOrder(order)[tank]);
    show();
  }

  function playOrder(one) {
    const adds = addsAlong(one, worth);
    rows.delete(one.join(" "));
    rows.set(one.join(" "), adds);
    return adds;
  }

  function playAll() {
    stop();
    stop = play(everyOrder(), ORDERS.length * 4, 5000, draw, draw);
  }

  function* everyOrder() {
    for (const one of ORDERS) {
      if (rows.has(one.join(" "))) continue;
      for (let players = 1; players <= 4; players++) {
        order = one.slice(0, players);
        if (players === 4) playOrder(one);
        yield;
      }
    }
  }

  // -- What comes out

  function draw() {
    const coalition = coalitionOf(order), now = worth(coalition), nobody = worth(0);
    const means = [0, 1, 2, 3].map((k) => meanOf([...rows.values()].map((adds) => adds[k])));
    const complete = rows.size === ORDERS.length;
    drawImage(canvas, picture(coalition), SHAPE);
    drawNumbers(canvas);
    if (document.activeElement === canvas)
      drawFrame(canvas, SHAPE, 32 * (cursor >> 1) + 1, 32 * (cursor & 1) + 1, 30);
    const verdict = make("span", { className: "verdict" }, now > 0 ? "tank" : "no tank");
    verdict.dataset.yes = now > 0;
    answer.replaceChildren(verdict, ` logit ${number(now)}`);
    drawMap(map, Float32Array.from(QUARTERS, (k) => means[k]), image, SHAPE, { limit: LIMIT });
    drawNumbers(map);
    caption.textContent = rows.size ? `${complete ? "Shapley values" : "Mean so far"}: ` +
      `${sentenceOf(means)}.` : "Let all four in, and see what each added.";
    map.setAttribute("aria-label", `The scene, each quarter coloured by its mean. ${caption.textContent}`);
    shares.textContent = `mean of ${rows.size} ${rows.size === 1 ? "order" : "orders"}`;
    const begun = order.length % 4 ? [row(order.join(" "), partly(order), "begun")] : [];
    body.replaceChildren(
      ...(rows.size ? [row("mean", means, "mean")] : []),
      ...begun, ...[...rows].reverse().map(([name, adds]) => row(name, adds)));
    all.disabled = complete;
    const most = Math.max(...own), least = Math.min(...own);
    task.check(most - least > 5, `quarter ${tank} added ${number(least)} in one order and ` +
      `${number(most)} in another. One number for its credit must say how it treats the orders: the ` +
      "Shapley value is the mean over all of them.");
    root.result = { order, logit: now, fill: fill.value, worths: [...worths], rows: [...rows], means,
      complete, values: worths.filter(isFinite).length === 16 ? shapleyValues(worths) : undefined };
    status.say(sentence());

    function sentence() {
      const asked = `Of 16 groups, or coalitions, ${worths.filter(isFinite).length} were seen, of 24 orders ${rows.size}.`;
      if (complete) return `In all 24 orders, on average: ${sentenceOf(means)}. These are the Shapley ` +
        `values; they add up to ${number(sumOf(means))}, what all quarters bring beyond none.`;
      if (!order.length)
        return `Nothing is shown: logit ${number(nobody)}. Click the quarters in, one after the other.`;
      const last = order.at(-1), added = partly(order)[last];
      const change = `Quarter ${last}, ${PLACES[last]}, ${added < 0 ? "takes" : "adds"} ` +
        `${number(Math.abs(added))}${added < 0 ? " away" : ""}${order.length > 1
          ? ` when ${order.slice(0, -1).join(", ")} ${order.length > 2 ? "are" : "is"} there` : ""}`;
      return order.length < 4 ? `${change}. ${asked}`
        : `${change}. Together they bring ${number(now - nobody)}, in whatever order. ${asked}`;
    }
  }

  // What the players of an order that has only begun have added, by player.
  const partly = (players) => addsAlong(players, worth);

  live.append(
    make("p", { className: "question" },
      "The four quarters bring in the score together. How much of it is owed to each?"),
    make("p", {}, "A network looks for a tank, and its score, the logit, is above 0 where it says tank. Let " +
      "the quarters in one after the other: what one adds may depend on those that are there already."),
    make("div", { className: "pair" },
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "Let them in")), answer, canvas,
        make("p", { className: "hint" }, "Click or tap the quarters in any order. Keys: arrows, and Space.")),
      make("div", { className: "column" },
        make("p", { className: "title" }, make("b", {}, "What they are owed")),
        make("p", { className: "answer" }, shares), map, caption), legend()),
    make("div", { className: "buttons" }, all, button("Reset", () => {
      fill.value = "black";
      task.reset();
      begin();
    })),
    table,
    more("More settings", fill, make("div", { className: "buttons" },
      ...[0, 1, 2, 3].map((k) => button(`Let ${k} in`, () => letIn(k))))),
    status, task);
  begin();
  draw();
});

// A line of the table; a quarter that has not come in yet has an empty cell.
function row(name, adds, className = "") {
  const cells = [0, 1, 2, 3].map((k) => make("td", {}, adds[k] === undefined ? "" : number(adds[k])));
  return make("tr", { className }, make("th", { scope: "row" }, name), ...cells,
    make("td", {}, number(sumOf(adds))));
}

function legend() {
  const bar = make("span", { className: "bar" });
  bar.style.background = gradientOf("signed");
  return make("p", { className: "legend" }, `takes ${LIMIT} or more `, bar, ` adds ${LIMIT} or more`);
}

// The quarters' numbers and the cross between them, white on black, so that they show on anything.
function drawNumbers(canvas) {
  const context = canvas.getContext("2d"), half = canvas.width / 2;
  context.font = `bold ${half / 5}px system-ui, sans-serif`;
  context.textBaseline = "top";
  for (const [style, width] of [["#000", 6], ["#fff", 2]]) {
    context.strokeStyle = style;
    context.lineWidth = width / (style === "#fff" ? 1 : 2);
    context.beginPath();
    context.moveTo(half, 0);
    context.lineTo(half, 2 * half);
    context.moveTo(0, half);
    context.lineTo(2 * half, half);
    context.stroke();
  }
  context.lineWidth = 6;
  context.strokeStyle = "#000";
  context.fillStyle = "#fff";
  for (let k = 0; k < 4; k++) {
    const at = [half * (k & 1) + half / 12, half * (k >> 1) + half / 12];
    context.strokeText(k, ...at);
    context.fillText(k, ...at);
  }
}

const sumOf = (values) => values.reduce((sum, value) => sum + value, 0);
const meanOf = (values) => (values.length ? sumOf(values) / values.length : 0);
const number = (value) => fixed(value, 1);
const sentenceOf = (values) => values.map((value, k) => `${k}: ${number(value)}`).join(", ");
