"""Times one step of SGD, Noisy-SGD and DP-SGD on one network, in turns within one process; one JSON line a case.

    python -m noisy_sgd.experiments.benchmark --workload=wrn_16_4 --algorithm=sgd,noisy_sgd,dp_sgd

SGD is Keras' own: `keras.Model.compile` with its defaults, and the compiled function that `fit` calls. The others are
`PrivateModel`, by the same function. In turns, because machines have slow minutes. Peak memory is that of a step, with
the model, above the process without it (Linux; null elsewhere). `--workload=diagonal_linear` times the simulation of
the toy problems instead (`toy_benchmark`).
"""

import ctypes
import gc
import json
import pathlib
import re
import statistics
import time
from collections.abc import Callable

import numpy as np

from noisy_sgd import config
from noisy_sgd.experiments import flags, startup, toy_benchmark

SHAPES = {"mlp": (28, 28, 1), "mnist_cnn": (28, 28, 1), "wrn_16_4": (32, 32, 3), "nf_resnet_small": (32, 32, 3)}
L2_NORM_CLIP, NOISE_MULTIPLIER = 1.0, 1.0
_STATUS = pathlib.Path("/proc/self/status")


def main(settings: config.Benchmark) -> None:
    """Prints one line a case."""
    if settings.workload == "diagonal_linear":
        toy_benchmark.main(settings)
        return
    startup.tensorflow()
    steps, peaks = {}, {}
    for algorithm in settings.algorithms:
        with flags.refusals():
            steps[algorithm], peaks[algorithm] = _prepare(settings, algorithm)
    times = {algorithm: [] for algorithm in steps}
    for _ in range(settings.num_rounds):
        for algorithm, step in steps.items():
            start = time.perf_counter()
            step()
            times[algorithm].append(1e3 * (time.perf_counter() - start))
    medians = {algorithm: statistics.median(values) for algorithm, values in times.items()}
    for algorithm, median in medians.items():
        print(json.dumps(_line(settings, algorithm, medians, peaks[algorithm]) | {"median_ms": round(median, 3)}))


def _line(settings: config.Benchmark, algorithm: str, medians: dict[str, float], peak: float | None) -> dict:
    def ratio(reference):
        return round(medians[algorithm] / medians[reference], 4) if reference in medians else None

    return {
        "workload": settings.workload,
        "algorithm": algorithm,
        "batch_size": settings.batch_size,
        "microbatch_size": settings.microbatch_size or settings.batch_size,
        "rounds": settings.num_rounds,
        "examples_per_s": round(1e3 * settings.batch_size / medians[algorithm], 2),
        "peak_memory_mib": peak,
        "ratio_to_sgd": ratio("sgd"),
        "ratio_to_noisy_sgd": ratio("noisy_sgd"),
    }


def _prepare(settings: config.Benchmark, algorithm: str) -> tuple[Callable[[], None], float | None]:
    """A compiled step that has run twice, and its peak memory in MiB."""
    before = _memory("VmRSS")
    step = _step(settings, algorithm)
    for _ in range(2):
        step()
    _forget_peak()
    step()
    peak = _memory("VmHWM")
    return step, None if before is None else round(peak - before, 1)


def _step(settings: config.Benchmark, algorithm: str) -> Callable[[], None]:
    import keras
    import tensorflow as tf

    from noisy_sgd.data import bundled
    from noisy_sgd.training import builders, private_model

    images = _random_images(bundled.ImageSet, SHAPES[settings.workload], settings.batch_size)
    options = {} if algorithm == "sgd" else {"noise_multiplier": NOISE_MULTIPLIER}
    if algorithm == "dp_sgd":
        options["l2_norm_clip"] = L2_NORM_CLIP
    chosen = config.Algorithm(algorithm=algorithm, batch_size=settings.batch_size, learning_rate=0.01, **options)
    private = algorithm != "sgd"
    model_class = private_model.PrivateModel if private else keras.Model
    model = builders.network(config.Model(model=settings.workload), images, seed=0, model_class=model_class)
    sizes = {"batch_size": settings.batch_size, "microbatch_size": settings.microbatch_size} if private else {}
    optimizer = builders.optimizer(config.Config(algorithm=chosen))
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), **sizes)
    model.make_train_function()
    batches = tf.data.Dataset.from_tensors((images.train_images, images.train_labels)).repeat()
    iterator = iter(batches)

    def step():
        # Reading the loss waits for the device.
        float(model.train_function(iterator)["loss"])

    return step


def _random_images(image_set: type, shape: tuple[int, int, int], count: int):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
    labels = generator.integers(0, 10, count, dtype=np.int32)
    return image_set(
        name="random",
        train_images=images,
        train_labels=labels,
        test_images=images[:0],
        test_labels=labels[:0],
        num_classes=10,
        pixel_range=(0.0, 255.0),
    )


def _memory(name: str) -> float | None:
    """A line of /proc/self/status in MiB, after what is free has gone back to the system."""
    if not _STATUS.exists():
        return None
    if name == "VmRSS":
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
    return int(re.search(rf"{name}:\s*(\d+) kB", _STATUS.read_text()).group(1)) / 1024


def _forget_peak() -> None:
    if _STATUS.exists():
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        # 5 makes VmHWM start again from the present size (proc(5)).
        pathlib.Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    flags.run(flags.benchmark, main)
