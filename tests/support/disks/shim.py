"""Compiles shim.c, which stands between a writer and the kernel; see there for what it does."""

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
NEEDS_COMPILER = "there is no C compiler (cc, gcc, clang), which the shim before LMDB needs"


@cache
def library() -> str:
    """Compile it, once for each process, and return its path."""
    assert COMPILER is not None, NEEDS_COMPILER
    folder = tempfile.mkdtemp(prefix="pronghorn-shim-")
    atexit.register(shutil.rmtree, folder)
    path = Path(folder) / "shim.so"
    command = [COMPILER, "-shared", "-fPIC", "-O2", "-o", str(path), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(path)


def traced(trace: Path) -> dict[str, str]:
    """Return the environment for a process whose writes are to be written down."""
    return {"LD_PRELOAD": library(), "DISK_TRACE": str(trace)}


def failing(kind: str, number: int, error: int, *, count: int = 1) -> dict[str, str]:
    """Return the environment for a process of which some calls fail; see shim.c."""
    return {"LD_PRELOAD": library(), "DISK_FAIL": f"{kind}:{number}:{count}:{error}"}
