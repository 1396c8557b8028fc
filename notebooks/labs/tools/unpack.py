"""Every file that was handed in, out of folders and out of archives within archives.

Nothing is written anywhere: a file in an archive is read into memory, within limits, so that no
name can lead out of a folder and no small archive can fill a disk. What is not read is named.
"""

import io
import json
import os
import time
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import nbformat

from answers import as_cell, bounded

NAME = 255  # characters of a file's name, as on a disk; the patterns that read them are slow
LARGEST = 50_000_000  # bytes of a notebook (pictures that students paste in are part of it)
TOGETHER = 2_000_000_000  # bytes that are read of one archive, and of those within
FILES = 20_000  # in one archive and those within
DIRECTORY = 5_000_000  # bytes of an archive's list of contents
RATIO = 500  # times that a file of over 10 MB may have been compressed
FEW = 20  # files of a hidden folder that are named one by one
DEPTH = 5  # archives within archives
MACHINES = ("__MACOSX", "__pycache__", "node_modules", "site-packages")  # folders nobody wrote
EMPTY = "the folder is empty"
CLOSED = (".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zipx")


class File(NamedTuple):
    """A file that was handed in."""

    place: tuple  # the names of the folders and archives that it lies in, and its own
    time: float  # of its last change, in seconds since 1970, or 0
    cells: list | None = None  # if it is a notebook
    trouble: str = ""  # what is wrong with it
    hidden: bool = False  # by its name nobody's work
    # The archives that it lies in, the outermost first: how long the place of each is, and the time
    # that the folder or the archive around it gives for it.
    archives: tuple = ()


def files(folder):
    """Yield a `File` for everything in a folder (or an archive), in the order of the names."""
    folder = Path(folder)
    if folder.is_file():
        yield from members(folder, (), Budget())
        return
    for root, folders, names in os.walk(folder):
        folders.sort()
        place = Path(root).relative_to(folder).parts
        for name in list(folders):
            path = Path(root, name)
            if path.is_symlink():
                folders.remove(name)
                yield File((*place, name), 0, trouble="a link, which is not followed", hidden=True)
            elif is_hidden(name):
                folders.remove(name)
                inside = [p.relative_to(folder).parts for p in path.rglob("*") if not p.is_dir()]
                yield from unread((*place, name), inside)
        if not folders and not names and place:
            yield File(place, 0, trouble=EMPTY)
        for name in sorted(names):
            yield from file_on_disk(Path(root, name), (*place, name))


def unread(folder, inside):
    """Yield `File`s for what lies in a folder that nobody wrote: each, or the folder for many."""
    for place in sorted(inside) if len(inside) <= FEW else [folder]:
        yield File(place, 0, trouble="not looked into", hidden=True)


def file_on_disk(path, place):
    """Yield the `File` at a path, or those in it."""
    if path.is_symlink() or not path.is_file():
        yield File(place, 0, trouble="a link, which is not followed", hidden=True)
        return
    try:
        if path.suffix.lower() == ".zip" and not is_hidden(path.name):
            yield from within(members(path, place, Budget()), place, path.stat().st_mtime)
        else:
            size, when = path.stat().st_size, path.stat().st_mtime
            yield from one(place, when, size, path.read_bytes, Budget())
    except OSError as error:
        yield File(place, 0, trouble=f"it cannot be read ({type(error).__name__})")


class Budget:
    """What one archive may still give: bytes, files, and archives within archives."""

    def __init__(self):
        self.bytes, self.files = TOGETHER, FILES


def one(place, when, size, load, budget, depth=0):
    """Yield the `File` at a place, or those in it; `load()` gives its bytes, if they are wanted."""
    name = place[-1].lower()
    if is_hidden(place[-1]):
        yield File(place, when, trouble="not looked into", hidden=True)
    elif name.endswith(CLOSED):
        yield File(place, when, trouble="an archive that is not opened here: ask for a .zip")
    elif not (name.endswith((".zip", ".json", ".txt")) or ".ipynb" in name or "." not in name):
        yield File(place, when, trouble="no notebook")
    elif size > LARGEST:
        yield File(place, when, trouble=f"not read: it has over {LARGEST:,} bytes")
    else:
        data = load()
        if data[:4] == b"PK\3\4" or name.endswith(".zip"):
            yield from within(members(io.BytesIO(data), place, budget, depth + 1), place, when)
        elif ".ipynb" in name or b'"cells"' in data or b'"worksheets"' in data:
            yield File(place, when, *read(data))
        else:
            yield File(place, when, trouble="no notebook")


