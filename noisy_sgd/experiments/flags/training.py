"""The flags of training: one run, or a sweep over batch sizes, as configurations of `noisy_sgd.config`.

training.train(["train", "--algorithm=noisy_sgd", "--effective_noise=0.01"]).training.noise_std      # 0.01

Tested by tests/experiments/flags_test.py.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import flags as absl_flags

from noisy_sgd import config
from noisy_sgd.experiments.flags import command_line

_DATA = {
    "dataset": command_line.one_of("the images", config.DATASETS),
    "data_dir": "folder that holds downloaded or prepared data, such as mnist.npz or tensorflow_datasets/",
    "num_train_examples": "trains on this many examples, the first ones; by default on all",
    "label_noise": "fraction of the training labels that are replaced by random ones",
    "augmentation": command_line.one_of(
        "how a training image is changed whenever it is used: not at all, by a random shift, or also by a random flip; "
        "for imagenet2012 as Sander et al. (2023, tan: also by colors) or De et al. (2022, deepmind) do",
        config.AUGMENTATIONS,
    ),
    "image_size": "side of the images of imagenet2012, in pixels; by default 224",
    "held_out": "evaluates on this many training images, the first ones, and does not train on them; by default on the "
    "test images",
    "corrupt_images": command_line.one_of(
        "what happens at an image of imagenet2012 that cannot be decoded: the run ends, or the image contributes "
        "nothing and its name is written to private/",
        config.CORRUPT_IMAGES,
    ),
}
_MODEL = {
    "model": command_line.one_of(
        "the network; mnist_cnn_tanh is mnist_cnn with tanh, and its pixels lie in [0, 1] instead of [-1, 1]",
        (*config.MODELS, "the path of a saved functional .keras model"),
    ),
    "precision": command_line.one_of(
        "type in which the layers compute; weights, clipping and noise are always float32", config.PRECISIONS
    ),
    "pixel_range": "pixels that a saved model gets: raw are the data's own (mnist: 0 to 255), LOW,HIGH scales them to "
    "that range; by default (auto) raw if the model begins with a Rescaling or Normalization layer, and otherwise 0,1",
    "convention": command_line.one_of(
        "the published implementation that an nf_resnet follows: De et al.'s, timm's, or that of Sander et al., which "
        "the paper used; by default deepmind",
        config.CONVENTIONS,
    ),
    "initial_weights": "path of a .npz file with the weights to begin with (stem/kernel, ...); by default random ones",
}
_MICROBATCH = {
    "microbatch_size": "examples on each device at a time, a divisor of B; bounds memory and changes nothing else; by "
    "default up to 256",
}
_TRAINING = {
    **_MICROBATCH,
    "num_steps": "S, optimizer steps (logical batches)",
    "learning_rate": "constant learning rate",
    "momentum": "momentum of SGD, in [0, 1)",
    "ema_decay": "decay of the moving average of the weights, which is evaluated too; 0: no average",
    "sampling": command_line.one_of(
        "how the examples of a step are drawn: B at a time from shuffled data; or each independently with "
        "probability B / N; or each in one random step of each epoch; or B at a time in the same order in every epoch; "
        "poisson and random_allocation give a much smaller epsilon",
        config.SAMPLINGS,
    ),
    "augmentation_multiplicity": "K, copies of every image, each changed by --augmentation; their mean gradient is the "
    "gradient of the image",
}
_EFFECTIVE_NOISE = {
    "effective_noise": "sigma / B, size of the noise on the mean gradient (dp_sgd: in units of C)",
    "noise_correlation": "correlates the noise over steps: lambda_cgd:0.9 takes back 0.9 of the last step's draw, "
    "banded_inverse_square_root:4 parts of the last 3, and 1,-0.5,-0.125 lists the factors; dp_sgd needs "
    "--sampling=cyclic; by default independent noise",
}
_CLIPPING = {
    "l2_norm_clip": "C, bound on the norm of every example's gradient",
    "clipping": command_line.one_of(
        "how the norm of a gradient is bounded by C: flat scales longer gradients down to C, per_layer does this layer "
        "by layer, normalized gives all gradients the norm C, automatic nearly so",
        config.CLIPPINGS,
    ),
    "target_quantile": "learns C privately, so that this fraction of the gradients is shorter than C; starts at "
    "--l2_norm_clip",
    "delta": "delta of the privacy statement; by default a power of ten below one over the number of examples",
}
_ONE_ALGORITHM = {
    "algorithm": command_line.one_of("what happens to the gradients", config.ALGORITHMS),
    "optimizer": command_line.one_of(
        "the update that takes them: adam and adamw, for sgd and dp_sgd, with Keras' other defaults; lars with a trust "
        "coefficient of 0.001; extrap_sgd with the previous gradient and a coefficient of 1",
        config.OPTIMIZERS,
    ),
    "batch_size": "B, examples in a logical batch",
}
_ONE_NOISE = {
    "noise_multiplier": "sigma, size of the noise on the summed gradient (dp_sgd: in units of C)",
    "noise_seed": "seed of the noise; by default --seed for noisy_sgd, a key from the operating system for dp_sgd "
    "(a seed is for tests only: with it, DP-SGD guarantees nothing)",
}
_BUDGET = {"max_epsilon": "ends the run with the last step at which epsilon is not above this; by default no limit"}
_SHOWN = {
    "show_private_metrics": "shows the training loss, accuracy and gradient norms, which no noise protects, on the "
    "screen and in TensorBoard; by default they are only written to private/ in the run directory",
}
_RUN = {
    "seed": "seed of initialization, data order and augmentation",
    "eval_every": "steps between evaluations on the test images; by default 20 evaluations per run",
}
_DRY_RUN = {"dry_run": "prints the resolved configuration and the privacy statement, and trains and writes nothing"}
_LOGICAL_DEVICES = {"logical_devices": "splits the CPU into this many devices, to try --strategy=mirrored"}
_STRATEGY = {
    "strategy": command_line.one_of(
        "devices that train the run: one, all of this machine, all of the machines in TF_CONFIG, or a TPU",
        config.STRATEGIES,
    ),
    "tpu": "for --strategy=tpu: name or address of the Cloud TPU; local on a TPU machine itself",
}
_SWEPT_STRATEGIES = ("default", "mirrored")
_CHECKPOINTS = {
    "resume": "resumes an interrupted run of the same settings; --noresume starts it again",
    "checkpoint_dir": "where checkpoints are written: a folder, or an address such as gs://bucket/folder; by default "
    "the run directory",
    "checkpoint_every": "steps between two checkpoints; by default only --checkpoint_minutes counts",
    "checkpoint_minutes": "minutes after which a checkpoint is always written; inf: never",
    "keep_checkpoints": "how many checkpoints are kept: the newest ones",
}


def train(argv: Sequence[str]) -> config.Config:
    """One training run."""
    values = command_line.flag_set()
    define_run(values)
    command_line.define(values, "run", config.Run, _DRY_RUN)
    command_line.parse(values, argv, train)
    made = run(values)
    if made.run.run_dir:
        return made
    images, network, chosen = made.data.dataset, pathlib.Path(made.model.model).stem, made.training
    algorithm = chosen.algorithm if chosen.optimizer == "sgd" else f"{chosen.algorithm}-{chosen.optimizer}"
    name = f"{images}-{network}-{algorithm}-batch_{chosen.batch_size}-seed_{made.run.seed}"
    return dataclasses.replace(made, run=dataclasses.replace(made.run, run_dir=f"runs/{name}"))


def define_run(values: absl_flags.FlagValues) -> None:
    """Defines the flags of one training run."""
    define_data_and_model(values)
    define = command_line.define
    define(values, "training", config.Training, _ONE_ALGORITHM | _TRAINING)
    define(values, "noise", config.Training, _ONE_NOISE | _EFFECTIVE_NOISE)
    define(values, "privacy, for dp_sgd", config.Training, _CLIPPING | _BUDGET)
    define(values, "privacy, for dp_sgd", config.Run, _SHOWN)
    place = "where the run is recorded; by default a folder of runs/ that is named after the settings"
    define(values, "run", config.Run, _RUN | {"run_dir": place})
    define(values, "devices", config.Run, _STRATEGY | _LOGICAL_DEVICES)
    define(values, "checkpoints", config.Run, _CHECKPOINTS)


def run(values: absl_flags.FlagValues) -> config.Config:
    """The run that parsed flags describe; its directory is None where none was typed."""
    return _config(values, config.Training(**command_line.typed(values, config.Training)))


def batch_size_sweep(argv: Sequence[str]) -> config.Sweep:
    """Figure 1's protocol: one learning rate, one sigma / B and one number of steps, for every batch size."""
    values = command_line.flag_set()
    define_sweep(values, "where the runs are recorded, each in a folder of its own", "runs/batch_size_sweep")
    command_line.parse(values, argv, batch_size_sweep)
    return sweep(values)


