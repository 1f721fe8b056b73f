"""Times one step of SGD, Noisy-SGD and DP-SGD on one network, in turns within one process; one JSON line per case.

    python -m noisy_sgd.experiments.benchmark --workload=wrn_16_4 --algorithm=sgd,noisy_sgd,dp_sgd

SGD is Keras' own: `keras.Model.compile` with its defaults, and the compiled function that `fit` calls. The others are
`PrivateModel`, by the same function. The algorithms take turns because machines have slow minutes. Peak memory is
measured in two ways, for one step in a process of its own. The first is the memory of the process with the model, minus
that of the process without it; it contains heap and graphs (Linux; null elsewhere). The second is the memory of the
tensors alone, by TensorFlow's allocator (null where it counts nothing, as on CPUs without AVX-512).

The workloads are networks of images, and networks that people fine-tune, as Keras' examples write them (`networks`).
`--workload=diagonal_linear` times the simulation of the toy problems instead (`toy`). `--sweep=batch_size` times the
same step in growing logical batches (`logical_batches`). `--sweep=input` times how long a plain step waits for its data
(`input_wait`). `--sweep=peers` times the step of DP-SGD beside Opacus' (`peers`), and `--sweep=noise` that of Noisy-SGD
by the number of draws of its noise (`noise_draws`). `--run_dir` records the lines, and draws the ratios of all
workloads recorded there. A finished benchmark is not timed again, only drawn.

Tested by tests/experiments/binaries_test.py.
"""

import concurrent.futures
import contextlib
import json
import multiprocessing
import pathlib
from collections.abc import Callable

from noisy_sgd import records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.benchmarks import cases, clock, input_wait, logical_batches, memory, noise_draws, peers, toy
from noisy_sgd.experiments.support import endings, recorded_measurement, startup
from noisy_sgd.figures import speed

PRIVACY = {"text": "No privacy guarantee is needed: the images are random."}

parse = flags.benchmark


def main(settings: cases.Benchmark) -> None:
    """Prints one line per case."""
    if settings.workload == "diagonal_linear":
        toy.main(settings)
        return
    startup.tensorflow()
    if settings.sweep == "input":
        print(json.dumps(input_wait.line(settings)))
        return
    if settings.sweep == "peers":
        with flags.refusals():
            compared = peers.lines(settings)
        for line in compared:
            print(json.dumps(line))
        return
    if settings.sweep is not None:
        sweep = logical_batches if settings.sweep == "batch_size" else noise_draws
        for line in sweep.lines(settings):
            print(json.dumps(line), flush=True)
        return
    place = None if settings.run_dir is None else pathlib.Path(settings.run_dir, settings.workload)
    with flags.refusals():
        if place is not None:
            records.check(place, settings.resolved())
            if records.is_finished(place, settings.resolved()):
                print(f"{place} is finished.")
                _draw(settings.run_dir)
                return
        prepared = {algorithm: _prepare(settings, algorithm) for algorithm in settings.algorithms}
    with contextlib.ExitStack() as stack:
        run = None
        if place is not None:
            begun = recorded_measurement.begin(place, settings.resolved(), privacy=PRIVACY)
            run = stack.enter_context(begun)
            stack.enter_context(endings.measurement_failures())
        _time(settings, prepared, run)
    if run is not None:
        _draw(settings.run_dir)


def _draw(directory: str) -> None:
    """Draws all workloads that are recorded in a directory, and prints the paths."""
    with flags.refusals(), endings.drawing():
        for path in speed.draw(records.find(directory), pathlib.Path(directory) / "figures"):
            print(f"figure: {path}")


def _time(settings: cases.Benchmark, prepared: dict[str, Callable[[], None]], run: records.Run | None) -> None:
    """Times the steps in turns, prints the lines, and records them."""
    medians = clock.in_turns(prepared, settings.num_rounds)
    for algorithm in medians:
        line = _line(settings, algorithm, medians)
        print(json.dumps(line))
        if run is not None:
            run.append(line)
    if run is not None:
        run.finish({})


def _line(settings: cases.Benchmark, algorithm: str, medians: dict[str, clock.Times]) -> dict:
    def ratio(reference, kind="wall"):
        if reference not in medians:
            return None
        return round(getattr(medians[algorithm], kind) / getattr(medians[reference], kind), 4)

    return {
        "workload": settings.workload,
        "algorithm": algorithm,
        "batch_size": settings.batch_size,
        "microbatch_size": settings.microbatch_size or settings.batch_size,
        "rounds": settings.num_rounds,
        "examples_per_s": round(1e3 * settings.batch_size / medians[algorithm].wall, 2),
        **peaks(settings, algorithm),
        "ratio_to_sgd": ratio("sgd"),
        "ratio_to_noisy_sgd": ratio("noisy_sgd"),
        "median_ms": round(medians[algorithm].wall, 3),
        "processor_ms": round(medians[algorithm].processor, 3),
        "processor_ratio_to_sgd": ratio("sgd", "processor"),
    }


def peaks(settings: cases.Benchmark, algorithm: str) -> dict[str, float | None]:
    """Peaks in MiB, measured in a new process: in this one a model would reuse the memory that the last one freed."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(_measure_peaks, settings, algorithm).result()


def _measure_peaks(settings: cases.Benchmark, algorithm: str) -> dict[str, float | None]:
    startup.tensorflow()
    before = memory.resident()
    step = _prepare(settings, algorithm)
    memory.forget_peak_of_tensors()
    memory.forget_peak()
    step()
    tensors = memory.peak_of_tensors()
    return {
        "peak_memory_mib": None if before is None else round(memory.peak() - before, 1),
        "peak_tensors_mib": None if tensors is None else round(tensors, 1),
    }


def _prepare(settings: cases.Benchmark, algorithm: str) -> Callable[[], None]:
    """A compiled step that has run twice."""
    from noisy_sgd.experiments.benchmarks import steps

    step, _ = steps.compiled(settings, cases.training(algorithm, settings.batch_size))
    for _ in range(2):
        step()
    return step


if __name__ == "__main__":
    flags.run(parse, main)
