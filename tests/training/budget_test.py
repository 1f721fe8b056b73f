import contextlib
import io
import warnings
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd import privacy
from noisy_sgd.privacy import accounting, calibration
from noisy_sgd.training import distribution, loop

NUM_EXAMPLES, BATCH_SIZE, DELTA = 50, 20, 1e-3  # Three steps a pass, the last of ten examples.
RNG = np.random.default_rng(0)
X = RNG.normal(size=(NUM_EXAMPLES, 4)).astype(np.float32)
Y = RNG.integers(0, 3, NUM_EXAMPLES)


def setUpModule():
    distribution.use_logical_devices(2)


def compiled(noise_multiplier=2.0, strategy="default", adaptive_clipping=None, **arguments):
    with distribution.make_strategy(strategy).scope():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((4,))
        model = noisy_sgd.PrivateModel(inputs, keras.layers.Dense(3)(inputs))
        model.compile(
            noisy_sgd.DPSGD(0.1, 1.0, noise_multiplier, BATCH_SIZE, adaptive_clipping=adaptive_clipping),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            **arguments,
        )
    return model


def spent(num_steps, sampling="shuffled", noise_multiplier=2.0):
    return privacy.epsilon(noise_multiplier, BATCH_SIZE, NUM_EXAMPLES, num_steps, DELTA, sampling=sampling)


def budget(epsilon, **arguments):
    return noisy_sgd.PrivacyBudget(epsilon, delta=DELTA, num_examples=NUM_EXAMPLES, **arguments)


def batches():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH_SIZE)


def trained(model, callback, epochs=10, **arguments):
    history = model.fit(X, Y, epochs=epochs, verbose=0, callbacks=[callback], **arguments).history
    return int(model.optimizer.iterations.numpy()), history


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(logs.get("epsilon"))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(logs.get("epsilon"))


