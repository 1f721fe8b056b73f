"""The step of DP-SGD beside Opacus', on the same network: in turns within one process, each over its own plain SGD.

    python -m noisy_sgd.experiments.benchmark --sweep=peers --workload=mnist_cnn --batch_size=256

Opacus (PyTorch) is no dependency: pip install torch opacus. It is timed with hooks, its default, and with ghost
clipping; what it refuses is a line that says so. The networks have the same layers and the same number of trained
weights (`torch_networks`). Both frameworks use all cores. Of a wide residual network both sides have plain
convolutions, because PyTorch has no weight-standardized ones.

Beside other work on the machine, compare processor times, and set OMP_WAIT_POLICY=passive: otherwise PyTorch's threads
wait for each other by computing, which takes many times as long where they share a core.
"""

import time
from collections.abc import Callable

from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases, clock

_OURS, _PEER = "noisy_sgd", "opacus"
_LEARNING_RATE = 0.01
# Seconds between the libraries: the threads of the one that has just worked go on waiting for work for a while.
_PAUSE = 0.4


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
    steps, weights, refused = {}, {}, {}
    for name in ("sgd", "dp_sgd"):
        steps[_OURS, name], weights[_OURS, name] = _our_step(settings, name)
    steps[_PEER, "sgd"], model = _torch_step(settings, "sgd")
    weights[_PEER, "sgd"] = _trained_weights(model)
    for name in ("hooks", "ghost"):
        try:
            steps[_PEER, name], model = _torch_step(settings, name)
            weights[_PEER, name] = _trained_weights(model)
        except NotImplementedError as error:
            # The plain step has run, so this is what Opacus does not serve: a line of the table, and no end of it.
            refused[_PEER, name] = str(error)
    found = {case: [] for case in steps}
    for number in range(settings.num_rounds + 1):
        for library in (_OURS, _PEER):
            time.sleep(_PAUSE)
            for case in [case for case in steps if case[0] == library]:
                # One step that is not timed, as in a training: it finds its data and its threads where it left them.
                steps[case]()
                taken = clock.seconds(steps[case])
                # The first round compiles.
                if number > 0:
                    found[case].append(taken)
    versions = {_PEER: f"opacus {opacus.__version__}, torch {torch.__version__}"}
    medians = clock.medians(found)

    def line(library, algorithm):
        return {
            "workload": settings.workload,
            "library": versions.get(library, library),
            "algorithm": algorithm,
            "batch_size": settings.batch_size,
            "rounds": settings.num_rounds,
            "weights": weights[library, "sgd" if (library, algorithm) in refused else algorithm],
        }

    timed = [
        line(library, algorithm)
        | {
            "median_ms": round(median.wall, 3),
            "processor_ms": round(median.processor, 3),
            "ratio_to_own_sgd": round(median.wall / medians[library, "sgd"].wall, 3),
            "processor_ratio_to_own_sgd": round(median.processor / medians[library, "sgd"].processor, 3),
            "ratio_to_our_dp_sgd": round(median.wall / medians[_OURS, "dp_sgd"].wall, 3),
        }
        for (library, algorithm), median in medians.items()
    ]
    return [*timed, *(line(*case) | {"refused": reason} for case, reason in refused.items())]


def _our_step(settings: cases.Benchmark, algorithm: str) -> tuple[Callable[[], None], int]:
    from noisy_sgd.experiments.benchmarks import steps

    step, model = steps.compiled(settings, cases.training(algorithm, settings.batch_size), plain_convolutions=True)
    return step, sum(weight.value.shape.num_elements() for weight in model.trainable_weights)


def _torch_step(settings: cases.Benchmark, kind: str):
    """The step, which has run once, and the model that it trains.

    Raises:
        NotImplementedError: by Opacus, for a network that it does not serve.
    """
    import torch
    from opacus import grad_sample, optimizers
    from opacus.utils import fast_gradient_clipping_utils

    from noisy_sgd.experiments.benchmarks import torch_networks

    inputs, labels = _torch_batch(settings)
    model = torch_networks.made(settings.workload, inputs.shape[1:], private=kind != "sgd")
    optimizer = torch.optim.SGD((weight for weight in model.parameters() if weight.requires_grad), lr=_LEARNING_RATE)
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
        predictions = model(inputs)
        # The loss of a text is the mean over its words.
        of_words = {"shape": predictions.shape} if kind == "ghost" and labels.dim() > 1 else {}
        found = loss(predictions.flatten(0, -2), labels.flatten(), **of_words)
        found.backward()
        optimizer.step()
        return found.item()

    step()
    return step, model


def _trained_weights(model) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def _torch_batch(settings: cases.Benchmark):
    """Inputs and labels of the batch that our steps take."""
    import torch

    if settings.workload in cases.FINE_TUNED:
        import keras

        from noisy_sgd.experiments.benchmarks import networks

        _, x, y = networks.made(settings.workload, settings.batch_size, keras.Model)
    else:
        images = cases.images(settings.workload, settings.batch_size)
        x, y = images.train_images / 127.5 - 1, images.train_labels
    inputs = torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32) if x.ndim == 4 else torch.tensor(x).long()
    return inputs, torch.tensor(y).long()
