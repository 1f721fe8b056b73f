"""What `compile` and `fit` remark on: once per model, in absl's log, and training goes on."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd

X, Y = np.ones((32, 3), np.float32), np.zeros((32, 1), np.float32)


def compiled(optimizer=None, **arguments):
    inputs = keras.Input((3,))
    model = noisy_sgd.PrivateModel(inputs, keras.layers.Dense(1)(inputs))
    model.compile(optimizer or noisy_sgd.DPSGD(0.1, 1.0, 1.0, 16), "mse", **arguments)
    return model


def budget(num_examples=32, delta=1e-3, **arguments):
    return noisy_sgd.PrivacyBudget(100.0, num_examples=num_examples, delta=delta, accountant="rdp", **arguments)


class RemarksTest(parameterized.TestCase):
    def assert_remarked_once(self, message, model, *arguments, **keywords):
        with self.assertLogs("absl", "WARNING") as logs:
            for _ in range(2):
                model.fit(*arguments, verbose=0, **keywords)
        self.assertLen(logs.output, 1)
        self.assertRegex(logs.output[0], message)

    def test_an_optimizer_without_privacy(self):
        with self.assertLogs("absl", "WARNING") as logs:
            model = compiled("adam")
            model.compile("adam", "mse")
        self.assertLen(logs.output, 1)
        self.assertRegex(logs.output[0], "trains without privacy: Adam neither clips gradients nor adds noise")

    def test_no_remark_where_nothing_is_to_be_said(self):
        with self.assertNoLogs("absl", "WARNING"):
            compiled(noisy_sgd.NoisySGD(0.1, 0.1, seed=1)).fit(X, Y, verbose=0)
            compiled().fit(X, Y, verbose=0, callbacks=[budget()])
            compiled().fit(X, Y, verbose=0, validation_split=0.25, callbacks=[budget(24)])
            rows = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16, drop_remainder=True)
            compiled().fit(rows, shuffle=False, verbose=0)

    @parameterized.parameters((31, None), (32, 0.25))
    def test_another_number_of_examples(self, num_examples, validation_split):
        arguments = {"validation_split": validation_split} if validation_split else {}
        message = f"num_examples={num_examples}, and `fit` trains on {24 if validation_split else 32} examples"
        self.assert_remarked_once(message, compiled(), X, Y, callbacks=[budget(num_examples)], **arguments)

    def test_a_delta_that_lets_examples_out(self):
        self.assert_remarked_once(
            "delta=0.05, above 1 / num_examples = 0.03125", compiled(), X, Y, callbacks=[budget(delta=0.05)]
        )

    def test_smaller_batches_and_steps(self):
        message = "batches of `fit` hold 8 examples.*divided by the configured batch_size=16"
        self.assert_remarked_once(message, compiled(), X, Y, batch_size=8)
        rows = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8, drop_remainder=True)
        self.assert_remarked_once(message, compiled(), rows, shuffle=False)
        self.assert_remarked_once(message, compiled(), X[:8], Y[:8])


class RefusalsTest(parameterized.TestCase):
    def test_fit_before_compile_says_what_keras_says(self):
        inputs = keras.Input((3,))
        outputs = keras.layers.Dense(1)(inputs)
        messages = []
        for model_class in (keras.Model, noisy_sgd.PrivateModel):
            with self.assertRaises(ValueError) as refused:
                model_class(inputs, outputs).fit(X, Y, batch_size=8, callbacks=[budget()])
            messages.append(str(refused.exception))
        self.assertEqual(*messages)
        self.assertIn("compile()", messages[0])

    def test_no_loss_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`loss` must be given.*Received: loss=None"):
            inputs = keras.Input((3,))
            noisy_sgd.PrivateModel(inputs, inputs).compile(noisy_sgd.DPSGD(0.1, 1.0, 1.0, 8))


if __name__ == "__main__":
    absltest.main()
