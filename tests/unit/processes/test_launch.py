"""The launcher, with small programs in place of `python -m adaptkit`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptkit.processes import launch
from adaptkit.processes.launch import Outcome

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # torch elastic's own
]

PREAMBLE = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from adaptkit.processes.launch import leave_report
rank, folder = int(os.environ["RANK"]), sys.argv[1]
def report(message, code, **options):
    leave_report(message, code, **{{"is_error": True, "is_secondary": False, **options}})
    sys.exit(code)
"""
ROOT = Path(launch.__file__).parents[2]
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Outcome]]:
    handlers = {number: signal.getsignal(number) for number in HANDLED}

    def launched(program: str, num_processes: int = 2) -> Outcome:
        script = tmp_path / "program.py"
        script.write_text(PREAMBLE.format(root=str(ROOT)) + program)
        monkeypatch.setattr(launch, "COMMAND", (sys.executable, str(script)))
        return launch.launch(num_processes, [str(tmp_path)])

    yield launched
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_every_process_knows_its_place(run: Callable[..., Outcome], tmp_path: Path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    program = f"open(os.path.join(folder, f'{{rank}}.txt'), 'w').write(' '.join(os.environ[n] for n in {names}))"
    assert run(program, 3) == Outcome(0)
    told = [(tmp_path / f"{rank}.txt").read_text().split() for rank in range(3)]
    assert [line[:5] for line in told] == [[str(r), str(r), "3", "3", "127.0.0.1"] for r in range(3)]
    assert len({line[5] for line in told}) == 1


def test_only_the_main_process_is_heard(run: Callable[..., Outcome], capfd: pytest.CaptureFixture[str]) -> None:
    run("print('out', rank, flush=True); print('err', rank, file=sys.stderr)")
    assert capfd.readouterr() == ("out 0\n", "err 0\n")


def test_the_first_error_is_told_once_and_what_follows_from_it_is_not(run: Callable[..., Outcome]) -> None:
    program = """
if rank == 1: report("data/rows.json: row 3 is bad", 2)
time.sleep(0.5)
report("process 0 lost the others", 1, is_secondary=True)
"""
    assert run(program) == Outcome(2, "data/rows.json: row 3 is bad")


def test_an_error_that_all_have_is_told_once(run: Callable[..., Outcome]) -> None:
    assert run("report('no such base', 2)", 3) == Outcome(2, "no such base")


def test_a_run_that_was_asked_to_stop_is_no_error(run: Callable[..., Outcome]) -> None:
    outcome = run("report('saved checkpoint-3; continue with --resume auto', 143, is_error=False)")
    assert outcome == Outcome(143, "saved checkpoint-3; continue with --resume auto", is_error=False)


def test_a_killed_process_ends_the_others(run: Callable[..., Outcome]) -> None:
    started = time.monotonic()
    outcome = run("os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else time.sleep(60)")
    assert time.monotonic() - started < 20
    assert outcome.exit_code == 128 + signal.SIGKILL
    assert outcome.message is not None
    assert "process 1 of 2 was ended by SIGKILL. Was there too little memory?" in outcome.message


def test_a_crash_of_a_silent_process_shows_its_last_lines(run: Callable[..., Outcome]) -> None:
    outcome = run("if rank == 1: sys.stderr.write('it went wrong\\n'); sys.exit(7)")
    assert outcome == Outcome(7, "process 1 of 2 failed:\nit went wrong")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_all_processes_once(run: Callable[..., Outcome], tmp_path: Path, number: int) -> None:
    program = f"""
def note(number, frame):
    open(os.path.join(folder, f"{{rank}}.signals"), "a").write("x")
signal.signal({int(number)}, note)
open(os.path.join(folder, f"{{rank}}.ready"), "w").close()
deadline = time.monotonic() + 30
while not os.path.exists(os.path.join(folder, f"{{rank}}.signals")) and time.monotonic() < deadline:
    time.sleep(0.02)
time.sleep(0.2)
"""

    def send() -> None:
        while len(list(tmp_path.glob("*.ready"))) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    assert run(program) == Outcome(0)
    sender.join()
    assert [(tmp_path / f"{rank}.signals").read_text() for rank in (0, 1)] == ["x", "x"]


def test_processes_end_with_a_launcher_that_was_killed(tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from adaptkit.processes.launch import end_with_launcher; end_with_launcher()\n"
        "import os; open(sys.argv[1] + '/pid', 'w').write(str(os.getpid())); time.sleep(60)"
    )
    parent = tmp_path / "parent.py"
    parent.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom adaptkit.processes import launch\n"
        f"launch.COMMAND = (sys.executable, {str(child)!r})\nlaunch.launch(1, [{str(tmp_path)!r}])"
    )
    process = subprocess.Popen([sys.executable, str(parent)])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    process.kill()
    process.wait()
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _lives(pid):
        time.sleep(0.1)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
