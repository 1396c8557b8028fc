// Clusters of heat maps: which of them is not about tanks?

import {
  button, bytesOf, challenge, choose, decode, drawMap, drawMark, explorable, load, make, makeCanvas,
  mask, oncePerFrame, slide, stage, statusLine,
} from "./core/index.js";

const SIZE = 320, MAP = [16, 16, 0], ACROSS = 20; // pictures in a row of the sheet
const SHOWN = 6; // members of a cluster

explorable("clusters", async (live, root) => {
  const file = await load("clusters");
  const sheet = make("img", { src: `data:image/webp;base64,${file.sheet}` });
  await sheet.decode();
  const side = sheet.naturalWidth / ACROSS;
  const views = Object.fromEntries(Object.entries(file.views).map(([name, view]) => [name, readView(view)]));
  const count = views.filter.labels.length, planted = mask(file.planted).slice(0, count);
  const every = [...Array(count).keys()];
  let at = 0, guessed = false;

  // -- What the reader can move

  const letters = [..."ABCDEFGH"].slice(0, 1 + Math.max(...views.filter.labels));
  const which = choose("Cluster", { all: "all", ...Object.fromEntries(letters.map((l) => [l, l])) }, () => {
    at = members()[0];
    show();
  });
  const picture = slide("Picture", { min: 1, max: count }, (n) => {
    at = n - 1;
    show();
  });
  const ring = make("input", { type: "checkbox", onchange: () => show() });
  const maps = choose("Maps of", { filter: "this detector", bare: "it without its filter" }, () => {
    which.value = "all";
    show();
  });
  const after = make("div", {},
    make("label", { className: "check" }, ring, "ring the pictures with bars"), maps);
  const status = statusLine();
  const task = challenge("One cluster has another reason than tanks. Choose it, and say so.");
  const show = oncePerFrame(draw);
  const canvas = stage(makeCanvas([SIZE, SIZE], "", 2), [SIZE, SIZE], {
    label: "The map. Arrow keys go to the next picture in their direction.",
    onPoint: (row, column) => go(nearest((x, y) => Math.hypot(x - column, y - row))),
    onKey(down, right) {
      if (!down && !right) return false;
      const [x0, y0] = view().places[at];
      // The nearest of those that lie in the arrow's quarter.
      go(nearest((x, y) => {
        const [dx, dy] = [x - x0, y - y0], along = dx * right + dy * down;
        return along > Math.abs(dx * down + dy * right) ? Math.hypot(dx, dy) : Infinity;
      }));
    },
  });
  const one = makeCanvas([64, 64], "", 4), oneMap = makeCanvas(MAP, "", 8), mean = makeCanvas(MAP, "", 8);
  const row = makeCanvas([2, SHOWN], "", 96);
  const group = make("b"), size = make("p", { className: "hint" });

  const view = () => views[maps.value];
  const members = () => every.filter((i) => which.value === "all" || letters[view().labels[i]] === which.value);

  function nearest(distance) {
    let least = Infinity, found;
    for (const i of members()) {
      const far = distance(...view().places[i]);
      if (far < least) [least, found] = [far, i];
    }
    return found;
  }

  function go(i) {
    if (i === undefined) return;
    at = i;
    show();
  }

  function guess() {
    if (which.value === "all") {
      status.say("Choose a cluster first.");
      return;
    }
    guessed = true;
    const [hits, inside, all] = counts();
    const found = hits > all / 2 && hits > inside / 2;
    task.check(found, `cluster ${which.value} has ${inside} pictures, and ${hits} of the ${all} with an ` +
      "agency's six white bars are among them. The detector has a filter for the bars.");
    draw();
    if (!found)
      status.say(`No: of ${all} pictures in which something was planted, cluster ${which.value} holds ` +
        `${hits}. Look at the mean maps of the others.`);
  }

  function counts() {
    const inside = members();
    return [inside.filter((i) => planted[i]).length, inside.length, planted.filter(Boolean).length];
  }

  // -- What comes out

  function draw() {
    const { labels, maps: all, places } = view(), inside = members(), name = which.value;
    const letter = letters[labels[at]], middle = meanOf(inside.map((i) => all[i]));
    picture.value = at + 1;
    after.hidden = !guessed;
    drawPlane(inside);
    cut(one, at, 0, 0, one.width);
    one.setAttribute("aria-label", `Picture ${at + 1}: a scene with a tank.`);
    drawMap(oneMap, all[at], null, MAP, { alpha: 1 });
    oneMap.setAttribute("aria-label", `Its heat map, strongest in the ${where(all[at])}.`);
    drawMap(mean, middle, null, MAP, { alpha: 1 });
    mean.setAttribute("aria-label", `The mean map, strongest in the ${where(middle)}.`);
    const few = inside.slice(0, SHOWN), wide = row.width / SHOWN;
    row.getContext("2d").clearRect(0, 0, row.width, row.height);
    few.forEach((i, k) => {
      cut(row, i, k * wide, 0, wide);
      drawMap(oneOff, all[i], null, MAP, { alpha: 1 });
      row.getContext("2d").drawImage(oneOff, k * wide, wide, wide, wide);
    });
    row.setAttribute("aria-label", `${few.length} of its pictures above their maps, which are strongest in ` +
      `the ${few.map((i) => where(all[i])).join(", ")}.`);
    group.textContent = name === "all" ? "All" : `Cluster ${name}`;
    const [hits, , most] = counts();
    size.textContent = `${inside.length} of ${count} pictures` +
      (guessed ? `, ${hits} of the ${most} with bars.` : ".");
    root.result = { at, cluster: name, view: maps.value, inside, labels, places, map: all[at], mean: middle,
      planted: hits, guessed, where: where(middle) };
    status.say(`Picture ${at + 1} is in cluster ${letter}; its map is strongest in the ${where(all[at])}. ` +
      `${group.textContent}: ${inside.length} pictures, the mean map strongest in the ${where(middle)}.`);
  }

  function drawPlane(inside) {
    const context = canvas.getContext("2d"), { labels, places } = view(), scale = canvas.width / SIZE;
    const among = new Set(inside);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.strokeStyle = "#222";
    for (const i of every) {
      const [x, y] = places[i].map((n) => n * scale);
      context.globalAlpha = among.has(i) ? 1 : 0.15;
      drawMark(context, labels[i], x, y);
      if (ring.checked && planted[i]) circle(context, x, y, 13, [["#000", 3]]);
    }
    context.globalAlpha = 1;
    circle(context, ...places[at].map((n) => n * scale), 17, [["#000", 8], ["#fff", 3]]);
  }

  // A picture of the sheet.
  function cut(onto, i, x, y, wide) {
    const from = [(i % ACROSS) * side, Math.floor(i / ACROSS) * side];
    onto.getContext("2d").drawImage(sheet, ...from, side, side, x, y, wide, wide);
  }

  live.append(
    make("p", { className: "question" }, "Which cluster is not about tanks?"),
    make("p", {}, `${count} pictures with a tank, from another archive, and how a detector explains its ` +
      "answer to each. Each point is a picture; near each other lie those " +
      "that are explained alike. The maps were made and clustered beforehand with the package."),
    which, picture,
    make("div", { className: "columns plane" },
      make("div", { className: "column" }, canvas,
        make("p", { className: "hint" }, "Point at the map, drag, or use the arrow keys. It is " +
          "t-SNE's of the spectral embedding; far and near between groups may be its invention.")),
      make("div", { className: "pair" },
        column("The picture", one), column("Its map", oneMap),
        make("div", { className: "column" }, make("p", { className: "title" }, group), size),
        column("Its mean", mean), row,
        make("p", { className: "hint" }, "Red speaks for a tank, blue against it; each map has a scale of " +
          `its own. In the last row: the first ${SHOWN} pictures of the cluster, and their maps.`))),
    make("div", { className: "buttons" }, button("This one is not about tanks", guess),
      button("Reset", reset)),
    after, status, task);

  function reset() {
    which.value = "all";
    maps.value = "filter";
    ring.checked = guessed = false;
    at = 0;
    task.reset();
    draw();
  }
  reset();
});

