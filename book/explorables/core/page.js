// What explorables are made of: their place in the page, the stage, the controls, the status line.

const folder = new URL(".", document.currentScript.src).href;

// -- Their place in the page ------------------------------------------------------------------

// Brings every element with data-explorable=NAME to life: `start(live, root)` fills the element
// `live`, which then takes the static figure's place. If anything fails, the figure stays.
export function explorable(name, start) {
  for (const root of document.querySelectorAll(`[data-explorable="${name}"]:not([data-alive])`))
    bringToLife(root, start);
}

async function bringToLife(root, start) {
  const note = root.querySelector(".explorable-note");
  const live = make("div", { className: "live" });
  try {
    await start(live, root);
    root.append(live);
    root.dataset.alive = "";
    note.textContent = hasWebAssembly()
      ? "" : "This browser has no WebAssembly with SIMD, so the networks answer more slowly.";
  } catch (error) {
    console.warn(error);
    note.textContent = "What this needs could not be loaded, so the picture stands still.";
  }
}

// One of the files that export.py writes, by name. A script, because a page that was opened from
// a disk may not fetch.
const asked = {};
export function load(name) {
  asked[name] ??= new Promise((resolve, reject) => {
    const script = make("script", { src: `${folder}data/${name}.js` });
    script.onload = () => resolve(window.courseFiles[name]);
    script.onerror = () => {
      delete asked[name]; // so that it can be tried again
      script.remove();
      reject(new Error(`${name}.js could not be loaded`));
    };
    document.head.append(script);
  });
  return asked[name];
}

// -- Elements -----------------------------------------------------------------------------------

// make("p", { className: "hint" }, "text", make("b", {}, "bold")); `aria` gives aria-... .
export function make(tag, { aria = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [key, value] of Object.entries(aria)) element.setAttribute(`aria-${key}`, value);
  element.append(...children);
  return element;
}

export function button(text, onClick) {
  return make("button", { type: "button", onclick: onClick }, text);
}

// Radio buttons. `options` maps each value to what the reader sees; `.value` reads and sets.
let groups = 0;
export function choose(label, options, onChange, value = Object.keys(options)[0]) {
  const name = `choice-${groups++}-${Math.random().toString(36).slice(2)}`;
  const field = make("fieldset", { className: "choice" }, make("legend", {}, label));
  for (const [key, text] of Object.entries(options)) {
    const input = make("input", { type: "radio", name, value: key, checked: key === value });
    input.onchange = () => onChange(key);
    field.append(make("label", {}, input, text));
  }
  const inputs = [...field.querySelectorAll("input")];
  Object.defineProperty(field, "value", {
    get: () => inputs.find((input) => input.checked).value,
    set: (key) => inputs.forEach((input) => (input.checked = input.value === key)),
  });
  return field;
}

// A drop-down list; `.value` reads and sets.
export function pick(label, options, onChange) {
  const select = make("select", { onchange: () => onChange(select.value) });
  for (const [value, text] of Object.entries(options))
    select.append(make("option", { value }, text));
  const field = make("label", { className: "pick" }, make("b", {}, label), select);
  return withValue(field, select, String);
}

// A slider; `show(value)` is what stands beside it.
export function slide(label, { min, max, step = 1, value = min, show = String }, onInput) {
  const input = make("input", { type: "range", min, max, step, value });
  const output = make("span", {}); // an <output> would be a status line of its own
  const field = make("label", { className: "slide" }, make("b", {}, label), output, input);
  const write = () => {
    output.textContent = show(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.oninput = () => {
    write();
    onInput(Number(input.value));
  };
  write();
  return withValue(field, input, Number, write);
}

function withValue(field, input, type, written = () => {}) {
  Object.defineProperty(field, "value", {
    get: () => type(input.value),
    set: (value) => {
      input.value = value;
      written();
    },
  });
  return field;
}

// Controls that are not needed at first.
export function more(summary, ...children) {
  return make("details", { className: "more" }, make("summary", {}, summary), ...children);
}

// A canvas that answers to the mouse, a finger and the arrow keys. It is divided into rows and
// columns: onPoint(row, column, event) gets what is pointed at; onKey(down, right, event) steps, and
// returns false for a key that it leaves to the page.
export function stage(canvas, [rows, columns], { label, onPoint, onKey, hover = true }) {
  canvas.tabIndex = 0;
  canvas.className = "stage";
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", label);
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    onPoint(clamp(row, 0, rows - 1), clamp(column, 0, columns - 1), event);
  };
  let pressed; // a drag that began elsewhere, as to mark text, is none of ours
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pressed = event.pointerId;
    point(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    const hovers = hover && event.pointerType === "mouse" && !event.buttons;
    if (pressed === event.pointerId || hovers) point(event);
  });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, () => (pressed = undefined));
  canvas.addEventListener("keydown", (event) => {
    const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [down, right] = arrows[event.key] ?? [0, 0];
    if (onKey(down, right, event) !== false) event.preventDefault();
  });
  return canvas;
}

