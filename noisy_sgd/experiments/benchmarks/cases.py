"""What the benchmarks train on: random images of a workload's shape, and one configuration per algorithm.

cases.Benchmark(workload="mlp", batch_size=256)     # what the command line asks for, checked
"""

import dataclasses
from typing import Any

import numpy as np

from noisy_sgd import config, keys
from noisy_sgd.data import bundled

SHAPES = {
    "mlp": (28, 28, 1),
    "mnist_cnn": (28, 28, 1),
    "wrn_16_4": (32, 32, 3),
    "nf_resnet_small": (32, 32, 3),
    "nf_resnet50": (224, 224, 3),
}
# What people fine-tune, see `networks`.
FINE_TUNED = ("text_encoder", "decoder", "decoder_tied", "vit_tiny", "lstm_text", "lora_bert")
# The same of KerasHub's backbones, see `hub_networks`.
KERAS_HUB = ("hub_bert", "hub_gpt2", "hub_gemma", "hub_llama3")
WORKLOADS = (*SHAPES, *FINE_TUNED, *KERAS_HUB, "diagonal_linear")
SWEEPS = ("batch_size", "input", "noise", "peers")
PEERS = ("mlp", "mnist_cnn", "wrn_16_4", *FINE_TUNED)
SMALLEST_SWEPT = 256
L2_NORM_CLIP, NOISE_MULTIPLIER = 1.0, 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Which step to time, for which algorithms, how often; of a diagonal linear network, only the runs of Noisy-SGD."""

    workload: str = "wrn_16_4"
    algorithms: tuple[str, ...] = config.ALGORITHMS
    batch_size: int = 64
    microbatch_size: int | None = None
    num_rounds: int = 10
    sweep: str | None = None
    run_dir: str | None = None

    def __post_init__(self):
        config.require_choice("workload", self.workload, WORKLOADS)
        if self.sweep is not None:
            config.require_choice("sweep", self.sweep, SWEEPS)
            images = self.workload in SHAPES or self.sweep == "peers"
            constraint = "must be a network of images for a sweep"
            config.require(images, "workload", constraint, self.workload, "choose another")
        if self.sweep == "peers":
            constraint = f"must be one of {', '.join(PEERS)} for `--sweep=peers`"
            config.require(self.workload in PEERS, "workload", constraint, self.workload, "choose another")
        if self.sweep == "batch_size":
            sized = self.microbatch_size is not None and SMALLEST_SWEPT % self.microbatch_size == 0
            constraint = f"must divide {SMALLEST_SWEPT}, the smallest batch of the sweep"
            config.require(sized, "microbatch_size", constraint, self.microbatch_size, "64 would do")
        config.require_distinct("algorithm", self.algorithms)
        for algorithm in self.algorithms:
            config.require_choice("algorithm", algorithm, config.ALGORITHMS)
        config.require_at_least("num_rounds", self.num_rounds, 1)
        if self.run_dir is not None:
            drawn = self.sweep is None and self.workload != "diagonal_linear" and "sgd" in self.algorithms
            way_out = "leave --run_dir out, or let --algorithm hold sgd"
            config.require(drawn, "run_dir", "records ratios to SGD's step only", self.run_dir, way_out)
        batch_size = SMALLEST_SWEPT if self.sweep == "batch_size" else self.batch_size
        config.Training(batch_size=batch_size, microbatch_size=self.microbatch_size)

    @property
    def unread(self) -> dict[str, str]:
        """The flags that mean nothing to this benchmark, each with the reason."""
        if self.workload == "diagonal_linear":
            reason = "means nothing to diagonal_linear, which is trained by Noisy-SGD on one example per step"
            return _unread(self.algorithms, "noisy_sgd", reason, "batch_size", "microbatch_size")
        if self.sweep == "input":
            reason = "means nothing to `--sweep=input`, which times SGD's step on a whole batch"
            return _unread(self.algorithms, "sgd", reason, "microbatch_size")
        if self.sweep == "peers":
            reason = "means nothing to `--sweep=peers`, which times whole batches of SGD and DP-SGD"
            return {"microbatch_size": reason, "algorithm": reason}
        if self.sweep == "noise":
            reason = "means nothing to `--sweep=noise`, which times Noisy-SGD's step on a whole batch"
            return _unread(self.algorithms, "noisy_sgd", reason, "microbatch_size")
        if self.sweep == "batch_size":
            return {"batch_size": "means nothing to `--sweep=batch_size`, which has batch sizes of its own"}
        if self.algorithms == ("sgd",):
            return {"microbatch_size": "means nothing to sgd, whose step takes the whole batch"}
        return {}

    def resolved(self) -> dict[str, Any]:
        """What the measurement depends on, as the run directory records it: everything but the directory."""
        described = dataclasses.asdict(self)
        del described["run_dir"]
        return described


def _unread(algorithms: tuple[str, ...], timed: str, reason: str, *names: str) -> dict[str, str]:
    """These flags, and the algorithms unless they are the one that is timed."""
    return dict.fromkeys(names if algorithms == (timed,) else ("algorithm", *names), reason)


def images(workload: str, count: int) -> bundled.ImageSet:
    """`count` random training images of the workload's shape, with random labels of ten classes, and no test images."""
    generator = keys.arbitrary(0)
    made = generator.integers(0, 256, (count, *SHAPES[workload]), dtype=np.uint8)
    labels = generator.integers(0, 10, count, dtype=np.int32)
    return bundled.ImageSet(
        name="random",
        train_images=made,
        train_labels=labels,
        test_images=made[:0],
        test_labels=labels[:0],
        num_classes=10,
        pixel_range=(0.0, 255.0),
    )


def training(name: str, batch_size: int) -> config.Training:
    """The configuration that is timed."""
    options = {} if name == "sgd" else {"noise_multiplier": NOISE_MULTIPLIER}
    if name == "dp_sgd":
        options["l2_norm_clip"] = L2_NORM_CLIP
    return config.Training(algorithm=name, batch_size=batch_size, learning_rate=0.01, **options)
