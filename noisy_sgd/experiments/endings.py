"""How a run ends before its time: asked to stop, or by a failure, in one sentence and with an exit status of its own.

    with endings.stop_requests() as stop_requested, endings.failures():
        recorded_run.train(run, stop_requested=stop_requested)

75 (EX_TEMPFAIL) is the status of a run that SIGTERM or Ctrl-C stopped after a checkpoint: the same command goes on. 1
is that of a run that failed: a full disk, data that vanished, a worker that died.
"""

import contextlib
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator

from noisy_sgd.experiments.flags import command_line

STOPPED, FAILED = 75, command_line.FAILED


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Takes SIGTERM (preemption) and SIGINT (Ctrl-C) as a request to stop; a second one ends the process at once.

    Yields:
        A function that says whether there was one.
    """
    received = []

    def request(number, frame):
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        print(f"{signal.Signals(number).name}: stopping after this step and a checkpoint.", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Ends the process in one sentence where training stopped or failed."""
    import tensorflow as tf  # Takes seconds to import; who trains has it already.

    from noisy_sgd.data import array_records
    from noisy_sgd.training import continuation, distribution

    try:
        yield
    except continuation.Interrupted as stopped:
        _end(f"{stopped}; the same command goes on from there.", STOPPED)
    except distribution.WorkerLost as error:
        _end(str(error), FAILED)
    except (ValueError, OSError, tf.errors.OpError) as error:
        reason = array_records.failure(error) or getattr(error, "message", None) or str(error)
        cause = reason.strip().splitlines()[0].rstrip(".")
        _end(f"The run failed: {cause}. Once that is mended, the same command goes on.", FAILED)


def _end(sentence: str, status: int) -> None:
    print(f"{pathlib.Path(sys.argv[0]).stem}: {sentence}", file=sys.stderr, flush=True)
    sys.exit(status)
