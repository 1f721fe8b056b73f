"""How a run ends early, by a request to stop or by a failure: in one sentence and with its own exit status.

    with endings.stop_requests() as stop_requested, endings.failures():
        recorded_run.train(run, stop_requested=stop_requested)

Status 75 (EX_TEMPFAIL) is that of a run which SIGTERM or Ctrl-C stopped after a checkpoint: the same command resumes
it. Status 1 is that of a run that failed: a full disk, data that vanished, a worker that died.
"""

import contextlib
import re
import signal
import sys
from collections.abc import Callable, Iterator

from noisy_sgd.experiments import flags

STOPPED, FAILED = 75, flags.FAILED

_LONGEST_CAUSE = 300
# The text that TensorFlow writes around the message of an operation.
_AROUND = re.compile(
    r"\s*\{\{function_node [^}]*\}\}\s*"
    r"|Error in user-defined function passed to .*? with iterator: [\w:]+: (?:\w+Error: )?"
    r"|\s*\(0\) [A-Z_ ]+: *|\s*\[Op:.*|^(?:OS|Value|Runtime)Error: "
)
_HEADINGS = ("Graph execution error:", "Detected at node", "Detected at", "Traceback ", "Stack trace ")


@contextlib.contextmanager
def stop_requests(after: str = "this step and a checkpoint") -> Iterator[Callable[[], bool]]:
    """Takes SIGTERM (preemption) and SIGINT (Ctrl-C) as a request to stop; a second one ends the process at once.

    Args:
        after: what the process does before it stops. Defaults to what a training run does.

    Yields:
        A function that returns whether there was a request.
    """
    received = []

    def request(number, frame):
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        print(f"{signal.Signals(number).name}: stopping after {after}.", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Ends the process in one sentence if training stops or fails."""
    import tensorflow as tf  # The import takes seconds; a process that trains has done it.

    from noisy_sgd.data import array_records
    from noisy_sgd.runs import continuation
    from noisy_sgd.training import distribution

    try:
        yield
    except continuation.Interrupted as stopped:
        flags.end(f"{stopped}; the same command goes on from there.", STOPPED)
    except distribution.WorkerLost as error:
        flags.end(str(error), FAILED)
    except (ValueError, OSError, MemoryError, tf.errors.OpError) as error:
        reason = array_records.failure(error) or cause(error)
        flags.end(f"The run failed: {reason}. When that is fixed, the same command goes on.", FAILED)


@contextlib.contextmanager
def measurement_failures() -> Iterator[None]:
    """Ends the process in one sentence if a measurement fails; the same command starts it from the beginning."""
    try:
        yield
    except (ValueError, OSError, MemoryError, OverflowError) as error:
        flags.end(f"The measurement failed: {cause(error)}. When that is fixed, the same command makes it.", FAILED)


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Ends the process in one sentence if a figure or a report cannot be written; the record is then complete."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename} cannot be written: " if error.filename else ""
        reason = error.strerror or cause(error)
        flags.end(f"{where}{reason}. The record is complete; when that is fixed, the same command draws it.", FAILED)


def cause(error: Exception) -> str:
    """What went wrong, in one sentence without its period; of a long TensorFlow error, the operation's own message."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = (getattr(error, "message", None) or str(error)).splitlines()
    # Sources and nodes are indented. If several operations failed, the message of the first is indented too.
    whole = [line for line in lines if not line.startswith((" ", "\t", *_HEADINGS)) or line.startswith("  (0) ")]
    several = [line for line in whole if line.startswith("  (0) ")]
    sentences = (_AROUND.sub("", line).strip() for line in several + whole)
    found = next(filter(None, sentences), type(error).__name__)
    return found[:_LONGEST_CAUSE].rstrip(". ")
