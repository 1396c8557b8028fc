"""The site as one archive and as one PDF: what carries it away carries all of it."""

import subprocess
import sys
import zipfile

import pytest
import site_checks
import yaml
from pypdf import PdfReader

sys.path.insert(0, str(site_checks.ROOT / "book/_ext"))

import archive
import pdf


def test_the_archive_holds_the_site_and_is_the_same_each_time(site, tmp_path):
    digests = [archive.pack(site, tmp_path / f"{n}.zip") for n in (1, 2)]
    assert digests[0] == digests[1]
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        packed.extractall(tmp_path)
    carried = tmp_path / archive.NAME
    files = {path.relative_to(site) for path in site.rglob("*") if path.is_file()}
    assert files == {path.relative_to(carried) for path in carried.rglob("*") if path.is_file()}
    assert all((carried / file).read_bytes() == (site / file).read_bytes() for file in files)
    assert sorted(path.name for path in tmp_path.glob("*")) == ["1.zip", "2.zip", archive.NAME]


def test_links_lead_into_the_joined_page_out_to_the_web_or_nowhere():
    here = pdf.SITE / "notebooks/03_occlusion.html"
    pages = ["book/index", "notebooks/03_occlusion"]
    cases = {
        "#quiz": "#notebooks-03_occlusion--quiz",
        "../book/index.html": "#book-index",
        "../book/index.html#three-doors": "#book-index--three-doors",
        "https://example.org/a.html": "https://example.org/a.html",
        "../book/teaching.html": None,
        "../_images/a.webp": None,
        "../../../secret.html": None,
    }
    for href, expected in cases.items():
        assert pdf.joined(href, here, pages) == expected, href


@pytest.fixture(scope="module")
def printed(site):
    command = [sys.executable, site_checks.ROOT / "book/_ext/pdf.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return site_checks.ROOT / "_build/opening-the-black-box.pdf"


def test_the_pdf_has_every_page_once_in_its_outline_and_no_path_of_this_machine(printed):
    reader = PdfReader(printed)
    assert printed.stat().st_size < 40e6
    toc = yaml.safe_load((site_checks.ROOT / "_toc.yml").read_text(encoding="utf8"))
    titles = [entry.title for entry in reader.outline if not isinstance(entry, list)]
    assert len(titles) == len(list(pdf.names(toc)))
    assert [title for title in titles if title.startswith("03")] == ["03 · Occlusion"]
    starts = [
        reader.get_destination_page_number(entry)
        for entry in reader.outline
        if not isinstance(entry, list)
    ]
    assert starts == sorted(starts)
    links = [
        annotation.get_object()["/A"]["/URI"]
        for page in reader.pages
        for annotation in page.get("/Annots", ())
        if "/URI" in annotation.get_object().get("/A", ())
    ]
    assert len(links) > 100
    assert not [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    text = "".join(page.extract_text() for page in reader.pages[:40])
    assert "A detector to judge" in text
    assert "import numpy" not in text
