"""Who handed in what: platforms' names, archives of all kinds, and nobody taken for another."""

import io
import json
import os
import sys
import time
import tracemalloc
import unicodedata
import zipfile
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "notebooks/labs/tools"))

import collect  # noqa: E402
import unpack  # noqa: E402


def released(title):
    """What students get of a lab of three functions."""
    cells = [new_markdown_cell(f"# Lab: {title}")]
    for name in ("single", "double", "triple"):
        answer = new_code_cell(f"def {title}_{name}(x):\n    raise NotImplementedError")
        answer.metadata["nbgrader"] = {"grade_id": name, "solution": True}
        cells += [new_markdown_cell(f"## {title} {name}"), answer]
    return new_notebook(cells=cells)


LABS = {"mini": released("mini"), "maxi": released("maxi")}


def notebook(answer, lab="mini"):
    """A student's notebook, as text; `answer` tells it from others."""
    return nbformat.writes(LABS[lab]).replace("NotImplementedError", f"ValueError({answer!r})")


def grow(folder, paths):
    """Write a tree: {path: text or bytes}, or paths, whose notebooks bear their number."""
    if not isinstance(paths, dict):
        paths = {p: notebook(i) if ".ipynb" in p else "?" for i, p in enumerate(paths)}
    for path, content in paths.items():
        target = folder / path
        if path.endswith("/"):
            target.mkdir(parents=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def zipped(files):
    """The bytes of an archive of {name: text or bytes}."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def collected(folder):
    """The submissions by student, and the files with what became of them."""
    submissions, files = collect.collect(list(unpack.files(folder)), LABS, 4)
    assert len(submissions) == len({(s.student, s.lab) for s in submissions})
    return {s.student: s for s in submissions}, {f["file"]: f["what"] for f in files}


ANN, BO = "Ann Lee", "Bo-An Ng"
PLATFORMS = {
    "Moodle": [
        "Ann Lee_101_assignsubmission_file_/mini.ipynb",
        "Ann Lee_101_assignsubmission_onlinetext_/onlinetext.html",
        "Bo-An Ng_102_assignsubmission_file_/work.ipynb",
    ],
    "Moodle without folders": [
        "Ann Lee_101_assignsubmission_file_mini.ipynb",
        "Bo-An Ng_102_assignsubmission_file_mini (1).ipynb",
    ],
    "Canvas": ["Ann Lee_LATE_101_9001_mini-1.ipynb", "Bo-An Ng_102_9002_mini.ipynb"],
    "Blackboard": [
        "Lab_3_Ann Lee_attempt_2026-11-28-13-05-59_mini.ipynb",
        "Lab_3_Ann Lee_attempt_2026-11-28-13-05-59.txt",
        "Lab_3_Bo-An Ng_attempt_2026-11-28-13-05-59_mini.ipynb",
    ],
    "Brightspace": [
        "101-77 - Ann Lee - Nov 28, 2026 105 PM/mini.ipynb",
        "102-77 - Bo-An Ng - Nov 28, 2026 1105 AM/mini.ipynb",
        "index.html",
    ],
    "Google Classroom": ["Ann Lee - mini.ipynb", "Bo-An Ng - mini (1).ipynb"],
    "GitHub Classroom": [
        "mini-submissions/mini-Ann Lee/mini.ipynb",
        "mini-submissions/mini-Bo-An Ng/mini.ipynb",
        "mini-submissions/mini-Bo-An Ng/.git/HEAD",
    ],
    "by hand": ["Ann Lee/mini.ipynb", "Bo-An Ng/any/where/any name.ipynb"],
}


@pytest.mark.parametrize("wrapped", ["folder", "zip", "in a folder", "zip in a folder"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_platforms_downloads_are_the_students(tmp_path, platform, wrapped):
    tree = grow(tmp_path / "tree", PLATFORMS[platform])
    files = {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*") if p.is_file()}
    top = tmp_path / "handed in"
    if wrapped == "folder":
        top = tree
    elif wrapped == "zip":
        top = tmp_path / "download.zip"
        top.write_bytes(zipped(files))
    elif wrapped == "in a folder":
        grow(top / "Course-Lab 3-4711", files)
    else:
        grow(top, {"Lab 3-20261128T130559Z-001.zip": zipped(files)})
    students, listed = collected(top)
    assert sorted(students) == [ANN, BO]
    assert all(s.lab == "mini" and s.cells for s in students.values())
    assert ("handed in late" in students[ANN].note) == (platform == "Canvas")
    if wrapped == "folder":  # each file is named
        assert set(listed) == set(files)
        assert sum(what == "it counts" for what in listed.values()) == 2


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (
            "Lab_Ann_attempt_2026-11-27-13-05-59_mini.ipynb",
            "Lab_Ann_attempt_2026-11-28-13-05-59_mini.ipynb",
        ),
        (
            "1-7 - Ann - Nov 9, 2026 105 PM/mini.ipynb",
            "1-7 - Ann - Nov 10, 2026 1059 AM/mini.ipynb",
        ),
        ("Ann_101_9001_mini-1.ipynb", "Ann_LATE_101_9002_mini.ipynb"),
        ("Ann/mini.ipynb", "Ann/mini (1).ipynb"),
        ("Ann/mini (9).ipynb", "Ann/mini (10).ipynb"),
        ("Ann_mini.ipynb", "Ann_mini-Copy1.ipynb"),
    ],
)
def test_the_newest_version_counts_and_the_note_says_which(tmp_path, older, newer):
    students, listed = collected(grow(tmp_path, [newer, older, "Bo/mini.ipynb"]))
    assert sorted(students) == ["Ann", "Bo"]
    assert f"of 2 notebooks for this lab, {newer} counts" in students["Ann"].note
    assert (listed[newer], listed[older]) == ("it counts", "another version counts")


def test_what_was_handed_out_never_counts_before_what_was_written(tmp_path):
    blank = nbformat.writes(LABS["mini"])
    students, _ = collected(
        grow(tmp_path, {"Ann/old.ipynb": notebook(1), "Ann/mini (3).ipynb": blank})
    )
    assert "Ann/old.ipynb counts" in students["Ann"].note


def test_nor_does_what_was_handed_out_with_a_number_of_its_own(tmp_path):
    lab = released("mini")
    lab.cells.insert(1, new_code_cell("labs = checks\nlabs.variant(0)  # the defects"))
    blank = nbformat.writes(lab).replace("variant(0)", "variant(2001)")
    work = blank.replace("NotImplementedError", "ValueError(1)")
    tree = grow(tmp_path, {"Ann/old.ipynb": work, "Ann/mini (3).ipynb": blank})
    (ann,), _ = collect.collect(list(unpack.files(tree)), {"mini": lab}, 4)
    assert "Ann/old.ipynb counts" in ann.note


def dated(files, when):
    """The bytes of an archive of files that were all changed at a time, (year, month, ...)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, when), content)
    return buffer.getvalue()


