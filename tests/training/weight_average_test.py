import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.training import distribution, weight_average


def setUpModule():
    distribution.use_logical_devices(2)


def network(dtype="float64"):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,), dtype=dtype)
    return keras.Model(inputs, keras.layers.Dense(3, dtype=dtype)(keras.layers.Dense(5, dtype=dtype)(inputs)))


def values_by_numpy(path, decay):
    """The definition, in float64: path holds the weights before the first step and after every step."""
    average = path[0]
    for step, weights in enumerate(path[1:]):
        kept = min(decay, (1 + step) / (10 + step))
        average = [kept * a + (1 - kept) * w for a, w in zip(average, weights, strict=True)]
    return average


def moved(strategy, dtype, decay, num_steps):
    """An average along a made-up path of the weights, and that path."""
    rng = np.random.default_rng(0)
    with strategy.scope():
        model = network(dtype)
        average = weight_average.WeightAverage(model.trainable_weights, decay)
    path = [[weight.copy() for weight in model.get_weights()]]
    update = tf.function(lambda step: average.update(strategy, step), autograph=False)
    for step in range(num_steps):
        model.set_weights([rng.normal(size=weight.shape) for weight in path[0]])
        path.append([weight.copy() for weight in model.get_weights()])
        update(tf.constant(step, tf.int64))
    return model, average, path


class WeightAverageTest(parameterized.TestCase):
    @parameterized.product(strategy=("default", "mirrored"), decay=(0.0, 0.3, 0.999))
    def test_it_is_the_definition(self, strategy, decay):
        strategy = distribution.make_strategy(strategy)
        for dtype, precision in (("float64", 1e-14), ("float32", 2e-6)):
            _, average, path = moved(strategy, dtype, decay, 25)
            for found, expected in zip(average.variables, values_by_numpy(path, decay), strict=True):
                np.testing.assert_allclose(tf.convert_to_tensor(found), expected, rtol=0, atol=precision)

    def test_replicas_have_the_same_bits_and_do_not_communicate(self):
        strategy = distribution.make_strategy("mirrored")
        model, average, _ = moved(strategy, "float32", 0.99, 25)
        for variable in average.variables:
            first, second = variable.values
            np.testing.assert_array_equal(first.numpy(), second.numpy())
        # A replica's average follows its own copy of the weight: nothing goes from one to the other.
        first, second = model.trainable_weights[0].value.values
        second.assign(first + 1.0)
        average.update(strategy, 100)
        first, second = average.variables[0].values
        np.testing.assert_allclose(second - first, np.full(first.shape, 1 - 0.918181818), rtol=1e-3)

    @parameterized.parameters("default", "mirrored")
    def test_it_is_applied_and_taken_back(self, strategy):
        model, average, path = moved(distribution.make_strategy(strategy), "float64", 0.9, 5)
        expected = values_by_numpy(path, 0.9)
        with self.assertRaisesRegex(RuntimeError, "inside"):
            with average.applied(model):
                for found, value in zip(model.get_weights(), expected, strict=True):
                    np.testing.assert_allclose(found, value, rtol=0, atol=1e-14)
                raise RuntimeError("inside")
        for found, value in zip(model.get_weights(), path[-1], strict=True):
            np.testing.assert_array_equal(found, value)
        average.reset()
        for found, value in zip(average.variables, path[-1], strict=True):
            np.testing.assert_array_equal(tf.convert_to_tensor(found), value)

    def test_weights_that_are_not_averaged_stay_as_they_are(self):
        model = network()
        model.layers[1].trainable = False
        average = weight_average.WeightAverage(model.trainable_weights, 0.5)
        for weight in model.weights:
            weight.assign(weight + 1.0)
        before = [weight.copy() for weight in model.get_weights()]
        with average.applied(model):
            frozen, averaged = model.layers[1].get_weights(), model.layers[2].get_weights()
        for found, value in zip(frozen, before[:2], strict=True):
            np.testing.assert_array_equal(found, value)
        for found, value in zip(averaged, before[2:], strict=True):
            np.testing.assert_allclose(found, value - 1.0, atol=1e-15)

    def test_bad_arguments_are_refused(self):
        model = network()
        for decay in (-0.1, 1.0, float("nan")):
            with self.assertRaisesRegex(ValueError, "`decay` must be.*Received: decay="):
                weight_average.WeightAverage(model.weights, decay)
        average = weight_average.WeightAverage(model.weights, 0.5)
        with self.assertRaisesRegex(ValueError, "`model` must be the one"), average.applied(network()):
            pass


if __name__ == "__main__":
    absltest.main()
