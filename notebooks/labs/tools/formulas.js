// Formulas as pictures: node formulas.js MATHJAX reads [[TeX, on its own line], ...] from the
// standard input and writes as many pieces of SVG, empty where the TeX has an error. Commands that
// define others, load packages or make links are left out: no formula changes the next.
const [mathjax] = process.argv.slice(2);
const packages = ["base", "ams", "boldsymbol", "braket", "cancel", "color", "noundefined", "upgreek"];

require(mathjax)
  .init({
    loader: { load: ["input/tex-full", "output/svg", "adaptors/liteDOM"] },
    tex: { packages },
    svg: { fontCache: "none" },
  })
  .then((MathJax) => {
    const { adaptor } = MathJax.startup;
    const svg = ([tex, display]) => {
      try {
        const drawn = adaptor.innerHTML(MathJax.tex2svg(tex, { display }));
        return drawn.includes('"merror"') ? "" : drawn;
      } catch {
        return "";
      }
    };
    const formulas = JSON.parse(require("fs").readFileSync(0, "utf8"));
    process.stdout.write(JSON.stringify(formulas.map(svg)));
  });
