"""Metrics of masked outputs are Keras', whatever the microbatch, the engine and the number of replicas."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd import keras_internals
from noisy_sgd.training import distribution, prediction_masks

RNG = np.random.default_rng(0)
IDS = RNG.integers(1, 7, (11, 5)) * (np.arange(5) < RNG.integers(1, 6, (11, 1)))  # 0 is padding
Y = RNG.integers(0, 3, (11, 5))
VALUES = RNG.normal(size=(11, 5, 2)).astype(np.float32)
WEIGHTS = RNG.uniform(0.5, 2.0, (11, 5)).astype(np.float32)


def setUpModule():
    distribution.use_logical_devices(2)


def network(model_class=noisy_sgd.PrivateModel, outputs="one"):
    keras.utils.set_random_seed(1)
    inputs, ids = (keras.Input((5,), dtype="int32") for _ in range(2))
    # A model in the model: Keras' symbolic outputs do not know of the mask.
    embedded = keras.Model(ids, keras.layers.Embedding(7, 4, mask_zero=True)(ids))(inputs)
    classes = keras.layers.Dense(3)(embedded)
    if outputs == "one":
        return model_class(inputs, classes)
    return model_class(inputs, {"a": classes, "b": keras.layers.Dense(2)(embedded)})


def arguments(outputs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = ["accuracy", keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="entropy")]
    if outputs == "one":
        return {"loss": loss, "metrics": metrics[:1], "weighted_metrics": metrics[1:]}
    return {
        "loss": {"a": loss, "b": "mse"},
        "metrics": {"a": metrics[:1], "b": ["mae"]},
        "weighted_metrics": {"a": metrics[1:], "b": ["mse"]},
    }


def fitted(model, optimizer, outputs, weights, compile_arguments):
    model.compile(optimizer, **arguments(outputs), **compile_arguments)
    y = Y if outputs == "one" else {"a": Y, "b": VALUES}
    return model.fit(IDS, y, sample_weight=weights, batch_size=8, shuffle=False, verbose=0).history


class PredictionMasksTest(parameterized.TestCase):
    @parameterized.parameters(
        ("one", "default", {}),
        ("one", "default", {"microbatch_size": 3}),
        ("one", "mirrored", {"microbatch_size": 3, "engine": "vectorized"}),
        ("one", "default", {"run_eagerly": True}),
        ("two", "default", {"microbatch_size": 3}),
        ("two", "mirrored", {}),
    )
    def test_metrics_are_keras(self, outputs, strategy, compile_arguments):
        weights = WEIGHTS if outputs == "one" else {"a": WEIGHTS, "b": WEIGHTS[::-1]}
        expected = fitted(network(keras.Model, outputs), keras.optimizers.SGD(0.0), outputs, weights, {})
        with distribution.make_strategy(strategy).scope():
            model = network(outputs=outputs)
        optimizer = noisy_sgd.DPSGD(0.0, 1.0, 0.0, 8)
        with distribution.make_strategy(strategy).scope():
            found = fitted(model, optimizer, outputs, weights, compile_arguments)
        self.assertEqual(set(found), set(expected))
        # The loss is the mean over the examples, each the mean over its own positions.
        compared = [name for name in expected if name != "loss" and (strategy == "default" or "loss" not in name)]
        for name in compared:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)

    @parameterized.parameters("one", "two")
    def test_a_weight_for_each_example_is_one_for_each_position(self, outputs):
        weights, optimizer = WEIGHTS[:, 0], noisy_sgd.DPSGD(0.0, 1.0, 0.0, 8)
        # Keras' own fails on a mask beside weights of one axis.
        expected = fitted(network(keras.Model, outputs), keras.optimizers.SGD(0.0), outputs, weights[:, None], {})
        found = fitted(network(outputs=outputs), optimizer, outputs, weights, {"microbatch_size": 3})
        for name in set(expected) - {"loss"}:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)

    def test_evaluate_is_keras(self):
        results = []
        for model in (network(), network(keras.Model)):
            model.compile("sgd", **arguments("one"))
            results.append(model.evaluate(IDS, Y, verbose=0))
        np.testing.assert_allclose(*results, rtol=1e-5)

    def test_an_output_without_a_mask_gets_none(self):
        inputs = keras.Input((5,), dtype="int32")
        embedded = keras.layers.Embedding(7, 4, mask_zero=True)(inputs)
        model = keras.Model(inputs, [embedded, keras.layers.GlobalAveragePooling1D()(embedded)])
        first, second = prediction_masks.attach(model, IDS, [tf.zeros([11, 5, 4]), tf.zeros([11, 4])])
        np.testing.assert_array_equal(keras_internals.mask(first), IDS != 0)
        self.assertIsNone(keras_internals.mask(second))
        self.assertTrue(prediction_masks.any_mask([second, first]))
        self.assertFalse(prediction_masks.any_mask([second]))


if __name__ == "__main__":
    absltest.main()
