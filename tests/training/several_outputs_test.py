"""`PrivateModel` with several outputs, and with weights, trains as Keras' own model does."""

import warnings

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd

RNG = np.random.default_rng(0)
X, P, Q = (RNG.normal(size=(16, size)).astype(np.float32) for size in (6, 3, 2))
V, W = RNG.uniform(0, 2, (2, 16)).astype(np.float32)
LOSS = {"p": "mse", "q": keras.losses.MeanAbsoluteError(reduction="sum_over_batch_size")}
SCALES = {"p": 2.0, "q": 0.5}


def network(structure, model_class=noisy_sgd.PrivateModel):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(5, activation="tanh")(inputs)
    p, q = keras.layers.Dense(3, name="p")(hidden), keras.layers.Dense(2, name="q")(hidden)
    outputs = {"dict": {"q": q, "p": p}, "list": [p, q], "nested": {"u": [p, q]}}
    return model_class(inputs, outputs[structure])


def trained(model, optimizer, x, y, compile_arguments, fit_arguments):
    model.compile(optimizer, **compile_arguments)
    batches = {} if isinstance(x, tf.data.Dataset) else {"batch_size": 8}
    history = model.fit(x, y, epochs=2, shuffle=False, verbose=0, **batches, **fit_arguments).history
    return model.get_weights(), history


def noisy():
    return noisy_sgd.NoisySGD(0.1, 0.0, seed=1), {"batch_size": 8, "microbatch_size": 3}


def dp(**arguments):
    return noisy_sgd.DPSGD(0.1, float("inf"), 0.0, 8), arguments


OPTIMIZERS = (noisy, dp, lambda: dp(microbatch_size=3), lambda: dp(microbatch_size=3, engine="vectorized"))


class SeveralOutputsTest(parameterized.TestCase):
    def assert_as_keras(self, structure, x, y, compile_arguments, fit_arguments=None, optimizers=OPTIMIZERS[2:3]):
        arguments = x, y, compile_arguments, fit_arguments or {}
        reference = network(structure, keras.Model)
        with warnings.catch_warnings():
            # Keras' own model says so of an output without a loss.
            warnings.filterwarnings("ignore", message="Gradients do not exist")
            weights, history = trained(reference, keras.optimizers.SGD(0.1), *arguments)
        for make in optimizers:
            optimizer, own = make()
            found, found_history = trained(
                network(structure), optimizer, x, y, {**compile_arguments, **own}, fit_arguments or {}
            )
            for a, b in zip(found, weights, strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)
            self.assertEqual(set(found_history), set(history))
            for name, values in history.items():
                np.testing.assert_allclose(found_history[name], values, rtol=1e-4, err_msg=name)

    def test_one_weight_for_both(self):
        arguments = {"loss": LOSS, "loss_weights": SCALES}
        self.assert_as_keras("dict", X, {"p": P, "q": Q}, arguments, {"sample_weight": W}, OPTIMIZERS)

    def test_a_weight_for_each(self):
        arguments = {
            "loss": LOSS,
            "metrics": {"p": ["mae"], "q": ["mse"]},
            "weighted_metrics": {"p": ["mse"], "q": ["mae"]},
        }
        weights = {"p": W, "q": V[:, None]}
        self.assert_as_keras("dict", X, {"p": P, "q": Q}, arguments, {"sample_weight": weights}, OPTIMIZERS[2:])

    @parameterized.parameters(
        (["mse", "mae"], [2.0, 0.5], [W, V]),
        (LOSS, SCALES, W),
        ("mse", None, None),
        ([None, "mae"], None, None),
    )
    def test_lists(self, loss, loss_weights, sample_weight):
        y = [P, Q] if loss != [None, "mae"] else [None, Q]
        self.assert_as_keras(
            "list", X, y, {"loss": loss, "loss_weights": loss_weights}, {"sample_weight": sample_weight}
        )

    def test_a_nest(self):
        arguments = {"loss": {"u": ["mse", "mae"]}, "loss_weights": {"u": [2.0, 0.5]}}
        self.assert_as_keras("nested", X, {"u": [P, Q]}, arguments, {"sample_weight": {"u": [W, V]}})

    def test_no_weight_and_no_targets_for_some(self):
        self.assert_as_keras("dict", X, {"p": P, "q": Q}, {"loss": LOSS}, {"sample_weight": {"p": W, "q": None}})
        self.assert_as_keras("dict", X, {"p": P, "q": None}, {"loss": {"p": "mse", "q": None}})

    @parameterized.parameters(1, 2)
    def test_a_dataset_of_inputs_targets_and_weights(self, weights):
        weights = W if weights == 1 else {"p": W, "q": V}
        rows = tf.data.Dataset.from_tensor_slices((X, {"p": P, "q": Q}, weights))
        self.assert_as_keras("dict", rows.batch(8), None, {"loss": LOSS, "steps_per_execution": 2})

    def test_validation(self):
        arguments = {"loss": LOSS, "loss_weights": SCALES, "run_eagerly": True}
        fit_arguments = {"sample_weight": W, "validation_split": 0.5}
        self.assert_as_keras("dict", X, {"p": P, "q": Q}, arguments, fit_arguments)

    def test_the_bound_holds_whatever_the_weights(self):
        model = network("dict")
        before = model.get_weights()
        model.compile(noisy_sgd.DPSGD(1.0, 0.1, 0.0, 16), LOSS, microbatch_size=5)
        model.fit(X, {"p": P, "q": Q}, sample_weight={"p": 1e6 * W, "q": 1e3 * V}, verbose=0)
        moved = sum(np.sum(np.square(a - b)) for a, b in zip(model.get_weights(), before, strict=True))
        self.assertLessEqual(np.sqrt(moved), 0.1 * (1 + 1e-5))

    def test_a_loaded_model_goes_on(self):
        model = network("nested")
        arguments = {"loss": {"u": ["mse", keras.losses.Huber()]}, "loss_weights": {"u": [2.0, 0.5]}}
        trained(model, noisy_sgd.DPSGD(0.1, 1.0, 0.5, 8, seed=1), X, {"u": [P, Q]}, arguments, {})
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        for each in (model, loaded):
            each.fit(X, {"u": [P, Q]}, sample_weight=W, shuffle=False, verbose=0)
        for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_wrong_structures_are_refused(self):
        model = network("dict")
        with self.assertRaisesRegex(ValueError, "`loss` must.*Received: loss="):
            model.compile(dp()[0], {"p": "mse", "z": "mse"})
        with self.assertRaisesRegex(ValueError, "`loss_weights` must.*Received: loss_weights="):
            model.compile(dp()[0], LOSS, loss_weights=[1.0, 2.0, 3.0])
        model.compile(dp()[0], LOSS)
        for y in ({"p": P}, None, P, {"p": P, "z": Q}):
            with self.assertRaisesRegex(ValueError, "`y` must.*Received: y="):
                model.fit(X, y, verbose=0)


if __name__ == "__main__":
    absltest.main()
