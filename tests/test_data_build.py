"""How data/ is made: whole files or none, and a script for each."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "data" / "build"
SCRIPTS = sorted(path for path in BUILD.glob("*.py") if not path.name.startswith("_"))
each_script = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)


@pytest.fixture
def common():
    spec = importlib.util.spec_from_file_location("build_common", BUILD / "_common.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(common, tmp_path):
    """A data folder that holds one file, its sums and a README."""
    (tmp_path / "README.md").write_text("# The data\n\n## Things\n")
    common.write_arrays("things.npz", tmp_path, x=np.arange(3))
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_remade_can_be_compared_without_a_write(common, folder, monkeypatch, capsys):
    before = contents(folder)
    monkeypatch.setattr(sys, "argv", ["things.py", "--compare"])
    for x, says in (
        ([0, 1, 2], "the same"),
        ([0, 1, 4], "x: 33.3% of the values differ, by 2 at most"),
        ([0.0, 1, 2], "x is float64 (3,), was int64 (3,)"),
    ):
        common.write_arrays("things.npz", folder, x=np.array(x))
        assert capsys.readouterr().out == f"things.npz: {says}\n"
    common.write_arrays("things.npz", folder, y=np.arange(3))
    common.write_arrays("others.npz", folder, x=np.arange(3))
    assert "other arrays: x, y" in (said := capsys.readouterr().out)
    assert "others.npz: there is no such file" in said
    assert contents(folder) == before


def test_a_text_that_is_remade_can_be_compared_without_a_write(common, folder, monkeypatch, capsys):
    common.write_shipped_text("names.json", "[]\n", folder)
    before = contents(folder)
    monkeypatch.setattr(sys, "argv", ["names.py", "--compare"])
    capsys.readouterr()
    for name, text, says in (
        ("names.json", "[]\n", "the same"),
        ("names.json", "[1]\n", "other text"),
        ("new.json", "[]\n", "there is no such file"),
    ):
        common.write_shipped_text(name, text, folder)
        assert capsys.readouterr().out == f"{name}: {says}\n"
    assert contents(folder) == before


@each_script
def test_a_script_takes_the_option_to_compare(path):
    """A parser knows it, and nothing is written but by what heeds it, or the script refuses it."""
    script = path.read_text(encoding="utf8")
    if "ArgumentParser" in script:
        assert 'add_argument("--compare"' in script
    if re.search(r"\breplacing\(|\bwrite_sums\(|\bwrite_text\(DATA", script):
        for given in (["--compare"], [BUILD, "--compare"]):
            command = [sys.executable, path, *given]
            run = subprocess.run(command, capture_output=True, text=True)
            assert run.returncode == 1
            assert "takes a folder and no options" in run.stderr
            assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["--compare"], 8),
        (["scenes_fair", "--compare"], 1),
        (["scenes_fair", "scenes_confounded"], 2),
        ([], 8),
    ],
)
def test_the_script_of_scenes_tells_the_option_from_the_names(given, made, monkeypatch):
    path, asked = BUILD / "scenes.py", []
    monkeypatch.setattr(sys, "argv", [str(path), *given])
    monkeypatch.syspath_prepend(str(BUILD))
    tree = ast.parse(path.read_text(encoding="utf8"))
    *body, main = tree.body
    names = {"__name__": "scenes"}
    exec(compile(ast.Module(body, []), path, "exec"), names)
    names |= {"train": dict, "write_weights": lambda name, _: asked.append(name), "report": list}
    exec(compile(ast.Module(main.body, []), path, "exec"), names)
    assert len(asked) == made
    assert {*given} - {"--compare"} <= {*asked}


class Breaks:
    """An array that fails when numpy asks for its values, halfway through a file."""

    def __array__(self, dtype=None, copy=None):
        raise KeyboardInterrupt


def test_a_write_that_is_interrupted_leaves_the_old_files(common, folder):
    before = contents(folder)
    with pytest.raises(KeyboardInterrupt):
        common.write_arrays("things.npz", folder, x=np.arange(10_000), y=Breaks())
    assert contents(folder) == before


def test_a_disk_that_is_full_leaves_the_old_files(common, folder, monkeypatch):
    before = contents(folder)

    def half(file, **arrays):
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(OSError, match="No space left"):
        common.write_arrays("things.npz", folder, x=np.arange(4))
    assert contents(folder) == before


def test_a_text_that_cannot_be_encoded_leaves_the_old_one(common, folder):
    before = contents(folder)
    with pytest.raises(UnicodeEncodeError):
        common.write_text(folder / "README.md", "half a pair: \ud800")
    assert contents(folder) == before


def test_writing_the_same_again_gives_the_same_bytes(common, folder):
    before = contents(folder)
    common.write_arrays("things.npz", folder, x=np.arange(3))
    common.write_sums(folder)
    assert contents(folder) == before
    common.write_arrays("things.npz", folder, x=np.arange(4))
    assert contents(folder) != before


def lines_of(folder):
    return dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())


def test_a_damaged_file_is_not_declared_whole_when_another_is_made(common, folder):
    common.write_arrays("others.npz", folder, x=np.arange(3))
    (folder / "things.npz").write_bytes(b"damaged")
    before = contents(folder)
    for name in ("others.npz", "new.npz"):
        with pytest.raises(
            SystemExit, match=r"things\.npz is not what SHA256SUMS says: restore it"
        ):
            common.write_arrays(name, folder, x=np.arange(4))
        with pytest.raises(SystemExit, match="things"):
            common.write_shipped_text(name, "[]", folder)
    assert contents(folder) == before
    (folder / "things.npz").unlink()
    common.write_arrays("others.npz", folder, x=np.arange(5))  # its own script may run later
    common.write_arrays("things.npz", folder, x=np.arange(3))
    common.write_arrays("others.npz", folder, x=np.arange(4))
    assert set(lines_of(folder)) == {"things.npz", "others.npz"}


def test_only_the_line_of_what_was_made_is_written(common, folder):
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  away.npz\n{'1' * 64}  things.npz\n")
    (folder / "stray.npz").write_bytes(b"nobody asked for this")
    common.write_arrays("things.npz", folder, x=np.arange(3))
    lines = lines_of(folder)
    assert [*lines] == ["away.npz", "things.npz"]
    assert lines["away.npz"] == "0" * 64
    common.write_sums(folder)
    assert [*lines_of(folder)] == ["stray.npz", "things.npz"]
    assert lines_of(folder)["things.npz"] == lines["things.npz"]


def test_the_sums_are_those_of_the_sha256sum_program(folder):
    if shutil.which("sha256sum") is None:
        pytest.skip("the program sha256sum is not installed")
    check = ["sha256sum", "--check", "SHA256SUMS"]
    assert subprocess.run(check, cwd=folder, capture_output=True).stdout == b"things.npz: OK\n"
    assert subprocess.run([*check, "--quiet"], cwd=ROOT / "data").returncode == 0


def test_the_shipped_sums_are_what_write_sums_writes(common, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(ROOT / "data", copy, ignore=shutil.ignore_patterns("__pycache__"))
    common.write_sums(copy)
    for name in ("SHA256SUMS", "README.md"):
        assert (copy / name).read_bytes() == (ROOT / "data" / name).read_bytes(), name


def test_a_missing_package_or_program_is_named(common):
    common.need(packages=["numpy"], programs=[sys.executable])
    message = "the Python package no_such_thing and the program no-such-program.*Nothing was"
    with pytest.raises(SystemExit, match=message):
        common.need(packages=["numpy", "no_such_thing"], programs=["no-such-program"])


@pytest.mark.slow
def test_without_the_synthesiser_the_speech_script_says_so_and_writes_nothing():
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "data").glob("*.*")}
    command = [sys.executable, BUILD / "speech.py"]
    run = subprocess.run(command, capture_output=True, text=True, env={"PATH": ""}, cwd=ROOT)
    assert run.returncode == 1
    assert "speech.py needs the program espeak-ng; the top of the script says" in run.stderr
    assert "Traceback" not in run.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (ROOT / "data").glob("*.*")}


@each_script
def test_a_script_says_how_long_it_takes_and_what_it_needs(path):
    said = " ".join(ast.get_docstring(ast.parse(path.read_text(encoding="utf8"))).split())
    assert re.search(r"(seconds|minutes)\b.*no network", said), said
    assert re.search(r"\bneeds\b", said, re.IGNORECASE), said


@each_script
def test_a_script_checks_what_it_needs_before_it_writes(path):
    script = path.read_text(encoding="utf8")
    main = script.split('if __name__ == "__main__":')[1]
    if "nothing beyond the course" not in " ".join(script.split()):  # wherever its lines break
        writing = re.search(r"\bwrite_|\bmake\(|\bremake\(", main).start()
        assert main.index("need(") < writing


def test_every_shipped_file_is_named_by_a_script():
    scripts = "\n".join(path.read_text(encoding="utf8") for path in SCRIPTS)
    for line in (ROOT / "data" / "SHA256SUMS").read_text().splitlines():
        file = Path(line.split()[1])
        name = file.stem if file.parent.name == "photos" else file.name
        name = re.sub(r"_\d+_weights", "_weights", name)  # one of a family that is named by number
        assert re.search(rf"\b{re.escape(name)}\b", scripts), f"no script makes {file}"


def test_make_data_runs_each_script_and_last_the_one_that_marks_what_they_made():
    if shutil.which("make") is None:
        pytest.skip("the program make is not installed")
    told = ["make", "--dry-run", "--old-file", "tests-env", "data"]
    run = subprocess.run(told, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = re.search(r"for script in (.+);\s*do ", run).group(1).split()
    assert sorted(found) == [path.relative_to(ROOT).as_posix() for path in SCRIPTS]
    assert found[-1] == "data/build/scoreboard.py"
