"""Who handed in what: the files of a folder by student and by lab, whatever platform made it.

How platforms name what a teacher downloads:

    Moodle            Ann Lee_12345_assignsubmission_file_/lab.ipynb (or _file_lab.ipynb)
    Canvas            leeann_LATE_12345_678910_lab-1.ipynb
    Blackboard        Lab 3_annlee_attempt_2026-11-28-13-05-59_lab.ipynb
    Brightspace       12345-678910 - Ann Lee - Nov 28, 2026 105 PM/lab.ipynb
    Google Classroom  Lab 3-20261128T130559Z-001.zip with Ann Lee - lab.ipynb
    GitHub Classroom  lab-3-submissions/lab-3-annlee/lab.ipynb

Otherwise the uppermost folder or archive that is one student's gives the name, or that of the file.
Two students never become one: what cannot be told apart is refused, with the names.
"""

import datetime
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from typing import NamedTuple

import unpack
from answers import asked_for, defined

PLATFORMS = {
    platform: re.compile(pattern)
    for platform, pattern in {
        "moodle": r"(?P<name>.+?)_(?P<number>\d+)_assignsubmission_[a-z]+(_(?P<file>.*))?",
        "canvas": r"(?P<name>[^_]+)(?P<late>_LATE)?_(?P<number>\d+)_(?P<order>\d+)_(?P<file>.+)",
        "blackboard": r"(?P<name>.+)_attempt_(?P<when>\d{4}(-\d\d){5})([_.](?P<file>.*))?",
        "brightspace": r"(?P<number>\d+)-\d+ - (?P<name>.+?) - "
        r"(?P<when>[^-]*\d{4}[^-]*?)( - (?P<file>.*))?",
    }.items()
}
COMMENT = re.compile(r"_attempt_[\d-]+\.txt$")  # which Blackboard adds to each file
DATES = ("%Y-%m-%d-%H-%M-%S", "%b %d, %Y %I%M %p", "%B %d, %Y %I%M %p")
# Folders and archives that hold many students' work; the second are those of Google Drive.
MANY = re.compile(r"late|submissions|.*-submissions|.*-\d{8}T\d{6}Z(-\d+)+", re.IGNORECASE)
COPY = re.compile(r"^copy of |[ _-]*\((\d+)\)|[ _-]*copy ?\(?(\d*)\)?$", re.IGNORECASE)
WORDS = "old|new|final|draft|version|backup|attempt|try|part|task|lab|week|notebooks?|my|v"
# Each separator belongs to one part of it only, or a name of many would take for ever.
VERSION = re.compile(rf"((?:^|[\s_.-]+)(?:{WORDS})(?:[\s_.-]*\d{{1,3}})?)+[\s_.-]*$", re.IGNORECASE)
DEEPEST = 50  # folders within each other that are looked through for students'


class Owner(NamedTuple):
    """What the names on the way to a file say about it."""

    name: str  # as it was found
    number: str = ""  # the platform's number of the student
    time: float = 0.0  # of handing in, in seconds since 1970, if it says so
    order: int = 0  # of the versions, if it says so
    late: bool = False
    known: bool = True  # or whether there is nothing but the lab's name
    depth: int = 0  # of the name on the way to the file
    platform: str = ""  # whose name it is


class Submission(NamedTuple):
    """One student's notebook for one lab, as it was found."""

    student: str
    lab: str
    cells: list  # of the student's notebook; empty if it cannot be read
    note: str  # what the teacher should know of it
    upload_id: str = ""  # the platform and its number of the student, such as "moodle 12345"
    time: float = 0.0  # of handing in, in seconds since 1970


