"""How long an explorable takes from an input to its new answer, and whether its memory grows.

Needs Chromium: python tests/benchmarks/explorables.py [inputs] [minutes of use]
An input is a touch of the stage, or a movement of the first slider where there is no stage, or
the next choice or button. The time is from the event to the end of the drawing with the new
answer, the wait for the next picture of the screen included.
"""

import shutil
import sys
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from _bench import ROOT, publish, table
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(ROOT / "book/explorables"))

import bundle

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

TEXT = """Milliseconds from an input to the new answer in the page, in Chromium without a graphics \
card: the median, and what 95 % of {inputs} inputs stay below; then the same with the processor \
throttled by four. The wait for the next picture of the screen, up to 17 ms, is included. Memory \
is that of the page's objects after use for {minutes:g} minutes beside that before, \
garbage collected.

{rows}
"""

# Moves whatever an explorable has to move, and notes when it has a new answer.
MOVE = """async ([inputs, pause]) => {
  const root = document.querySelector("[data-explorable]"), times = [];
  const wait = (time) => new Promise((done) => setTimeout(done, time));
  let begun, result = root.result;
  const note = (value) => {
    result = value;
    if (begun !== undefined) times.push(performance.now() - begun);
    begun = undefined;
  };
  Object.defineProperty(root, "result", { configurable: true, get: () => result, set: note });
  const stage = root.querySelector(".stage");
  const slider = root.querySelector("input[type=range]");
  const choices = [...root.querySelectorAll("input[type=radio]")];
  if (!choices.length) choices.push(...root.querySelectorAll("button"));
  const box = stage?.getBoundingClientRect();
  if (stage) stage.setPointerCapture = () => {}; // which a made-up pointer has not
  for (let i = 0; i < inputs; i++) {
    begun = performance.now();
    const part = (i * 0.618) % 1, other = (i * 0.381) % 1;
    if (stage) {
      const where = { pointerId: 1, pointerType: "mouse", buttons: 1,
        clientX: box.left + part * box.width, clientY: box.top + other * box.height };
      stage.dispatchEvent(new PointerEvent("pointerdown", where));
      stage.dispatchEvent(new PointerEvent("pointerup", where));
    } else if (slider) {
      slider.value = Number(slider.min) + part * (slider.max - slider.min);
      slider.dispatchEvent(new Event("input"));
    } else choices[i % choices.length].click();
    await wait(pause);
  }
  delete root.result;
  root.result = result;
  return times;
}"""


def measure(page, inputs, throttled=1):
    """The milliseconds that inputs took to be answered."""
    tools = page.context.new_cdp_session(page)
    tools.send("Emulation.setCPUThrottlingRate", {"rate": throttled})
    times = page.evaluate(MOVE, [inputs, 60 * throttled])
    tools.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    return times


def megabytes(page):
    """The memory of the page's objects, once what is no longer needed is gone."""
    tools = page.context.new_cdp_session(page)
    tools.send("HeapProfiler.collectGarbage")
    return tools.send("Runtime.getHeapUsage")["usedSize"] / 2**20


def one(browser, address, inputs, minutes):
    """The row of one explorable: its times, and its memory before and after."""
    page = browser.new_page()
    page.goto(address)
    page.mouse.move(5, 5)
    page.wait_for_selector("[data-alive]")
    measure(page, 20)
    before = megabytes(page)
    plain, slow = measure(page, inputs), measure(page, inputs, 4)
    for _ in range(round(minutes * 10)):
        measure(page, 100)  # of 6 seconds
    after = megabytes(page)
    page.close()
    return [*(f(times) for times in (plain, slow) for f in (median, _most)), before, after]


def _most(times):
    return quantiles(times, n=20)[-1]


def main(inputs=100, minutes=1.0):
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print("There is no Chromium to measure the explorables in.")
        return
    rows = {}
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        folder = Path(folder)
        bundle.build(folder / "explorables")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name in bundle.names():
            address = bundle.write_page(folder, name).as_uri()
            rows[name] = one(browser, address, inputs, minutes)
        browser.close()
    header = ["", "median", "95 %", "median, slowed", "95 %, slowed", "MB before", "MB after"]
    lines = [[f"`{name}`", *(f"{x:.1f}" for x in row)] for name, row in rows.items()]
    text = TEXT.format(inputs=inputs, minutes=minutes, rows=table(header, lines))
    publish("explorables", "Explorables", text, {"milliseconds and MB": rows})


if __name__ == "__main__":
    main(*(int(text) if text.isdigit() else float(text) for text in sys.argv[1:]))
