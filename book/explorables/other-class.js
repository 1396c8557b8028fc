// Ask for another class: what does Grad-CAM mark when the same picture is asked about another class?

import {
  button, challenge, choose, decode, drawImage, drawMap, drawOutline, explorable, gradCam, gradientOf, load,
  make, makeCanvas, makeNetwork, massInside, oncePerFrame, pick, pixels, readScene, share, sigmoid,
  statusLine, stretch,
} from "./core/index.js";

// What can be asked: photos, whose maps are exported, and scenes, whose networks answer here.
const ASKED = {
  panda: ["panda above shepherd", { photo: 0 }],
  bear: ["polar bear above macaw", { photo: 1 }],
  confoundedCloudy: ["tank under clouds, confounded network", { sky: "cloudy", by: "confounded" }],
  confoundedSunny: ["tank under a blue sky, confounded network", { sky: "sunny", by: "confounded" }],
  fairCloudy: ["tank under clouds, fair network", { sky: "cloudy", by: "fair" }],
  fairSunny: ["tank under a blue sky, fair network", { sky: "sunny", by: "fair" }],
};
const PHOTO_LAYERS = { 0: "the last, 7 × 7 cells", 1: "one block earlier, 7 × 7", 2: "14 × 14", 3: "28 × 28" };
const SCENE_LAYERS = { conv_3: "the last, 16 × 16 cells", conv_2: "32 × 32", conv_1: "64 × 64" };
// The upper and the lower half of a photo.
const HALVES = [0, 1].map((half) =>
  Uint8Array.from({ length: 224 * 224 }, (_, i) => Math.floor(i / (112 * 224)) === half));

