"""How long an explorable takes from an input to its new answer, what it weighs, whether it grows.

Needs Chromium: python tests/benchmarks/explorables.py [inputs] [minutes of use]
An input is a touch of the stage, or a movement of the first slider where there is no stage, or
the next choice or button. The time is from the event to the end of the drawing with the new
answer, the wait for the next picture of the screen included.
"""

import os
import shutil
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import nbformat
from _bench import ROOT, publish, table
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(ROOT / "book/explorables"))

import bundle

PAUSE = 600  # milliseconds between the inputs of one who uses an explorable
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

TEXT = """Milliseconds from an input to the new answer in the page, in Chromium without a graphics \
card: the median, and what 95 % of {inputs} inputs stay below; then the same with the processor \
throttled by four. The wait for the next picture of the screen, up to 17 ms, is included. Then \
what is loaded when the reader comes near, networks and pictures included; before, it is \
{before:.0f} kB, for all explorables of a page together. Memory is that of the page's objects, \
garbage collected, before and after {minutes:g} min of use with an input every {pause:g} \
milliseconds, all of them side by side. A computer of {cores} \
cores is busy at a load of {cores}; when the times had been taken it was {load:.0f}.

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
  // Of two parts the second has the stage.
  if (root.querySelector("[hidden] .stage")) root.querySelectorAll("input[type=radio]")[1].click();
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


def kilobytes(page, folder):
    """What the page has loaded, from the disk."""
    names = page.evaluate("[...document.scripts].map((one) => one.src)")
    files = [folder / name.removeprefix(folder.as_uri() + "/") for name in names if name]
    return sum(file.stat().st_size for file in files) / 1000


def megabytes(page):
    """The memory of the page's objects, once what is no longer needed is gone."""
    tools = page.context.new_cdp_session(page)
    tools.send("HeapProfiler.collectGarbage")
    return tools.send("Runtime.getHeapUsage")["usedSize"] / 2**20


def opened(browser, address):
    """A page of a process of its own, with its explorable alive and tried."""
    page = browser.new_page()
    page.goto(address)
    page.mouse.move(5, 5)
    page.wait_for_selector("[data-alive]")
    measure(page, 20)
    return page


def speeds(browser, address, inputs, folder):
    """Median and 95 % of the times, plain and throttled, and what was loaded."""
    page = opened(browser, address)
    plain, slow = measure(page, inputs), measure(page, inputs, 4)
    row = [f(times) for times in (plain, slow) for f in (median, _most)]
    row.append(kilobytes(page, folder))
    page.close()
    return row


def growth(browser, addresses, minutes):
    """The memory of each page before and after, all of them in use at once."""
    pages = [opened(browser, address) for address in addresses]
    before = [megabytes(page) for page in pages]
    for page in pages:
        page.evaluate(f"(use) => {{ ({MOVE})(use) }}", [round(minutes * 60_000 / PAUSE), PAUSE])
    time.sleep(minutes * 60)
    for page in pages:
        page.wait_for_timeout(2000)  # what the last input began comes to its end
    after = [megabytes(page) for page in pages]
    for page in pages:
        page.close()
    return zip(before, after, strict=True)


def _most(times):
    return quantiles(times, n=20)[-1]


def named(name):
    """An explorable's name, and the chapter that it stands in."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if any(cell.metadata.get("explorable") == name for cell in nbformat.read(path, 4).cells):
            return f"`{name}`, [{path.stem[:2]}](../notebooks/{path.name})"
    return f"`{name}`"


def main(inputs=100, minutes=1.0):
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print("There is no Chromium to measure the explorables in.")
        return
    names = bundle.names()
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        folder = Path(folder).resolve()
        bundle.build(folder / "explorables")
        always = [folder / "explorables" / name for name in ("loader.js", "explorables.css")]
        before = sum(file.stat().st_size for file in always) / 1000
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        addresses = [bundle.write_page(folder, name).as_uri() for name in names]
        rows = [speeds(browser, address, inputs, folder) for address in addresses]
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        memory = growth(browser, addresses, minutes)
        rows = {name: [*row, *mb] for name, row, mb in zip(names, rows, memory, strict=True)}
        browser.close()
    times = ["median", "95 %", "median, slowed", "95 %, slowed"]
    header = ["explorable, chapter", *times, "kB", "MB before", "MB after"]
    lines = [
        [
            named(name),
            *(f"{x:.1f}" for x in row[:4]),
            f"{row[4]:.0f}",
            *(f"{x:.1f}" for x in row[5:]),
        ]
        for name, row in rows.items()
    ]
    filled = {"inputs": inputs, "minutes": minutes, "pause": PAUSE, "before": before}
    filled |= {"load": load, "cores": os.cpu_count()}
    text = TEXT.format(rows=table(header, lines), **filled)
    publish("explorables", "Explorables", text, {"milliseconds, kB and MB": rows})


if __name__ == "__main__":
    main(*(int(text) if text.isdigit() else float(text) for text in sys.argv[1:]))
