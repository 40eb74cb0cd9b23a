"""How a command is stopped by a signal, and what a training leaves that was asked to stop.

The first signal asks; whatever it meets, the command ends with 128 plus its number.  Signals wait
from a command's first line (`hold`) until it can answer them (`catch`), and while Ray puts its own
handlers in place (`held`).  A training may take a while to leave a checkpoint (`graceful`); a
second signal, a second later or more, ends that.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C; what schedulers send first; a closed terminal; SLURM's and others' warnings."""

SAME_SECONDS = 1.0
"""A signal again within this time is the same one: a terminal, a scheduler and a supervisor may all
pass it on."""

SECONDS_UNTIL_AGAIN = 10.0
"""An interrupt that had no effect by then, since something swallowed it, comes again."""


SUPERVISOR_SECONDS = 0.5
"""Between a supervisor's looks at what its child has told; signals wake it at once."""

SECONDS_TO_END = 20.0
"""A process that has told its status, and not ended by then, is killed."""


class TrainingStopped(Exception):
    """A training that was asked to stop, and where it is."""

    def __init__(
        self, epoch: int | None = None, batches: int = 0, checkpoint: bytes | None = None
    ) -> None:
        super().__init__("asked to stop")
        self.epoch = epoch
        """The last that is complete; None: none is, or the newest checkpoint says it all."""
        self.batches = batches
        """Of the epoch after it, that are trained on already."""
        self.checkpoint = checkpoint
        """From which it goes on to the same bits; None: the one before does."""


@dataclass
class _State:
    received: int | None = None
    at: float = 0.0
    held: int = 0
    ending: bool = False
    """Nothing stops the process any more: it is about to end."""
    internal: bool = False
    """The interrupt on its way is one of our own (`interrupt`)."""
    left_alone: set[int] = field(default_factory=set)
    """Signals that this process was started to ignore, as by nohup."""
    on_request: Callable[[], None] | None = None
    supervisor: int | None = None
    """Descriptor of a pipe to the process that ends when this one does."""


_state = _State()


def hold() -> None:
    """Let signals wait until `catch`.  To be called before anything that takes long to load."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def catch() -> None:
    """Make every signal raise KeyboardInterrupt in the main thread, also one that has waited.

    Another exception would not do: Ray 2.60's compiled code answers every one but this with a
    SystemError.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            _state.left_alone.add(number)
    _install(_on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def is_asked() -> bool:
    """Whether a signal has come."""
    return _state.received is not None


def status() -> int:
    """The exit status of a command that was stopped; Ctrl-C's if nobody knows by what."""
    return 128 + (_state.received or signal.SIGINT)


def end() -> None:
    """Let nothing stop this process any more: it has said its last, and ends."""
    _state.ending = True
    _install(signal.SIG_IGN)


def interrupt() -> None:
    """Raise KeyboardInterrupt in the main thread, from another one, for a reason of our own."""
    number = next((n for n in SIGNALS if n not in _state.left_alone), None)
    if number is not None:
        _state.internal = True
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, number)  # `_thread.interrupt_main` ends no sleep


def is_stop(error: BaseException) -> bool:
    """Whether an exception is what became of a stop: libraries turn it into one of their own."""
    if isinstance(error, KeyboardInterrupt | TrainingStopped):
        return True
    return _state.received is not None and not isinstance(error, ValueError)


def run(command: Callable[[], int], words: str = "stopped") -> int:
    """Run a command that signals may stop; returns its exit status, that of a stop if it was."""
    try:
        catch()
        return command()
    except BaseException as error:
        if not is_stop(error):
            raise
        return say_stopped(words)


def say_stopped(words: str) -> int:
    """Say that a command was stopped, and let nothing disturb its end; returns its exit status."""
    end()
    print(words, file=sys.stderr, flush=True)
    return status()


