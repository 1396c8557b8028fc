"""The cage that students' code runs in: a command for bubblewrap."""

import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import matplotlib.font_manager  # makes the list of fonts, should there be none

GIGABYTE = 2**30
DISK = GIGABYTE // 4  # of each of the places where a student's code can write
HOME = str(Path("/tmp") / "student")
SCRIPTS = {"kernel": ("kernel", "wire"), "judge": ("judge", "wire")}  # that run in there
NO_CHECKS = Path(__file__).with_name("no_checks.py")  # stands in for the checks in a student's


def needed():
    """Raise RuntimeError, with what to do, where there is no way to shut a notebook in."""
    missing = [program for program in ("bwrap", "prlimit") if not shutil.which(program)]
    if missing:
        raise RuntimeError(
            f"{' and '.join(missing)} not found. Students' notebooks run in a sandbox or not at "
            "all: install bubblewrap and util-linux (Debian, Ubuntu: apt-get install bubblewrap), "
            "or on macOS and Windows grade inside Linux (a container, WSL)."
        )
    if (tried := trial()).returncode:
        raise RuntimeError(
            f"bubblewrap may shut nothing in here ({tried.stderr.strip()}). Students' notebooks "
            "run in a sandbox or not at all. On Ubuntu 23.10 to 24.10, `sudo sysctl -w "
            "kernel.apparmor_restrict_unprivileged_userns=0` permits it until the next start; a "
            "container has to permit it, too (Docker: --privileged, or --security-opt with each of "
            "seccomp=unconfined, apparmor=unconfined and systempaths=unconfined)."
        )


def trial(*options):
    """How a program that does nothing ends in a sandbox with these options."""
    command = ["bwrap", "--unshare-all", *options, "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    return subprocess.run(command, capture_output=True, text=True)


@cache
def locks():
    """What forbids code in the cage user namespaces of its own, where this bubblewrap can do so."""
    lock = ["--unshare-user", "--disable-userns"]
    return [] if trial(*lock).returncode else lock


def places():
    """The course's package, and its data."""
    package = Path(find_spec("course_utils").origin).parent  # not imported: TensorFlow is slow
    return package, next(f for f in (package / "data", package.parent / "data") if f.is_dir())


def visible():
    """The files and folders that code in the cage sees, besides a folder of its own."""
    seen = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"]
    seen += ["/etc/fonts", "/etc/localtime", "/etc/ssl/openssl.cnf"]
    return [Path(path) for path in (*seen, sys.base_prefix, sys.prefix, *places())]


def hidden(**folders):
    """Raise ValueError, with what to do, where code in the cage would see one of these folders."""
    for what, folder in folders.items():
        for seen in visible():
            if Path(folder).resolve().is_relative_to(seen.resolve()):
                raise ValueError(
                    f"the folder of {what.replace('_', ' ')}, {folder}, lies in {seen}, which "
                    "students' code can read. Move it to another place, such as /srv or your home."
                )


def cage(folder, memory, *, judges=False):
    """The command that runs another in the sandbox; it can read `folder`, and write nowhere.

    A student's has no checks in it, the judge's has.
    """
    package, data = places()
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += [*locks(), "--proc", "/proc", "--dev", "/dev"]
    for path in ("/dev/shm", "/tmp"):
        command += ["--size", str(DISK), "--tmpfs", path]
    command += ["--size", str(DISK // 64), "--tmpfs", "/run"]
    for path in (*visible(), folder):
        command += ["--ro-bind-try", str(path), str(path)]
    for script in SCRIPTS["judge" if judges else "kernel"]:
        path = Path(__file__).with_name(f"{script}.py")
        command += ["--ro-bind", str(path), f"/run/{path.name}"]
    for checks in () if judges else sorted((package / "labs").glob("*/checks*.py")):
        command += ["--ro-bind", str(NO_CHECKS), str(checks)]
        if (compiled := checks.with_name("__pycache__")).is_dir():
            command += ["--tmpfs", str(compiled), "--remount-ro", str(compiled)]
    for fonts in Path(matplotlib.get_cachedir()).glob("fontlist-*.json"):
        command += ["--ro-bind", str(fonts), f"{HOME}/matplotlib/{fonts.name}"]
    build = str(data / "build")  # the scripts that planted the labs' defects
    command += ["--tmpfs", build, "--remount-ro", build]
    command += ["--remount-ro", "/dev", "--dir", HOME, "--chdir", HOME]
    command += ["--clearenv"]
    environment = {"HOME": HOME, "LANG": "C.UTF-8", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "-1"}
    environment |= {"MPLCONFIGDIR": f"{HOME}/matplotlib", "IPYTHONDIR": f"{HOME}/.ipython"}
    environment |= {"MPLBACKEND": "agg"} if judges else {}
    for name, value in environment.items():
        command += ["--setenv", name, value]
    return [*command, "prlimit", f"--as={int(memory * GIGABYTE)}", "--core=0", "--"]
