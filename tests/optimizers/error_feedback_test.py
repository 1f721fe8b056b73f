"""DiceSGD against its equations in NumPy, against DPSGD, and what it may claim and where its error may be."""

import pathlib
import zipfile

import dp_accounting
import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd import privacy, sampling
from noisy_sgd.gradients import clipped_sum
from noisy_sgd.optimizers import error_feedback, privatized, sgd
from noisy_sgd.runs import run_state
from noisy_sgd.training import distribution
from tests import oracles
from tests.optimizers import shells


def setUpModule():
    distribution.use_logical_devices(2)


def dice(**arguments):
    own = {"feedback_clip": 0.2, "momentum": 0.5, "seed": 4, **arguments}
    return error_feedback.DiceSGD(0.5, 0.3, 1.0, 24, **own)


class ByHandTest(parameterized.TestCase):
    @parameterized.parameters(("book_keeping", 0.05), ("vectorized", float("inf")))
    def test_three_steps_are_numpys(self, engine, feedback_clip):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(3)])
        weights = model.trainable_weights
        optimizer = error_feedback.DiceSGD(0.5, 0.3, 0.7, 24, seed=1, feedback_clip=feedback_clip)
        optimizer.build(weights)
        errors = [np.zeros(weight.shape) for weight in weights]
        for _ in range(3):
            before = [weight.numpy() for weight in weights]
            each = oracles.gradients(model, oracles.cross_entropy, shells.X, shells.Y)
            _, sums = oracles.clipped_sum(model, oracles.cross_entropy, shells.X, shells.Y, 0.3)
            scale = min(1.0, feedback_clip / oracles.length(errors)) if any(map(np.any, errors)) else 1.0
            sent = [total / 24 + scale * error for total, error in zip(sums, errors, strict=True)]
            errors = [
                e + np.sum(g, axis=0) / 24 - v for e, g, v in zip(errors, zip(*each, strict=True), sent, strict=True)
            ]
            noise = optimizer.noised([tf.zeros(weight.shape) for weight in weights], None, release=False)
            clipped = clipped_sum.clipped_gradient_sum(
                model, oracles.cross_entropy, shells.X, shells.Y, l2_norm_clip=0.3, engine=engine, with_remainder=True
            )
            optimizer.apply(clipped, weights)
            for weight, start, v, z in zip(weights, before, sent, noise, strict=True):
                np.testing.assert_allclose(weight.numpy(), start - 0.5 * (v + z.numpy()), atol=2e-6)
            for variable, error in zip(optimizer.hidden_variables, errors, strict=True):
                np.testing.assert_allclose(variable.numpy(), error, atol=2e-6)

    @parameterized.parameters(
        (sgd.DPSGD(0.3, 0.1, 0.0, 3), -1.0),
        (error_feedback.DiceSGD(0.3, 0.1, 0.0, 3, feedback_clip=1.0), 8 / 3),
    )
    def test_clipping_leaves_no_bias(self, optimizer, end):
        # The mean of -1, -1, 10 is 8/3; where every gradient is clipped to 0.1, DP-SGD ends at the median, -1.
        weight = keras.Variable(np.zeros([1], np.float32))

        @tf.function(autograph=False)
        def step():
            gradients = weight - tf.constant([-1.0, -1.0, 10.0])
            kept = tf.clip_by_value(gradients, -0.1, 0.1)
            total = [tf.reduce_sum(part, keepdims=True) for part in (kept, gradients - kept)]
            optimizer.apply(shells.clipped(total[:1], 0.1, remainder=total[1:]), [weight])

        optimizer.build([weight])
        for _ in range(400):
            step()
        self.assertAlmostEqual(float(weight.numpy()[0]), end, delta=0.1)


class IdentityTest(absltest.TestCase):
    def test_with_second_bound_0_it_is_dp_sgd_bit_for_bit(self):
        ours, other = dice(feedback_clip=0.0), sgd.DPSGD(0.5, 0.3, 1.0, 24, seed=4, momentum=0.5)
        self.assertEqual(shells.difference(shells.stepped(ours), shells.stepped(other)), 0.0)
        self.assertEqual(ours.event, other.event)
        self.assertEmpty(ours.hidden_variables)
        self.assertFalse(ours.clip.with_remainder)

    def test_without_clipping_nothing_is_fed_back(self):
        ours, other = dice(), sgd.DPSGD(0.5, 0.3, 1.0, 24, seed=4, momentum=0.5)
        nothing = [tf.zeros(value.shape) for value in shells.SUMS]
        stepped = shells.stepped(ours, remainder=nothing)
        self.assertEqual(shells.difference(stepped, shells.stepped(other)), 0.0)

    def test_the_noise_it_is_compared_with(self):
        self.assertAlmostEqual(error_feedback.compared_noise_multiplier(1.5, 0.5, 2.0), 4.5)
        self.assertEqual(error_feedback.compared_noise_multiplier(1.5, 0.5, 0.0), 1.5)


