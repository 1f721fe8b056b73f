"""`fit(sampling="poisson")`: who is in which batch, what the steps are, and what budgets make of it."""

from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

import noisy_sgd
from noisy_sgd import privacy, sampling
from noisy_sgd.training import distribution, loop

N, B = 40, 8
# Example i has gradient e_i alone under a loss that is the dot product with its input.
X = np.eye(N, dtype=np.float32)
Y = np.zeros((N, 1), np.float32)


def setUpModule():
    distribution.use_logical_devices(2)


def dot(y, prediction):
    return prediction[:, 0] + 0 * y[:, 0]


def compiled(optimizer=None, strategy="default", **arguments):
    with distribution.make_strategy(strategy).scope():
        inputs = keras.Input((N,))
        outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
        model = noisy_sgd.PrivateModel(inputs, outputs)
        model.compile(optimizer or noisy_sgd.DPSGD(1.0, 1.0, 0.0, B, seed=7), loss=dot, **arguments)
    return model


class Counts(keras.callbacks.Callback):
    """Who took part in each step, read from the weights: a step without noise moves weight i by -1 / B."""

    def __init__(self):
        super().__init__()
        self.batches, self._before = [], np.zeros(N)

    def on_train_batch_end(self, batch, logs=None):
        weights = self.model.get_weights()[0][:, 0]
        self.batches.append(np.round((self._before - weights) * B).astype(int))
        self._before = weights


class BatchesTest(parameterized.TestCase):
    @parameterized.product(strategy=("default", "mirrored"), microbatch_size=(None, 3))
    def test_they_are_the_schemes(self, strategy, microbatch_size):
        counts = Counts()
        model = compiled(strategy=strategy, microbatch_size=microbatch_size)
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[counts], sampling="poisson")
        scheme = sampling.Poisson(N, B, seed=7)
        expected = [np.isin(np.arange(N), scheme.indices(step)).astype(int) for step in range(15)]
        np.testing.assert_array_equal(counts.batches, expected)
        self.assertGreater(max(map(np.sum, expected)), B)
        self.assertIsInstance(model.sampling, sampling.Poisson)

    def test_secret_ones_are_drawn_with_probability_b_over_n(self):
        counts = Counts()
        model = compiled(noisy_sgd.DPSGD(1.0, 1.0, 0.0, B))
        model.fit(X, Y, epochs=1, steps_per_epoch=400, verbose=0, callbacks=[counts], sampling="poisson")
        drawn = np.array(counts.batches)
        self.assertEqual(set(np.unique(drawn)), {0, 1})
        # 400 steps of 40 examples: a binomial count, two-sided.
        self.assertGreater(stats.binomtest(int(drawn.sum()), drawn.size, B / N).pvalue, 1e-4)
        # Sizes vary as those of independent draws do; batches of a fixed size would have no variance.
        sizes = drawn.sum(axis=1)
        self.assertBetween(sizes.var() / (N * B / N * (1 - B / N)), 0.7, 1.35)

    def test_two_trainings_draw_other_batches(self):
        counts = Counts()
        model = compiled(noisy_sgd.DPSGD(1.0, 1.0, 0.0, B))
        for _ in range(2):
            model.fit(X, Y, verbose=0, callbacks=[counts], sampling="poisson")
        self.assertFalse(np.array_equal(counts.batches[:5], counts.batches[5:]))

    def test_an_empty_batch_is_a_step_of_noise(self):
        model = compiled(noisy_sgd.DPSGD(1.0, 1.0, 2.0, 1, seed=3))
        scheme = sampling.Poisson(N, 1, seed=3)
        empty = next(step for step in range(100) if scheme.size(step) == 0)
        before = []
        callback = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda step, logs: before.append(model.get_weights()[0])
        )
        model.fit(X, Y, steps_per_epoch=empty + 1, verbose=0, callbacks=[callback], sampling="poisson")
        self.assertEqual(int(model.optimizer.iterations), empty + 1)
        self.assertGreater(np.abs(model.get_weights()[0] - before[empty]).min(), 0.0)

    def test_an_epoch_is_n_over_b_steps(self):
        model = compiled(noisy_sgd.NoisySGD(0.1, 0.0, seed=0), batch_size=7)
        model.fit(X, Y, epochs=2, verbose=0, sampling="poisson")
        self.assertEqual(int(model.optimizer.iterations), 2 * 6)