// A number in words: with a minus, because screen readers pass over a hyphen.
export const fixed = (value, digits) => value.toFixed(digits).replace(/^-(0\.?0*$)?/, (_, zero) => zero ?? "−");

export const an = (digit) => `${Number(digit) === 8 ? "an" : "a"} ${digit}`;

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// The line that says what came out: seen at once, and spoken by screen readers after a pause.
export function statusLine() {
  const seen = make("span", { aria: { hidden: "true" } }), spoken = make("span", { className: "spoken" });
  spoken.setAttribute("role", "status");
  const speak = afterPause((text) => write(spoken, text));
  const line = make("p", { className: "status" }, seen, spoken);
  line.say = (text) => {
    write(seen, text);
    speak(text);
  };
  return line;
}

// A task. `check(solved, sentence)` after each answer: once solved, the sentence stands there, also
// when the reader has moved on to an answer that would not solve it.
export function challenge(task) {
  const head = make("b", {}), text = make("span", {});
  const box = make("p", { className: "challenge", aria: { live: "polite" } }, head, " ", text);
  const { dataset } = box;
  let solution;
  const tell = () => {
    write(head, !("solved" in dataset) ? "Can you?"
      : "before" in dataset ? "You solved it before:" : "You solved it:");
    write(text, "solved" in dataset ? solution : task);
  };
  const tellSoon = afterPause(tell);
  box.check = (solved, sentence) => {
    if (solved) {
      dataset.solved = "";
      delete dataset.before;
      solution = sentence;
    } else if ("solved" in dataset) dataset.before = "";
    tellSoon();
  };
  box.reset = (another = task) => {
    task = another;
    delete dataset.solved;
    delete dataset.before;
    tell();
  };
  box.reset();
  return box;
}

// Calls `act` once the reader has paused, so that a screen reader speaks once and not per frame.
function afterPause(act) {
  let timer;
  return (...words) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...words), 350);
  };
}

// Writing what stands there already would be spoken again.
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// -- Time ---------------------------------------------------------------------------------------

// Calls `draw` once before the next picture, however often it is asked to.
export function oncePerFrame(draw) {
  let waiting = 0;
  return () => {
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      draw();
    });
  };
}

const prefersStill = matchMedia("(prefers-reduced-motion: reduce)");

// Runs through a generator in about so many milliseconds, drawing as it goes; at once for readers
// who prefer less motion. Returns a function that stops it.
export function play(steps, count, milliseconds, draw, done) {
  let stopped = false, taken = 0;
  const begun = performance.now();
  const go = () => {
    if (stopped) return;
    // By time and not by frames; but the page has its turn every 12 ms.
    const due = prefersStill.matches
      ? Infinity : Math.ceil((count * (performance.now() - begun)) / milliseconds);
    const pause = performance.now() + 12;
    let step = {};
    while (!step.done && taken < due && (performance.now() < pause || due === Infinity)) {
      step = steps.next();
      taken += 1;
    }
    draw();
    if (step.done) done();
    else requestAnimationFrame(go);
  };
  go();
  return () => (stopped = true);
}

function hasWebAssembly() {
  // A function that does nothing but splat a number into four.
  const code = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0,
    65, 0, 253, 15, 253, 98, 11];
  return typeof WebAssembly === "object" && WebAssembly.validate(new Uint8Array(code));
}
