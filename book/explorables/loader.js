// Fetches an explorable's script when the reader comes near it; nothing is loaded before. One that
// is seen as the page opens waits for the reader's first move, or a second.

const folder = new URL(".", document.currentScript.src).href;

const asked = new Set();

const watcher = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      if (asked.has(target.dataset.explorable)) continue;
      asked.add(target.dataset.explorable);
      const script = document.createElement("script");
      script.src = `${folder}${target.dataset.explorable}.js`;
      script.onerror = () => {
        const note = target.querySelector(".explorable-note");
        note.textContent = "What this needs could not be loaded, so the picture stands still.";
      };
      document.head.append(script);
    }
  },
  { rootMargin: "600px 0px" },
);

const watch = () => document.querySelectorAll("[data-explorable]").forEach((e) => watcher.observe(e));
const begin = () => {
  for (const sign of SIGNS) removeEventListener(sign, begin);
  clearTimeout(waiting);
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", watch);
  else watch();
};
const SIGNS = ["pointermove", "pointerdown", "touchstart", "keydown", "wheel", "scroll"];
for (const sign of SIGNS) addEventListener(sign, begin, { passive: true });
let waiting;
addEventListener("load", () => (waiting = setTimeout(begin, 1000)));
