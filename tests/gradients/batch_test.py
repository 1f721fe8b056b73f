import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import batch, clipping

X = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
Y = {"label": np.arange(4), "weight": np.arange(4, dtype=np.float32) + 1}


class PreparedTest(parameterized.TestCase):
    def test_padding_becomes_zeros_whatever_it_holds(self):
        x = X.copy()
        x[1] = np.nan
        examples = batch.prepared(x, Y, np.array([1, 0, 1, 0]), views=1)
        expected = X.copy()
        expected[[1, 3]] = 0.0
        np.testing.assert_array_equal(examples.x, expected)
        np.testing.assert_array_equal(examples.y["label"], [0, 0, 2, 0])
        np.testing.assert_array_equal(examples.without_padding(tf.constant([1.0, np.nan, 3.0, 4.0])), [1, 0, 3, 0])

    def test_without_a_mask_nothing_is_selected(self):
        examples = batch.prepared(tf.constant(X), Y, None, views=1)
        values = tf.constant([1.0, np.nan, 3.0, 4.0])
        self.assertIsNone(examples.present)
        self.assertIs(examples.without_padding(values), values)
        np.testing.assert_array_equal(examples.rows()[0], X)

    def test_views_of_an_example_are_rows_side_by_side(self):
        examples = batch.prepared(X, Y, None, views=2)
        x, y = examples.rows()
        np.testing.assert_array_equal(x, X.reshape(8, 3))
        np.testing.assert_array_equal(y["label"], [0, 0, 1, 1, 2, 2, 3, 3])
        np.testing.assert_array_equal(examples.mean_over_views({"p": x})["p"], X.mean(axis=1))
        np.testing.assert_array_equal(examples.mean_over_views(tf.range(8.0)), [0.5, 2.5, 4.5, 6.5])
        self.assertEqual(examples.size, 4)

    @parameterized.parameters(1, 2)
    def test_one_example_is_a_batch_of_its_views(self, views):
        x = X if views == 2 else X[:, 0]
        examples = batch.prepared(x, Y, None, views=views)
        inputs, targets = examples.rows_of_one(tf.constant(x[3]), {"label": tf.constant(3)})
        np.testing.assert_array_equal(inputs, x[3].reshape(views, 3))
        np.testing.assert_array_equal(targets["label"], [3] * views)

    def test_sizes_are_known_as_far_as_the_trace_knows_them(self):
        seen = []

        def trace(x):
            examples = batch.prepared(x, tf.zeros([tf.shape(x)[0]]), None, views=2)
            rows = examples.rows()[0]
            seen.append((examples.size, rows.shape.as_list(), examples.mean_over_views(rows).shape.as_list()))

        for shape in ([4, 2, 3], [None, 2, 3], [None, 2, None]):
            tf.function(trace).get_concrete_function(tf.TensorSpec(shape))
        expected = [(4, [8, 3], [4, 3]), (None, [None, 3], [None, 3]), (None, [None, None], [None, None])]
        self.assertEqual(seen, expected)


class ComputeTest(parameterized.TestCase):
    @parameterized.product(count=(0, 1, 4), views=(1, 2), masked=(False, True))
    def test_a_batch_of_unknown_size_may_be_empty(self, count, views, masked):

        def result_of(examples):
            x, _ = examples.rows()
            sums = examples.mean_over_views(tf.reduce_sum(x, axis=1))
            return clipping.Result(
                losses=examples.without_padding(sums),
                predictions={"x": examples.mean_over_views(x)},
                norms=examples.without_padding(sums),
                values=[tf.reduce_sum(examples.without_padding(sums)), tf.shape(x)[0]],
            )

        @tf.function
        def traced(x, y, mask):
            result = batch.compute(result_of, x, y, mask if masked else None, views)
            return result.losses, result.predictions, result.norms, result.values

        x = X if views == 2 else X[:, 0]
        present = np.array([True, False, True, True])
        specs = [tf.TensorSpec([None, *x.shape[1:]]), tf.TensorSpec([None]), tf.TensorSpec([None], tf.bool)]
        concrete = traced.get_concrete_function(*specs)
        arguments = (x[:count], Y["weight"][:count], present[:count])
        losses, predictions, norms, values = concrete(*[tf.constant(argument) for argument in arguments])
        expected = x.reshape(4, views, 3).mean(axis=1).sum(axis=1)
        if masked:
            expected = np.where(present, expected, 0.0)
        np.testing.assert_allclose(losses, expected[:count])
        np.testing.assert_allclose(norms, expected[:count])
        self.assertEqual(predictions["x"].shape, (count, 3))
        np.testing.assert_allclose(values[0], expected[:count].sum())
        # TensorFlow's convolutions fail on no row at all.
        self.assertEqual(values[1], max(count, 1) * views)


if __name__ == "__main__":
    absltest.main()