def within(found, place, when):
    """Yield `File`s with the archive that they were found in, which was changed at a time."""
    for file in found:
        yield file._replace(archives=((len(place), when), *file.archives))


def members(source, place, budget, depth=0):
    """Yield the `File`s in an archive, a path or an open file."""
    if depth > DEPTH:
        yield File(place, 0, trouble=f"not opened: {DEPTH} archives within archives are enough")
        return
    try:
        if directory(source) > DIRECTORY:
            yield File(place, 0, trouble=f"not opened: it holds over {FILES:,} files")
            return
        with zipfile.ZipFile(source) as archive:
            listed = archive.infolist()
            if len(listed) > budget.files:
                yield File(place, 0, trouble=f"not opened: it holds over {FILES:,} files")
                return
            budget.files -= len(listed)
            if not listed:
                yield File(place, 0, trouble="the archive is empty")
            yield from inside(archive, listed, place, budget, depth)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        yield File(place, 0, trouble=f"the archive cannot be opened ({type(error).__name__})")


def inside(archive, listed, place, budget, depth):
    """Yield the `File`s of an open archive, except what lies in folders that nobody wrote."""
    unwritten = defaultdict(list)
    for info in sorted(listed, key=lambda info: info.filename):
        if info.is_dir():
            continue
        name = name_of(info).replace("\\", "/")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts or name[0] == "/" or ".." in parts or parts[0].endswith(":"):
            where = (*place, name)
            yield File(where, 0, trouble="not read: its path leads out of the archive", hidden=True)
            continue
        if len(max(parts, key=len)) > NAME:
            parts = [part[:NAME] for part in parts]
            yield File((*place, *parts), 0, trouble="not read: its name is too long")
            continue
        hidden = next((i for i, part in enumerate(parts[:-1]) if is_hidden(part)), None)
        if hidden is not None:
            unwritten[(*place, *parts[: hidden + 1])].append((*place, *parts))
            continue
        here, when = (*place, *parts), seconds(info)
        if info.flag_bits & 1:
            yield File(here, when, trouble="not read: it is locked with a password")
        elif info.file_size > max(10_000_000, RATIO * info.compress_size):
            yield File(here, when, trouble=f"not read: it was compressed over {RATIO} times")
        elif info.file_size > budget.bytes:
            yield File(here, when, trouble=f"not read: the archive holds over {TOGETHER:,} bytes")
        else:
            try:
                load = loader(archive, info, budget)
                yield from one(here, when, info.file_size, load, budget, depth)
            except Exception as error:  # whatever a damaged archive may do
                yield File(here, when, trouble=f"it cannot be read ({type(error).__name__})")
    for folder, inside in unwritten.items():
        yield from unread(folder, inside)


def loader(archive, info, budget):
    """A function that reads a file of an archive, and takes its bytes from the budget."""

    def load():
        with archive.open(info) as file:
            data = file.read(LARGEST + 1)
        budget.bytes -= len(data)
        if len(data) > LARGEST:
            raise ValueError("it is larger than it says")
        return data

    return load


def directory(source):
    """The bytes of an archive's list of contents, as its last lines say; 0 if they do not."""
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.getvalue()) as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 66_000))
        tail = file.read()
    place = tail.rfind(b"PK\5\6")
    return int.from_bytes(tail[place + 12 : place + 16], "little") if place >= 0 else 0


def name_of(info):
    """A file's name in an archive: macOS writes UTF-8 there without saying so."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def seconds(info):
    """When a file in an archive was changed, in seconds since 1970, or 0."""
    try:
        return time.mktime((*info.date_time, 0, 0, -1))
    except (ValueError, OverflowError):
        return 0.0


def is_hidden(name):
    """Whether a name is that of what programs leave behind."""
    return name.startswith(".") or name in MACHINES


def read(data):
    """Return the cells of a notebook's bytes, or None, and what is wrong with it."""
    kind = json.detect_encoding(data)
    text = data.decode("utf-8-sig" if kind == "utf-8" else kind, errors="replace")
    try:
        notebook = json.loads(text)
        if notebook.get("nbformat", 4) < 4:
            notebook = nbformat.convert(nbformat.from_dict(notebook), 4)
        cells, cut = bounded(as_cell(cell) for cell in notebook["cells"])
    except Exception as error:  # whatever a file may hold
        return None, f"the file is no notebook ({type(error).__name__})"
    damaged = text.count("\ufffd")
    troubles = [f"{damaged} of its bytes are not UTF-8"] if damaged else []
    troubles += [f"the code of {cut} of its cells was cut: it was too long"] if cut else []
    return cells, "; ".join(troubles)
