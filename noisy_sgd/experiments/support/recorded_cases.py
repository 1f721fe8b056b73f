"""A recorded measurement of many independent cases: parallel, and resumed after an interruption case by case.

    record = recorded_cases.run(settings, (tuning_cases, final_cases), study.measure, summarize, unit="runs")

A case is a dictionary of JSON values. Its line in the record is the case, followed by what was measured. Lines are
recorded in the order of the cases, so that a record does not depend on the number of processes.

Tested by tests/experiments/recorded_cases_test.py.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import process
from typing import Any

from noisy_sgd import config, files, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.support import endings, toy_experiment
from noisy_sgd.runs import progress

PRIVACY = {"text": "No privacy guarantee: the noise comes from recorded seeds."}

Case = Mapping[str, Any]
Line = Mapping[str, Any]
Stage = Callable[[Sequence[Line]], Sequence[Case]]

HELP = {
    "num_processes": "processes that measure at the same time; by default as many as there are cores",
    "run_dir": "where the runs are recorded",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(toy_experiment.Settings):
    """The base of an experiment's settings.

    Attributes:
        num_processes: how many processes measure, each with one thread for TensorFlow. Defaults to None, the number of
            cores.
    """

    num_processes: int | None = None

    def __post_init__(self):
        if self.num_processes is not None:
            config.require_at_least("num_processes", self.num_processes, 1)
        # The other base of a subclass checks the study's values.
        getattr(super(), "__post_init__", lambda: None)()

    def resolved(self) -> dict[str, Any]:
        """Everything but the directory and the number of processes, on which no number depends."""
        described = super().resolved()
        del described["num_processes"]
        return described


def run(
    settings: Settings,
    stages: Sequence[Stage],
    measure: Callable[[Case], Mapping[str, Any]],
    summarize: Callable[[Sequence[Line]], Mapping[str, Any]],
    *,
    unit: str,
    privacy: Mapping[str, Any] = PRIVACY,
) -> records.Record:
    """Measures the cases that the run directory does not hold yet.

    Args:
        settings: with the run directory, the number of processes, and all values that the measurement depends on.
        stages: functions from the lines of all earlier stages to the cases of the next one.
        measure: from a case to what is measured; a function of a module, because other processes call it.
        summarize: from all lines to the results.
        unit: what a case is called in the progress, in the plural.
        privacy: the privacy statement of the record.

    Returns:
        The finished record. An interruption ends the program with status 75; the same command goes on from there.
    """
    with flags.refusals():
        directory, configuration = settings.run_dir, settings.resolved()
        if records.is_finished(directory, configuration):
            print(f"{directory} is finished.", flush=True)
            return records.read(directory)
        records.check(directory, configuration)
    with contextlib.ExitStack() as stack:
        with flags.refusals():
            recorded = records.reopen(directory, configuration, privacy=privacy)
            stack.enter_context(files.lock(directory))
            lines = list(records.read(directory).metrics)
        stack.enter_context(endings.measurement_failures())
        # An interruption may have left half a line at the end.
        recorded.rewrite("".join(json.dumps(line) + "\n" for line in lines))
        stop_requested = stack.enter_context(endings.stop_requests("this case"))
        evaluated = stack.enter_context(_pool(measure, settings.num_processes or os.cpu_count() or 1))
        done: list[Line] = []
        for stage in stages:
            cases = [records.plain(case) for case in stage(done)]
            kept = _recorded(cases, lines[len(done) :])
            done += kept
            missing = cases[len(kept) :]
            print(f"{directory}: {len(kept):,} of {len(cases):,} {unit} are recorded", flush=True)
            with progress.Progress(total=len(cases), first=len(kept), unit=unit, stream=sys.stderr) as watch:
                for case, measured in zip(missing, evaluated(missing), strict=True):
                    line = records.plain({**case, **measured})
                    recorded.append(line)
                    done.append(line)
                    watch.advance(1)
                    if stop_requested():
                        flags.end(f"{directory} holds {len(done):,} {unit}; the same command goes on", endings.STOPPED)
        recorded.finish(summarize(done))
    return records.read(directory)


def _recorded(cases: Sequence[Case], lines: Sequence[Line]) -> list[Line]:
    """The recorded lines of these cases, which are the first ones."""
    kept = list(lines[: len(cases)])
    for case, line in zip(cases, kept, strict=False):
        if {name: line.get(name) for name in case} != dict(case):
            raise ValueError(
                f"the recorded line {dict(line)} is not that of the case {dict(case)}; choose another run_dir"
            )
    return kept


@contextlib.contextmanager
def _pool(measure: Callable, processes: int) -> Iterator[Callable]:
    """A function that evaluates cases in order, in this process or in several."""
    if processes == 1:
        yield lambda cases: map(measure, cases)
        return
    others = multiprocessing.active_children()
    # A forked process would share the state of TensorFlow's threads.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(processes, context, _begin_process)
    try:
        yield lambda cases: pool.map(measure, cases)
    except process.BrokenProcessPool as error:
        raise OSError("a process of the measurement was killed, for example for lack of memory") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            if child not in others:
                child.kill()
                child.join()


def _begin_process() -> None:
    # The parent process decides about interruptions.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}


def _end_with_parent() -> None:
    # A parent that is killed cannot end its children, which would wait for cases forever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
