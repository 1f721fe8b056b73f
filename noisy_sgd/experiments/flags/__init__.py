"""Every flag of every binary, and how a command line becomes a configuration.

Each binary has a flag set of its own: a flag it does not read is an error, and several binaries fit in one process.

    if __name__ == "__main__":
        flags.run(flags.train, main)    # main(config: noisy_sgd.config.Config)

Bad input, found while parsing or in a `with flags.refusals():` block before training, ends in one sentence on stderr,
with exit status 2. Flags can come from a file by `--flagfile`; one that stands after it on the command line wins.
"""

from noisy_sgd.experiments.flags.benchmarking import benchmark
from noisy_sgd.experiments.flags.command_line import BAD_INPUT, FAILED, end, refusals, run
from noisy_sgd.experiments.flags.training import batch_size_sweep, train

__all__ = [
    "BAD_INPUT",
    "FAILED",
    "batch_size_sweep",
    "benchmark",
    "end",
    "refusals",
    "run",
    "train",
]
