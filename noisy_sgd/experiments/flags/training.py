"""The flags of training: one run, or a sweep over batch sizes, as configurations of `noisy_sgd.config`.

training.train(["train", "--algorithm=noisy_sgd", "--effective_noise=0.01"]).training.noise_std      # 0.01
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags as absl_flags

from noisy_sgd import config
from noisy_sgd.experiments.flags import command_line

_DATA = {
    "dataset": command_line.one_of("the images", config.DATASETS),
    "data_dir": "folder of downloaded or prepared data, such as mnist.npz or tensorflow_datasets/",
    "num_train_examples": "trains on the first so many; by default on all",
    "label_noise": "fraction of training labels drawn anew",
    "augmentation": command_line.one_of(
        "what happens to a training image whenever it is used: nothing, a random shift, or a random flip too",
        config.AUGMENTATIONS,
    ),
    "image_size": "side of imagenet2012's images in pixels; by default 224",
}
_MODEL = {
    "model": command_line.one_of("the network", (*config.MODELS, "the path of a saved functional .keras model")),
    "precision": command_line.one_of(
        "what the layers compute in; weights, clipping and noise are float32 in any case", config.PRECISIONS
    ),
    "pixel_range": "what a saved model gets: raw for the data's pixels (mnist: 0 to 255), LOW,HIGH for these scaled to "
    "that range; by default (auto) raw where it begins with a Rescaling or Normalization layer, and otherwise 0,1",
}
_MICROBATCH = {
    "microbatch_size": "examples on each device at once, a divisor of B; bounds memory, changes nothing else; by "
    "default up to 256",
}
_TRAINING = {
    **_MICROBATCH,
    "num_steps": "S, optimizer steps (logical batches)",
    "learning_rate": "constant learning rate",
    "momentum": "momentum of SGD, in [0, 1)",
    "ema_decay": "decay of the average of the weights that is evaluated; 0: none",
    "sampling": command_line.one_of(
        "how a step's examples are drawn: B at a time from shuffled data, or each on its own with probability B / N, "
        "which gives the smaller epsilon",
        config.SAMPLINGS,
    ),
    "augmentation_multiplicity": "K, copies of every image, changed by --augmentation, whose mean gradient counts as "
    "the image's",
}
_EFFECTIVE_NOISE = {"effective_noise": "sigma / B, noise on the mean gradient (dp_sgd: in units of C)"}
_CLIPPING = {
    "l2_norm_clip": "C, bound on every example's gradient norm",
    "clipping": command_line.one_of(
        "how a gradient is brought within C: flat scales it down if it is longer, per_layer does so layer by layer, "
        "normalized and automatic give all gradients the same length, or nearly",
        config.CLIPPINGS,
    ),
    "target_quantile": "learns C, privately, so that this fraction of the gradients is shorter, and starts at "
    "--l2_norm_clip",
    "delta": "delta of the privacy statement; by default a power of ten below 1 / training examples",
}
_ONE_ALGORITHM = {
    "algorithm": command_line.one_of("the optimizer", config.ALGORITHMS),
    "batch_size": "B, examples in a logical batch",
}
_ONE_NOISE = {
    "noise_multiplier": "sigma, noise on the summed gradient (dp_sgd: in units of C)",
    "noise_seed": "seed of the noise; by default --seed for noisy_sgd, and for dp_sgd a key from the operating system "
    "(with a seed, for tests only, DP-SGD guarantees nothing)",
}
_BUDGET = {"max_epsilon": "stops before epsilon passes this, on the last step that fits; by default no limit"}
_SHOWN = {
    "show_private_metrics": "shows the training loss, accuracy and gradient norms, which no noise protects, on screen "
    "and in TensorBoard; by default they are only kept in the run directory's private/",
}
_RUN = {
    "seed": "seed of initialisation, data order and augmentation",
    "eval_every": "steps between evaluations on the test images; by default 20 in a run",
}
_LOGICAL_DEVICES = {"logical_devices": "splits the CPU into so many devices, to try --strategy=mirrored"}
_STRATEGY = {
    "strategy": command_line.one_of(
        "what trains one run: a single device, all of this machine's, those of the machines in TF_CONFIG, or a TPU",
        config.STRATEGIES,
    ),
    "tpu": "name or address of the Cloud TPU, or local on a TPU machine itself; for --strategy=tpu",
}
_SWEPT_STRATEGIES = ("default", "mirrored")
_CHECKPOINTS = {
    "resume": "goes on where an interrupted run of the same settings stopped; --noresume starts it anew",
    "checkpoint_dir": "where checkpoints are written, a folder or an address such as gs://bucket/folder; by default in "
    "the run directory",
    "checkpoint_every": "steps between two checkpoints; by default only the minutes count",
    "checkpoint_minutes": "minutes after which a checkpoint is written in any case; inf: never",
    "keep_checkpoints": "how many checkpoints are kept, the newest ones",
}


def train(argv: Sequence[str]) -> config.Config:
    """One training run."""
    values = command_line.flag_set()
    define_data_and_model(values)
    define = command_line.define
    define(values, "training", config.Training, _ONE_ALGORITHM | _TRAINING)
    define(values, "noise", config.Training, _ONE_NOISE | _EFFECTIVE_NOISE)
    define(values, "privacy, for dp_sgd", config.Training, _CLIPPING | _BUDGET)
    define(values, "privacy, for dp_sgd", config.Run, _SHOWN)
    place = "where the run is recorded; by default runs/ and a name made of the settings"
    define(values, "run", config.Run, _RUN | {"run_dir": place})
    define(values, "devices", config.Run, _STRATEGY | _LOGICAL_DEVICES)
    define(values, "checkpoints", config.Run, _CHECKPOINTS)
    command_line.parse(values, argv, train)
    made = _config(values, config.Training(**command_line.typed(values, config.Training)))
    if made.run.run_dir:
        return made
    images, network, chosen = made.data.dataset, pathlib.Path(made.model.model).stem, made.training
    name = f"{images}-{network}-{chosen.algorithm}-batch_{chosen.batch_size}-seed_{made.run.seed}"
    return dataclasses.replace(made, run=dataclasses.replace(made.run, run_dir=f"runs/{name}"))


def batch_size_sweep(argv: Sequence[str]) -> config.Sweep:
    """Figure 1's protocol: one learning rate, one sigma / B and one number of steps, for every batch size."""
    values = command_line.flag_set()
    define_sweep(values, "where the runs, a folder each, are recorded", "runs/batch_size_sweep")
    return sweep(values, argv, batch_size_sweep)


