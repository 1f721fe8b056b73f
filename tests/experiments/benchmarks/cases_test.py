"""Tests of what the benchmark is asked for: what cannot be timed is refused in one sentence."""

from absl.testing import absltest, parameterized

from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases
from noisy_sgd.figures import speed


class BenchmarkTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"workload": "bert"}, "--workload.*wrn_16_4.*workload=bert"),
        ({"algorithms": ("sgd", "sgd")}, "--algorithm.*different"),
        ({"algorithms": ("adam",)}, "--algorithm.*adam"),
        ({"num_rounds": 0}, "--num_rounds"),
        ({"batch_size": 64, "microbatch_size": 48}, "--batch_size.*multiple"),
        ({"run_dir": "runs", "algorithms": ("dp_sgd",)}, "--run_dir.*ratios to SGD.*run_dir=runs"),
        ({"run_dir": "runs", "sweep": "input"}, "--run_dir.*ratios to SGD"),
        ({"run_dir": "runs", "workload": "diagonal_linear"}, "--run_dir.*ratios to SGD"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(config.ConfigError, message):
            cases.Benchmark(**arguments)

    def test_a_record_does_not_depend_on_its_place(self):
        here, there = (cases.Benchmark(run_dir=place).resolved() for place in ("here", "there"))
        self.assertEqual(here, there)
        self.assertEqual(here["batch_size"], 64)

    def test_every_network_has_a_name_in_the_figure(self):
        self.assertCountEqual(speed.NAMES, (*cases.SHAPES, *cases.FINE_TUNED, *cases.KERAS_HUB))
        self.assertEqual(cases.images("nf_resnet50", 2).train_images.shape, (2, 224, 224, 3))


if __name__ == "__main__":
    absltest.main()
