"""Ways from a model that exists to a private one: the common ones work, the others name one that does."""

import keras
import numpy as np
from absl.testing import absltest, parameterized

import noisy_sgd

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4)).astype(np.float32)
Y = RNG.normal(size=(16, 2)).astype(np.float32)


def functional():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(3, activation="tanh")(inputs)), name="mine")


def sequential():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(2)])


def built_later():
    model = keras.Sequential([keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(2)])
    model.build((None, 4))
    return model


def nested():
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    return keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def dp():
    return noisy_sgd.DPSGD(0.1, 1.0, 0.0, 16)


class FromModelTest(parameterized.TestCase):
    @parameterized.parameters(functional, sequential, built_later, nested)
    def test_it_shares_the_layers(self, make):
        model = make()
        before = model.get_weights()
        private = noisy_sgd.PrivateModel.from_model(model)
        self.assertIsInstance(private, noisy_sgd.PrivateModel)
        self.assertEqual(private.name, model.name)
        np.testing.assert_array_equal(private(X), model(X))
        private.compile(dp(), "mse")
        private.fit(X, Y, verbose=0)
        for weight, shared in zip(model.trainable_weights, private.trainable_weights, strict=True):
            self.assertIs(weight, shared)
        self.assertNotAllEqual(before, model.get_weights())
        np.testing.assert_array_equal(private(X), model(X))

    def assertNotAllEqual(self, first, second):
        self.assertTrue(any(np.any(a != b) for a, b in zip(first, second, strict=True)))

    def test_several_inputs_and_outputs_keep_their_names(self):
        inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((2,), name="b")}
        joined = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
        outputs = {"p": keras.layers.Dense(2, name="p")(joined), "q": keras.layers.Dense(1, name="q")(joined)}
        model = keras.Model(inputs, outputs)
        private = noisy_sgd.PrivateModel.from_model(model)
        private.compile(dp(), {"p": "mse", "q": "mae"})
        private.fit({"a": X, "b": Y}, {"p": Y, "q": Y[:, :1]}, verbose=0)
        self.assertEqual(private.output_names, model.output_names)
        self.assertEqual(set(private({"a": X, "b": Y})), {"p", "q"})

    def test_a_private_model_is_one_too(self):
        private = noisy_sgd.PrivateModel.from_model(functional())
        again = noisy_sgd.PrivateModel.from_model(private)
        self.assertIs(private.layers[1], again.layers[1])

    def test_a_subclass_keeps_its_class(self):
        class Mine(noisy_sgd.PrivateModel):
            def twice(self, x):
                return 2 * self(x)

        model = Mine.from_model(sequential())
        model.compile(dp(), "mse")
        np.testing.assert_array_equal(model.twice(X), 2 * model(X))

    def test_a_model_with_a_call_of_its_own_is_called_on_an_input(self):
        inputs, network = keras.Input((4,)), Own()
        private = noisy_sgd.PrivateModel(inputs, network(inputs))
        before = network.dense.get_weights()[0].copy()
        private.compile(dp(), "mse")
        private.fit(X, Y, verbose=0)
        self.assertNotAllEqual([before], [network.dense.get_weights()[0]])

    @parameterized.parameters(
        (lambda: noisy_sgd.PrivateModel(sequential()), r"PrivateModel.from_model\(model\).*Received: Sequential"),
        (lambda: noisy_sgd.PrivateModel(inputs=functional()), r"from_model\(model\).*Received: Functional"),
        (lambda: noisy_sgd.PrivateModel([keras.layers.Dense(2)]), r"from_model\(keras.Sequential.*Received: Dense"),
        (lambda: noisy_sgd.PrivateModel(), r"PrivateModel\(inputs, network\(inputs\)\).*Received: NoneType"),
        (lambda: noisy_sgd.PrivateModel.from_model(Own()), r"PrivateModel\(inputs, network\(inputs\)\).*Received: Own"),
        (lambda: noisy_sgd.PrivateModel.from_model([keras.layers.Dense(2)]), r"keras.Sequential\(.*Received: list"),
        (lambda: noisy_sgd.PrivateModel.from_model(keras.layers.Dense(2)), r"network\(inputs\)\).*Received: Dense"),
        (
            lambda: noisy_sgd.PrivateModel.from_model(keras.Sequential([keras.layers.Dense(2)])),
            r"must know the shape of its inputs: put keras.Input.*Received: Sequential",
        ),
    )
    def test_other_ways_name_one_that_works(self, make, message):
        with self.assertRaisesRegex(ValueError, message):
            make()

    def test_a_subclass_with_a_call_of_its_own_is_refused(self):
        class Mine(noisy_sgd.PrivateModel):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(2)

            def call(self, x):
                return self.dense(x)

        # Keras treats a class differently once it has made a functional model of it.
        for _ in range(2):
            with self.assertRaisesRegex(ValueError, r"PrivateModel\(inputs, network\(inputs\)\)"):
                Mine()
            noisy_sgd.PrivateModel.from_model(functional())

    def test_a_step_of_its_own_would_be_lost(self):
        class Mine(keras.Model):
            def train_step(self, data):
                return super().train_step(data)

        inputs = keras.Input((4,))
        model = Mine(inputs, keras.layers.Dense(2)(inputs))
        with self.assertRaisesRegex(ValueError, r"\['train_step'\] would be lost.*Received: Mine"):
            noisy_sgd.PrivateModel.from_model(model)


if __name__ == "__main__":
    absltest.main()
