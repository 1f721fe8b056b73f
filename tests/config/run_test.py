"""Tests of the flags of a run."""

import math

from absl.testing import absltest, parameterized

from noisy_sgd import config


class RunTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"strategy": "horovod"}, "--strategy"),
        ({"logical_devices": 0}, "--logical_devices"),
        ({"eval_every": 0}, "--eval_every"),
        ({"strategy": "tpu"}, "--tpu.*needed by `--strategy=tpu`.*local"),
        ({"tpu": "node-1"}, "--tpu.*means nothing to `--strategy=default`.*--strategy=tpu"),
        ({"strategy": "tpu", "tpu": "local", "logical_devices": 2}, "--logical_devices.*--strategy=tpu"),
        ({"strategy": "multi_worker", "logical_devices": 2}, "--logical_devices.*--strategy=multi_worker"),
        ({"checkpoint_every": 0}, "--checkpoint_every.*at least 1"),
        ({"checkpoint_minutes": 0.0}, "--checkpoint_minutes.*positive"),
        ({"checkpoint_minutes": math.nan}, "--checkpoint_minutes.*checkpoint_minutes=nan"),
        ({"keep_checkpoints": 0}, "--keep_checkpoints.*at least 1"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(config.ConfigError, message) as caught:
            config.Run(**arguments)
        self.assertNotIn("\n", str(caught.exception))

    @parameterized.parameters("default", "mirrored")
    def test_the_processor_can_be_split_on_one_machine(self, strategy):
        self.assertEqual(config.Run(strategy=strategy, logical_devices=2).logical_devices, 2)


if __name__ == "__main__":
    absltest.main()
