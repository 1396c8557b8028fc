"""The built site as one file to carry away: `make site-archive`, after `make book`.

The same site gives the same archive: files are in order and without the time they were written.
"""

import hashlib
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "opening-the-black-box"


def pack(site, out):
    """Write the files of the folder `site` to the zip file `out`, and return its sha256."""
    part = out.with_name(f"{out.name}.part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in site.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(f"{NAME}/{path.relative_to(site).as_posix()}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    part.replace(out)
    return hashlib.sha256(out.read_bytes()).hexdigest()


def main():
    """Pack what make book has built, with its checksum beside it."""
    site, out = ROOT / "_build/html", ROOT / f"_build/{NAME}.zip"
    if not (site / "index.html").is_file():
        sys.exit("Run make book first.")
    digest = pack(site, out)
    out.with_name(f"{out.name}.sha256").write_text(f"{digest}  {out.name}\n", encoding="utf8")
    print(
        f"The site is packed: {out.relative_to(ROOT)}, {out.stat().st_size / 1e6:.0f} MB. Unpack "
        f"it anywhere, without a network, and open {NAME}/index.html."
    )


if __name__ == "__main__":
    main()
