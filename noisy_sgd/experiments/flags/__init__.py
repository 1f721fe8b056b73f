"""How a command line becomes settings, and the flags that several binaries share.

Each binary has a flag set of its own: a flag that it does not read is an error, and one process can run several
binaries. `parse` of a binary turns a command line into the settings that its `main` takes:

    if __name__ == "__main__":
        flags.run(parse, main)

Bad input ends in one sentence on stderr, with exit status 2, whether it is found while parsing or in a
`with flags.refusals():` block before training. `--flagfile` reads flags from a file; a flag that follows it on the
command line wins.
"""

from noisy_sgd.experiments.flags.benchmarking import benchmark
from noisy_sgd.experiments.flags.command_line import BAD_INPUT, FAILED, Ended, end, refusals, run
from noisy_sgd.experiments.flags.training import batch_size_sweep, train

__all__ = [
    "BAD_INPUT",
    "Ended",
    "FAILED",
    "batch_size_sweep",
    "benchmark",
    "end",
    "refusals",
    "run",
    "train",
]
