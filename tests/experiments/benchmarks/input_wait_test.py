"""Tests of the measurement of the input pipeline: a step that waits for its data is told from one that does not."""

import time

from absl.testing import absltest

from noisy_sgd.data import augmentation
from noisy_sgd.experiments.benchmarks import cases, input_wait


class InputWaitTest(absltest.TestCase):
    def line(self):
        return input_wait.line(cases.Benchmark(workload="mlp", batch_size=8, num_rounds=2, sweep="input"))

    def test_a_line_with_shares(self):
        line = self.line()
        self.assertBetween(line["input_wait"], 0, 1)
        self.assertGreater(line["fed_ms"], 0)
        self.assertAlmostEqual(line["slowdown"], line["fed_ms"] / line["at_hand_ms"], delta=0.01 * line["slowdown"])

    def test_sees_a_pipeline_that_is_too_slow(self):
        import tensorflow as tf

        def slow(images, indices, step):
            def wait(images):
                time.sleep(0.3)
                return images

            return tf.ensure_shape(tf.numpy_function(wait, [images], images.dtype), images.shape)

        with absltest.mock.patch.object(augmentation, "make", lambda seed: slow):
            self.assertGreater(self.line()["input_wait"], 0.5)


if __name__ == "__main__":
    absltest.main()
