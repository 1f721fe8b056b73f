"""The cost of noise and clipping, from recorded benchmarks.

speed.draw(records.find("runs/benchmark"), pathlib.Path("runs/benchmark/figures"))
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from noisy_sgd import records
from noisy_sgd.figures import canvas

NAMES = {
    "mlp": "MLP",
    "mnist_cnn": "MNIST CNN",
    "nf_resnet_small": "NF-ResNet, small",
    "nf_resnet50": "NF-ResNet-50",
    "wrn_16_4": "WRN-16-4, GroupNorm",
    "text_encoder": "text encoder",
    "decoder": "decoder",
    "decoder_tied": "decoder, tied",
    "vit_tiny": "ViT, tiny",
    "lstm_text": "LSTM",
    "lora_bert": "BERT with LoRA",
    "hub_bert": "KerasHub's BERT",
    "hub_gpt2": "KerasHub's GPT-2",
    "hub_gemma": "KerasHub's Gemma",
    "hub_llama3": "KerasHub's Llama 3",
}


@canvas.styled
def draw(runs: Sequence[records.Record], directory: pathlib.Path, name: str = "speed") -> list[pathlib.Path]:
    """Times of Noisy-SGD's and DP-SGD's step over plain SGD's, one group of bars per network.

    Args:
        runs: records of `experiments.benchmark`, each with one line per algorithm.
        directory: where the files go.
        name: of the files, without an ending.

    Returns:
        The paths of PNG, PDF and CSV.
    """
    runs = sorted(runs, key=lambda run: list(NAMES).index(run.config["workload"]))
    rows = [line for run in runs for line in run.metrics]
    figure, (axes,) = canvas.panels(width=2.5 + 1.2 * len(runs))
    algorithms = [one for one in canvas.LABELS if any(row["algorithm"] == one for row in rows)]
    width = 0.8 / len(algorithms)
    for index, algorithm in enumerate(algorithms):
        found = [
            (place, line) for place, run in enumerate(runs) for line in run.metrics if line["algorithm"] == algorithm
        ]
        places = np.array([place for place, _ in found]) + (index - (len(algorithms) - 1) / 2) * width
        ratios = [line["ratio_to_sgd"] for _, line in found]
        bars = axes.bar(places, ratios, width, color=canvas.COLORS[algorithm], label=canvas.LABELS[algorithm])
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.set_xticks(
        range(len(runs)), [f"{NAMES[run.config['workload']]}\nB = {run.config['batch_size']}" for run in runs]
    )
    axes.set_ylabel("time of a step over plain SGD's")
    axes.grid(visible=False, axis="x")
    figure.legend(ncols=len(algorithms), loc="outside upper center")
    return canvas.save(figure, rows, directory, name)
