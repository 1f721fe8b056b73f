"""Tests of the toy problems' benchmark: its three programs are one algorithm, and every case has a line."""

import contextlib
import importlib.util
import io
import json

import numpy as np
from absl.testing import absltest

from noisy_sgd.data import regression
from noisy_sgd.experiments import benchmark, flags
from noisy_sgd.experiments.benchmarks import cases, toy


def _lines(run):
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        run()
    return [json.loads(line) for line in stdout.getvalue().splitlines()]


class ToyBenchmarkTest(absltest.TestCase):
    def test_prints_a_line_a_case(self):
        settings = cases.Benchmark(workload="diagonal_linear", num_rounds=2)
        lines = _lines(lambda: toy.main(settings, num_steps=50))
        self.assertEqual([line["case"] for line in lines], ["simulation", "numpy_loop", "jax"])
        self.assertEqual(lines[1]["ratio_to_numpy_loop"], 1.0)
        self.assertGreater(lines[0]["run_steps_per_s"], 0)
        if importlib.util.find_spec("jax") is None:
            self.assertEqual(lines[2]["note"], "not installed")

    def test_all_cases_have_one_law(self):
        # Quartiles of 200 runs' log losses have a standard error of 0.05; noise of 3/2 the size shifts them by 0.3.
        problem = regression.sparse(0)
        quartiles = []
        programs = [toy._simulation, toy._numpy_loop]
        for make in programs + [toy._jax] * bool(importlib.util.find_spec("jax")):
            case = make(problem, 300)
            losses = np.concatenate([case(seed) for seed in range(10)])
            quartiles.append(np.quantile(np.log(losses), [0.25, 0.5, 0.75]))
        for other in quartiles[1:]:
            np.testing.assert_allclose(other, quartiles[0], atol=0.2)

    def test_the_benchmark_leads_here(self):
        with absltest.mock.patch.object(toy, "main") as called:
            with self.assertRaises(SystemExit) as caught:
                flags.run(flags.benchmark, benchmark.main, ["benchmark", "--workload=diagonal_linear"])
        self.assertIsNone(caught.exception.code)
        self.assertEqual(called.call_args.args[0].workload, "diagonal_linear")


if __name__ == "__main__":
    absltest.main()
