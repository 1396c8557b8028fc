"""What every chapter keeps to, to read the same on the site, in JupyterLab and on Colab.

The pages of book/ that run code keep to all of it but the form of a chapter.
"""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book/_ext"))
from pictures import is_gallery, minutes_of, opening_of

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.ipynb"))
OPENING = ["**The question.**", "**You will be able to**", "**Time.**"]
CLOSING = ["What you saw", "When it misleads", "Quiz", "Exercises", "Further reading"]
ALLOWED = {"course_utils", "numpy", "matplotlib", "keras", "tensorflow", "sklearn", "skimage"}
ALLOWED |= {"cv2", "scipy", "lime", "PIL", "IPython", "google"} | set(sys.stdlib_module_names)
DRAWS = re.compile(r"plt\.show\(\)|plots\.\w+\(|plot_model\(")


def read(path):
    """A notebook, and its code and text cells."""
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    return notebook, code, text


def without_magics(source):
    """Python that the parser takes: lines of IPython's own become comments."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


each_chapter, each_notebook = each(NOTEBOOKS), each(NOTEBOOKS + PAGES)


@each_notebook
def test_it_is_stripped_and_has_the_common_metadata(path):
    notebook, code, _ = read(path)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec == {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    assert not any(cell.outputs or cell.execution_count for cell in code)
    nbformat.validate(notebook)


@each_chapter
def test_it_opens_with_its_question_and_closes_with_what_was_seen(path):
    _, _, text = read(path)
    first = text[0].source
    assert re.match(rf"# {path.name[:2]} · \w", first)  # the number that prose and sidebar show
    assert [first.index(part) for part in OPENING] == sorted(first.index(part) for part in OPENING)
    headings = re.findall(r"^## (.+)$", "\n".join(cell.source for cell in text), re.MULTILINE)
    assert headings[-len(CLOSING) :] == CLOSING
    assert "\n*This chapter follows* " in text[-1].source  # the documents do not stand in the way
    assert sum(cell.source.count("\n# ") + cell.source.startswith("# ") for cell in text) == 1


@each_chapter
def test_its_reading_time_is_that_of_its_card(path):
    notebook, _, text = read(path)
    (said,) = re.findall(r"\*\*Time\.\*\* About (\d+) minutes to read", text[0].source)
    assert int(said) == minutes_of(notebook)  # which its card says


@each_notebook
def test_its_text_is_plain_markdown(path):
    _, _, text = read(path)
    for cell in text:
        assert not re.search(r"^(```|~~~|:::)\s*\{", cell.source, re.MULTILINE), cell.source
        assert not re.search(r"\{[a-z:-]+\}`", cell.source), f"a role: {cell.source}"
        assert not re.search(r"^\([\w-]+\)=$", cell.source, re.MULTILINE), cell.source
        assert not re.search(r"<(?!https?:|br>|/?sub>|/?sup>)[a-zA-Z/][^>]*>", cell.source)


@each_notebook
def test_it_has_the_common_setup_cell(path):
    _, code, _ = read(path)
    expected = nbformat.read(NOTEBOOKS[0], 4).cells[1]
    assert code[0].source == expected.source
    assert code[0].metadata == expected.metadata
    url = re.search(r"url: https://github\.com/(\S+)", (ROOT / "_config.yml").read_text()).group(1)
    assert f'REPOSITORY = "{url}"' in code[0].source


@each_notebook
def test_its_cells_are_short(path):
    _, code, _ = read(path)
    for cell in code:
        folded = {"hide-cell", "hide-input"} & set(cell.metadata.get("tags", []))
        assert len(cell.source.splitlines()) <= (40 if folded else 20), cell.source


@each_notebook
def test_it_imports_only_the_package_and_named_libraries(path):
    _, code, _ = read(path)
    for cell in code:
        for node in ast.walk(ast.parse(without_magics(cell.source))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module]
            else:
                continue
            assert {m.split(".")[0] for m in modules} <= ALLOWED, cell.source


@each_notebook
def test_its_figures_have_alt_text(path):
    _, code, _ = read(path)
    for cell in code:
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if DRAWS.search(cell.source):
            assert len(alt) >= 40, f"no alt text for:\n{cell.source}"
            assert not re.match(r"(figure|image|picture|plot) of", alt, re.IGNORECASE), alt


@each_notebook
def test_its_figures_have_captions_of_their_own(path):
    _, code, _ = read(path)
    shown = [cell.metadata.mystnb for cell in code if "image" in cell.metadata.get("mystnb", {})]
    captions = [part.get("figure", {}).get("caption", "") for part in shown]
    for part, caption in zip(shown, captions, strict=True):
        assert 20 <= len(caption) <= 240, f"no caption, or a long one, for: {part.image.alt}"
        assert caption.endswith((".", "?")), caption
        assert caption not in part.image.alt, "a caption says what to see, not what there is"
        assert part.image.alt not in caption
    assert len(set(captions)) == len(captions)


def test_each_chapter_has_words_of_its_own_for_the_picture_that_opens_it():
    openings = []
    for path in NOTEBOOKS:
        notebook, code, _ = read(path)
        (shown,) = [cell.metadata.mystnb for cell in code if is_gallery(cell)]
        openings.append(opening_of(notebook)["caption"])
        assert 5 <= len(openings[-1].split()) <= 25, path.stem
        assert openings[-1].endswith((".", "?")), path.stem
        assert openings[-1] not in shown.figure.caption + shown.image.alt, path.stem
    assert len(set(openings)) == len(openings)


@each_chapter
def test_the_picture_that_opens_it_does_not_come_again_in_its_first_section(path):
    notebook, _, _ = read(path)
    place = next(i for i, cell in enumerate(notebook.cells) if is_gallery(cell))
    before = [cell.source for cell in notebook.cells[:place] if cell.cell_type == "markdown"]
    assert len(re.findall("^## ", "\n".join(before), re.MULTILINE)) >= 2


@each_chapter
def test_its_solutions_are_folded_in_all_three_places(path):
    notebook, code, text = read(path)
    solutions = [cell for cell in code if cell.source.startswith("# @title Solution\n")]
    for cell in solutions:
        assert cell.metadata.tags == ["hide-cell"]
        assert cell.metadata.jupyter.source_hidden
        assert cell.metadata.cellView == "form"
    exercises = notebook.cells[
        next(i for i, cell in enumerate(notebook.cells) if "## Exercises" in cell.source) :
    ]
    asked = sum(len(re.findall(r"^\*\*\d+\.", c.source, re.M)) for c in exercises if c in text)
    assert asked == len(solutions) >= 3
    assert [c for c in code if "hide-cell" in c.metadata.get("tags", [])] == solutions


@each_notebook
def test_what_it_folds_is_folded_in_all_three_places(path):
    _, code, _ = read(path)
    for cell in code:
        if "hide-input" in cell.metadata.get("tags", []):
            assert cell.source.startswith("# @title "), cell.source
            assert cell.metadata.jupyter.source_hidden
            assert cell.metadata.cellView == "form"
            assert cell.metadata.mystnb.code_prompt_show


@each_chapter
def test_it_has_a_quiz_of_at_least_three_questions(path):
    _, code, _ = read(path)
    quizzes = [cell for cell in code if "quiz.ask(" in cell.source]
    assert sum(cell.source.count("quiz.ask(") for cell in quizzes) >= 3
    for cell in quizzes:
        assert cell.source.startswith("# @title Quiz\n")
        assert cell.metadata.tags == ["remove-input"]


@each_notebook
def test_its_links_lead_somewhere(path):
    _, _, text = read(path)
    slug = re.compile(r"^#+ (.+)$", re.MULTILINE)
    for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", "\n".join(c.source for c in text)):
        file, _, anchor = target.partition("#")
        assert (path.parent / file).is_file(), target
        if anchor:
            titles = slug.findall((path.parent / file).read_text(encoding="utf8"))
            assert anchor in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}


@each_chapter
def test_its_length_is_that_of_a_chapter(path):
    notebook, _, text = read(path)
    words = sum(len(cell.source.split()) for cell in text)
    assert 40 <= len(notebook.cells) <= 75
    most = 3100 if path.stem.startswith("18") else 2800  # it judges fourteen methods
    assert 1300 <= words <= most, words


@each_notebook
def test_on_colab_it_installs_without_touching_numpy_or_tensorflow(path, monkeypatch):
    _, code, _ = read(path)
    (install,) = [line for line in code[0].source.splitlines() if line.strip().startswith("%")]
    assert "--no-deps" in install
    # With the placeholder, and on Colab, it stops with a sentence that says what to set.
    monkeypatch.setitem(sys.modules, "google.colab", object())
    source = without_magics(code[0].source)
    if "--" in re.search(r'REPOSITORY = "(.+)"', source).group(1):
        with pytest.raises(RuntimeError, match="Set REPOSITORY above"):
            exec(source, {})
