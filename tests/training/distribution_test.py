import subprocess
import sys

import tensorflow as tf
from absl.testing import absltest

from noisy_sgd.training import distribution


def setUpModule():
    distribution.use_logical_devices(2)


class DistributionTest(absltest.TestCase):
    def test_default_is_one_replica_and_mirrored_one_a_logical_device(self):
        self.assertEqual(distribution.make_strategy("default").num_replicas_in_sync, 1)
        strategy = distribution.make_strategy("mirrored")
        self.assertIsInstance(strategy, tf.distribute.MirroredStrategy)
        self.assertEqual(strategy.num_replicas_in_sync, 2)

    def test_bad_arguments_are_refused(self):
        with self.assertRaisesRegex(ValueError, "Received: strategy='many'"):
            distribution.make_strategy("many")
        with self.assertRaisesRegex(ValueError, "Received: logical_devices=0"):
            distribution.use_logical_devices(0)

    def test_splitting_after_the_start_is_refused(self):
        tf.zeros([])
        distribution.use_logical_devices(2)  # what it is already
        with self.assertRaisesRegex(ValueError, "before TensorFlow runs anything.*Received: logical_devices=3"):
            distribution.use_logical_devices(3)

    def test_the_package_imports_nothing_heavy(self):
        code = "import sys, noisy_sgd, noisy_sgd.keys; assert not {'tensorflow', 'keras'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    absltest.main()
