"""Signals: held until they can be answered, answered once, and the status is ours come what may."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lesion_core import stopping

ROOT = Path(__file__).parents[2]

COMMAND = """
import os, signal, sys, threading, time
from lesion_core import stopping

stopping.hold()
os.kill(os.getpid(), {early}) if {early} else None
if {supervised}:
    stopping.supervise()

def main():
    print("begun", flush=True)
    {body}
    return 3

number = stopping.run(main)
{after}
stopping.leave(number)
"""


def started(body="time.sleep(60)", *, early=0, supervised=False, after="pass"):
    code = COMMAND.format(body=body, early=early, supervised=supervised, after=after)
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process, *numbers):
    """Exit status, and what it said on stderr, after these signals."""
    with process:
        if numbers:
            assert process.stdout.readline() == "begun\n"
        for number in numbers:
            process.send_signal(number)
        _, err = process.communicate(timeout=300)
    return process.returncode, err


@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_ends_a_command_with_its_status_and_a_word(number, supervised):
    process = started(supervised=supervised)
    assert ended(process, number) == (128 + number, "stopped\n")


def test_statuses_are_the_ones_that_shells_and_schedulers_know():
    assert [128 + number for number in stopping.SIGNALS] == [130, 143, 129, 138, 140]


def test_a_signal_before_it_can_be_answered_waits():
    process = started(early=int(signal.SIGTERM))
    assert ended(process) == (143, "stopped\n")


def test_what_comes_after_the_first_signal_changes_nothing():
    """Not even while the process ends, which takes its time here."""
    process = started(after="time.sleep(1)")
    found = ended(process, signal.SIGINT, signal.SIGINT, signal.SIGTERM)
    assert found == (130, "stopped\n")


def test_a_command_that_was_started_to_ignore_a_signal_does():
    """As by nohup; a shell's background commands ignore Ctrl-C."""
    code = COMMAND.format(body="time.sleep(1)", early=0, supervised=True, after="pass")
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP INT; exec "$0" -c "$1"', sys.executable, code],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert ended(process, signal.SIGHUP, signal.SIGINT) == (3, "")


def test_handlers_that_others_put_there_do_not_lose_a_signal():
    """Ray does, and would end with a status of its own; compiled code asks nobody."""
    body = """
    with stopping.held():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        import ctypes
        ctypes.CDLL(None).signal(signal.SIGUSR1, None)  # SIG_DFL
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        print("not yet", file=sys.stderr, flush=True)
    """
    assert ended(started(body)) == (143, "not yet\nstopped\n")


def test_an_interrupt_that_is_swallowed_comes_again():
    body = """
    stopping.SECONDS_UNTIL_AGAIN = 0.5
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        pass
    time.sleep(60)
    """
    begun = time.monotonic()
    assert ended(started(body)) == (143, "stopped\n")
    assert time.monotonic() - begun < 50


def test_what_became_of_an_interrupt_is_a_stop_and_a_mistake_is_none():
    turned = "try:\n        os.kill(os.getpid(), 15)\n    except BaseException: raise SystemError"
    assert ended(started(turned)) == (143, "stopped\n")
    status, err = ended(started("raise SystemError('x')"))
    assert status == 1 and "SystemError: x" in err


@pytest.mark.parametrize(
    ("body", "after", "status", "words"),
    [
        # Crashes on the way out, after its last word.
        ("pass", "import atexit; atexit.register(os.abort)", 3, ""),
        ("raise KeyboardInterrupt", "import atexit; atexit.register(os.abort)", 130, "stopped\n"),
        # Crashes while it runs.
        (
            "with stopping.last_words('error: see ray.log'): os.kill(os.getpid(), signal.SIGSEGV)",
            "pass", 1, "error: see ray.log\n",
        ),
        ("os.abort()", "pass", 1, "error: this command was ended by SIGABRT\n"),
        # From outside.
        ("os.kill(os.getpid(), 9)", "pass", 137, "error: this command was ended by SIGKILL\n"),
    ],
)  # fmt: skip
def test_a_supervised_commands_status_is_ours_even_if_it_crashes(body, after, status, words):
    process = started(body, supervised=True, after=after)
    assert ended(process) == (status, words)


def test_a_supervised_command_dies_with_its_supervisor():
    body = "print(os.getpid(), flush=True); time.sleep(60)"
    with started(body, supervised=True) as process:
        assert process.stdout.readline() == "begun\n"
        child = int(process.stdout.readline())
        assert child != process.pid
        process.kill()
        assert process.stdout.read() == ""  # its other end is closed: nobody is left
    with pytest.raises(ProcessLookupError):
        while True:
            os.kill(child, 0)


GRACE = """
    stopping.SAME_SECONDS = 0
    asked = threading.Event()
    def request():
        asked.set()
        time.sleep({request})
    with stopping.graceful(request, {seconds}):
        os.kill(os.getpid(), signal.SIGTERM)
        asked.wait()
        {then}
    """


@pytest.mark.parametrize(
    ("request_s", "seconds", "then"),
    [
        (0.2, 60, "time.sleep(60)"),  # until the request has been answered
        (60, 0.2, "time.sleep(60)"),  # or for so long
        (60, 60, "pass"),  # or to the end of the block
        (60, 60, "os.kill(os.getpid(), signal.SIGUSR1); time.sleep(60)"),  # or to another signal
    ],
)
def test_the_first_signal_asks_and_the_grace_is_limited(request_s, seconds, then):
    begun = time.monotonic()
    status, err = ended(started(GRACE.format(request=request_s, seconds=seconds, then=then)))
    assert status == 143
    assert err == "stopping: what runs leaves a checkpoint; again, and it stops at once\nstopped\n"
    assert time.monotonic() - begun < 50
