import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.optimizers import sgd
from noisy_sgd.training import distribution, private_model, training_metrics

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 12).astype(np.int32)
LOSS = "sparse_categorical_crossentropy"


def setUpModule():
    distribution.use_logical_devices(2)


def compiled(strategy, optimizer):
    with strategy.scope():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((6,))
        model = private_model.PrivateModel(inputs, keras.layers.Dense(3, activation="softmax")(inputs))
        model.compile(optimizer(), LOSS, batch_size=12)
        return model


def measured(strategy, algorithm, x, mask, clip_norm):
    """The metrics of one microbatch; under two replicas, each takes half of it."""
    strategy = distribution.make_strategy(strategy)
    make = {
        "dp_sgd": lambda: sgd.DPSGD(0.1, clip_norm, 0.0, 12),
        "noisy_sgd": lambda: sgd.NoisySGD(0.1, 0.0, seed=1),
    }[algorithm]
    model = compiled(strategy, make)
    with strategy.scope():
        metrics = training_metrics.for_algorithm(algorithm)
    replicas = strategy.num_replicas_in_sync
    rows = [slice(i * 12 // replicas, (i + 1) * 12 // replicas) for i in range(replicas)]

    def part(values):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(values[rows[context.replica_id_in_sync_group]])
        )

    def step(x, y, mask):
        seen = model.accumulate(x, y, mask=mask)
        training_metrics.update(metrics, seen, y, mask, clip_norm)

    tf.function(lambda *args: strategy.run(step, args=args), autograph=False)(part(x), part(Y), part(mask))
    return {name: float(metric.result()) for name, metric in metrics.items()}, model


def expected_of(model, rows, clip_norm):
    """Loss, accuracy, norms of a linear softmax model by hand, in float64, over the given rows."""
    kernel, bias = (weight.astype(np.float64) for weight in model.get_weights())
    logits = X[rows] @ kernel + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    errors = probabilities - np.eye(3)[Y[rows]]
    norms = np.sqrt(np.square(errors).sum(axis=1) * (np.square(X[rows]).sum(axis=1) + 1))
    return {
        "loss": -np.log(probabilities[np.arange(len(rows)), Y[rows]]).mean(),
        "accuracy": (probabilities.argmax(axis=1) == Y[rows]).mean(),
        "gradient_norm": norms.mean(),
        "fraction_clipped": (norms > clip_norm).mean(),
    }


class TrainingMetricsTest(parameterized.TestCase):
    @parameterized.product(strategy=("default", "mirrored"), algorithm=("dp_sgd", "noisy_sgd"))
    def test_only_present_and_finite_examples_count(self, strategy, algorithm):
        mask = np.ones(12, bool)
        mask[[2, 11]] = False
        x = X.copy()
        x[2] = np.nan
        bad = []
        if algorithm == "dp_sgd":
            bad = [4, 9, 10]
            x[bad[0]], x[bad[1:], 0] = np.inf, np.nan
        found, model = measured(strategy, algorithm, x, mask, clip_norm=1.5)
        rows = [row for row in range(12) if mask[row] and row not in bad]
        expected = expected_of(model, rows, 1.5)
        self.assertBetween(expected["fraction_clipped"], 0.1, 0.9)
        names = {"loss", "accuracy"}
        if algorithm == "dp_sgd":
            names |= {"gradient_norm", "fraction_clipped"}
            self.assertEqual(found.pop("non_finite_examples"), 3.0)
        self.assertEqual(set(found), names)
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)

    def test_a_diverged_run_without_clipping_shows_it(self):
        found, _ = measured("default", "noisy_sgd", np.full_like(X, np.nan), np.ones(12, bool), 1.0)
        self.assertTrue(np.isnan(found["loss"]))

    def test_an_empty_microbatch_measures_nothing(self):
        found, _ = measured("default", "dp_sgd", np.full_like(X, np.nan), np.zeros(12, bool), 1.0)
        self.assertEqual(set(found.values()), {0.0})


if __name__ == "__main__":
    absltest.main()