def leave(number: int) -> NoReturn:
    """End this process with a status, once what it said is out."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or its reader has left
            stream.flush()
    _tell_supervisor(f"status {number}")
    sys.exit(number)


@contextmanager
def kept() -> Iterator[None]:
    """Whatever handlers others want to put there in this block, those of before stay."""
    put = signal.signal
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def refuse(number: int, handler: Any) -> Any:
        return signal.getsignal(number) if number in SIGNALS else put(number, handler)

    signal.signal = refuse
    try:
        yield
    finally:
        signal.signal = put
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                put(number, handler)  # compiled code does not ask


@contextmanager
def held() -> Iterator[None]:
    """Signals in this block take effect at its end; handlers are `kept`."""
    _state.held += 1
    try:
        with kept():
            yield
    finally:
        _state.held -= 1
    if _state.received is not None and not _state.held and not _state.ending:
        raise KeyboardInterrupt


@contextmanager
def graceful(request: Callable[[], object], seconds: float) -> Iterator[None]:
    """The first signal in this block does not interrupt it: ``request`` is called, in a thread.

    When that returns, after ``seconds``, or at the next signal, KeyboardInterrupt is raised; at the
    latest at the end of the block.
    """
    done = threading.Event()

    def ask() -> None:
        asking = threading.Thread(target=request, daemon=True)
        asking.start()
        asking.join(seconds)
        _state.on_request = None
        if not done.is_set():
            interrupt()

    _state.on_request = lambda: threading.Thread(target=ask, daemon=True).start()
    try:
        yield
    finally:
        done.set()
        _state.on_request = None
    if _state.received is not None:
        raise KeyboardInterrupt


# -------------------------------------------------------------------------------- the supervisor
def supervise() -> None:
    """Go on in a child process, and leave this one behind to end with the child's status.

    Compiled code can crash a process while it ends, and what it has said and meant is then worth
    nothing: here the status is what the child told before (`leave`), or 1 and what it said it would
    leave to say (`last_words`).  To be called after `hold`, before any thread is started.  Does
    nothing where a process cannot wait for signals, as on macOS.
    """
    if not hasattr(signal, "sigtimedwait"):
        return
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child:
        os.close(writer)
        os._exit(_watch(child, reader))
    os.close(reader)
    _state.supervisor = writer
    _die_with(parent)


@contextmanager
def last_words(text: str) -> Iterator[None]:
    """What the supervisor says if this process is killed in the block, or crashes."""
    _tell_supervisor(f"words {text}")
    try:
        yield
    finally:
        _tell_supervisor("words ")


def _watch(child: int, reader: int) -> int:
    """Pass signals on until the child has ended; returns the exit status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [*SIGNALS, signal.SIGCHLD])
    said = b""
    deadline = None
    while True:
        found = signal.sigtimedwait([*SIGNALS, signal.SIGCHLD], SUPERVISOR_SECONDS)
        # What a terminal sends comes from the kernel, and the child has it as well.
        if found is not None and found.si_signo != signal.SIGCHLD and found.si_code <= 0:
            with suppress(ProcessLookupError):
                os.kill(child, found.si_signo)
        while select.select([reader], [], [], 0)[0] and (more := os.read(reader, 65536)):
            said += more
        lines = said.decode(errors="replace").splitlines()
        told = next((int(line[7:]) for line in lines if line.startswith("status ")), None)
        ended, how = os.waitpid(child, os.WNOHANG)
        if ended:
            return _status_of(os.waitstatus_to_exitcode(how), told, lines)
        if told is not None:  # what remains is the end of the process itself
            deadline = deadline or time.monotonic() + SECONDS_TO_END
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)


def _status_of(code: int, told: int | None, lines: list[str]) -> int:
    if told is not None:
        return told
    if code >= 0:
        return code
    words = [line[6:] for line in lines if line.startswith("words ")]
    crashed = -code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
    text = words[-1] if words and words[-1] else ""
    name = signal.Signals(-code).name
    _say(f"{text or f'error: this command was ended by {name}'}\n")
    return 1 if crashed else 128 - code


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, which nobody can catch."""
    set_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    with suppress(OSError, AttributeError):  # no Linux
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(status())


def _tell_supervisor(line: str) -> None:
    if _state.supervisor is not None:
        with suppress(OSError):
            os.write(_state.supervisor, f"{line}\n".encode(errors="replace"))


# --------------------------------------------------------------------------------------- handlers
def _install(handler: Any) -> None:
    for number in SIGNALS:
        if number not in _state.left_alone:
            signal.signal(number, handler)


def _on_signal(number: int, frame: FrameType | None) -> None:
    signal.alarm(0)  # absl's handler of SIGTERM, which Ray installs, has us aborted in 3 s
    if _state.internal:
        _state.internal = False
        raise KeyboardInterrupt
    now = time.monotonic()
    if _state.received is None:
        _state.received, _state.at = number, now
        threading.Thread(target=_insist, daemon=True).start()
        if _state.on_request is not None and not _state.held:
            _say("stopping: what runs leaves a checkpoint; again, and it stops at once\n")
            _state.on_request()
            return
    elif now - _state.at < SAME_SECONDS:
        return
    if not _state.held and not _state.ending:
        raise KeyboardInterrupt


def _insist() -> None:
    """Interrupt again what went on: compiled code, or an `except`, may have swallowed it."""
    while not _state.ending:
        time.sleep(SECONDS_UNTIL_AGAIN)
        if not (_state.ending or _state.held or _state.on_request is not None):
            interrupt()


def _say(text: str) -> None:
    """Print on stderr, past its buffer: a handler may have interrupted a print."""
    with suppress(OSError):
        os.write(2, text.encode(errors="replace"))
