"""The workflow that publishes the site: valid, pinned, and with no more rights than it needs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEXT = (ROOT / ".github/workflows/publish.yml").read_text(encoding="utf8")
PUBLISH = yaml.load(TEXT, yaml.BaseLoader)  # BaseLoader leaves the key `on` a string
JOBS = PUBLISH["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def check_schema(path):
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run([sys.executable, *command], capture_output=True, text=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_follows_githubs_schema(path):
    result = check_schema(path)
    assert result.returncode == 0, result.stdout


def test_the_schema_finds_a_misspelt_key(tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text(TEXT.replace("runs-on:", "run-on:"))
    assert check_schema(broken).returncode == 1


def test_every_action_is_pinned_to_a_commit_and_names_its_version():
    lines = re.findall(r"uses: (.+)", TEXT)
    assert len(lines) == 6
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
    assert re.findall(r"^(\w+)", push["run"], re.MULTILINE) == ["git"] * 4


def test_the_labs_branch_holds_what_students_get_and_nothing_else():
    upload = next(step for step in STEPS if step.get("with", {}).get("name") == "labs")
    assert upload["with"]["path"] == "_build/labs"


def test_it_builds_with_the_makefiles_own_targets():
    rules = re.findall(r"^([a-z -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = " ".join(rules).split()
    commands = [step["run"] for step in STEPS if "run" in step]
    builds = [command for command in commands if command.startswith("make")]
    assert builds == ["make test-all", "make book", "make check-site"]
    assert {command.removeprefix("make ") for command in builds} <= set(targets)


def test_it_runs_on_main_by_hand_and_never_for_ever():
    assert PUBLISH["on"] == {"push": {"branches": ["main"]}, "workflow_dispatch": ""}
    assert PUBLISH["concurrency"]["group"] == "pages"
    assert all(int(job["timeout-minutes"]) <= 60 for job in JOBS.values())
    assert JOBS["deploy"]["needs"] == "build"