EARLY, LATE = (2026, 11, 1, 12, 0, 0), (2026, 11, 28, 12, 0, 0)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", ["Ann_101_assignsubmission_file_/lab.zip", "Ann/mini.ipynb"])
@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("in_a_folder", [False, True])
def test_no_student_antedates_their_work_by_an_archive(
    tmp_path, layers, name, unpacked, in_a_folder
):
    own = {"mini.ipynb": notebook(1)}
    for _ in range(layers):
        own = {"all.zip": dated(own, EARLY)}
    theirs, late = own["all.zip"], time.mktime((*LATE, 0, 0, -1))
    others = {"Bo_102_assignsubmission_file_/mini.ipynb": notebook(2)}
    top = tmp_path / "in"
    if unpacked:
        grow(top, {name: theirs} | others)
        os.utime(top / name, (late, late))
    elif in_a_folder:
        grow(top, {"submissions.zip": dated({name: theirs} | others, LATE)})
    else:
        top = grow(tmp_path, {"download.zip": dated({name: theirs} | others, LATE)})
        top /= "download.zip"
    students, _ = collected(top)
    assert students["Ann"].time == late


def test_in_one_archive_of_a_student_the_newest_version_counts(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a/mini.ipynb", LATE), notebook("newer"))
        archive.writestr(zipfile.ZipInfo("b/mini.ipynb", EARLY), notebook("older"))
    tree = {"Ann/all.zip": buffer.getvalue(), "Bo/mini.ipynb": notebook(2)}
    students, _ = collected(grow(tmp_path, tree))
    assert any("newer" in cell.text for cell in students["Ann"].cells)


def test_other_endings_and_archives_within_archives(tmp_path):
    inner = zipped({"lab/mini.ipynb": notebook(5), "__MACOSX/lab/._mini.ipynb": "junk"})
    tree = {
        "Ann/mini.ipynb.json": notebook(1),
        "Bo/mini.ipynb.txt": notebook(2),
        "Cy/work.json": notebook(3),
        "dan_mini.zip": zipped({"mini.ipynb": notebook(4)}),
        "Eve/all.zip": zipped({"deeper.zip": inner}),
        "Fay/mini.ipynb.zip": zipped({"mini.ipynb": notebook(6)}),
        "Gil/mini.ipynb": zipped({"mini.ipynb": notebook(7)}),  # a zip under another name
    }
    students, listed = collected(grow(tmp_path, tree))
    assert sorted(students) == ["Ann", "Bo", "Cy", "Eve", "Fay", "Gil", "dan"]
    assert all(s.cells for s in students.values())
    assert listed["Eve/all.zip/deeper.zip/__MACOSX/lab/._mini.ipynb"] == "not looked into"


def test_a_large_hidden_folder_is_named_as_one(tmp_path):
    tree = [f"Ann/.git/{i}" for i in range(unpack.FEW + 1)]
    _, listed = collected(grow(tmp_path, ["Ann/mini.ipynb", "Ann/.venv/x", *tree]))
    assert sorted(listed) == ["Ann/.git", "Ann/.venv/x", "Ann/mini.ipynb"]


def test_archives_are_bounded_and_what_is_not_read_is_named(tmp_path, monkeypatch):
    deep = notebook(1)
    for _ in range(unpack.DEPTH + 2):
        deep = zipped({"in.zip" if isinstance(deep, bytes) else "mini.ipynb": deep})
    bomb = zipped({"mini.ipynb": b" " * 60_000_000})
    many = zipped({f"{i}.ipynb": "" for i in range(50)})
    monkeypatch.setattr(unpack, "FILES", 40)
    locked = bytearray(zipped({"mini.ipynb": notebook(2)}))
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flag that says "encrypted"
        locked[locked.index(mark) + offset] |= 1
    tree = {
        "Ann/bomb.zip": bomb,
        "Bo/deep.zip": deep,
        "Cy/many.zip": many,
        "Di/locked.zip": bytes(locked),
        "Ed/out.zip": zipped({"../Fay/mini.ipynb": notebook(3), "/etc/mini.ipynb": notebook(4)}),
        "Fay/mini.ipynb": notebook(5),
        "Gil/broken.zip": zipped({"mini.ipynb": notebook(6)})[:-30],
        "Hal/mini.rar": b"Rar!",
        "Ida/mini.ipynb": b"[" * 200_000,
    }
    before = sorted(tmp_path.rglob("*"))
    students, listed = collected(grow(tmp_path / "in", tree))
    said = " ".join(f"{file}: {what}" for file, what in listed.items())
    for words in ("bomb.zip/mini.ipynb: not read", "archives within archives", "over 40 files"):
        assert words in said
    for words in ("locked with a password", "leads out of", "cannot be opened", "ask for a .zip"):
        assert words in said
    assert "leads out of" in listed["Ed/out.zip/../Fay/mini.ipynb"]
    assert [name for name, s in students.items() if s.cells] == ["Fay"]
    assert sorted(students) == ["Ann", "Bo", "Cy", "Di", "Ed", "Fay", "Gil", "Hal", "Ida"]
    assert all(s.note for name, s in students.items() if name != "Fay")
    assert before == sorted(
        p for p in tmp_path.rglob("*") if "in" not in p.relative_to(tmp_path).parts
    )


def test_links_are_not_followed(tmp_path):
    secret = grow(tmp_path / "elsewhere", ["mini.ipynb"])
    tree = grow(tmp_path / "in", ["Ann/mini.ipynb"])
    (tree / "Bo").symlink_to(secret)
    (tree / "Cy").mkdir()
    (tree / "Cy/mini.ipynb").symlink_to(secret / "mini.ipynb")
    students, listed = collected(tree)
    assert [name for name, s in students.items() if s.cells] == ["Ann"]
    assert listed["Bo"] == listed["Cy/mini.ipynb"] == "a link, which is not followed"


NAMES = ["रीता", "रीतू", "राता", "Jürgen", "فاطمة", "김민준", "김민서", "สมชาย"]
NAMES += ["José Núñez", "a+b", "O'Brien"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_keep_all_their_letters_in_one_form(tmp_path, form):
    paths = [f"{unicodedata.normalize(form, name)}/mini.ipynb" for name in NAMES]
    students, _ = collected(grow(tmp_path, paths))
    assert sorted(students) == sorted(unicodedata.normalize("NFC", name) for name in NAMES)


@pytest.mark.parametrize(
    "paths",
    [
        ["José/mini.ipynb", "Jose\u0301/mini.ipynb"],  # one name on paper
        ["a_b/mini.ipynb", "a?b/mini.ipynb"],
        [
            "Ann/mini.ipynb",
            "mal/Ann_1_assignsubmission_file_/mini.ipynb",
            "mal/Bo_2_assignsubmission_file_/mini.ipynb",
        ],
        ["A/Ann/mini.ipynb", "A/Bo/mini.ipynb", "B/Ann/mini.ipynb", "B/Cy/mini.ipynb"],
        ["Ann_101_1_mini.ipynb", "Ann_102_2_mini.ipynb", "Ann/mini.ipynb"],
    ],
)
def test_who_cannot_be_told_apart_is_refused_by_name(tmp_path, paths):
    with pytest.raises(ValueError, match="give them names that differ") as refusal:
        collected(grow(tmp_path, paths))
    assert any(path in str(refusal.value) for path in paths)


def test_two_of_one_name_whom_the_platform_numbers_are_two(tmp_path):
    paths = [f"Ann Lee_{n}_assignsubmission_file_/mini.ipynb" for n in (101, 102)]
    students, _ = collected(grow(tmp_path, [*paths, "Bo_103_assignsubmission_file_/mini.ipynb"]))
    assert sorted(students) == ["Ann Lee 101", "Ann Lee 102", "Bo"]


def test_files_that_say_only_the_labs_name_are_not_thrown_together(tmp_path):
    students, _ = collected(grow(tmp_path, ["mini.ipynb", "mini (1).ipynb", "Ann - mini.ipynb"]))
    assert len(students) == 3
    assert sum("does not say whose it is" in s.note for s in students.values()) == 2


def test_folders_of_folders_of_students_are_looked_through(tmp_path):
    paths = ["A/Ann/mini.ipynb", "A/Bo/mini.ipynb", "B/Cy/mini.ipynb", "B/Di/mini.ipynb"]
    paths += ["late/Eve_mini.ipynb", "list of students.csv"]
    students, listed = collected(grow(tmp_path, paths))
    assert sorted(students) == ["Ann", "Bo", "Cy", "Di", "Eve"]
    assert listed["list of students.csv"] == "no notebook"


@pytest.mark.parametrize("others", [[], ["Bo/mini.ipynb"]])
def test_the_versions_of_one_student_are_not_taken_for_students(tmp_path, others):
    paths = ["Ann/draft/mini.ipynb", "Ann/final 2/mini.ipynb", "Ann/maxi/maxi.ipynb"]
    paths = {path: notebook(i, path[-10:-6]) for i, path in enumerate(paths)}
    paths |= {path: notebook(9) for path in others}
    submissions, _ = collect.collect(list(unpack.files(grow(tmp_path, paths))), LABS, 4)
    assert [(s.student, s.lab) for s in submissions if s.student != "Bo"] == [
        ("Ann", "mini"),
        ("Ann", "maxi"),
    ]


def test_a_student_without_a_notebook_is_in_the_table_with_what_there_is(tmp_path):
    students, _ = collected(
        grow(tmp_path, ["Ann/report.pdf", "Bo/", "Cy/mini.ipynb", "di_mini.pdf"])
    )
    assert [name for name, s in students.items() if s.cells] == ["Cy"]
    assert "there is no notebook in this folder (Ann/report.pdf" in students["Ann"].note
    assert "the folder is empty" in students["Bo"].note
    assert "di_mini.pdf" in students["di"].note


def test_a_lab_is_told_by_its_answers_where_its_cells_are_gone(tmp_path):
    code = "def mini_single(x): return x\ndef mini_double(x): return 2 * x"
    text = nbformat.writes(new_notebook(cells=[new_code_cell(code)]))
    students, _ = collected(grow(tmp_path, {"Ann/Untitled1.ipynb": text}))
    assert students["Ann"].lab == "mini"


word = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=5
)


@settings(max_examples=150)
@given(
    st.sets(
        word.filter(lambda w: w not in (".", "..") and not w.startswith(".")),
        min_size=2,
        max_size=4,
    )
)
def test_no_two_names_ever_become_one(names):
    cells = [[collect.unpack.as_cell({"cell_type": "code", "source": str(i)})] for i in range(9)]
    found = [
        unpack.File((name, "mini.ipynb"), 0.0, cells[i]) for i, name in enumerate(sorted(names))
    ]
    try:
        submissions, listed = collect.collect(found, LABS, 4)
    except ValueError:
        return  # refused, before anything was run
    assert len({s.student for s in submissions}) == len(names)
    assert len(listed) == len(names)
    for submission in submissions:
        assert "/" not in submission.student
        assert submission.student not in ("", ".", "..")
        assert unicodedata.is_normalized("NFC", submission.student)


def test_an_old_notebook_is_read(tmp_path):
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}}
    cells = [{"cell_type": "code", "input": "def mini_single(x): 1\ndef mini_double(x): 2"}]
    old["worksheets"] = [{"cells": [{**cells[0], "language": "python", "outputs": []}]}]
    students, _ = collected(grow(tmp_path, {"Ann/x.ipynb": json.dumps(old)}))
    assert students["Ann"].lab == "mini"


