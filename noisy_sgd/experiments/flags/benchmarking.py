"""The flags of the benchmark.

benchmarking.benchmark(["benchmark", "--workload=mlp", "--algorithm=sgd,dp_sgd"]).algorithms    # ("sgd", "dp_sgd")

Tested by tests/experiments/flags_test.py.
"""

from collections.abc import Sequence

from noisy_sgd.experiments.benchmarks import cases
from noisy_sgd.experiments.flags import command_line, training

_BENCHMARK = {
    "workload": command_line.one_of("the network", cases.WORKLOADS),
    "batch_size": "B, examples in a logical batch",
    "num_rounds": "timed steps of each algorithm, in turns",
    "sweep": "batch_size: times the same step in logical batches of 256 to 32,768, at one --microbatch_size; input: "
    "times how long a plain step waits for streamed, augmented images; noise: times Noisy-SGD's step by the number of "
    "draws of its correlated noise; peers: times DP-SGD beside Opacus'",
    "run_dir": "where the lines are recorded and drawn, in one folder per workload",
}


def benchmark(argv: Sequence[str]) -> cases.Benchmark:
    """One step of each algorithm, timed in turns."""
    values = command_line.flag_set()
    default = cases.Benchmark()
    command_line.define(values, "benchmark", default, _BENCHMARK)
    training.define_microbatch(values, "benchmark")
    command_line.define_list(values, "benchmark", "algorithm", default.algorithms, "comma-separated algorithms")
    command_line.parse(values, argv, benchmark)
    algorithms = tuple(values["algorithm"].value)
    settings = cases.Benchmark(algorithms=algorithms, **command_line.typed(values, default))
    command_line.refuse_typed(values, settings.unread)
    return settings
