"""The step of DP-SGD beside Opacus', on the same network: in turns within one process, each over its own plain SGD.

    python -m noisy_sgd.experiments.benchmark --sweep=peers --workload=mnist_cnn --batch_size=256

Opacus (PyTorch) is no dependency: pip install torch opacus. It is timed with hooks, its default, and with ghost
clipping. The networks have the same layers and the same number of weights. Both frameworks use all cores. Of a wide
residual network both sides have plain convolutions, because PyTorch has no weight-standardized ones.
"""

import statistics
import time
from collections.abc import Callable

from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases

_OURS, _PEER = "noisy_sgd", "opacus"
_LEARNING_RATE = 0.01
# Seconds between the libraries: the threads of the one that has just worked go on waiting for work for a while.
_PAUSE = 0.4
_STEM_WIDTH, _GROUPS, _WIDTH = 16, 16, 4


def lines(settings: cases.Benchmark) -> list[dict]:
    """One JSON-able line per library and algorithm.

    Args:
        settings: workload, batch size and number of rounds.

    Raises:
        ConfigError: if PyTorch or Opacus is not installed.
    """
    try:
        import opacus
        import torch
    except ImportError as error:
        way_out = "pip install torch opacus"
        config.require(False, "sweep", f"needs PyTorch and Opacus ({error})", settings.sweep, way_out)
    torch.manual_seed(0)
    steps, weights = {}, {}
    for name in ("sgd", "dp_sgd"):
        steps[_OURS, name], weights[_OURS] = _our_step(settings, name)
    for name in ("sgd", "hooks", "ghost"):
        steps[_PEER, name], weights[_PEER] = _torch_step(settings, name)
    times = {case: [] for case in steps}
    for number in range(settings.num_rounds + 1):
        for library in weights:
            time.sleep(_PAUSE)
            for case in [case for case in steps if case[0] == library]:
                # One step that is not timed, as in a training: it finds its data and its threads where it left them.
                steps[case]()
                start = time.perf_counter()
                steps[case]()
                # The first round compiles.
                if number > 0:
                    times[case].append(1e3 * (time.perf_counter() - start))
    versions = {_PEER: f"opacus {opacus.__version__}, torch {torch.__version__}"}
    medians = {case: statistics.median(values) for case, values in times.items()}
    return [
        {
            "workload": settings.workload,
            "library": versions.get(library, library),
            "algorithm": algorithm,
            "batch_size": settings.batch_size,
            "rounds": settings.num_rounds,
            "weights": weights[library],
            "median_ms": round(median, 3),
            "ratio_to_own_sgd": round(median / medians[library, "sgd"], 3),
            "ratio_to_our_dp_sgd": round(median / medians[_OURS, "dp_sgd"], 3),
        }
        for (library, algorithm), median in medians.items()
    ]


def _our_step(settings: cases.Benchmark, algorithm: str) -> tuple[Callable[[], None], int]:
    import keras
    import tensorflow as tf

    from noisy_sgd.models import wide_resnet
    from noisy_sgd.runs import builders
    from noisy_sgd.training import private_model

    images = cases.images(settings.workload, settings.batch_size)
    private = algorithm == "dp_sgd"
    model_class = private_model.PrivateModel if private else keras.Model
    if settings.workload == "wrn_16_4":
        model = wide_resnet(16, _WIDTH, 10, weight_standardization=False, model_class=model_class)
    else:
        network = config.Model(model=settings.workload)
        model = builders.network(network, images, seed=0, model_class=model_class)
    optimizer = builders.optimizer(config.Config(training=cases.training(algorithm, settings.batch_size)))
    sizes = {"batch_size": settings.batch_size, "microbatch_size": settings.batch_size} if private else {}
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), **sizes)
    model.make_train_function()
    iterator = iter(tf.data.Dataset.from_tensors((images.train_images, images.train_labels)).repeat())
    # Reading the loss waits for the device.
    return lambda: float(model.train_function(iterator)["loss"]), model.count_params()


def _torch_step(settings: cases.Benchmark, kind: str) -> tuple[Callable[[], None], int]:
    import torch
    from opacus import grad_sample, optimizers
    from opacus.utils import fast_gradient_clipping_utils

    images = cases.images(settings.workload, settings.batch_size)
    pixels = torch.tensor(images.train_images.transpose(0, 3, 1, 2) / 127.5 - 1, dtype=torch.float32)
    labels = torch.tensor(images.train_labels, dtype=torch.long)
    model = _torch_network(settings.workload, pixels.shape[1:])
    optimizer = torch.optim.SGD(model.parameters(), lr=_LEARNING_RATE)
    loss = torch.nn.CrossEntropyLoss()
    noise = {
        "noise_multiplier": cases.NOISE_MULTIPLIER,
        "max_grad_norm": cases.L2_NORM_CLIP,
        "expected_batch_size": settings.batch_size,
    }
    if kind == "hooks":
        model = grad_sample.GradSampleModule(model)
        optimizer = optimizers.DPOptimizer(optimizer, **noise)
    elif kind == "ghost":
        model = grad_sample.GradSampleModuleFastGradientClipping(
            model, max_grad_norm=cases.L2_NORM_CLIP, use_ghost_clipping=True
        )
        optimizer = optimizers.DPOptimizerFastGradientClipping(optimizer, **noise)
        loss = fast_gradient_clipping_utils.DPLossFastGradientClipping(model, optimizer, loss, "mean")

    def step():
        optimizer.zero_grad()
        found = loss(model(pixels), labels)
        found.backward()
        optimizer.step()
        return found.item()

    return step, sum(weight.numel() for weight in model.parameters())


def _torch_network(workload: str, shape):
    from torch import nn

    if workload == "mlp":
        sizes = (shape[0] * shape[1] * shape[2], 512, 512)
        hidden = [part for pair in zip(sizes, sizes[1:], strict=False) for part in (nn.Linear(*pair), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(512, 10))
    if workload == "mnist_cnn":
        return nn.Sequential(
            nn.ZeroPad2d(3),
            nn.Conv2d(shape[0], 16, 8, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(2, 1),
            nn.Conv2d(16, 32, 4, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(2, 1),
            nn.Flatten(),
            nn.Linear(512, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )
    return _torch_wide_resnet(shape[0])


def _torch_wide_resnet(channels: int):
    from torch import nn

    def norm(width):
        return nn.GroupNorm(_GROUPS, width)

    class Block(nn.Module):
        def __init__(self, width, wider, stride, first):
            super().__init__()
            self.norm1, self.conv1 = norm(width), nn.Conv2d(width, wider, 3, stride, padding=1)
            self.norm2, self.conv2 = norm(wider), nn.Conv2d(wider, wider, 3, padding=1)
            self.shortcut = nn.Sequential(norm(width), nn.Conv2d(width, wider, 1, stride)) if first else None

        def forward(self, x):
            positive = nn.functional.relu(x)
            out = self.conv1(self.norm1(positive))
            out = self.conv2(self.norm2(nn.functional.relu(out)))
            return out + (x if self.shortcut is None else self.shortcut(positive))

    blocks, width = [nn.Conv2d(channels, _STEM_WIDTH, 3, padding=1)], _STEM_WIDTH
    for stage in range(3):
        wider = _STEM_WIDTH * 2**stage * _WIDTH
        for block in range(2):
            blocks.append(Block(width, wider, 2 if stage > 0 and block == 0 else 1, block == 0))
            width = wider
    end = (nn.ReLU(), norm(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    return nn.Sequential(*blocks, *end)