def test_code_that_is_too_long_to_parse_is_cut_and_the_note_says_so(tmp_path):
    handed = nbformat.reads(notebook(1), 4)
    handed.cells += [new_code_cell("a\n" * 1_000_000), new_code_cell("def f(x):\n    return x")]
    picture = f"![](data:image/png;base64,{'A' * 300_000})"  # as Colab pastes it
    handed.cells.append(new_markdown_cell(picture))
    grow(tmp_path, {"Ann/mini.ipynb": nbformat.writes(handed)})
    tracemalloc.start()
    students, _ = collected(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()
    assert "the code of 1 of its cells was cut" in students["Ann"].note
    texts = [cell.text for cell in students["Ann"].cells[-3:]]
    assert len(texts[0]) == 100_000
    assert texts[1:] == ["def f(x):\n    return x", picture]


def test_the_code_of_all_cells_is_bounded_too(tmp_path):
    handed = nbformat.reads(notebook(1), 4)
    handed.cells += [new_code_cell("a\n" * 40_000) for _ in range(30)]
    grow(tmp_path, {"Ann/mini.ipynb": nbformat.writes(handed)})
    students, _ = collected(tmp_path)
    assert sum(len(cell.text) for cell in students["Ann"].cells) < 1_010_000
    assert "was cut" in students["Ann"].note


@pytest.mark.parametrize(
    "name", ["a" + "__v" * 70 + "x", "a" + "-_my" * 55 + "!", "_" * 200 + "v" * 40, "v1_-" * 60]
)
def test_a_files_name_takes_no_time(tmp_path, name):
    begun = time.process_time()
    collected(grow(tmp_path, {f"{name}.ipynb": notebook(1), "Bo.ipynb": notebook(2)}))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("name", "bare"),
    [("Ann_v2", "Ann"), ("Ann final version 3", "Ann"), ("Ann_draft_", "Ann"), ("v 1", "")]
    + [("Ann-my-notebook-12", "Ann"), ("Ann_v1234", "Ann_v1234"), ("Vera", "Vera")],
)
def test_words_for_a_version_are_no_part_of_a_name(name, bare):
    assert collect.VERSION.sub("", name) == bare


@pytest.mark.parametrize("name", ["a/" * 3000 + "mini.ipynb", "_" * 60_000 + "x.ipynb"])
def test_no_name_in_an_archive_stops_the_others(tmp_path, name):
    begun = time.process_time()
    tree = {"Ann/all.zip": zipped({name: notebook(1)}), "Bo/mini.ipynb": notebook(2)}
    students, _ = collected(grow(tmp_path / "in", tree))
    assert sorted(students) == ["Ann", "Bo"]
    (tmp_path / "all.zip").write_bytes(tree["Ann/all.zip"])
    collected(tmp_path / "all.zip")
    assert time.process_time() - begun < 5