class FitTest(parameterized.TestCase):
    @parameterized.parameters("default", "mirrored")
    def test_it_stops_on_the_last_step_that_fits(self, strategy):
        callback = budget(spent(9) + 1e-6)
        steps, history = trained(compiled(strategy=strategy), callback)
        self.assertEqual(steps, 9)
        np.testing.assert_allclose(history["epsilon"], [spent(3), spent(6), spent(9)])
        self.assertEqual(callback.spent, spent(9))
        self.assertEqual(trained(compiled(), budget(spent(9) - 1e-6))[0], 6)

    def test_it_stops_in_the_middle_of_an_epoch_where_steps_count_one_by_one(self):
        data = batches().repeat()
        model = compiled()
        callback = budget(spent(7, "poisson") + 1e-6, sampling="poisson")
        model.fit(data, epochs=10, shuffle=False, steps_per_epoch=5, verbose=0, callbacks=[callback])
        self.assertEqual(int(model.optimizer.iterations.numpy()), 7)
        self.assertEqual(callback.spent, spent(7, "poisson"))

    def test_a_cut_off_epoch_is_a_pass_of_its_own(self):
        # Two steps an epoch: were they counted as thirds of a pass, six steps would be two passes instead of three.
        model, data = compiled(), batches().take(2)
        history = model.fit(data, epochs=10, shuffle=False, verbose=0, callbacks=[budget(spent(9) + 1e-6)]).history
        self.assertEqual(int(model.optimizer.iterations.numpy()), 6)
        np.testing.assert_allclose(history["epsilon"], [spent(3), spent(6), spent(9)])

    def test_one_object_counts_several_kinds_of_data(self):
        model, callback = compiled(), budget(spent(90))
        trained(model, callback, epochs=2)
        self.assertEqual(callback.spent, spent(6))
        model.fit(batches().repeat(), steps_per_epoch=4, shuffle=False, verbose=0, callbacks=[callback])
        self.assertEqual(callback.spent, spent(6 + 4 * 3))
        trained(model, callback, epochs=1)
        self.assertEqual(callback.spent, spent(6 + 4 * 3 + 3))
        model.train_on_batch(X[:20], Y[:20])
        trained(model, callback, epochs=1)
        self.assertEqual(callback.spent, spent(6 + 4 * 3 + 3 + 3 + 3))

    def test_what_was_trained_before_counts(self):
        model, callback = compiled(), budget(spent(9) + 1e-6)
        model.fit(X, Y, epochs=1, verbose=0)
        self.assertEqual(trained(model, callback, epochs=1)[0], 6)
        with self.assertLogs("absl", "WARNING") as log:
            self.assertEqual(trained(model, callback)[0], 9)
        self.assertLen(log.output, 1)
        self.assertRegex(log.output[0], "PrivacyBudget ends the training: epsilon=.* is spent, and the next pass")
        before = model.get_weights()
        with self.assertLogs("absl", "WARNING") as log:
            steps, history = trained(model, callback)
        self.assertRegex(log.output[0], "PrivacyBudget ends the training")
        self.assertEqual((steps, history), (9, {}))
        for kept, weight in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(kept, weight)
        # One step of a pass is a pass: a new fit begins another one.
        model, callback = compiled(), budget(spent(9) + 1e-6)
        for _ in range(2):
            trained(model, callback, epochs=1, steps_per_epoch=1)
        self.assertEqual(callback.spent, spent(6))
        self.assertEqual(trained(model, callback)[0], 5)

    def test_steps_taken_again_count_again(self):
        model, callback = compiled(), budget(spent(9) + 1e-6)
        trained(model, callback, epochs=2)
        model.optimizer.iterations.assign(3)
        self.assertEqual(trained(model, callback)[0], 6)
        self.assertEqual(callback.spent, spent(9))

    def test_others_see_it_wherever_they_stand(self):
        model, recorder, screen = compiled(), Recorder(), io.StringIO()
        path = self.create_tempdir().full_path + "/log.csv"
        with contextlib.redirect_stdout(screen):
            model.fit(
                X, Y, epochs=2, callbacks=[recorder, keras.callbacks.CSVLogger(path), budget(5.0)], verbose=1,
                validation_data=(X, Y),
            )  # fmt: skip
        np.testing.assert_allclose(recorder.batches, [spent(3)] * 3 + [spent(6)] * 3)
        np.testing.assert_allclose(recorder.epochs, [spent(3), spent(6)])
        self.assertIn(f"epsilon: {spent(6):.4f}", screen.getvalue())
        with open(path) as file:
            header, *rows = file.read().splitlines()
        column = header.split(",").index("epsilon")
        np.testing.assert_allclose([float(row.split(",")[column]) for row in rows], [spent(3), spent(6)])

    def test_a_learned_clip_costs_too(self):
        recipe = noisy_sgd.AdaptiveClipping(count_stddev=1.0)
        joint = accounting.joint_noise_multiplier(2.0, 2.0)
        callback = budget(50.0)
        trained(compiled(adaptive_clipping=recipe), callback, epochs=2)
        self.assertEqual(callback.spent, spent(6, noise_multiplier=joint))

    def test_it_accounts_once_a_pass(self):
        model, callback = compiled(), budget(12.0, sampling="poisson", accountant="rdp")
        callback.set_model(model)
        callback.set_params({"epochs": 1, "steps": None})
        with mock.patch.object(calibration, "steps_for", return_value=1000):
            callback.on_train_begin()
        callback.on_epoch_begin(0)
        with mock.patch.object(accounting, "_by_rdp", wraps=accounting._by_rdp) as accountant:
            for step in range(60):
                model.optimizer.iterations.assign(step + 1)
                callback.on_train_batch_end(step, {})
        self.assertLessEqual(accountant.call_count, 20)


def of_generator():
    """Batches whose number nobody knows before they end."""

    def rows():
        for first in range(0, NUM_EXAMPLES, BATCH_SIZE):
            yield X[first : first + BATCH_SIZE], Y[first : first + BATCH_SIZE]

    specs = (tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int64))
    return tf.data.Dataset.from_generator(rows, output_signature=specs)


