"""Every flag of every binary, and how a command line becomes a configuration.

Each binary has a flag set of its own: a flag it does not read is an error, and several binaries fit in one process.

    if __name__ == "__main__":
        flags.run(flags.train, main)    # main(config: noisy_sgd.config.Config)

Bad input, found while parsing or in a `with flags.refusals():` block before training, ends in one sentence on stderr,
with exit status 2. Flags can come from a file by `--flagfile`; one that stands after it on the command line wins.
"""

import contextlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app
from absl import flags as absl_flags

from noisy_sgd import config
from noisy_sgd.experiments import benchmark_cases, toy_problems

BAD_INPUT = 2


def train(argv: Sequence[str]) -> config.Config:
    """One training run."""
    values = absl_flags.FlagValues()
    _define_run(values, "where the run is recorded; by default runs/ and a name made of the settings")
    _define_data_and_model(values)
    _define_training(values)
    absl_flags.DEFINE_string("algorithm", "sgd", _one_of("the optimizer", config.ALGORITHMS), flag_values=values)
    absl_flags.DEFINE_integer("batch_size", 64, "B, examples in a logical batch", flag_values=values)
    absl_flags.DEFINE_float(
        "noise_multiplier", None, "sigma, noise on the summed gradient (dp_sgd: in units of C)", flag_values=values
    )
    absl_flags.DEFINE_integer(
        "noise_seed",
        None,
        "seed of the noise; by default --seed for noisy_sgd, and for dp_sgd a key from the operating system (with a "
        "seed, for tests only, DP-SGD guarantees nothing)",
        flag_values=values,
    )
    _parse(values, argv, train)
    algorithm = {name: values[name].value for name in ("algorithm", "batch_size", "noise_multiplier", "noise_seed")}
    made = _config(values, config.Algorithm(**algorithm, **_training_options(values)))
    if made.run.run_dir:
        return made
    images, network, settings = made.data.dataset, pathlib.Path(made.model.model).stem, made.algorithm
    name = f"{images}-{network}-{settings.algorithm}-batch_{settings.batch_size}-seed_{made.run.seed}"
    return _config(values, settings, run_dir=f"runs/{name}")


def batch_size_sweep(argv: Sequence[str]) -> config.Sweep:
    """Figure 1's protocol: one learning rate, one sigma / B and one number of steps, for every batch size."""
    values = absl_flags.FlagValues()
    _define_run(values, "where the runs, a folder each, are recorded", "runs/batch_size_sweep")
    return _sweep(values, argv, batch_size_sweep)


def reproduce(argv: Sequence[str]) -> toy_problems.Reproduction:
    """Everything that the report compares with the paper."""
    values = absl_flags.FlagValues()
    _define_run(values, "where runs, figures and the report are written", "results")
    absl_flags.DEFINE_float(
        "theory_share",
        toy_problems.Theory.share,
        "takes this part of the theory's runs, steps and data sets; below 1 to try the command out",
        flag_values=values,
    )
    absl_flags.DEFINE_list(
        "study", [], "comma-separated flagfiles, FOLDER/BINARY/NAME.flags, that are run too", flag_values=values
    )
    sweep = _sweep(values, argv, reproduce, folder="batch_size_sweep")
    studies = tuple(_study(flagfile, values["run_dir"].value) for flagfile in values["study"].value)
    theory = toy_problems.Theory(share=values["theory_share"].value)
    return toy_problems.Reproduction(run_dir=values["run_dir"].value, sweep=sweep, theory=theory, studies=studies)


def diagonal_linear(argv: Sequence[str]) -> toy_problems.DiagonalLinear:
    """Figures 3 to 7: gradient descent, SGD and Noisy-SGD on a diagonal linear network."""
    values = absl_flags.FlagValues()
    default = toy_problems.DiagonalLinear()
    figures = "what is drawn: curves over the iterations, final distance, or gap to phi's minimiser, over the noise"
    absl_flags.DEFINE_string("figure", default.figure, figures, flag_values=values)
    absl_flags.DEFINE_integer("data_seed", default.data_seed, "seed of the data set", flag_values=values)
    scales = [f"{scale:g}" for scale in default.noise_scales]
    absl_flags.DEFINE_list("noise_scale", scales, "comma-separated sigmas; 0 is SGD", flag_values=values)
    _define_relative_step(values, default.relative_step)
    absl_flags.DEFINE_float("alpha", default.alpha, "scale of the initial weights", flag_values=values)
    absl_flags.DEFINE_integer("num_runs", default.num_runs, "runs at every noise scale", flag_values=values)
    absl_flags.DEFINE_integer("num_steps", default.num_steps, "iterations of every run", flag_values=values)
    absl_flags.DEFINE_boolean("gradient_descent", default.gradient_descent, "runs it too", flag_values=values)
    _define_seed_and_place(values, default)
    _parse(values, argv, diagonal_linear)
    noise_scales = _numbers(values, "noise_scale")
    return toy_problems.DiagonalLinear(noise_scales=noise_scales, **_read(values, default, "noise_scales"))


