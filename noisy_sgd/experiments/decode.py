"""How fast ImageNet's images are decoded: the input of training against a bare decode-and-crop with a resize.

    python -m noisy_sgd.experiments.decode --data_dir=DATA

Three decode the same images of the prepared `imagenet2012` to the same size, in turns: the reader of the training runs,
and a plain `map` of `tf.io.decode_and_crop_jpeg` and `tf.image.resize`, whose images stay floats, over the same records
("bare") and over JPEGs in memory ("memory"). Times are processor time of all threads, so that a busy machine changes
their ratios little. One JSON line: images per second and core of each, and the median over the turns of how many images
the input reads for each one of the other two.

Tested by tests/experiments/decode_test.py.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence

from noisy_sgd import config
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line, training
from noisy_sgd.experiments.support import startup

_DATASET = "imagenet2012"
_BATCH = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Which images are decoded, how many, and how often."""

    data: config.Data
    num_images: int = 512
    num_rounds: int = 5

    def __post_init__(self):
        images = self.data.dataset == _DATASET
        config.require(images, "dataset", f"must be {_DATASET}", self.data.dataset, "leave it out")
        for name in ("num_images", "num_rounds"):
            config.require_at_least(name, getattr(self, name), 1)


def parse(argv: Sequence[str]) -> Settings:
    """The speed of decoding ImageNet's images."""
    values = command_line.flag_set()
    training.define_images(values, dataset=_DATASET)
    helps = {"num_images": "images that are decoded in a turn, from the first one on", "num_rounds": "turns of each"}
    command_line.define(values, "decode", Settings, helps)
    command_line.parse(values, argv, parse)
    chosen = {name: values[name].value for name in helps}
    return Settings(data=config.Data(**command_line.typed(values, config.Data)), **chosen)


def main(settings: Settings) -> None:
    """Prints one line."""
    startup.tensorflow()
    with flags.refusals():
        print(json.dumps(line(settings)))


def line(settings: Settings) -> dict[str, float]:
    """The measurement, ready for JSON."""
    import numpy as np
    import tensorflow as tf

    from noisy_sgd.data import imagenet
    from noisy_sgd.runs import builders

    images = builders.image_set(settings.data)
    count = min(settings.num_images, images.num_train_examples)
    side, framing = images.train_image_shape[0], images.framing
    numerator, denominator = framing.part

    def decode(one):
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(one))
        part = tf.minimum(height, width) * numerator // denominator
        window = [(height - part) // 2, (width - part) // 2, part, part]
        square = tf.io.decode_and_crop_jpeg(one, window, channels=3)
        return tf.image.resize(square, [side, side], method=framing.method, antialias=framing.antialias)

    rows = np.arange(-(-count // _BATCH) * _BATCH).reshape(-1, _BATCH) % count
    ours = tf.data.Dataset.from_tensor_slices(rows).map(images.train_reader())

    def encoded(rows):
        return imagenet.encoded(tf.numpy_function(images.train.fetch, [rows], tf.string, stateful=False))

    bare = tf.data.Dataset.from_tensor_slices(rows).map(encoded).unbatch().map(decode).batch(_BATCH)
    jpegs = imagenet.encoded(images.train.fetch(rows.ravel()))
    memory = tf.data.Dataset.from_tensor_slices(jpegs).map(decode).batch(_BATCH)
    datasets = {"input": ours, "bare": bare, "memory": memory}
    times = {name: [] for name in datasets}
    for _ in range(settings.num_rounds + 1):
        for name, dataset in datasets.items():
            times[name].append(_cpu_seconds(lambda dataset=dataset: [None for _ in dataset]))
    # The first turn traces.
    times = {name: found[1:] for name, found in times.items()}
    return {"images": rows.size, "rounds": settings.num_rounds, **summary(rows.size, times)}


def summary(count: int, times: dict[str, list[float]]) -> dict[str, float]:
    """Ratios and speeds of the seconds that each turn took for so many images."""
    ratios = {
        f"ratio_to_{name}": statistics.median(theirs / ours for ours, theirs in zip(times["input"], found, strict=True))
        for name, found in times.items()
        if name != "input"
    }
    speeds = {f"{name}_images_per_core_second": count / statistics.median(found) for name, found in times.items()}
    return {name: round(value, 4) for name, value in (ratios | speeds).items()}


def _cpu_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    flags.run(parse, main)
