"""The workflows are valid, pinned, have no more rights than they need, and keep to their time."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import check_jsonschema
import nbformat
import pytest
import yaml
from click.testing import CliRunner
from nbformat.v4 import new_markdown_cell, new_notebook
from nbgitpuller.pull import GitPuller
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEXT = (ROOT / ".github/workflows/publish.yml").read_text(encoding="utf8")
PUBLISH = yaml.load(TEXT, yaml.BaseLoader)  # BaseLoader leaves the key `on` a string
JOBS = PUBLISH["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def check_schema(path):
    arguments = ["--builtin-schema", "vendor.github-workflows", str(path)]
    return CliRunner().invoke(check_jsonschema.main, arguments)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_follows_githubs_schema(path):
    result = check_schema(path)
    assert result.exit_code == 0, result.output


def test_the_schema_finds_a_misspelt_key(tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text(TEXT.replace("runs-on:", "run-on:"))
    assert check_schema(broken).exit_code == 1


@pytest.mark.parametrize(("name", "count"), [("anywhere", 5), ("publish", 6)])
def test_every_action_is_pinned_to_a_commit_and_names_its_version(name, count):
    path = ROOT / f".github/workflows/{name}.yml"
    lines = re.findall(r"uses: (.+)", path.read_text(encoding="utf8"))
    assert len(lines) == count
    for line in lines:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_only_the_jobs_that_publish_may_write():
    assert PUBLISH["permissions"] == {"contents": "read"}
    assert "permissions" not in JOBS["build"]
    assert JOBS["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert JOBS["labs"]["permissions"] == {"contents": "write"}
    # A job with rights of its own to publish runs nothing of the repository's.
    assert [step["uses"].split("@")[0] for step in JOBS["deploy"]["steps"]] == [
        "actions/deploy-pages"
    ]
    download, push = JOBS["labs"]["steps"]
    assert download["uses"].startswith("actions/download-artifact@")
    assert re.findall(r"^(\w+)", push["run"], re.MULTILINE) == ["git"] * 5
    assert "--force" not in push["run"]


def publish_labs(folder, url):
    """Run the workflow's step that pushes the labs, in a folder of its own, to `url`."""
    _, push = JOBS["labs"]["steps"]
    script = push["run"].replace("${{ github.sha }}", "a commit")
    assert "${{" not in script
    assert push["env"]["URL"].startswith("https://x-access-token:${{ github.token }}@github.com/")
    options = {"cwd": folder, "env": os.environ | {"URL": str(url)}, "check": True}
    subprocess.run(["bash", "-e", "-c", script], **options)


def folder_of_labs(folder, text, others=()):
    for name in ("occlusion.ipynb", *others):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cells = [new_markdown_cell(line, id=str(n)) for n, line in enumerate(text)]
        nbformat.write(new_notebook(cells=cells), folder / name)
    return folder


def test_later_corrections_reach_those_who_have_the_labs_already(tmp_path):
    url = (tmp_path / "site.git").as_uri()
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "site.git"], check=True)
    text = ["The question", "A task", "...", "The test", "The end"]
    publish_labs(folder_of_labs(tmp_path / "first", text, ["old.ipynb"]), url)
    home = tmp_path / "home"
    for _ in GitPuller(url, str(home), branch="labs").pull():
        pass
    folder_of_labs(home, ["The question", "A task", "My answer", "The test", "The end"])
    for n, end in enumerate(("The end, corrected", "The end, corrected", "The end at last")):
        publish_labs(folder_of_labs(tmp_path / str(n), [*text[:-1], end], ["new.ipynb"]), url)
        for _ in GitPuller(url, str(home), branch="labs").pull():
            pass
        assert nbformat.read(home / "occlusion.ipynb", 4).cells[2].source == "My answer"
        assert nbformat.read(home / "new.ipynb", 4).cells[4].source == end
        assert not (home / "old.ipynb").exists()


def test_the_labs_branch_holds_what_students_get_and_nothing_else():
    upload = next(step for step in STEPS if step.get("with", {}).get("name") == "labs")
    assert upload["with"]["path"] == "_build/labs"


def makefile_targets():
    rules = re.findall(r"^([a-z -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(" ".join(rules).split())


def test_it_builds_with_the_makefiles_own_targets():
    commands = [step["run"] for step in STEPS if "run" in step]
    builds = [command for command in commands if command.startswith("make")]
    assert builds == ["make test-all", "make book", "make check-site"]
    assert {command.removeprefix("make ") for command in builds} <= makefile_targets()


def test_every_week_the_tests_run_as_on_other_machines_with_every_python():
    text = (ROOT / ".github/workflows/anywhere.yml").read_text(encoding="utf8")
    anywhere = yaml.load(text, yaml.BaseLoader)
    job = anywhere["jobs"]["anywhere"]
    assert set(anywhere["on"]) == {"schedule", "workflow_dispatch"}
    assert anywhere["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in anywhere["jobs"].values())
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    pythons = job["strategy"]["matrix"]["python"]
    assert all(python in SpecifierSet(supported) for python in pythons)
    assert f"<3.{int(pythons[-1].split('.')[1]) + 1}" in supported
    assert f">={pythons[0]}" in supported
    assert [step["run"] for step in job["steps"] if "make" in step.get("run", "")] == [
        "make test-anywhere WHOLE=1 PYTHON=python"
    ]
    assert {"test-anywhere", "colab-check"} <= makefile_targets()


def test_every_week_the_course_runs_as_on_colab_and_the_next_python_is_tried():
    text = (ROOT / ".github/workflows/anywhere.yml").read_text(encoding="utf8")
    jobs = yaml.load(text, yaml.BaseLoader)["jobs"]
    colab = [step["run"] for step in jobs["colab"]["steps"] if "make" in step.get("run", "")]
    assert colab == ["make colab-check COLAB_PYTHON=python"]
    first, *_ = (ROOT / "tests/colab.txt").read_text(encoding="utf8").splitlines()
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", first)
    (python,) = (s["with"]["python-version"] for s in jobs["next-python"]["steps"] if "with" in s)
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert supported.endswith(f"<{python}")  # once it is supported, the one after it is next
    assert jobs["next-python"]["continue-on-error"] == "true"


def test_every_change_is_checked_within_the_time_that_the_script_states():
    script = (ROOT / ".ci/run").read_text(encoding="utf8")
    steps = re.findall(r"^step (\d+) \"(.+?)\"", script, re.MULTILINE)
    assert [what for _, what in steps][2:] == [
        "make test",
        "make book, with no network",
        "make check-site",
    ]
    (whole,) = re.findall(r"^readonly whole=(\d+)$", script, re.MULTILINE)
    assert sum(int(seconds) for seconds, _ in steps) == int(whole) <= 25 * 60


def test_it_runs_on_main_by_hand_and_never_for_ever():
    assert PUBLISH["on"] == {"push": {"branches": ["main"]}, "workflow_dispatch": ""}
    assert PUBLISH["concurrency"]["group"] == "pages"
    assert all(int(job["timeout-minutes"]) <= 60 for job in JOBS.values())
    assert JOBS["deploy"]["needs"] == "build"
