"""The flags of the report that compares everything with the paper: a sweep, a share of the theory, and studies.

reproduction.reproduce(["reproduce", "--flagfile=configs/reproduce/quick.flags", "--theory_share=0.1"])
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

from noisy_sgd import config
from noisy_sgd.experiments.flags import command_line, toy, training
from noisy_sgd.experiments.support import toy_problems


def reproduce(argv: Sequence[str]) -> toy_problems.Reproduction:
    """Everything that the report compares with the paper."""
    values = command_line.flag_set()
    training.define_sweep(values, "where runs, figures and the report are written", "results")
    share = "takes this part of the theory's runs, steps and data sets; below 1 to try the command out"
    absl_flags.DEFINE_float("theory_share", toy_problems.Theory.share, share, flag_values=values, module_name="report")
    studies = "comma-separated flagfiles, FOLDER/BINARY/NAME.flags, that are run too"
    command_line.define_list(values, "report", "study", (), studies)
    sweep = training.sweep(values, argv, reproduce, folder="batch_size_sweep")
    run_dir = values["run_dir"].value
    return toy_problems.Reproduction(
        run_dir=run_dir,
        sweep=sweep,
        theory=toy_problems.Theory(share=values["theory_share"].value),
        studies=tuple(_study(flagfile, run_dir) for flagfile in values["study"].value),
    )


def _study(flagfile: str, results: str) -> tuple[str, Any]:
    """The binary that a flagfile's folder is called after, and its configuration, at a place below `results`."""
    path = pathlib.Path(flagfile)
    parsers = {
        parser.__name__: parser
        for parser in (
            toy.deep_diagonal,
            toy.diagonal_linear,
            toy.least_squares,
            toy.noise_threshold,
            toy.sde_error,
        )
    }
    name = path.parent.name
    config.require(name in parsers, "study", f"must lie in a folder {', '.join(parsers)}", flagfile, "see configs/")
    return name, parsers[name]([name, f"--flagfile={path}", f"--run_dir={pathlib.Path(results, name, path.stem)}"])