def least_squares(argv: Sequence[str]) -> toy_problems.LeastSquares:
    """Least squares: covariances of SGD and Noisy-SGD against their laws, or Theorem 1."""
    values = absl_flags.FlagValues()
    default = toy_problems.LeastSquares()
    regimes = _one_of("more examples than dimensions, or fewer", toy_problems.REGIMES)
    absl_flags.DEFINE_string("regime", default.regime, regimes, flag_values=values)
    absl_flags.DEFINE_float("noise_scale", default.noise_scale, "sigma", flag_values=values)
    _define_relative_step(values, default.relative_step)
    absl_flags.DEFINE_integer("num_examples", None, "n; by default 60, or 5 where d > n", flag_values=values)
    absl_flags.DEFINE_integer("dimension", None, "d; by default 4, or 12 where d > n", flag_values=values)
    absl_flags.DEFINE_integer("num_runs", default.num_runs, "runs, or pairs of paths", flag_values=values)
    _define_seed_and_place(values, default)
    _parse(values, argv, least_squares)
    return toy_problems.LeastSquares(**_read(values, default))


def sde_error(argv: Sequence[str]) -> toy_problems.SdeError:
    """Errors of the SDEs as models of the algorithm, over the step size."""
    values = absl_flags.FlagValues()
    default = toy_problems.SdeError()
    absl_flags.DEFINE_integer("num_paths", default.num_paths, "paths of the strong error", flag_values=values)
    absl_flags.DEFINE_float("noise_scale", default.noise_scale, "sigma of the strong error", flag_values=values)
    _define_seed_and_place(values, default)
    _parse(values, argv, sde_error)
    return toy_problems.SdeError(**_read(values, default))


def noise_threshold(argv: Sequence[str]) -> toy_problems.Family:
    """Where noise helps, hurts and diverges, over step sizes and noise scales."""
    return _family(argv, noise_threshold, toy_problems.Family())


def deep_diagonal(argv: Sequence[str]) -> toy_problems.Family:
    """Diagonal networks of depth 2, 3 and 4 under gradient descent, SGD and Noisy-SGD."""
    default = toy_problems.Family(num_steps=20_000, run_dir="runs/deep_diagonal")
    return _family(argv, deep_diagonal, default)


def benchmark(argv: Sequence[str]) -> benchmark_cases.Benchmark:
    """One step of each algorithm, timed in turns."""
    values = absl_flags.FlagValues()
    default = benchmark_cases.Benchmark()
    workloads = _one_of("the network", benchmark_cases.WORKLOADS)
    absl_flags.DEFINE_string("workload", default.workload, workloads, flag_values=values)
    absl_flags.DEFINE_list("algorithm", list(default.algorithms), "comma-separated algorithms", flag_values=values)
    absl_flags.DEFINE_integer("batch_size", default.batch_size, "B, examples in a logical batch", flag_values=values)
    _define_microbatch(values)
    absl_flags.DEFINE_integer(
        "num_rounds", default.num_rounds, "timed steps of each algorithm, in turns", flag_values=values
    )
    absl_flags.DEFINE_string(
        "sweep",
        None,
        "batch_size: the same step in logical batches of 256 to 32,768, at one --microbatch_size",
        flag_values=values,
    )
    absl_flags.DEFINE_string(
        "run_dir", None, "where the lines are recorded and drawn, a folder a workload", flag_values=values
    )
    _parse(values, argv, benchmark)
    return benchmark_cases.Benchmark(
        workload=values["workload"].value,
        algorithms=tuple(values["algorithm"].value),
        batch_size=values["batch_size"].value,
        microbatch_size=values["microbatch_size"].value,
        num_rounds=values["num_rounds"].value,
        sweep=values["sweep"].value,
        run_dir=values["run_dir"].value,
    )


