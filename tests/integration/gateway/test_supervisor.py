"""The supervisor, with real processes: it starts, restarts with a pause that grows, stops, and takes all with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockgate.gateway import supervisor
from lockgate.gateway.supervisor import Spec, Supervisor, pause_after, python
from lockgate.process import alive

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")
FAIL = (sys.executable, "-c", "raise SystemExit(3)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); open('ignores', 'w').close(); time.sleep(600)",
)


class Wanted:
    def __init__(self, specs: dict[str, Spec]) -> None:
        self.specs = specs

    def __call__(self) -> dict[str, Spec]:
        return self.specs


@pytest.fixture
def supervise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Supervisor]]:
    monkeypatch.setattr(supervisor, "REFRESH", 0.0)
    made: list[Supervisor] = []

    def make(wanted: Wanted) -> Supervisor:
        made.append(Supervisor(wanted, cwd=tmp_path))
        return made[-1]

    yield make
    for one in made:
        one._end()


def step_until(one: Supervisor, condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        one.step(time.monotonic())
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("failures", "pause"), [(0, 0.0), (1, 0.2), (2, 0.4), (5, 3.2), (7, 10.0), (500, 10.0)])
def test_the_pause_grows_with_failures_up_to_a_limit(failures: int, pause: float) -> None:
    assert pause_after(failures) == pytest.approx(pause)


def test_what_is_wanted_runs_and_what_is_not_wanted_any_more_stops(supervise: Callable[..., Supervisor]) -> None:
    wanted = Wanted({"a": Spec(command=SLEEP), "b": Spec(command=SLEEP)})
    one = supervise(wanted)
    one.step(time.monotonic())
    pids = one.pids()
    assert set(pids) == {"a", "b"}
    wanted.specs = {"a": wanted.specs["a"]}
    step_until(one, lambda: "b" not in one.pids())
    assert one.pids() == {"a": pids["a"]}


def test_a_child_lingers_when_it_should_and_stays_when_it_is_wanted_again(
    supervise: Callable[..., Supervisor],
) -> None:
    spec = Spec(command=SLEEP, linger=60.0)
    wanted = Wanted({"a": spec})
    one = supervise(wanted)
    one.step(100.0)
    pids = one.pids()
    wanted.specs = {}
    one.step(110.0)
    one.step(165.0)
    assert one.pids() == pids
    wanted.specs = {"a": spec}
    one.step(169.0)
    one.step(500.0)
    assert one.pids() == pids


def test_a_killed_child_is_started_again_and_its_siblings_do_not_notice(
    supervise: Callable[..., Supervisor],
) -> None:
    one = supervise(Wanted({"a": Spec(command=SLEEP), "b": Spec(command=SLEEP)}))
    one.step(time.monotonic())
    before = one.pids()
    os.kill(before["a"], signal.SIGKILL)
    step_until(one, lambda: one.pids().get("a") not in (None, before["a"]))
    assert one.pids()["b"] == before["b"]


def test_a_child_that_keeps_failing_is_started_ever_more_rarely(supervise: Callable[..., Supervisor]) -> None:
    one = supervise(Wanted({"a": Spec(command=FAIL)}))
    one.step(1000.0)
    child = one._children["a"]
    starts = []
    for _ in range(3):
        assert child.process is not None
        child.process.wait(60)
        one.step(child.started_at + 0.1)
        starts.append(round(child.start_at - child.started_at - 0.1, 3))
        one.step(child.start_at)
    assert starts == [0.2, 0.4, 0.8]


def test_a_child_that_ignores_the_stop_is_killed(
    supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.3)
    wanted = Wanted({"a": Spec(command=STUBBORN)})
    one = supervise(wanted)
    step_until(one, (tmp_path / "ignores").exists)
    wanted.specs = {}
    step_until(one, lambda: not one.pids())


def test_the_children_of_a_killed_supervisor_end(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from pathlib import Path\n"
        "from lockgate.gateway.supervisor import Spec, Supervisor\n"
        f"one = Supervisor(lambda: {{'a': Spec(command={SLEEP!r})}}, cwd=Path.cwd())\n"
        "one.run(each=lambda: print(one.pids()['a'], flush=True))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait(60)
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while alive(child) and _state(child) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_commands_are_of_this_interpreter() -> None:
    assert python("lockgate", "control") == (sys.executable, "-m", "lockgate", "control")


WAITS = (sys.executable, "-c", "import sys, time; open('told', 'w').write(sys.stdin.readline()); time.sleep(600)")


@pytest.fixture
def spare(supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch) -> tuple[Supervisor, Wanted]:
    monkeypatch.setattr(supervisor, "SPARE_REST", 0.0)
    wanted = Wanted({"spare": Spec(command=WAITS, spare=True)})
    one = supervise(wanted)
    step_until(one, lambda: "spare" in one.pids())
    return one, wanted


def test_a_spare_becomes_the_child_that_is_wanted_next_and_another_takes_its_place(
    spare: tuple[Supervisor, Wanted], tmp_path: Path
) -> None:
    one, wanted = spare
    before = one.pids()["spare"]
    wanted.specs["a"] = Spec(command=FAIL, becomes=("host", "--digest", "x"))
    step_until(one, lambda: one.pids().get("a") == before)
    step_until(one, lambda: (tmp_path / "told").exists() and (tmp_path / "told").read_text())
    assert json.loads((tmp_path / "told").read_text()) == ["host", "--digest", "x"]
    step_until(one, lambda: one.pids().get("spare") not in (None, before))
    os.kill(before, signal.SIGKILL)  # it is the child's process now: that is what starts again
    step_until(one, lambda: one.pids().get("a") not in (None, before))


def test_without_a_living_spare_a_child_starts_by_itself(spare: tuple[Supervisor, Wanted]) -> None:
    one, wanted = spare
    pid = one.pids()["spare"]
    os.kill(pid, signal.SIGKILL)
    process = one._children["spare"].process
    assert process is not None
    process.wait(60)
    wanted.specs["a"] = Spec(command=SLEEP, becomes=("host",))
    step_until(one, lambda: "a" in one.pids())
    assert one.pids()["a"] != pid


def test_a_spare_ends_when_nobody_can_tell_it_anything_any_more(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lockgate.gateway.spare"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_spare_goes_on_as_the_command_it_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lockgate.gateway.spare"]
    done = subprocess.run(
        command, input='["--version"]\n', cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "lockgate")


def test_a_change_is_looked_at_before_the_next_round_is_due(
    supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(supervisor, "REFRESH", 1000.0)
    wanted, changes = Wanted({}), [False, False, True]
    one = Supervisor(wanted, cwd=tmp_path, changed=lambda: changes.pop(0))
    one.step(100.0)
    wanted.specs = {"a": Spec(command=SLEEP)}
    one.step(100.1)
    assert one.pids() == {}
    one.step(100.2)
    assert "a" in one.pids()
    one._end()