def define_sweep(values: absl_flags.FlagValues, place: str, run_dir: str) -> None:
    """Defines the flags of a sweep over batch sizes; `place` explains --run_dir, whose default is `run_dir`."""
    define_data_and_model(values)
    define = command_line.define
    define(values, "training", config.Training, _TRAINING)
    define(values, "noise", config.Training, _EFFECTIVE_NOISE)
    define(values, "privacy, for dp_sgd", config.Training, _CLIPPING)
    define(values, "run", config.Run, _RUN | {"run_dir": place}, run_dir=run_dir)
    strategy = command_line.one_of("devices that train a run: one, or all of this machine", _SWEPT_STRATEGIES)
    define(values, "devices", config.Run, {"strategy": strategy} | _LOGICAL_DEVICES)
    command_line.define_list(values, "sweep", "algorithm", config.ALGORITHMS, "comma-separated algorithms")
    command_line.define_list(values, "sweep", "batch_size", (16, 32, 64, 128, 256), "comma-separated batch sizes")
    own, seeds = "sigma / B of dp_sgd; by default --effective_noise", "runs of each case, with seeds from --seed up"
    command_line.define_one(values, "noise", "dp_sgd_effective_noise", float, None, own)
    command_line.define_one(values, "sweep", "num_seeds", int, 5, seeds)


def sweep(values: absl_flags.FlagValues, folder: str = "") -> config.Sweep:
    """The sweep over batch sizes that was typed, recorded in a `folder` of the directory that was typed."""
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
    """Defines the flag of microbatches, which every binary with a network has."""
    command_line.define(values, title, config.Training, _MICROBATCH)


def define_images(values: absl_flags.FlagValues, **defaults: str) -> None:
    """Defines the flags of the images."""
    command_line.define(values, "data", config.Data, _DATA, **defaults)


def define_data_and_model(values: absl_flags.FlagValues) -> None:
    """Defines the flags of the images and of the network."""
    define_images(values)
    command_line.define(values, "network", config.Model, _MODEL)
    command_line.define_list(values, "network", "hidden", None, "comma-separated units of an mlp; by default 512,512")


def _config(values: absl_flags.FlagValues, training: config.Training) -> config.Config:
    return config.Config(
        data=config.Data(**command_line.typed(values, config.Data)),
        model=config.Model(**command_line.typed(values, config.Model)),
        training=training,
        run=config.Run(**command_line.typed(values, config.Run)),
    )