class Batches(keras.utils.PyDataset):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def __len__(self):
        return -(-NUM_EXAMPLES // self.size)

    def __getitem__(self, index):
        rows = slice(index * self.size, (index + 1) * self.size)
        return X[rows], Y[rows]


def numbered():
    """Every example holds its number, so that its appearances can be counted."""
    x = np.repeat(np.arange(NUM_EXAMPLES, dtype=np.float32)[:, None], 4, axis=1)
    return tf.data.Dataset.from_tensor_slices((x, Y)).shuffle(NUM_EXAMPLES, seed=1)


def appearances(data, steps, epochs):
    """How often the most frequent example of a `numbered` pipeline appears in what `fit` takes of it."""
    seen = np.zeros(NUM_EXAMPLES, int)
    whole = iter(data)
    for _ in range(epochs):
        taken = data if steps is None else (next(whole) for _ in range(steps))
        for x, _ in taken:
            np.add.at(seen, x[:, 0].numpy().astype(int), 1)
    return seen.max()


PIPELINES = {
    "batch": (lambda: numbered().batch(BATCH_SIZE), None, 4),
    "drop_remainder": (lambda: numbered().batch(BATCH_SIZE, drop_remainder=True), None, 4),
    "batch_repeat": (lambda: numbered().batch(BATCH_SIZE).repeat(), 12, 1),
    "drop_remainder_repeat": (lambda: numbered().batch(BATCH_SIZE, drop_remainder=True).repeat(), 12, 1),
    "finite_repeat": (lambda: numbered().batch(BATCH_SIZE, drop_remainder=True).repeat(3), None, 2),
    "repeat_batch": (lambda: numbered().repeat().batch(BATCH_SIZE), 4, 2),
    "finite_repeat_batch": (lambda: numbered().repeat(3).batch(BATCH_SIZE), None, 2),
    "repeat_shuffle_batch": (lambda: numbered().repeat().shuffle(7).batch(BATCH_SIZE), 12, 1),
    "filter_of_a_repeat": (lambda: numbered().repeat(2).batch(BATCH_SIZE).filter(lambda x, y: True), None, 2),
}


class DataTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        # Keras warns where a dataset of unknown size ends.
        ignoring = warnings.catch_warnings()
        ignoring.__enter__()
        self.addCleanup(ignoring.__exit__, None, None, None)
        warnings.filterwarnings("ignore", "Your input ran out of data")

    @parameterized.named_parameters((name, *pipeline) for name, pipeline in PIPELINES.items())
    def test_no_example_takes_part_more_often_than_counted(self, data, steps, epochs):
        callback = budget(1e3)
        compiled().fit(data(), epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[callback])
        costs = [spent(3 * uses) for uses in range(40)]
        self.assertIn(callback.spent, costs)
        self.assertGreaterEqual(costs.index(callback.spent), appearances(data(), steps, epochs))

    @parameterized.product(
        data=(of_generator, lambda: batches().filter(lambda x, y: True), batches, lambda: Batches(BATCH_SIZE)),
        sampling=("shuffled", "poisson"),
    )
    def test_an_epoch_that_ends_by_itself_is_one_pass_however_its_size_is_known(self, data, sampling):
        model, callback = compiled(), budget(1e3, sampling=sampling)
        if not (sampling == "poisson" and isinstance(data(), keras.utils.PyDataset)):
            history = model.fit(data(), epochs=4, shuffle=False, verbose=0, callbacks=[callback]).history
            np.testing.assert_allclose(history["epsilon"], [spent(steps, sampling) for steps in (3, 6, 9, 12)])
            self.assertEqual(callback.spent, spent(12, sampling))
        # No step is counted where the data have ended, neither by the budget nor by the optimizer.
        self.assertEqual(int(model.optimizer.iterations.numpy()) % 12, 0)

    @parameterized.parameters(of_generator, batches)
    def test_a_budget_of_ten_passes_buys_ten(self, data):
        model = compiled()
        with self.assertLogs("absl", "WARNING") as log:
            callback = budget(spent(30) + 1e-6)
            model.fit(data(), epochs=50, shuffle=False, verbose=0, callbacks=[callback])
        self.assertEqual(int(model.optimizer.iterations.numpy()), 30)
        self.assertEqual(callback.spent, spent(30))
        every_step = [line for line in log.output if "counts every step" in line]
        self.assertLen(every_step, 1 if data is of_generator else 0)

    @parameterized.parameters(
        (lambda: batches().repeat(), 100, "does not state the number of its batches"),
        (lambda: batches().repeat(4), None, "has 12 batches, and a pass over the examples has 3"),
        (lambda: Batches(5), None, "has 10 batches, and a pass over the examples has 3"),
    )
    def test_what_may_be_several_passes_counts_every_step_and_says_so(self, data, steps, reason):
        model = compiled()
        with self.assertLogs("absl", "WARNING") as log:
            model.fit(data(), steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[budget(spent(9) + 1e-6)])
        self.assertEqual(int(model.optimizer.iterations.numpy()), 3)
        self.assertRegex(log.output[0], f"counts every step as a participation.*{reason}.*without `repeat`")

    def test_larger_batches_are_taken_where_a_budget_says_poisson(self):
        rng = np.random.default_rng(0)
        sizes = (31, 0, 12, 25)

        def rows():
            for size in sizes:
                kept = rng.permutation(NUM_EXAMPLES)[:size]
                yield X[kept], Y[kept]

        specs = (tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int64))
        data = tf.data.Dataset.from_generator(rows, output_signature=specs)
        for strategy, microbatch_size in (("default", None), ("default", 7), ("mirrored", None)):
            model, callback = (
                compiled(strategy=strategy, microbatch_size=microbatch_size),
                budget(50.0, sampling="poisson"),
            )
            model.fit(data, shuffle=False, verbose=0, callbacks=[callback])
            self.assertEqual(int(model.optimizer.iterations.numpy()), 4)
            self.assertEqual(callback.spent, spent(4, "poisson"))
            for callbacks in ([], [budget(50.0)]):
                with self.assertRaisesRegex(ValueError, "at most the configured `batch_size`"):
                    model.fit(data, shuffle=False, verbose=0, callbacks=callbacks)