class ClaimTest(absltest.TestCase):
    def test_no_epsilon_is_claimed(self):
        optimizer = error_feedback.DiceSGD(0.5, 0.3, 10.0, 24, feedback_clip=0.2)
        self.assertEqual(optimizer.event, dp_accounting.NonPrivateDpEvent())
        scheme = sampling.Poisson(1000, 24)
        plan = privacy.Plan(event=optimizer.mechanism, sampling=scheme, num_steps=1, delta=1e-5)
        self.assertEqual(plan.epsilon, float("inf"))
        said = privacy.statement.statement("dp_sgd", plan)
        self.assertFalse(said.guaranteed)
        self.assertEqual(said.epsilon, float("inf"))
        self.assertIn("No privacy guarantee: the error feedback carries gradients without noise", said.text)
        self.assertIn("error feedback of norm at most 0.2 added to their mean", said.text)
        self.assertNotRegex(said.text, r"epsilon = \d")

    def test_a_budget_refuses_it(self):
        budget = noisy_sgd.PrivacyBudget(1e6, delta=1e-5, num_examples=24)
        model = shells.new_model(lambda: dice(seed=None))
        with self.assertRaisesRegex(ValueError, "`optimizer` must have a finite epsilon.*error feedback.*DiceSGD$"):
            model.fit(shells.X, shells.Y, batch_size=24, callbacks=[budget], verbose=0)

    def test_without_noise_that_is_the_reason(self):
        quiet = error_feedback.DiceSGD(0.5, 0.3, 0.0, 24, feedback_clip=0.2)
        self.assertIn("no noise is added", quiet.mechanism.not_private)


class HiddenTest(absltest.TestCase):
    def test_the_error_is_in_no_file_and_no_configuration(self):
        model = shells.trained(lambda: dice(seed=None), epochs=1)
        optimizer = model.optimizer
        self.assertLen(optimizer.hidden_variables, 4)
        mark = np.float32(1234.5678)
        for variable in optimizer.hidden_variables:
            self.assertTrue(np.any(variable.numpy()))
            variable.assign(tf.fill(variable.shape, mark))
        folder = pathlib.Path(self.create_tempdir().full_path)
        model.save(folder / "model.keras")
        model.save_weights(folder / "model.weights.h5")
        model.export(folder / "exported", verbose=False)
        tf.train.Checkpoint(model=model, optimizer=optimizer).save(folder / "checkpoint")
        with zipfile.ZipFile(folder / "model.keras") as archive:
            archive.extractall(folder / "unpacked")
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.assertGreater(len(files), 6)
        for path in files:
            self.assertNotIn(mark.tobytes(), path.read_bytes(), path)
        loaded = keras.saving.load_model(folder / "model.keras")
        for variable in loaded.optimizer.hidden_variables:
            self.assertFalse(np.any(variable.numpy()))
        model.load_weights(folder / "model.weights.h5")
        for variable in optimizer.hidden_variables:
            self.assertFalse(np.any(variable.numpy()))

    def test_it_is_in_the_state_of_a_recorded_run(self):
        model = shells.trained(dice, epochs=1)
        self.assertLen(privatized.state_variables(model.optimizer), len(model.optimizer.variables) + 4)
        arrays = run_state.arrays(distribution.make_strategy("default"), model, None, {})
        kept = [array for name, array in arrays.items() if name.startswith("optimizer/")][-4:]
        for array, variable in zip(kept, model.optimizer.hidden_variables, strict=True):
            np.testing.assert_array_equal(array, variable.numpy())
            self.assertTrue(np.any(array))


class ShellTest(shells.Shell, parameterized.TestCase):
    def make(self, **arguments):
        return dice(**arguments)

    def restored(self, model):
        """From a checkpoint of a recorded run: a saved model does not hold the error."""
        strategy = distribution.make_strategy("default")
        fresh = shells.new_model(dice)
        run_state.restore(strategy, fresh, None, {}, run_state.arrays(strategy, model, None, {}))
        return fresh

    def test_a_sum_without_its_remainder_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`grads` must have a `remainder`.*with_remainder=True"):
            self.make().apply(shells.clipped(shells.SUMS, 0.3), [keras.Variable(value) for value in shells.SUMS])
        with self.assertRaisesRegex(TypeError, "`DiceSGD` needs gradients clipped per example"):
            self.make().apply([tf.zeros([2])], [keras.Variable(np.zeros(2))])

    def test_its_second_bound_cannot_be_changed(self):
        with self.assertRaisesRegex(AttributeError, "`feedback_clip` of a DiceSGD must not change"):
            self.make().feedback_clip = 1.0

    @parameterized.parameters(-1.0, float("nan"), None, True)
    def test_bad_second_bounds_are_refused(self, feedback_clip):
        with self.assertRaisesRegex(
            ValueError, "`feedback_clip` must be a number of at least 0. Received: feedback_cl"
        ):
            self.make(feedback_clip=feedback_clip)


if __name__ == "__main__":
    absltest.main()