def define_sweep(values: absl_flags.FlagValues, place: str, run_dir: str) -> None:
    """The flags of a sweep over batch sizes, recorded at `place`, by default `run_dir`."""
    define_data_and_model(values)
    define = command_line.define
    define(values, "training", config.Training, _TRAINING)
    define(values, "noise", config.Training, _EFFECTIVE_NOISE)
    define(values, "privacy, for dp_sgd", config.Training, _CLIPPING)
    define(values, "run", config.Run, _RUN | {"run_dir": place}, run_dir=run_dir)
    strategy = command_line.one_of("what trains one run: a single device, or all of this machine's", _SWEPT_STRATEGIES)
    define(values, "devices", config.Run, {"strategy": strategy} | _LOGICAL_DEVICES)
    command_line.define_list(values, "sweep", "algorithm", config.ALGORITHMS, "comma-separated algorithms")
    command_line.define_list(values, "sweep", "batch_size", (16, 32, 64, 128, 256), "comma-separated batch sizes")
    own, seeds = "sigma / B of dp_sgd; by default --effective_noise", "runs of each case, with seeds from --seed up"
    command_line.define_one(values, "noise", "dp_sgd_effective_noise", float, None, own)
    command_line.define_one(values, "sweep", "num_seeds", int, 5, seeds)


def sweep(values: absl_flags.FlagValues, argv: Sequence[str], binary: Callable, folder: str = "") -> config.Sweep:
    """A sweep over batch sizes from its command line, recorded in a `folder` of the typed directory."""
    command_line.parse(values, argv, binary)
    config.require_choice("strategy", values["strategy"].value, _SWEPT_STRATEGIES)
    base = _config(values, config.Training())
    run = dataclasses.replace(base.run, run_dir=str(pathlib.Path(base.run.run_dir, folder)))
    options = command_line.typed(values, config.Training)
    return config.sweep(
        tuple(options.pop("algorithm")),
        command_line.whole_numbers(values, "batch_size"),
        values["num_seeds"].value,
        base=dataclasses.replace(base, run=run),
        dp_sgd_effective_noise=values["dp_sgd_effective_noise"].value,
        **{name: value for name, value in options.items() if name != "batch_size"},
    )


def define_microbatch(values: absl_flags.FlagValues, title: str) -> None:
    """The one flag that every binary with a network has."""
    command_line.define(values, title, config.Training, _MICROBATCH)


def define_data_and_model(values: absl_flags.FlagValues) -> None:
    """Which images, which network."""
    command_line.define(values, "data", config.Data, _DATA)
    command_line.define(values, "network", config.Model, _MODEL)
    command_line.define_list(values, "network", "hidden", None, "comma-separated units of an mlp; by default 512,512")


def _config(values: absl_flags.FlagValues, training: config.Training) -> config.Config:
    model: dict[str, Any] = command_line.typed(values, config.Model)
    if model["hidden"] is not None:
        model["hidden"] = command_line.whole_numbers(values, "hidden")
    return config.Config(
        data=config.Data(**command_line.typed(values, config.Data)),
        model=config.Model(**model),
        training=training,
        run=config.Run(**command_line.typed(values, config.Run)),
    )
