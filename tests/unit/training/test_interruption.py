"""SIGTERM, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

ROOT = Path(__file__).resolve().parents[3]
STUBS = f"""
import os, signal, sys, time, types
sys.path.insert(0, {str(ROOT)!r})
sys.modules["transformers"] = types.SimpleNamespace(TrainerCallback=object)  # which takes long
package = types.ModuleType("adaptkit.training"); package.__path__ = [{str(ROOT / "adaptkit" / "training")!r}]
sys.modules["adaptkit.training"] = package
from adaptkit.training import interruption
me = os.getpid()
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", STUBS + program], capture_output=True, text=True, timeout=120)


def test_the_first_is_noted_and_what_follows_at_once_is_the_same_one() -> None:
    done = run("""
before = signal.getsignal(signal.SIGTERM)
with interruption.StopRequest() as request:
    assert not request.asked
    os.kill(me, signal.SIGTERM); os.kill(me, signal.SIGTERM)
    assert request.asked
assert signal.getsignal(signal.SIGTERM) is before
print("lives")
""")
    assert done.stdout == "lives\n", done.stderr


def test_a_second_one_later_ends_the_process() -> None:
    done = run("""
interruption.PATIENCE_S = 0.1
with interruption.StopRequest():
    os.kill(me, signal.SIGTERM); time.sleep(0.2); os.kill(me, signal.SIGTERM); time.sleep(10)
print("lives")
""")
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, ""), done.stderr


def test_a_process_forked_meanwhile_ends_at_once() -> None:
    done = run("""
begun, begin = os.pipe()
with interruption.StopRequest() as request:
    child = os.fork()
    if child == 0:
        os.write(begin, b"."); time.sleep(10); os._exit(0)
    os.read(begun, 1)  # a signal in the middle of a fork is lost to Python
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), request.asked)
""")
    assert done.stdout == f"-{int(signal.SIGTERM)} False\n", done.stderr
