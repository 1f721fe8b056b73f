import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.training import batch_shapes


class BatchShapesTest(parameterized.TestCase):
    def test_it_is_the_number_of_examples(self):
        self.assertEqual(batch_shapes.check({"a": np.ones((3, 2)), "b": tf.ones([3])}, [None, np.ones(3)]), 3)
        seen = []
        tf.function(lambda x: seen.append(batch_shapes.check(x))).get_concrete_function(tf.TensorSpec([None, 2]))
        self.assertEqual(seen, [None])

    @parameterized.parameters(
        ((np.ones((3, 2)), np.ones(2)), r"x of shapes \(3, 2\), y of shapes \(2,\)"),
        (([np.ones((3, 2)), np.ones(4)],), r"x of shapes \[\(3, 2\), \(4,\)\]"),
        ((np.ones(3), None, np.ones(2)), r"sample_weight of shapes \(2,\)"),
    )
    def test_numbers_that_differ_are_refused(self, batch, received):
        with self.assertRaisesRegex(ValueError, f"the same number of examples. Received: .*{received}"):
            batch_shapes.check(*batch)

    def test_an_unknown_number_of_axes_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`output_signature` with shapes. Received: x of shapes None"):
            tf.function(batch_shapes.check).get_concrete_function(tf.TensorSpec(None))


if __name__ == "__main__":
    absltest.main()
