import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.training import microbatches


class MapInOrderTest(parameterized.TestCase):
    @parameterized.product(size=(0, 1, 5, 6, 7), microbatch_size=(1, 3, 8), graph=(False, True))
    def test_it_is_the_function_of_the_whole_batch(self, size, microbatch_size, graph):
        rows = np.arange(2.0 * size).reshape(size, 2)
        seen = tf.Variable(0), tf.Variable(0)

        def function(microbatch, mask):
            x, (labels, nothing) = microbatch
            self.assertEqual(nothing, ())
            seen[0].assign_add(1)
            seen[1].assign_add(tf.math.count_nonzero(mask, dtype=tf.int32))
            return {"double": 2 * x, "label": labels}

        def run(x, labels):
            return microbatches.map_in_order(function, (x, (labels, ())), tf.shape(x)[0], microbatch_size)

        found = (tf.function(run) if graph else run)(tf.constant(rows), tf.range(size))
        np.testing.assert_array_equal(found["double"], 2 * rows)
        np.testing.assert_array_equal(found["label"], np.arange(size))
        self.assertEqual(int(seen[0]), max(1, -(-size // microbatch_size)))
        self.assertEqual(int(seen[1]), size)


if __name__ == "__main__":
    absltest.main()