explorable("other-class", async (live, root) => {
  const collages = await load("collages"), networks = {};
  const photos = collages.map(({ photo }) => pixels(photo));
  let scene;

  // -- What the reader can move

  const show = oncePerFrame(draw);
  const picture = pick("Picture", Object.fromEntries(Object.entries(ASKED).map(([k, [text]]) => [k, text])),
    change);
  const status = statusLine();
  const task = challenge("The confounded network goes by the sky. Find the picture and the class whose " +
    "map says so.");
  const left = make("div", { className: "column" }), right = make("div", { className: "column" });
  const answer = make("p", { className: "answer" }), caption = make("p", { className: "hint" });
  const source = make("p", { className: "hint" });
  const further = make("div", { className: "controls" }); // which depend on the picture
  let which, layer, canvas, map;

  const asked = () => ASKED[picture.value][1];

  // Another picture may have other classes and layers, and a network that must be fetched first.
  async function change() {
    const { photo, sky, by } = asked(), wanted = picture.value;
    if (by) {
      try {
        scene ??= readScene((await load("scenes"))[0]);
        networks[by] ??= makeNetwork(await load(`scenes_${by}`));
      } catch {
        picture.value = "panda";
        await change();
        return status.say("The network of the scenes could not be loaded; the photos are here.");
      }
      if (picture.value !== wanted) return;
    }
    const classes = sky ? ["tank", "no tank"] : collages[photo].classes.map(({ name }) => name);
    which = choose("Class", Object.fromEntries(classes.map((name, k) => [k, name])), show);
    layer = pick("Layer", sky ? SCENE_LAYERS : PHOTO_LAYERS, show);
    further.replaceChildren(which, layer);
    canvas = makeCanvas(shape(), "", sky ? 8 : 2);
    map = makeCanvas(shape(), "", sky ? 8 : 2);
    drawImage(canvas, sky ? scene[sky] : photos[photo], shape());
    canvas.setAttribute("aria-label", `The picture: ${ASKED[wanted][0]}.`);
    left.replaceChildren(make("p", { className: "title" }, make("b", {}, "The picture")), answer, canvas);
    right.replaceChildren(make("p", { className: "title" }, make("b", {}, "Grad-CAM")),
      make("p", { className: "answer" }, "for ", make("b", {})), map, caption);
    source.textContent = sky ? "The network of the scenes answers here, in the page."
      : "The network of photos is too large for a page: these maps were computed when the site was built.";
    draw();
  }

  const shape = () => (asked().sky ? [64, 64, 3] : [224, 224, 3]);

  // -- What comes out

  // Of what is asked: the picture, the cells of its map, the class in words, and regions to score.
  function look() {
    const { photo, sky, by } = asked();
    if (sky) {
      const image = scene[sky], network = networks[by], tank = which.value === "0";
      const logit = network.forward(image)[0], size = network.layers.findLast(
        (one) => one.name === layer.value).shape;
      return { image, size, name: tank ? "tank" : "no tank", probability: sigmoid(tank ? logit : -logit),
        cells: gradCam(network, image, [tank ? 1 : -1], layer.value).map((v) => v * size[0] * size[1]),
        regions: { sky: scene.sky, tank: scene.tank } };
    }
    const { classes } = collages[photo], { name, probability, cells } = classes[which.value];
    const values = decode(cells[layer.value]), size = Math.sqrt(values.length);
    return { image: photos[photo], size: [size, size], name, probability, cells: values,
      regions: { [`${classes[0].name}'s half`]: HALVES[0], [`${classes[1].name}'s half`]: HALVES[1] } };
  }

  function draw() {
    const { image, size, name, probability, cells, regions } = look();
    const heat = stretch(cells, size, shape()), largest = cells.reduce((a, b) => Math.max(a, b), 0);
    const shares = Object.entries(regions).map(([where, mask]) => [where, massInside(heat, mask), share(mask)]);
    drawMap(map, heat, image, shape(), { table: "magnitude", alpha: 0.65 });
    if (asked().sky) for (const mask of Object.values(regions)) drawOutline(map, mask, shape());
    right.querySelector(".answer b").textContent = name;
    answer.replaceChildren(`${name}: probability `, make("b", {}, probability.toFixed(2)));
    const digits = largest.toPrecision(2), percent = (part) => `${Math.round(100 * part)}\u00a0%`;
    caption.textContent = largest ? `The brightest place stands for ${digits}: every map is divided by ` +
      "its largest value." : "The map is empty: nothing here speaks for this class.";
    map.setAttribute("aria-label", `Grad-CAM for ${name}. ${caption.textContent}`);
    const { by, sky } = asked(), onSky = shares[0][1];
    task.check(by === "confounded" && largest && onSky > 0.9, `asked about ${name} under ` +
      `${sky === "sunny" ? "a blue sky" : "clouds"}, the network points at the sky, ${percent(onSky)} of ` +
      "the map. Asked about a tank, no layer does: it goes by the blue that is not there, and what is " +
      "not there cannot light up.");
    root.result = { picture: picture.value, target: Number(which.value), layer: layer.value, probability,
      cells, map: heat, shares: shares.map(([, part]) => part) };
    status.say(largest ? `Of the map for ${name}, ${shares.map(([where, part, area]) =>
      `${percent(part)} ${sky ? "on the" : "in the"} ${where} (${percent(area)} of the area)`).join(", ")}. ` +
      `Probability ${probability.toFixed(2)}, brightest place ${digits}.`
      : `For ${name} the map is empty: no part of this picture speaks for it. Probability ` +
        `${probability.toFixed(2)}.`);
  }

  const bar = make("span", { className: "bar" });
  bar.style.background = gradientOf("magnitude");
  live.append(
    make("p", { className: "question" }, "The same picture, another class: does the map move?"),
    make("p", {}, "Grad-CAM marks where a layer of the network has found what speaks for a class. Ask for " +
      "one class, then for another, and compare."),
    make("div", { className: "controls" }, picture), further,
    make("div", { className: "pair" }, left, right,
      make("p", { className: "legend" }, "says nothing for the class ", bar, " says the most")),
    source,
    make("div", { className: "buttons" }, button("Reset", () => {
      picture.value = "panda";
      task.reset();
      change();
    })),
    status, task);
  await change();
});
