"""pyproject.toml, environment.yml and the lock say the same; the wheel works on its own."""

import re
import shutil
import subprocess
import sys
import tomllib
import venv
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ROOT / "requirements.lock", ROOT / "tests/requirements.lock"
NAMED_BY_THE_OWNER = {
    "jupyter-book",
    "jupyterlab",
    "tensorflow",
    "keras-vis",
    "lime",
    "numpy",
    "matplotlib",
    "opencv-python",
}


def project_requirements():
    """Every requirement of pyproject.toml, those of the extras included."""
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(line) for requirements in lists for line in requirements]


def locked_versions(lock):
    """Each package of a lock with its versions (one for each range of Pythons)."""
    versions = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE):
        versions.setdefault(canonicalize_name(name), []).append(Version(version))
    return versions


def needed(names):
    """The installed packages that these need, and what they need in turn."""
    found, asked = set(), {(canonicalize_name(name), ()) for name in names}
    while asked:
        name, extras = asked.pop()
        with suppress(metadata.PackageNotFoundError):  # of another system or Python
            lines = map(Requirement, metadata.requires(name) or [])
            more = [r for r in lines if any(applies(r, extra) for extra in ("", *extras))]
            asked |= {(canonicalize_name(r.name), tuple(r.extras)) for r in more} - found
            found.add((name, extras))
    return {name for name, _ in found}


def applies(requirement, extra):
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def test_the_first_lock_is_enough_for_the_site_and_the_labs_and_the_second_adds_the_rest():
    first, second = map(locked_versions, LOCKS)
    assert not first.keys() & second.keys()
    extras = PROJECT["optional-dependencies"]
    readers = [Requirement(r).name for r in PROJECT["dependencies"] + extras["book"]]
    readers += [Requirement(r).name for r in extras["labs"]]
    testers = [Requirement(r).name for r in extras["dev"] + extras["peers"]]
    assert needed(readers) <= first.keys()
    assert needed(testers) <= first.keys() | second.keys()
    assert second.keys() & needed(readers) == set()


def test_the_locks_hold_a_right_version_of_every_requirement():
    locked = locked_versions(LOCKS[0]) | locked_versions(LOCKS[1])
    for requirement in project_requirements():
        versions = locked[canonicalize_name(requirement.name)]
        assert all(v in requirement.specifier for v in versions), f"{requirement}: {versions}"


@pytest.mark.parametrize(
    "path",
    [*LOCKS, *ROOT.glob("tests/peers/*.lock")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_lock_holds_hashes_and_no_addresses(path):
    lock = path.read_text()
    assert "://" not in lock
    assert not re.search(r"^--", lock, re.MULTILINE)
    entries = re.split(r"^(?=[\w.-]+==)", lock, flags=re.MULTILINE)[1:]
    assert len(entries) > 20
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_npm_lock_holds_hashes_and_no_addresses():
    lock = (ROOT / "book/package-lock.json").read_text()
    assert "://" not in lock
    assert '"integrity": "sha512-' in lock


def test_environment_yml_agrees_with_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    named = {r.name: r.specifier for r in map(Requirement, pip[:-1])}
    assert set(named) == NAMED_BY_THE_OWNER
    assert "graphviz" in conda
    assert SpecifierSet(conda[0].removeprefix("python ")) == SpecifierSet(
        PROJECT["requires-python"]
    )
    ours = {r.name: r.specifier for r in project_requirements()}
    assert named == {name: ours[name] for name in named}
    extras = re.fullmatch(r"--editable \.\[([\w,]+)\]", pip[-1]).group(1).split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])


def test_git_changes_no_byte_of_the_data_it_checks_out():
    """On Windows it would end lines in CRLF, and the sums of the files would be others."""
    sums = (ROOT / "data/SHA256SUMS").read_text().split()[1::2]
    files = [f"data/{name}" for name in sums]
    assert len(files) > 20
    ask = ["git", "check-attr", "text", "--", *files]
    said = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"{file}: text: unset" for file in files]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy without the checkout's own leftovers."""
    folder = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    source = folder / "source"
    for file in filter(None, files):
        if file.startswith(("course_utils/", "data/", "LICENSE", "README", "pyproject")):
            target = source / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / file).read_bytes())
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        folder,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return next(folder.glob("*.whl"))


def test_a_script_in_an_empty_folder_works_with_only_the_wheel(wheel, tmp_path):
    # An environment of its own that sees the installed libraries, but not this checkout.
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env/bin/python"
    own = next((tmp_path / "env/lib").glob("python*/site-packages"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", own, wheel], check=True, capture_output=True)
    libraries = Path(pytest.__file__).parents[1]
    script = f"""
import sys
sys.path.append({str(libraries)!r})
import course_utils
from course_utils import datasets, models
assert str(course_utils.__file__).startswith({str(own)!r}), course_utils.__file__
_, (images, labels) = datasets.load_digits()
network = models.load_trained("digits")
print((network.predict(images, verbose=0).argmax(1) == labels).mean())
print(datasets.load_photo("dog").shape)
"""
    empty = tmp_path / "empty"
    empty.mkdir()
    run = subprocess.run([python, "-I", "-c", script], cwd=empty, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    accuracy, shape = run.stdout.split("\n")[:2]
    assert float(accuracy) >= 0.965
    assert shape == "(224, 224, 3)"


HEAVY = """
import sys
import course_utils
print({"numpy", "keras", "matplotlib"} & set(sys.modules))
from course_utils import datasets
datasets.load_digits()
print({"keras", "matplotlib"} & set(sys.modules))
"""


def test_importing_the_package_loads_nothing_heavy_and_data_alone_no_keras():
    run = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["set()", "set()"]


def commands(page, kind, first=""):
    """A page's first block of code of a kind that begins so: its lines without their comments."""
    block = re.search(rf"```{kind}\n({first}.*?)```", (ROOT / page).read_text(), re.S)[1]
    return [line.split("#")[0].strip() for line in block.splitlines()]


def test_readme_and_guide_give_the_same_commands_and_each_is_there():
    readme, guide = (
        commands(page, "sh", "make book") for page in ("README.md", "book/how_to_use.md")
    )
    assert readme == guide[: len(readme)]
    targets = re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(), re.M)
    targets = {target for line in targets for target in line.split()}
    pages = ("README.md", *(str(page.relative_to(ROOT)) for page in ROOT.glob("book/*.md")))
    asked = {
        f"{page}: make {target}"
        for page in pages
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / page).read_text(), re.M)
        if target not in targets
    }
    assert not asked


@pytest.mark.parametrize("python", ["of-another-version", "not-there"])
def test_a_python_that_does_not_fit_is_told_so_before_anything_is_made(python, tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    other = tmp_path / "of-another-version"
    other.write_text("#!/bin/sh\nexit 1\n")  # what Python says that is asked for 3.11 to 3.13
    other.chmod(0o755)
    (tmp_path / "book").mkdir()
    for name in ("requirements.lock", "pyproject.toml", "book/package-lock.json"):
        (tmp_path / name).touch()
    command = ["make", "env", f"PYTHON=./{python}"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode
    assert "This needs Python 3.11, 3.12 or 3.13" in run.stderr
    assert not (tmp_path / ".venv").exists()


def test_without_make_the_environment_is_made_as_make_makes_it():
    makefile = (ROOT / "Makefile").read_text()
    lines = [line.split(" -m ")[-1] for line in commands("book/how_to_use.md", "powershell")]
    installs = [line.removeprefix("pip ") for line in lines if line.startswith("pip ")]
    assert len(installs) == 2
    for line in installs:
        assert line.replace("install", "install -qq", 1) in makefile
