"""Say where the course is published: `make publish-as REPO=owner/name`.

The address stands in _config.yml. The setup cells and the prose repeat it; this gives all of them
the new one.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
URL = re.compile(r"^  url: https://github\.com/(\S+)$", re.MULTILINE)
# GitHub's rule for an owner: letters, digits and single hyphens, none at either end.
OWNER_AND_NAME = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*/[A-Za-z0-9._-]+")


def current():
    """The repository's owner/name as _config.yml has it."""
    return URL.search((ROOT / "_config.yml").read_text(encoding="utf8")).group(1)


def repeating():
    """The files that repeat the address."""
    patterns = ["_config.yml", "README.md", "CITATION.cff"]
    patterns += ["book/*.md", "book/*.ipynb", "notebooks/**/*.ipynb"]
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def main(new):
    """Replace the present address by `new` everywhere, or refuse a `new` GitHub would refuse."""
    if not OWNER_AND_NAME.fullmatch(new) or len(new.split("/")[0]) > 39:
        sys.exit(f"{new!r} is not a GitHub repository: expected owner/name, such as ada/black-box.")
    old = current()
    changed = 0
    for path in repeating():
        text = path.read_text(encoding="utf8")
        if old in text:
            path.write_text(text.replace(old, new), encoding="utf8")
            changed += 1
    print(f"{old} is now {new}, in {changed} files. Commit them, and push.")


if __name__ == "__main__":
    main(sys.argv[1])