def collect(found, labs, shared):
    """Return the submissions, one for each student and lab, and a list of all files.

    `found` are `unpack.File`s, `labs` is a dict from the labs' names to their released notebooks;
    a notebook belongs to the lab with which it has at least `shared` cells in common. The list has
    a dict for each file: student, lab, file, and what became of it. Raises ValueError where two
    students would be one.
    """
    lab = {file.place: lab_of(file, labs, shared) for file in found}
    owners = whose({file.place: file for file in found}, labs, lab)
    students = named(found, owners, lab)
    belongs = defaultdict(list)
    for file in found:
        belongs[students.get(file.place, "")].append(file)
    submissions, listed = [], []
    for student, files in sorted(belongs.items()):
        by_lab = defaultdict(list)
        for file in files:
            by_lab[lab[file.place]].append(file)
        rest = by_lab.pop("", [])
        fates = {file.place: file.trouble or "it belongs to no lab" for file in rest}
        made = []
        for name, versions in by_lab.items():
            chosen, notes = choose(name, versions, owners, labs[name])
            fates |= {f.place: f.trouble or "another version counts" for f in versions}
            fates[chosen.place] = "it counts" if chosen.cells is not None else chosen.trouble
            owner = owners[chosen.place]
            there = f"{owner.platform} {owner.number}" if owner.platform and owner.number else ""
            when = handed_in(chosen, owner)
            note = "; ".join(notes)
            made.append(Submission(student, name, chosen.cells or [], note, there, when))
        others = {f.place: fates[f.place] for f in rest if student and not f.hidden}
        if student and not made:
            made = [Submission(student, "", [], without(others))]
        elif others := [place[-1] for place in others if not COMMENT.search(place[-1])]:
            more = f" and {len(others) - 3} more" if others[3:] else ""
            note = f"also handed in: {', '.join(others[:3])}{more}"
            made[0] = made[0]._replace(note="; ".join(filter(None, [made[0].note, note])))
        submissions += made if student else []
        for file in files:
            row = {"student": student, "lab": lab[file.place], "file": "/".join(file.place)}
            listed.append(row | {"what": fates[file.place]})
    return submissions, listed


def without(others):
    """The note on a student who handed in no notebook of a lab."""
    names = "; ".join(f"{'/'.join(place)}: {what}" for place, what in list(others.items())[:3])
    if any(".ipynb" in place[-1].lower() for place in others):
        return names
    where = any(len(place) > 1 or what == unpack.EMPTY for place, what in others.items())
    where = " in this folder" if where else ""
    return f"there is no notebook{where} ({names or 'nothing but hidden files'})"


def without_number(text):
    """A cell's text with no number of a variant in it, which the teacher has put there."""
    return re.sub(r"(?m)^labs\.variant\([0-9]+\)", "labs.variant()", text).strip()