class LoopTest(parameterized.TestCase):
    def run_loop(self, callback, num_steps=20, steps_per_call=1, model=None, first_step=0):
        model = model or compiled()
        x, y = np.resize(X, (60, 4)), np.resize(Y, 60).astype(np.int32)
        rows = tf.data.Dataset.from_tensor_slices((x, y, np.arange(60) < NUM_EXAMPLES)).batch(BATCH_SIZE).repeat()
        done = loop.train(
            model, rows, lambda step: 1, strategy=distribution.make_strategy("default"), num_steps=num_steps,
            metrics={}, steps_per_epoch=4, steps_per_call=steps_per_call, callbacks=[callback], first_step=first_step,
        )  # fmt: skip
        return done, model

    @parameterized.parameters(1, 4)
    def test_it_stops_on_the_last_step_that_fits(self, steps_per_call):
        for sampling, last in (("shuffled", 9), ("poisson", 7)):
            callback = budget(spent(last, sampling) + 1e-6, sampling=sampling)
            self.assertEqual(self.run_loop(callback, steps_per_call=steps_per_call)[0], last)
            self.assertEqual(callback.spent, spent(last, sampling))

    def test_the_loop_is_told_how_its_batches_were_drawn(self):
        with self.assertRaisesRegex(ValueError, "`sampling` of a PrivacyBudget must be .*Received: sampling=None"):
            self.run_loop(budget(50.0))

    def test_going_on_in_a_pass_begins_no_other(self):
        callback, model = budget(spent(9) + 1e-6, sampling="shuffled"), compiled()
        self.assertEqual(self.run_loop(callback, num_steps=4, model=model)[0], 4)
        self.assertEqual(callback.spent, spent(6))
        fresh = budget(spent(9) + 1e-6, sampling="shuffled")
        self.assertEqual(self.run_loop(fresh, model=model, first_step=4)[0], 9)
        with self.assertLogs("absl", "WARNING") as log:
            self.assertEqual(
                self.run_loop(budget(spent(9) + 1e-6, sampling="shuffled"), model=model, first_step=9)[0], 9
            )
        self.assertRegex(log.output[0], "PrivacyBudget ends the training")


class RefusalsTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"epsilon": 0.0}, "`epsilon` must be"),
        ({"delta": 1.0}, "`delta` must be"),
        ({"num_examples": 0}, "`num_examples` must be"),
        ({"sampling": "uniform"}, "`sampling` must be"),
        ({"accountant": "zcdp"}, "`accountant` must be"),
        ({"neighbors": "none"}, "`neighbors` must be"),
    )
    def test_bad_arguments(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            noisy_sgd.PrivacyBudget(**{"epsilon": 1.0, "delta": DELTA, "num_examples": 50, **arguments})

    def test_a_first_step_that_does_not_fit(self):
        without_noise = "`optimizer` must have a finite epsilon.*no noise is added.*Received: optimizer of type DPSGD"
        for model, message in (
            (compiled(), "a pass over the data costs, for one step to fit"),
            (compiled(noise_multiplier=0.0), without_noise),
        ):
            with self.assertRaisesRegex(ValueError, message):
                model.fit(X, Y, verbose=0, callbacks=[budget(spent(3) - 1e-6)])
            self.assertEqual(int(model.optimizer.iterations.numpy()), 0)

    def test_another_optimizer(self):
        model = compiled()
        model.compile(noisy_sgd.NoisySGD(0.1, 0.1, seed=1), "mse")
        with self.assertRaisesRegex(ValueError, "`optimizer` must be private.*Received: optimizer of type NoisySGD"):
            model.fit(X, Y, verbose=0, callbacks=[budget(5.0)])
        callback = budget(5.0)
        trained(compiled(), callback, epochs=1)
        with self.assertRaisesRegex(ValueError, "a PrivacyBudget of its own"):
            trained(compiled(), callback, epochs=1)

    def test_poisson_sampling_of_arrays(self):
        with self.assertRaisesRegex(
            ValueError, "`sampling` of the PrivacyBudget must be that of `fit`.*Received: sampling='poisson'"
        ):
            trained(compiled(), budget(5.0, sampling="poisson"))

    def test_several_steps_at_once_where_they_could_pass_it(self):
        with self.assertRaisesRegex(ValueError, "`steps_per_execution` must be 1.*Received: steps_per_execution=2"):
            trained(compiled(steps_per_execution=2), budget(spent(9)), epochs=4)
        steps, _ = trained(compiled(steps_per_execution=2), budget(spent(9) + 1e-6), epochs=3)
        self.assertEqual(steps, 9)

    def test_an_explicit_seed_is_warned_of(self):
        model = compiled()
        model.compile(noisy_sgd.DPSGD(0.1, 1.0, 2.0, BATCH_SIZE, seed=1), "mse")
        with self.assertLogs("absl", "WARNING") as log:
            model.fit(X, Y[:, None] * np.ones((1, 3)), verbose=0, callbacks=[budget(5.0)])
        self.assertRegex(log.output[0], "nothing is guaranteed")

    def test_private_facts_in_fit(self):
        with self.assertRaisesRegex(ValueError, "private facts.*Received: monitor='loss'"):
            trained(compiled(), keras.callbacks.EarlyStopping("loss"))


if __name__ == "__main__":
    absltest.main()
