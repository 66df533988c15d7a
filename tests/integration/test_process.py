from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from lockgate.process import alive

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
CHILD = """
import os, time
from lockgate.process import die_with_parent
die_with_parent(parent=os.getppid())
print("ready", flush=True)
time.sleep(600)
"""
WITHOUT_THE_KERNEL = CHILD.replace("import os, time", "import os, sys, time\nsys.platform = 'other'")


@pytest.mark.parametrize("child", [CHILD, WITHOUT_THE_KERNEL], ids=["signal", "watch"])
def test_a_child_ends_when_its_parent_is_killed(child: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(child=child)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.wait()
    assert _gone(pid, 60.0)


def test_a_child_whose_parent_died_before_it_could_watch_ends_too() -> None:
    orphan = CHILD.replace("os.getppid()", "2**22 - 1")
    child = subprocess.Popen([sys.executable, "-c", orphan], stdout=subprocess.DEVNULL)
    assert child.wait(60) != 0


def test_this_process_is_alive_and_an_ended_one_is_not() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    assert alive(os.getpid())
    assert not alive(ended.pid)


def _gone(pid: int, seconds: float) -> bool:
    """Whether the process ends in time; a zombie that nobody has waited for has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with open(f"/proc/{pid}/stat") as status:
                if status.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            if not alive(pid):
                return True
        time.sleep(0.02)
    return False