def run(parse: Callable[[Sequence[str]], Any], main: Callable[[Any], None], argv: Sequence[str] | None = None) -> None:
    """Parses the command line and runs a binary; bad input ends in one sentence and exit status 2.

    Args:
        parse: one of this module's functions, from a command line to a configuration.
        main: called with the configuration.
        argv: the command line. Defaults to `sys.argv`.
    """
    # TensorFlow's and matplotlib's notes would drown the one sentence that matters.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    def parser(argv):
        absl_flags.FLAGS([argv[0], "--verbosity=-1"])
        with refusals():
            return parse(argv)

    app.run(main, argv=None if argv is None else list(argv), flags_parser=parser)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turns a ValueError or OSError into one sentence on stderr and exit status 2; for everything before training."""
    try:
        yield
    except (absl_flags.Error, ValueError, OSError) as error:
        print(f"{pathlib.Path(sys.argv[0]).stem}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def _parse(values: absl_flags.FlagValues, argv: Sequence[str], binary: Callable) -> None:
    absl_flags.DEFINE_boolean("help", False, "show this help", flag_values=values)
    positional = values(list(argv))[1:]
    if values["help"].value:
        print(f"{binary.__name__}: {binary.__doc__}\n\n{values.get_help()}")
        sys.exit(0)
    if positional:
        raise config.ConfigError(f"Flags start with two dashes (Received: {positional[0]}); write --name=value")


def _define_run(values: absl_flags.FlagValues, run_dir_help: str, run_dir: str | None = None) -> None:
    absl_flags.DEFINE_string("run_dir", run_dir, run_dir_help, flag_values=values)
    absl_flags.DEFINE_integer("seed", 0, "seed of initialisation and data order", flag_values=values)
    absl_flags.DEFINE_string(
        "strategy", "default", _one_of("devices of one run", config.STRATEGIES), flag_values=values
    )
    absl_flags.DEFINE_integer(
        "logical_devices", None, "splits the CPU into so many devices, to try --strategy=mirrored", flag_values=values
    )
    absl_flags.DEFINE_integer(
        "eval_every", None, "steps between evaluations on the test images; by default 20 in a run", flag_values=values
    )


def _family(argv: Sequence[str], binary: Callable, default: toy_problems.Family) -> toy_problems.Family:
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_integer("num_data_sets", default.num_data_sets, "data sets, seeds from 0 up", flag_values=values)
    absl_flags.DEFINE_integer("num_runs", default.num_runs, "runs of each case on each data set", flag_values=values)
    absl_flags.DEFINE_integer("num_steps", default.num_steps, "iterations of every run", flag_values=values)
    absl_flags.DEFINE_string("run_dir", default.run_dir, "where the run is recorded", flag_values=values)
    _parse(values, argv, binary)
    return toy_problems.Family(**_read(values, default))


def _study(flagfile: str, results: str) -> tuple[str, Any]:
    """The binary that a flagfile's folder is called after, and its configuration, at a place below `results`."""
    path = pathlib.Path(flagfile)
    parsers = {
        parser.__name__: parser
        for parser in (deep_diagonal, diagonal_linear, least_squares, noise_threshold, sde_error)
    }
    name = path.parent.name
    config.require(name in parsers, "study", f"must lie in a folder {', '.join(parsers)}", flagfile, "see configs/")
    return name, parsers[name]([name, f"--flagfile={path}", f"--run_dir={pathlib.Path(results, name, path.stem)}"])


def _define_relative_step(values: absl_flags.FlagValues, default: float) -> None:
    step = "gamma times the largest eigenvalue of X^T X / n"
    absl_flags.DEFINE_float("relative_step", default, step, flag_values=values)


def _define_seed_and_place(values: absl_flags.FlagValues, default: Any) -> None:
    absl_flags.DEFINE_integer("seed", default.seed, "seed of sampling and noise", flag_values=values)
    absl_flags.DEFINE_string("run_dir", default.run_dir, "where the run is recorded", flag_values=values)