class RandomAllocationTest(absltest.TestCase):
    def private(self):
        return compiled(noisy_sgd.DPSGD(0.1, 1.0, 2.0, B))

    def spent(self, epochs):
        return privacy.epsilon(2.0, B, N, 5 * epochs, 1e-3, sampling="random_allocation") if epochs else 0.0

    def test_its_batches_are_the_schemes_and_hold_every_example_once_per_epoch(self):
        counts, model = Counts(), compiled()
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[counts], sampling="random_allocation")
        scheme = sampling.RandomAllocation(N, B, seed=7)
        expected = [np.isin(np.arange(N), scheme.indices(step)).astype(int) for step in range(10)]
        np.testing.assert_array_equal(counts.batches, expected)
        np.testing.assert_array_equal(np.sum(counts.batches[:5], axis=0), 1)
        self.assertGreater(max(map(np.sum, expected)), B)

    def test_a_budget_counts_epochs_that_were_begun(self):
        budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N)
        model = self.private()
        history = model.fit(X, Y, epochs=2, verbose=0, callbacks=[budget], sampling="random_allocation").history
        np.testing.assert_allclose(history["epsilon"], [self.spent(1), self.spent(2)])
        # Steps 10 to 12 and, with batches from another secret, 13 and 14 of the same epoch, and 15 of the next.
        model.fit(X, Y, steps_per_epoch=3, verbose=0, callbacks=[budget], sampling="random_allocation")
        self.assertEqual(budget.spent, self.spent(3))
        model.fit(X, Y, steps_per_epoch=3, verbose=0, callbacks=[budget], sampling="random_allocation")
        self.assertEqual(budget.spent, self.spent(5))
        said = privacy.statement.statement("dp_sgd", budget.plan)
        self.assertIn("40 examples in exactly one step, chosen at random, of each of 5 epochs", said.text)

    def test_the_epochs_of_keras_may_be_others(self):
        # Four epochs of three steps are steps 0 to 11: three epochs of the scheme.
        budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N)
        history = self.private().fit(
            X, Y, epochs=4, steps_per_epoch=3, verbose=0, callbacks=[budget], sampling="random_allocation"
        ).history  # fmt: skip
        np.testing.assert_allclose(history["epsilon"], [self.spent(n) for n in (1, 2, 2, 3)])

    def test_a_budget_ends_the_training_with_an_epoch_of_the_scheme(self):
        model, budget = self.private(), noisy_sgd.PrivacyBudget(self.spent(2) + 1e-6, delta=1e-3, num_examples=N)
        model.fit(X, Y, epochs=9, steps_per_epoch=4, verbose=0, callbacks=[budget], sampling="random_allocation")
        self.assertEqual(int(model.optimizer.iterations), 10)
        self.assertEqual(budget.spent, self.spent(2))

    def test_steps_of_an_unknown_beginning_count_as_epochs(self):
        model = self.private()
        model.fit(X, Y, steps_per_epoch=2, verbose=0, sampling="random_allocation")
        budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N, sampling="random_allocation")
        model.fit(X, Y, steps_per_epoch=3, verbose=0, callbacks=[budget], sampling="random_allocation")
        self.assertEqual(budget.spent, self.spent(3))

    def test_batches_of_a_dataset_are_not_taken_for_it(self):
        dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(B)
        for claim, drawn in ((None, "random_allocation"), ("random_allocation", "shuffled")):
            budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N, sampling=claim)
            with self.assertRaisesRegex(ValueError, "`x` must be arrays for sampling='random_allocation'"):
                self.private().fit(dataset, verbose=0, shuffle=False, callbacks=[budget], sampling=drawn)


