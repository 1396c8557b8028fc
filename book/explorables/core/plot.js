// A curve, drawn in the page's own colours.

const SVG = "http://www.w3.org/2000/svg";

function shape(name, properties) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(properties)) element.setAttribute(key, value);
  return element;
}

// A plot over 0..1 whose `.draw(points, place)` shows points [x, y] and fills the area up to
// `place`; `.range` is then the lowest and the highest y of the plot, which has 0 and `most` in it.
export function makePlot(label, most = 0) {
  const plot = shape("svg", {
    viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", class: "plot" });
  plot.setAttribute("aria-label", label);
  const area = shape("path", { class: "area" });
  const zero = shape("path", { class: "zero" });
  const curve = shape("path", { class: "curve" });
  const marker = shape("path", { class: "marker" });
  plot.append(area, zero, curve, marker);
  plot.draw = (points, place) => {
    const values = points.map(([, y]) => y);
    const low = Math.min(0, ...values), high = Math.max(most, ...values), span = high - low || 1;
    const at = ([x, y]) => `${(100 * x).toFixed(2)},${(98 - (96 * (y - low)) / span).toFixed(2)}`;
    const through = (some) => (some.length ? `M${some.map(at).join("L")}` : "");
    const passed = points.filter(([x]) => x <= place);
    curve.setAttribute("d", through(points));
    zero.setAttribute("d", through([[0, 0], [1, 0]]));
    marker.setAttribute("d", through([[place, low], [place, high || 1]]));
    area.setAttribute("d", passed.length
      ? through([[passed[0][0], 0], ...passed, [passed.at(-1)[0], 0]]) : "");
    plot.range = [low, high];
  };
  return plot;
}