def _define_data_and_model(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("dataset", config.Data.dataset, _one_of("the images", config.DATASETS), flag_values=values)
    absl_flags.DEFINE_string("data_dir", None, "folder of downloaded data, such as mnist.npz", flag_values=values)
    absl_flags.DEFINE_integer(
        "num_train_examples", None, "trains on the first so many; by default on all", flag_values=values
    )
    absl_flags.DEFINE_float("label_noise", 0.0, "fraction of training labels drawn anew", flag_values=values)
    absl_flags.DEFINE_list("hidden", None, "comma-separated units of an mlp; by default 512,512", flag_values=values)
    networks = _one_of("the network", (*config.MODELS, "the path of a saved functional .keras model"))
    absl_flags.DEFINE_string("model", config.Model.model, networks, flag_values=values)


def _define_microbatch(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_integer(
        "microbatch_size",
        None,
        "examples on each device at once, a divisor of B; bounds memory, changes nothing else; by default up to 256",
        flag_values=values,
    )


def _define_training(values: absl_flags.FlagValues) -> None:
    default = config.Algorithm()
    _define_microbatch(values)
    absl_flags.DEFINE_integer(
        "num_steps", default.num_steps, "S, optimizer steps (logical batches)", flag_values=values
    )
    absl_flags.DEFINE_float("learning_rate", default.learning_rate, "constant learning rate", flag_values=values)
    absl_flags.DEFINE_float("momentum", default.momentum, "momentum of SGD, in [0, 1)", flag_values=values)
    absl_flags.DEFINE_float(
        "ema_decay",
        default.ema_decay,
        "decay of the average of the weights that is evaluated; 0: none",
        flag_values=values,
    )
    absl_flags.DEFINE_float(
        "effective_noise", None, "sigma / B, noise on the mean gradient (dp_sgd: in units of C)", flag_values=values
    )
    absl_flags.DEFINE_float(
        "l2_norm_clip", None, "C, bound on every example's gradient norm (dp_sgd)", flag_values=values
    )
    absl_flags.DEFINE_float(
        "delta", None, "delta of the privacy statement; by default 1 / training examples", flag_values=values
    )


def _training_options(values: absl_flags.FlagValues) -> dict[str, Any]:
    names = (
        "microbatch_size",
        "num_steps",
        "learning_rate",
        "momentum",
        "ema_decay",
        "effective_noise",
        "l2_norm_clip",
    )
    return {name: values[name].value for name in (*names, "delta")}


def _config(values: absl_flags.FlagValues, algorithm: config.Algorithm, **changes: Any) -> config.Config:
    if values["hidden"].value is not None:
        changes["hidden"] = _whole_numbers(values, "hidden")

    def group(cls, *names):
        return cls(**{name: changes.get(name, values[name].value) for name in names})

    return config.Config(
        data=group(config.Data, "dataset", "data_dir", "num_train_examples", "label_noise"),
        model=group(config.Model, "model", "hidden"),
        algorithm=algorithm,
        run=group(config.Run, "run_dir", "seed", "strategy", "logical_devices", "eval_every"),
    )


def _sweep(values: absl_flags.FlagValues, argv: Sequence[str], binary: Callable, folder: str = "") -> config.Sweep:
    _define_data_and_model(values)
    _define_training(values)
    absl_flags.DEFINE_list("algorithm", list(config.ALGORITHMS), "comma-separated algorithms", flag_values=values)
    absl_flags.DEFINE_list(
        "batch_size", ["16", "32", "64", "128", "256"], "comma-separated batch sizes", flag_values=values
    )
    absl_flags.DEFINE_float(
        "dp_sgd_effective_noise", None, "sigma / B of dp_sgd; by default --effective_noise", flag_values=values
    )
    absl_flags.DEFINE_integer("num_seeds", 5, "runs of each case, with seeds from --seed up", flag_values=values)
    _parse(values, argv, binary)
    return config.sweep(
        tuple(values["algorithm"].value),
        _whole_numbers(values, "batch_size"),
        values["num_seeds"].value,
        base=_config(values, config.Algorithm(), run_dir=str(pathlib.Path(values["run_dir"].value, folder))),
        dp_sgd_effective_noise=values["dp_sgd_effective_noise"].value,
        **_training_options(values),
    )


def _whole_numbers(values: absl_flags.FlagValues, name: str) -> tuple[int, ...]:
    typed = values[name].value
    digits = all(number.isdecimal() for number in typed)
    config.require(digits, name, "must list whole numbers", ",".join(typed), "separate them by commas, such as 16,32")
    return tuple(map(int, typed))


def _numbers(values: absl_flags.FlagValues, name: str) -> tuple[float, ...]:
    typed = values[name].value
    try:
        return tuple(map(float, typed))
    except ValueError:
        raise config.ConfigError(
            f"`--{name}` must list numbers (Received: {name}={','.join(typed)}); separate them by commas, such as 0,0.5"
        ) from None


def _read(values: absl_flags.FlagValues, default: Any, *others: str) -> dict[str, Any]:
    """The values of the flags that are called as the fields of a configuration, but for `others`."""
    return {name: values[name].value for name in vars(default) if name not in others}


def _one_of(what: str, choices: Sequence[str]) -> str:
    return f"{what}: {', '.join(choices)}"