class CorrelatedNoiseTest(absltest.TestCase):
    NOISE = noisy_sgd.CorrelatedNoise([1, -0.9])

    def private(self, **options):
        return compiled(noisy_sgd.DPSGD(0.1, 1.0, 4.0, B, noise=self.NOISE, **options))

    def spent(self, *epochs):
        plan = privacy.Plan(event=self.private().optimizer.mechanism, sampling=sampling.Cyclic(N, B), num_steps=0,
                            delta=1e-3)  # fmt: skip
        return plan.with_attempts([5 * count for count in epochs]).epsilon

    def test_one_partition_serves_every_epoch_of_a_fit(self):
        counts = Counts()
        model = compiled()
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[counts], sampling="cyclic")
        for step in range(5, 15):
            np.testing.assert_array_equal(counts.batches[step], counts.batches[step - 5])
        np.testing.assert_array_equal(np.sum(counts.batches[:5], axis=0), 1)
        scheme = sampling.Cyclic(N, B, seed=7)
        np.testing.assert_array_equal(np.flatnonzero(counts.batches[0]), np.sort(scheme.indices(0)))

    def test_every_fit_is_a_release_of_its_own(self):
        budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N)
        model = self.private()
        history = model.fit(X, Y, epochs=2, verbose=0, callbacks=[budget], sampling="cyclic").history
        np.testing.assert_allclose(history["epsilon"], [self.spent(1), self.spent(2)])
        history = model.fit(X, Y, epochs=1, verbose=0, callbacks=[budget], sampling="cyclic").history
        np.testing.assert_allclose(history["epsilon"], [self.spent(2, 1)])
        self.assertLess(self.spent(2, 1), self.spent(3))
        self.assertEqual(budget.spent, self.spent(2, 1))
        self.assertEqual(budget.plan.epsilon, budget.spent)

    def test_a_budget_ends_the_training_in_time(self):
        model, budget = self.private(), noisy_sgd.PrivacyBudget(self.spent(2, 1) + 1e-6, delta=1e-3, num_examples=N)
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[budget], sampling="cyclic")
        model.fit(X, Y, epochs=9, verbose=0, callbacks=[budget], sampling="cyclic")
        self.assertEqual(int(model.optimizer.iterations), 15)
        self.assertEqual(budget.spent, self.spent(2, 1))
        model.fit(X, Y, epochs=1, verbose=0, callbacks=[budget], sampling="cyclic")
        self.assertEqual(int(model.optimizer.iterations), 15)
        self.assertEqual(budget.spent, self.spent(2, 1))

    def test_other_batches_are_refused_with_the_reason(self):
        for name in ("shuffled", "poisson", "random_allocation"):
            with self.assertRaisesRegex(ValueError, "`sampling` must be 'cyclic' for noise that is correlated"):
                self.private().fit(X, Y, verbose=0, sampling=name)
        dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(B)
        budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N)
        with self.assertRaisesRegex(ValueError, "`sampling` must be 'cyclic'"):
            self.private().fit(dataset, verbose=0, shuffle=False, callbacks=[budget])
        with self.assertRaisesRegex(ValueError, "`x` must be arrays for sampling='cyclic'"):
            self.private().fit(dataset, verbose=0, shuffle=False, sampling="cyclic")

    def test_steps_that_the_budget_has_not_seen_are_refused(self):
        model = self.private()
        model.fit(X, Y, verbose=0, sampling="cyclic")
        budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N)
        with self.assertRaisesRegex(ValueError, "sees every step.*Received: iterations=5, which differs by 5"):
            model.fit(X, Y, verbose=0, callbacks=[budget], sampling="cyclic")

        class Back(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if batch == 3:
                    self.model.optimizer.iterations.assign(1)

        with self.assertRaisesRegex(ValueError, "sees every step"):
            self.private().fit(
                X, Y, verbose=0, sampling="cyclic",
                callbacks=[noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N), Back()],
            )  # fmt: skip

    def test_a_budget_in_the_loop_is_refused(self):
        budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N, sampling="cyclic")
        batches = tf.data.Dataset.from_tensor_slices((X, Y, np.ones(N, bool))).repeat().batch(B)
        with self.assertRaisesRegex(ValueError, "`callbacks` must hold no PrivacyBudget in `loop.train`"):
            loop.train(
                self.private(), batches, lambda step: 1, strategy=distribution.make_strategy("default"),
                num_steps=5, metrics={}, callbacks=[budget], evaluate=lambda: {},
            )  # fmt: skip

    def test_a_second_fit_uses_no_draw_of_the_first(self):
        # The noise of the first step of an attempt is one draw: 1 and not 1.35 times the scale.
        class First(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                self.before = self.model.get_weights()[0]

            def on_train_batch_end(self, batch, logs=None):
                if batch == 0:
                    found.append((self.before - self.model.get_weights()[0]) * B / 400)

        model, found = compiled(noisy_sgd.DPSGD(1.0, 1.0, 400.0, B, noise=self.NOISE)), []
        for _ in range(12):
            model.fit(X, Y, verbose=0, sampling="cyclic", callbacks=[First()])
        # 480 draws: a standard error of 3.2 %.
        self.assertAlmostEqual(float(np.std(found)), 1.0, delta=0.16)


class ReuseTest(absltest.TestCase):
    def test_a_step_that_a_callback_repeats_has_other_noise(self):
        class Again(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if batch == 0:
                    weights = self.model.get_weights()[0]
                    self.model.optimizer.iterations.assign(0)
                    self.model.train_on_batch(X[:B], Y[:B])
                    found.extend([weights, self.model.get_weights()[0] - weights])

        for noise in (None, noisy_sgd.CorrelatedNoise([1, -0.9])):
            found = []
            model = compiled(noisy_sgd.DPSGD(1.0, 1.0, 400.0, B, noise=noise))
            model.fit(X, Y, verbose=0, sampling="cyclic", callbacks=[Again()])
            # The gradients are at most 1 / B. Noise of standard deviation 50 that is the same in both cancels.
            self.assertGreater(np.std(found[1] - found[0]), 10.0)


class OtherSchemesTest(absltest.TestCase):
    def test_any_scheme_but_keras_shuffling_draws_the_batches_itself(self):
        class Halves(sampling.Scheme):
            """The first half of the examples in even steps, the second in odd ones."""

            name, steps_per_epoch = "halves", 2

            def indices(self, step):
                return np.arange(N // 2) + step % 2 * (N // 2)

            def size(self, step):
                return N // 2

            def participation(self, num_steps, *, batches_known=False):
                return sampling.Participation(times=-(-num_steps // 2), separation=2)

            def counted_steps(self, first, end):
                return 2 * -(-(end - first) // 2)

        counts = Counts()
        with mock.patch.dict(sampling.SCHEMES, halves=Halves):
            compiled().fit(X, Y, epochs=2, verbose=0, callbacks=[counts], sampling="halves")
            budget = noisy_sgd.PrivacyBudget(1000.0, delta=1e-3, num_examples=N)
            model = compiled(noisy_sgd.DPSGD(1.0, 1.0, 2.0, B))
            model.fit(X, Y, epochs=2, verbose=0, callbacks=[budget], sampling="halves")
        first = np.arange(N) < N // 2
        np.testing.assert_array_equal(counts.batches, [first, ~first, first, ~first])
        plan = privacy.Plan(event=model.optimizer.mechanism, sampling=model.sampling, num_steps=4, delta=1e-3)
        self.assertEqual(budget.spent, plan.epsilon)


class KerasTest(parameterized.TestCase):
    def test_weights_of_samples_and_classes(self):
        weights = np.arange(N, dtype=np.float32) / N
        model = compiled(noisy_sgd.NoisySGD(1.0, 0.0, seed=7), batch_size=B)
        model.fit(X, Y, sample_weight=weights, verbose=0, sampling="poisson", steps_per_epoch=6)
        scheme = sampling.Poisson(N, B, seed=7)
        expected = -sum(np.isin(np.arange(N), scheme.indices(step)) * weights for step in range(6)) / B
        np.testing.assert_allclose(model.get_weights()[0][:, 0], expected, atol=1e-6)
        model = compiled(noisy_sgd.NoisySGD(1.0, 0.0, seed=7), batch_size=B)
        labels = (np.arange(N) % 2).astype(np.float32)[:, None]
        model.fit(X, labels, class_weight={0: 1.0, 1: 3.0}, verbose=0, sampling="poisson", steps_per_epoch=6)
        factor = np.where(np.arange(N) % 2, 3.0, 1.0)
        expected = -sum(np.isin(np.arange(N), scheme.indices(step)) * factor for step in range(6)) / B
        np.testing.assert_allclose(model.get_weights()[0][:, 0], expected, atol=1e-6)

    def test_validation_and_history(self):
        model = compiled()
        history = model.fit(X, Y, epochs=2, verbose=0, sampling="poisson", validation_data=(X, Y)).history
        self.assertLen(history["val_loss"], 2)
        model = compiled()
        history = model.fit(X, Y, verbose=0, sampling="poisson", validation_split=0.25).history
        self.assertIn("val_loss", history)
        self.assertEqual(model.sampling.num_examples, 30)
        model = compiled()
        model.fit(X, Y, verbose=0, sampling="poisson", validation_split=0.25, validation_data=(X, Y))
        self.assertEqual(model.sampling.num_examples, 40)


class BudgetTest(parameterized.TestCase):
    def test_it_takes_the_scheme_of_the_fit(self):
        model = compiled(noisy_sgd.DPSGD(0.1, 1.0, 2.0, B))
        budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N)
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[budget], sampling="poisson")
        self.assertEqual(budget.spent, privacy.epsilon(2.0, B, N, 10, 1e-3, sampling="poisson"))
        plan = privacy.Plan(event=model.optimizer.mechanism, sampling=model.sampling, num_steps=10, delta=1e-3)
        self.assertEqual(budget.spent, plan.epsilon)
        self.assertEqual((budget.plan.num_steps, budget.plan.epsilon), (10, plan.epsilon))
        said = privacy.statement.statement("dp_sgd", budget.plan)
        self.assertTrue(said.guaranteed)
        self.assertIn("Poisson, each of 40 examples", said.text)

    def test_a_large_delta_is_remarked_on(self):
        budget = noisy_sgd.PrivacyBudget(50.0, delta=0.5, num_examples=N)
        with self.assertLogs("absl", "WARNING") as log:
            compiled(noisy_sgd.DPSGD(0.1, 1.0, 2.0, B)).fit(
                X, Y, verbose=0, callbacks=[budget], sampling="poisson", validation_split=0.25, validation_data=(X, Y)
            )
        self.assertLen(log.output, 1)
        self.assertIn("PrivacyBudget has delta=0.5", log.output[0])

    def test_it_ends_the_training(self):
        model = compiled(noisy_sgd.DPSGD(0.1, 1.0, 2.0, B))
        budget = noisy_sgd.PrivacyBudget(2.0, delta=1e-3, num_examples=N)
        model.fit(X, Y, epochs=1000, verbose=0, callbacks=[budget], sampling="poisson")
        steps = int(model.optimizer.iterations)
        self.assertEqual(steps, privacy.steps_for(2.0, 2.0, B, N, 1e-3, sampling="poisson"))
        self.assertLessEqual(budget.spent, 2.0)

    @parameterized.parameters(
        ({"sampling": "poisson"}, "shuffled", "`sampling` of the PrivacyBudget must be that of `fit`"),
        ({"sampling": "shuffled"}, "poisson", "`sampling` of the PrivacyBudget must be that of `fit`"),
        ({"num_examples": N + 1}, "poisson", "`num_examples` of the PrivacyBudget must be the 40 examples"),
    )
    def test_another_claim_is_refused(self, claim, drawn, message):
        model = compiled(noisy_sgd.DPSGD(0.1, 1.0, 2.0, B))
        budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, **{"num_examples": N, **claim})
        with self.assertRaisesRegex(ValueError, message):
            model.fit(X, Y, verbose=0, callbacks=[budget], sampling=drawn)
        self.assertEqual(int(model.optimizer.iterations), 0)

    def test_steps_of_unknown_batches_are_not_counted_as_amplified(self):
        model = compiled(noisy_sgd.DPSGD(0.1, 1.0, 2.0, B))
        model.fit(X, Y, verbose=0)
        budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N)
        with self.assertRaisesRegex(ValueError, "has taken 5 steps that this budget has not seen.*sampling=None"):
            model.fit(X, Y, verbose=0, callbacks=[budget], sampling="poisson")
        self.assertEqual(int(model.optimizer.iterations), 5)
        claimed = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N, sampling="poisson")
        model.fit(X, Y, verbose=0, callbacks=[claimed], sampling="poisson")
        self.assertEqual(claimed.spent, privacy.epsilon(2.0, B, N, 10, 1e-3, sampling="poisson"))

    def test_one_budget_counts_one_way_of_drawing(self):
        model = compiled(noisy_sgd.DPSGD(0.1, 1.0, 2.0, B))
        budget = noisy_sgd.PrivacyBudget(50.0, delta=1e-3, num_examples=N)
        model.fit(X, Y, verbose=0, callbacks=[budget], sampling="poisson")
        with self.assertRaisesRegex(ValueError, "a PrivacyBudget of its own for every sampling scheme"):
            model.fit(X, Y, verbose=0, callbacks=[budget])

    @parameterized.parameters("call", "budget")
    def test_a_dataset_may_be_sampled_by_the_user(self, who):
        scheme = sampling.Poisson(N, B, seed=1)

        def batches():
            for step in range(20):
                yield X[scheme.indices(step)], Y[scheme.indices(step)]

        signature = (tf.TensorSpec((None, N)), tf.TensorSpec((None, 1)))
        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(20))
        budget = noisy_sgd.PrivacyBudget(
            50.0, delta=1e-3, num_examples=N, sampling="poisson" if who == "budget" else None
        )
        model = compiled(noisy_sgd.DPSGD(0.1, 1.0, 2.0, B))
        claimed = "poisson" if who == "call" else "shuffled"
        model.fit(dataset, verbose=0, shuffle=False, callbacks=[budget], sampling=claimed)
        self.assertEqual(budget.spent, privacy.epsilon(2.0, B, N, 20, 1e-3, sampling="poisson"))


class RefusalTest(absltest.TestCase):
    def test_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, "`sampling` must be one of"):
            compiled().fit(X, Y, sampling="bernoulli", verbose=0)
        with self.assertRaisesRegex(ValueError, "`batch_size` must be the configured one, 8"):
            compiled().fit(X, Y, batch_size=4, sampling="poisson", verbose=0)
        with self.assertRaisesRegex(ValueError, "`batch_size` must be given to `compile`"):
            compiled(keras.optimizers.SGD(0.1)).fit(X, Y, sampling="poisson", verbose=0)
        with self.assertRaisesRegex(ValueError, "`validation_split` must be"):
            compiled().fit(X, Y, validation_split=1.5, sampling="poisson", verbose=0)


if __name__ == "__main__":
    absltest.main()
