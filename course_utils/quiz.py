"""Quizzes inside a page: an answer is a click, and every answer explains itself.

They are plain HTML and CSS, so they work on the static site, in JupyterLab and on Colab, with
a mouse, a keyboard or a screen reader, with no network and no JavaScript.
"""

import hashlib
import re
from html import escape

from IPython.display import display

_STYLE = """
<style>
.quiz { border: 1px solid #8888; border-radius: 8px; margin: 1em 0; padding: 0.6em 1em 0.8em; }
.quiz legend { float: left; width: 100%; font-size: 1em; font-weight: 600; margin: 0.2em 0 0.4em; }
.quiz div { clear: both; display: grid; grid-template-columns: auto 1fr; margin: 0.35em 0; }
.quiz :is(input, label) { align-self: baseline; }
.quiz input { margin: 0 0.6em 0 0; accent-color: #176d8a; }
.quiz label { cursor: pointer; }
.quiz p { display: none; grid-column: 1 / -1; margin: 0.3em 0 0.5em 0.5em; padding: 0.1em 0.8em; }
.quiz p.right { border-left: 4px solid #2a8f4f; }
.quiz p.wrong { border-left: 4px solid #c2570c; }
.quiz input:checked ~ p { display: block; }
</style>
"""


def ask(question, *answers):
    """Show a question whose answers explain themselves when they are chosen.

    Parameters
    ----------
    question : str
        Plain text; what stands between backticks is shown as code.
    *answers : (str, bool, str)
        At least two: the answer, whether it is right, and why. Exactly one is right.

    Raises
    ------
    ValueError
        If an answer is not such a triple, or not exactly one of them is right.
    """
    if len(answers) < 2 or not all(
        isinstance(a, tuple) and len(a) == 3 and isinstance(a[1], bool) and a[2] for a in answers
    ):
        raise ValueError(
            "each of at least two answers must be a tuple (text, True or False, why it is so)."
        )
    if sum(right for _, right, _ in answers) != 1:
        raise ValueError("exactly one answer must be right.")
    name = "quiz-" + hashlib.sha256(question.encode()).hexdigest()[:8]
    rows = "".join(_row(f"{name}-{i}", name, *answer) for i, answer in enumerate(answers))
    html = f'{_STYLE}<fieldset class="quiz"><legend>{_inline(question)}</legend>{rows}</fieldset>'
    plain = "\n".join([question, *(f"( ) {text}" for text, _, _ in answers)])
    display({"text/html": html, "text/plain": plain}, raw=True)


def _row(answer_id, name, text, right, why):
    kind, opening = ("right", "Right.") if right else ("wrong", "Not quite.")
    return (
        f'<div><input type="radio" name="{name}" id="{answer_id}">'
        f'<label for="{answer_id}">{_inline(text)}</label>'
        f'<p class="{kind}" role="status"><strong>{opening}</strong> {_inline(why)}</p></div>'
    )


def _inline(text):
    """Escape text for HTML, and show what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