def choose(lab, versions, owners, released):
    """The one of a student's notebooks for a lab that counts, and notes: the newest with work."""
    given = {without_number(cell.source) for cell in released.cells} | {""}
    ordered = all(owners[file.place].order for file in versions)

    def rank(file):
        owner, name = owners[file.place], file.place[-1]
        written = any(without_number(cell.text) not in given for cell in file.cells or ())
        copies = [int(n) for pair in COPY.findall(name.split(".ipynb")[0]) for n in pair if n]
        when = handed_in(file, owners[file.place]) // 2  # archives know even seconds only
        own_name = name.split(".")[0] == lab
        return (
            *(bool(file.cells), written, not file.trouble, ordered and owner.order, when),
            *(file.time // 2, max(copies, default=0), own_name, file.place),
        )

    chosen = max(versions, key=rank)
    owner, name, path = owners[chosen.place], chosen.place[-1], "/".join(chosen.place)
    notes = [chosen.trouble] if chosen.trouble else []
    if owner.late:
        notes.append("handed in late")
    if not owner.known:
        notes.append(f"the name of {path} does not say whose it is")
    elif versions[1:]:
        notes.append(f"of {len(versions)} notebooks for this lab, {path} counts: the newest")
    elif not re.search(rf"(^|[_-] ?){lab}(-\d+)?\.ipynb$", name):
        notes.append(f"its file is called {name}")
    return chosen, notes


def handed_in(file, owner):
    """When a file was handed in, as the platform or the teacher's disk says it, or 0.

    An archive of the student's own says of the files in it what the student likes; what counts is
    the time of that archive.
    """
    own = [when for length, when in file.archives if length > owner.depth]
    return owner.time or (own[0] if own else file.time)


def lab_of(file, labs, shared):
    """The lab whose cells or answers a notebook has, or else the one that its path names, or ""."""
    if file.cells is None:
        is_meant = ".ipynb" in file.place[-1].lower() and not file.hidden
        return in_path(file.place, labs) if is_meant else ""
    have = {cell.text for cell in file.cells}
    names = {name for cell in file.cells if cell.kind == "code" for name in defined(cell.text)}
    asked = {lab: set().union(*asked_for(nb).values()) for lab, nb in labs.items()}
    common = Counter({lab: len(have & {c.source for c in nb.cells}) for lab, nb in labs.items()})
    answers = Counter({lab: len(names & asked[lab]) for lab in labs})
    for counts, enough in ((common, shared), (answers, 2)):
        (lab, most), *others = counts.most_common(2)
        if most >= enough and not any(count == most for _, count in others):
            return lab
    return in_path(file.place, labs)


def in_path(place, labs):
    """The lab that a path names, or ""."""
    words = [part.lower().split(".ipynb")[0] for part in reversed(place)]
    exact = [lab for word in words for lab in labs if word == lab]
    within = [lab for word in words for lab in sorted(labs, key=len)[::-1] if lab in word]
    return (exact + within + [""])[0]


# --------------------------------------------------------------------------- whose a file is


def whose(files, labs, lab):
    """The `Owner` of each file: {place: Owner}; a file that is nobody's is not in it.

    `files` is a dict from places to `unpack.File`, `lab` one to the names of labs.
    """
    owners = {}

    def walk(places, depth):
        groups = defaultdict(list)
        for place in places:
            groups[place[depth]].append(place)
        seen = {place[depth] for place in places if not files[place].hidden}
        folders = {n: g for n, g in groups.items() if any(len(p) > depth + 1 for p in g)}
        crowds = {name: people(group, depth + 1, labs, lab) for name, group in folders.items()}
        few = len(seen) == 1 or all(n >= 2 or MANY.fullmatch(c) for c, n in crowds.items())
        prefix = common(name for name in groups if "_attempt_" in name)
        for name, group in groups.items():
            if name in folders and is_many(name, group, depth, few, labs, lab):
                walk([place for place in group if len(place) > depth + 1], depth + 1)
                continue
            owner = on_platform(name, prefix)
            if owner is None and name in folders and not name.lower().endswith(".zip"):
                above = group[0][depth - 1] if depth else ""
                stem = above.removesuffix("submissions") if above.endswith("-submissions") else ""
                owner = Owner(name.removeprefix(stem))
            elif owner is None and (name in folders or is_a_students(files[group[0]], labs)):
                owner = by_name(group[0][: depth + 1], labs)
            for place in group:
                if owner:
                    owners[place] = owner._replace(depth=depth)

    if files:
        walk(list(files), 0)
    return owners


def is_a_students(file, labs):
    """Whether a file beside the students' folders is a student's too."""
    name = file.place[-1].lower()
    ours = file.cells is not None or ".ipynb" in name or in_path((name,), labs) != ""
    ours = ours or name.endswith((".zip", *unpack.CLOSED)) or file.trouble == unpack.EMPTY
    return ours and not file.hidden


def people(group, depth, labs, lab, strict=True):
    """How many folders at a depth, or files named after people, hold notebooks for one lab.

    If `strict`, a file's name has to name the lab too, or else it may be any name.
    """
    counts = defaultdict(set)
    for place in group:
        if lab[place]:
            name = place[depth]
            if len(place) == depth + 1:
                owner = by_name(place, labs)
                says = owner.known and (not strict or in_path(place[-1:], labs))
                name = owner.name if says else ""
            name = VERSION.sub("", name)
            if name and name.removesuffix(".zip") not in labs:
                counts[lab[place]].add(name)
    return max(map(len, counts.values()), default=0)


def is_many(name, group, depth, few, labs, lab):
    """Whether a folder holds several students' work, and is not itself one student's.

    Two folders with notebooks for the same lab may be two versions of one student, three are not;
    where `few`, because all is in here, or all folders here are like that, two are enough.
    """
    if depth >= DEEPEST or on_platform(name):
        return False
    inner = [place for place in group if len(place) > depth + 1 and lab[place]]
    if MANY.fullmatch(name.removesuffix(".zip")):  # but a student may be called Late
        return "-" in name or people(inner, depth + 1, labs, lab, strict=False) > 0
    names = {place[depth + 1] for place in inner}
    platform = {on_platform(name) for name in names}
    if names and None not in platform:
        return few or len({(owner.name, owner.number) for owner in platform}) > 1
    count = people(inner, depth + 1, labs, lab)
    if name.removesuffix(".zip").lower() in labs:
        return count > 0
    if few and len(names) == 1 and all(len(place) > depth + 2 for place in inner):
        return is_many(*names, inner, depth + 1, True, labs, lab)
    if few and people(inner, depth + 1, labs, lab, strict=False) > 2:
        return True
    return count >= (2 if few else 3)


def on_platform(name, prefix=""):
    """The `Owner` that a platform wrote into the name of a folder or a file, or None."""
    for platform, pattern in PLATFORMS.items():
        match = pattern.fullmatch(name)
        if match:
            part = {"number": "", "late": None, "order": 0, "when": "", **match.groupdict()}
            who = part["name"]
            if "_attempt_" in name:  # Blackboard has the assignment's name in front
                who = who.removeprefix(prefix) if prefix else who.rpartition("_")[2]
            late, order = bool(part["late"]), int(part["order"] or 0)
            when = date(part["when"])
            return Owner(who, part["number"] or "", when, order, late, platform=platform)
    return None


def common(names):
    """What the names of a platform's files have in common up to a "_": the assignment."""
    people = sorted({name.rpartition("_attempt_")[0] for name in names})
    if len(people) < 2:
        return ""
    letters = itertools.takewhile(lambda pair: len(set(pair)) == 1, zip(*people, strict=False))
    shared = "".join(pair[0] for pair in letters).rpartition("_")[0]
    return f"{shared}_" if shared else ""


def date(text):
    """A platform's date in seconds since 1970, or 0."""
    text = re.sub(r" (\d{3}) ", r" 0\1 ", text or "")
    for form in DATES:
        try:
            return datetime.datetime.strptime(text, form).timestamp()
        except (ValueError, OverflowError):
            continue
    return 0.0


def by_name(place, labs):
    """The `Owner` of a file by its own name, without the lab's and the marks of copies."""
    stem = re.sub(r"\.(ipynb|zip|json|txt)\b.*|\.\w{1,4}$", "", place[-1], flags=re.IGNORECASE)
    whole = COPY.sub("", stem)
    words = "|".join(re.escape(lab) for lab in sorted(labs, key=len)[::-1])
    words = rf"(?<![^\W_])({words})(?![^\W_])"  # not those within a word: the student may be Lime
    bare = re.sub(words, " ", whole)
    bare = re.sub(words, " ", whole, flags=re.IGNORECASE) if bare == whole else bare
    bare = re.sub(r"^[\s_.-]+|[\s_.-]+$|\s+(?=\s)", "", COPY.sub("", bare))
    if not bare or VERSION.fullmatch(bare):
        return Owner("/".join(place), known=False)
    return Owner(bare)


# ------------------------------------------------------------------------- how they are called


def named(found, owners, lab):
    """The student of each file: {place: name}. Raises ValueError where two would be one."""
    spelt, numbers, sources = defaultdict(dict), defaultdict(set), defaultdict(list)
    for file in found:
        if file.place not in owners:
            continue
        owner = owners[file.place]
        student, above = clean(owner.name), file.place[: owner.depth]
        spelt[student].setdefault(owner.name, file.place)
        # Two numbers in one download, or for one lab, are two people of the same name.
        for where in [("in", above), ("for", lab[file.place])][: 2 if lab[file.place] else 1]:
            numbers[student, where].add(owner.number)
    twice = {student for (student, _), found_here in numbers.items() if len(found_here - {""}) > 1}
    students = {}
    for place, owner in owners.items():
        student = clean(owner.name)
        if student in twice and not owner.number:
            refuse(
                [place],
                f"it does not say which of the two students {student!r} made it",
            )
        students[place] = f"{student} {owner.number}" if student in twice else student
    for student, places in spelt.items():
        if len(places) > 1:
            refuse(places.values(), f"both would be the work of {student!r}")
    for file in found:
        if lab[file.place] and file.place in students:
            above = file.place[: owners[file.place].depth]
            above = [part for part in above if not MANY.fullmatch(part.removesuffix(".zip"))]
            sources[students[file.place], lab[file.place]].append((above, file))
    for (student, name), places in sources.items():
        (first, one), *others = places
        for above, other in others:
            if above != first and other.cells != one.cells:
                what = f"both say that they are the work of {student!r} for the lab {name!r}"
                refuse([one.place, other.place], what)
    return students


def refuse(places, what):
    """Raise the ValueError that stops all, before a student's work is taken for another's."""
    paths = " and ".join(repr("/".join(place)) for place in places)
    raise ValueError(
        f"{paths}: {what}. If these are two people, give them names that differ; if it is one, "
        "put all files of this student into one folder."
    )


def clean(name):
    """A name that can be that of a folder, and that nbgrader takes: NFC, with all its letters."""
    name = unicodedata.normalize("NFC", name)
    kept = "".join(c if is_kept(c) else "_" for c in name)
    return re.sub(r"\s+", " ", kept).strip(" .") or "unnamed"


def is_kept(character):
    """Whether a character may stand in a name: letters, marks, digits, and what joins them."""
    kind = unicodedata.category(character)
    return kind[0] in "LMN" or character in " .@+-_,()'’·\u200c\u200d"