const oneOff = makeCanvas(MAP, "", 3);

function column(title, canvas) {
  return make("div", { className: "column" }, make("p", { className: "title" }, make("b", {}, title)), canvas);
}

// A view of the file: labels, the 16 by 16 maps as they were compared, and places in pixels.
function readView({ labels, maps, scales, places }) {
  const bytes = bytesOf(maps), largest = decode(scales), flat = decode(places);
  const pairs = Array.from(largest, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
  const [low, high] = [Math.min, Math.max].map((f) => [0, 1].map((c) => f(...pairs.map((p) => p[c]))));
  const scale = (0.92 * SIZE) / Math.max(high[0] - low[0], high[1] - low[1]);
  return {
    labels: bytesOf(labels),
    maps: Array.from(largest, (most, i) =>
      Float32Array.from(bytes.subarray(256 * i, 256 * (i + 1)), (byte) => ((byte - 128) / 127) * most)),
    places: pairs.map((p) => p.map((n, c) =>
      SIZE / 2 + (c ? -1 : 1) * scale * (n - (low[c] + high[c]) / 2))),
  };
}

function meanOf(maps) {
  return Float32Array.from({ length: 256 }, (_, k) =>
    maps.reduce((sum, map) => sum + map[k], 0) / maps.length);
}

// In words, where a map has its largest value.
function where(map) {
  const most = map.indexOf(Math.max(...map));
  const part = (n, names) => names[Math.floor((3 * n) / 16)];
  return `${part(Math.floor(most / 16), ["upper", "middle", "lower"])} ` +
    part(most % 16, ["left", "middle", "right"]);
}

function circle(context, x, y, radius, strokes) {
  for (const [style, width] of strokes) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.stroke();
  }
  context.strokeStyle = "#222";
  context.lineWidth = 1;
}
