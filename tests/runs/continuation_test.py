import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from unittest import mock

import keras
import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import config, keras_internals, keys, privacy, records
from noisy_sgd.data import bundled
from noisy_sgd.privacy import ledger
from noisy_sgd.runs import builders, checkpoints, composition, continuation, recorded_run

SECRET = bytes(range(16))
STEPS = 12


def settings(run_dir, *, sampling="shuffled", run=None, **options):
    options = {"effective_noise": 0.2, "l2_norm_clip": 1.0, "ema_decay": 0.9, "momentum": 0.5, **options}
    training = config.Training(
        algorithm=options.pop("algorithm", "dp_sgd"), batch_size=16, microbatch_size=4, num_steps=STEPS,
        learning_rate=0.1, sampling=sampling, augmentation_multiplicity=2, **options,
    )  # fmt: skip
    return config.Config(
        data=config.Data(num_train_examples=40, augmentation="flip_and_crop"),
        model=config.Model(model="mlp", hidden=(8,)),
        training=training,
        run=config.Run(run_dir=str(run_dir), eval_every=5, checkpoint_every=3, **(run or {})),
    )


class Stop:
    """Asks to stop when it has been asked so many times."""

    def __init__(self, after):
        self.left = after

    def __call__(self):
        self.left -= 1
        return self.left < 0


class ContinuationTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.objects = {}

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        self.said = []

    def train(self, chosen, *, stop_after=None, environment=None, secret=SECRET):
        """Runs it in a model that other runs have used; returns the record, or None where it was stopped."""
        kind = (chosen.training, chosen.data)
        if kind not in self.objects:
            self.objects[kind] = builders.build(chosen)
        objects = self.objects[kind]
        builders.restart(objects, chosen)
        with mock.patch.object(keys, "secret", return_value=secret):
            with recorded_run.started(objects, chosen, environment=environment, say=self.said.append) as run:
                self.started = run
                requested = (lambda: False) if stop_after is None else Stop(stop_after)
                try:
                    return recorded_run.train(run, stop_requested=requested)
                except continuation.Interrupted:
                    return None

    def files(self, directory):
        names = ("metrics.jsonl", "private/metrics.jsonl", "checkpoints/ledger.jsonl")
        last = f"checkpoints/step_{STEPS:08d}.npz"
        return {name: (directory / name).read_bytes() for name in (*names, last)}

    @parameterized.parameters(
        {"sampling": "shuffled"},
        {"sampling": "poisson"},
        {"sampling": "cyclic", "noise_correlation": "banded_inverse_square_root:4"},
    )
    def test_an_interrupted_run_ends_with_the_bytes_of_an_unbroken_one(self, **options):
        whole, broken = self.root / "whole", self.root / "broken"
        self.assertIsNotNone(self.train(settings(whole, **options)))
        stops = 0
        while self.train(settings(broken, **options), stop_after=1) is None:
            stops += 1
        self.assertGreaterEqual(stops, 3)
        self.assertEqual(self.files(whole), self.files(broken))
        self.assertIn("bit for bit", self.said[-1])
        # What was computed without noise is in private/ alone.
        self.assertNotIn('"loss"', (whole / "metrics.jsonl").read_text())
        self.assertIn("fraction_clipped", (whole / "private" / "metrics.jsonl").read_text())

    def test_an_attempt_with_correlated_noise_is_replayed_from_its_own_first_step(self):
        options = {"sampling": "cyclic", "noise_correlation": "lambda_cgd:0.9"}
        chosen, copy = (settings(self.root / name, **options) for name in ("run", "copy"))
        self.train(chosen, stop_after=1)
        # Other circumstances: a new attempt from the checkpoint on, with another secret.
        record = self.train(chosen, stop_after=2, environment={"XLA_FLAGS": "x"}, secret=bytes(16))
        self.assertIsNone(record)
        first = self.started.starting_point.attempt_step
        self.assertEqual(first, self.started.starting_point.step)
        self.assertGreater(first, 0)
        shutil.copytree(self.root / "run", self.root / "copy")
        self.assertIsNotNone(self.train(chosen, environment={"XLA_FLAGS": "x"}))
        self.assertEqual(self.started.starting_point.attempt_step, first)
        self.assertGreater(self.started.starting_point.step, first)
        while self.train(copy, stop_after=1, environment={"XLA_FLAGS": "x"}) is None:
            pass
        self.assertEqual(self.files(self.root / "run"), self.files(self.root / "copy"))
        record = records.read(self.root / "run")
        attempts = record.privacy["attempts"]
        self.assertEqual([steps[0] for steps in attempts], [0, first])
        # Two releases, each of the epochs that it touched: 3 steps per epoch.
        plan = builders.plan(chosen, self.objects[chosen.training, chosen.data].model.optimizer, 40, STEPS)
        self.assertEqual(record.privacy["epsilon"], ledger.spent(ledger.Ledger(tuple(map(tuple, attempts))), plan))
        self.assertAlmostEqual(composition.plan(record.directory).epsilon, record.privacy["epsilon"], places=9)

    def test_another_secret_is_another_run(self):
        a, b = (
            self.train(settings(self.root / name), secret=secret) for name, secret in (("a", SECRET), ("b", bytes(16)))
        )
        together = composition.composed([a.directory, b.directory])
        self.assertBetween(together.epsilon, a.privacy["epsilon"], 2 * a.privacy["epsilon"])
        a, b = (self.files(self.root / name)["metrics.jsonl"] for name in "ab")
        self.assertNotEqual(a, b)

    def test_dropout_follows_the_secret_and_the_seed(self):
        path = str(self.root / "mine.keras")
        inputs = keras.Input((8, 8, 1))
        features = keras.layers.Dropout(0.5, seed=1)(keras.layers.Flatten()(inputs))
        keras.Model(inputs, keras.layers.Dense(10)(features)).save(path)

        def state(directory, secret, **options):
            chosen = settings(self.root / directory, **options)
            chosen = dataclasses.replace(chosen, model=config.Model(model=path))
            objects = builders.build(chosen)
            with mock.patch.object(keys, "secret", return_value=secret), recorded_run.started(objects, chosen):
                (generator,) = keras_internals.seed_generators(objects.model)
                return generator.state.numpy().tolist()

        self.assertEqual(state("a", SECRET), state("b", SECRET))
        self.assertNotEqual(state("c", SECRET), state("d", bytes(16)))
        sgd = {"algorithm": "sgd", "l2_norm_clip": None, "effective_noise": None}
        self.assertEqual(state("e", SECRET, **sgd), state("f", bytes(16), **sgd))

    def test_poisson_batches_come_from_the_secret(self):
        chosen = settings(self.root / "a", sampling="poisson")
        self.train(chosen, stop_after=0)
        counts = []
        for secret in (SECRET, bytes(16)):
            with mock.patch.object(continuation, "begin") as begin:
                begin.return_value = continuation.StartingPoint(secret=secret)
                with recorded_run.started(self.started.objects, chosen) as run:
                    dataset, _ = recorded_run._microbatches(run)
                    counts.append([int(np.sum(mask)) for _, _, mask in dataset])
        self.assertNotEqual(*counts)

    @parameterized.parameters("shuffled", "poisson")
    def test_under_other_circumstances_lost_steps_count_again_with_other_noise(self, sampling):
        chosen = settings(self.root / "a", sampling=sampling)
        self.train(chosen, stop_after=1)
        planned = self.started.privacy
        record = self.train(chosen, environment={"TF_ENABLE_ONEDNN_OPTS": "0"}, secret=bytes(16))
        self.assertRegex(" ".join(self.said), "not bit for bit: environment.TF_ENABLE_ONEDNN_OPTS is 'absent' there")
        lines = [json.loads(line) for line in self.files(self.root / "a")["checkpoints/ledger.jsonl"].splitlines()]
        self.assertLen(lines, 2)
        self.assertEqual(lines[1]["end_step"], STEPS)
        self.assertLessEqual(lines[1]["first_step"], lines[0]["end_step"])
        self.assertEqual(self.started.starting_point.secret, bytes(16))
        counted = sum(line["end_step"] - line["first_step"] for line in lines)
        self.assertGreaterEqual(counted, STEPS)
        self.assertGreaterEqual(record.privacy["epsilon"], planned.epsilon)
        if sampling == "poisson":
            sigma = chosen.training.resolved_noise_multiplier
            spent = privacy.epsilon(sigma, 16, 40, counted, builders.delta(chosen.training, 40), sampling="poisson")
            self.assertAlmostEqual(record.privacy["epsilon"], spent, places=9)

    def test_other_data_are_not_shown_by_their_digest(self):
        chosen = settings(self.root / "a")
        self.train(chosen, stop_after=1)
        there = self.started.objects.images
        with mock.patch.object(type(there), "fingerprint", return_value="f" * 64):
            self.train(chosen, stop_after=0, secret=bytes(16))
        said = " ".join(self.said)
        self.assertIn("not bit for bit: the training data are different", said)
        self.assertNotIn("f" * 64, said)
        self.assertNotIn(there.fingerprint(), said)

    @parameterized.parameters("resumed", "begun anew", "without checkpoints", "without a record")
    def test_more_examples_do_not_make_what_was_spent_cheaper(self, kind):
        elsewhere = {"checkpoint_dir": str(self.root / "checkpoints")}
        self.train(settings(self.root / "a", run=elsewhere), stop_after=1)
        if kind == "without checkpoints":
            shutil.rmtree(self.root / "checkpoints")
        if kind == "without a record":
            shutil.rmtree(self.root / "a")
        again = settings(self.root / "a", run=elsewhere | {"resume": kind != "begun anew"})
        objects = self.started.objects
        more = dataclasses.replace(objects, images=bundled.load("digits"))
        with mock.patch.object(builders, "restart"), mock.patch.dict(self.objects, dict.fromkeys(self.objects, more)):
            with self.assertRaisesRegex(ValueError, "must hold 40 training examples, .* Received: 1437 examples"):
                self.train(again)

    def test_another_saved_model_of_the_same_shapes_gets_other_noise(self):
        path = self.root / "network.keras"

        def saved(activation):
            inputs = keras.Input((8, 8, 1))
            hidden = keras.layers.Dense(8, activation=activation)(keras.layers.Flatten()(inputs))
            keras.Model(inputs, keras.layers.Dense(10)(hidden)).save(path)
            self.objects.clear()
            chosen = settings(self.root / "a")
            return dataclasses.replace(chosen, model=config.Model(model=str(path)))

        with mock.patch.dict(self.objects):
            self.train(saved("relu"), stop_after=1)
            self.train(saved("tanh"), stop_after=0, secret=bytes(16))
        self.assertIn("not bit for bit: the file of `--model` is different", " ".join(self.said))
        self.assertEqual(self.started.starting_point.secret, bytes(16))

    def test_a_checkpoint_of_an_earlier_attempt_is_not_replayed(self):
        chosen = settings(self.root / "a")
        self.train(chosen, stop_after=0)
        kept = self.root / "kept"
        shutil.copytree(self.root / "a" / "checkpoints", kept)
        self.train(chosen, stop_after=0, environment={"XLA_FLAGS": "x"}, secret=bytes(16))
        # The first attempt's checkpoint comes back, as it would where the newer ones were damaged.
        for path in (self.root / "a" / "checkpoints").glob("step_*"):
            path.unlink()
        for path in kept.glob("step_*"):
            shutil.copy(path, self.root / "a" / "checkpoints")
        self.train(chosen)
        self.assertIn("an earlier attempt", " ".join(self.said))
        self.assertEqual((self.root / "a" / "checkpoints" / "ledger.jsonl").read_text().count("\n"), 3)

    def test_starting_again_counts_what_was_released(self):
        chosen = settings(self.root / "a")
        self.train(chosen, stop_after=1)
        again = settings(self.root / "a", run={"resume": False})
        self.assertEqual(self.train(again, secret=bytes(16)).results["step"], STEPS)
        self.assertIn("starts again", " ".join(self.said))
        lines = (self.root / "a" / "checkpoints" / "ledger.jsonl").read_text().splitlines()
        self.assertEqual([json.loads(line)["first_step"] for line in lines], [0, 0])

    def test_a_damaged_checkpoint_falls_back_and_a_lost_ledger_does_not_forget(self):
        whole, broken = self.root / "whole", self.root / "broken"
        self.train(settings(whole))
        self.train(settings(broken), stop_after=2)
        newest = max((broken / "checkpoints").glob("step_*"))
        newest.write_bytes(newest.read_bytes()[:1000])
        os.remove(broken / "checkpoints" / "ledger.jsonl")
        self.train(settings(broken))
        self.assertIn("falling back", self.said[0])
        self.assertEqual(self.files(whole), self.files(broken))

    @parameterized.parameters("removed", "elsewhere")
    def test_a_run_without_its_checkpoints_counts_what_was_released(self, kind):
        self.train(settings(self.root / "a"), stop_after=1)
        reached = json.loads((self.root / "a" / "ledger.jsonl").read_text())["end_step"]
        self.assertGreater(reached, 0)
        elsewhere = {"checkpoint_dir": str(self.root / "checkpoints")} if kind == "elsewhere" else {}
        if kind == "removed":
            shutil.rmtree(self.root / "a" / "checkpoints")
        record = self.train(settings(self.root / "a", run=elsewhere), secret=bytes(16))
        self.assertIn("starts again", " ".join(self.said))
        self.assertEqual(record.privacy["attempts"], [[0, reached], [0, STEPS]])
        prints = [keys.fingerprint(secret) for secret in (SECRET, bytes(16))]
        self.assertEqual(record.privacy["noise_key_fingerprints"], prints)
        self.assertAlmostEqual(composition.plan(self.root / "a").epsilon, record.privacy["epsilon"], delta=1e-9)

    def test_a_secret_that_was_not_recorded_stays_unknown(self):
        self.train(settings(self.root / "a"), stop_after=1)
        path = self.root / "a" / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "privacy": {}}))
        record = self.train(settings(self.root / "a"), environment={"XLA_FLAGS": "x"}, secret=bytes(16))
        self.assertEqual(record.privacy["noise_key_fingerprints"], [None, keys.fingerprint(bytes(16))])
        with self.assertRaisesRegex(ValueError, "1 fingerprints of 2 attempts"):
            composition.composed([self.root / "a"])

    def test_without_any_ledger_the_worst_is_counted(self):
        chosen = settings(self.root / "a", run={"keep_checkpoints": 9})
        self.train(chosen, stop_after=2)
        for path in self.root.rglob("ledger.jsonl"):
            path.unlink()
        (self.root / "a" / "checkpoints" / "step_00000006.npz").unlink()
        record = self.train(chosen, environment={"XLA_FLAGS": "x"}, secret=bytes(16))
        self.assertEqual(record.privacy["attempts"], [[0, STEPS], [3, STEPS]])

    def test_ledgers_that_contradict_each_other_are_refused(self):
        chosen = settings(self.root / "a")
        self.train(chosen, stop_after=1)
        path = self.root / "a" / "ledger.jsonl"
        for text in ("{", path.read_text().replace('"first_step": 0', '"first_step": 1')):
            path.write_text(text)
            with self.assertRaisesRegex(ValueError, f"may have released must be known, but .* and {path} cannot"):
                self.train(chosen)

    def test_starting_again_leaves_the_checkpoints_of_another_run(self):
        shared = self.root / "checkpoints"
        self.train(settings(self.root / "a", run={"checkpoint_dir": str(shared)}), stop_after=2)
        before = sorted(os.listdir(shared))
        again = {"checkpoint_dir": str(shared), "resume": False}
        with self.assertRaisesRegex(ValueError, "holds checkpoints of another run .algorithm.delta"):
            self.train(settings(self.root / "b", run=again, delta=1e-3))
        self.assertEqual(sorted(os.listdir(shared)), before)

    def test_one_process_at_a_time(self):
        chosen = settings(self.root / "a")
        self.train(chosen, stop_after=0)
        with recorded_run.started(self.started.objects, chosen):
            with self.assertRaisesRegex(ValueError, "in use by another process"):
                with recorded_run.started(self.started.objects, chosen):
                    pass

    def test_checkpoints_of_another_run_are_refused(self):
        elsewhere = {"checkpoint_dir": str(self.root / "checkpoints")}
        self.train(settings(self.root / "a", run=elsewhere), stop_after=0)
        with self.assertRaisesRegex(ValueError, "`--checkpoint_dir` holds checkpoints of another run .algorithm.delta"):
            self.train(settings(self.root / "b", run=elsewhere, delta=1e-3))

    def test_checkpoints_alone_restore_the_record(self):
        elsewhere = {"checkpoint_dir": str(self.root / "checkpoints")}
        self.train(settings(self.root / "a", run=elsewhere), stop_after=2)
        before = (self.root / "a" / "metrics.jsonl").read_text()
        shutil.rmtree(self.root / "a")
        self.train(settings(self.root / "a", run=elsewhere))
        self.assertStartsWith((self.root / "a" / "metrics.jsonl").read_text(), before)

    def test_the_secret_is_in_checkpoints_alone_and_these_are_closed(self):
        directory = self.root / "a"
        self.train(settings(directory), stop_after=2)
        self.assertNotIn(repr(SECRET), repr(self.started.starting_point))
        for path in directory.rglob("*"):
            if path.is_file() and path.suffix != ".npz":
                self.assertNotIn(SECRET, path.read_bytes())
                self.assertNotIn(SECRET.hex().encode(), path.read_bytes())
        for path in directory.glob("checkpoints/*.npz"):
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)
            self.assertEqual(checkpoints.load_newest(path.parent, print).facts["secret"], SECRET.hex())

    @parameterized.parameters("shuffled", "poisson", "random_allocation")
    def test_a_budget_ends_the_run_on_the_last_step_that_fits(self, sampling):
        base = settings(self.root / "a", sampling=sampling)
        sigma, delta = base.training.resolved_noise_multiplier, builders.delta(base.training, 40)

        def spent(steps):
            return privacy.epsilon(sigma, 16, 40, steps, delta, sampling=sampling)

        budget = spent(7) * (1 + 1e-9)
        record = self.train(settings(self.root / "b", sampling=sampling, max_epsilon=budget))
        last = record.results["step"]
        self.assertLess(last, STEPS)
        self.assertLessEqual(spent(last), budget)
        self.assertGreater(spent(last + 1), budget)
        self.assertLessEqual(record.privacy["epsilon"], budget)
        with self.assertRaisesRegex(ValueError, r"`--max_epsilon` must be at least [\d.]+ to allow one step"):
            self.train(settings(self.root / "c", sampling=sampling, max_epsilon=spent(1) * 0.5))

    def test_a_budget_that_a_restart_finds_spent_ends_the_run_where_it_is(self):
        base = settings(self.root / "a", sampling="poisson")
        sigma, delta = base.training.resolved_noise_multiplier, builders.delta(base.training, 40)
        budget = privacy.epsilon(sigma, 16, 40, 8, delta, sampling="poisson") * (1 + 1e-9)
        chosen = settings(self.root / "a", sampling="poisson", max_epsilon=budget)
        self.train(chosen, stop_after=2)
        # As if it had been killed after its last step.
        for path in self.root.rglob("ledger.jsonl"):
            path.write_text(ledger.Ledger().covering(8).to_text())
        record = self.train(chosen, environment={"XLA_FLAGS": "x"}, secret=bytes(16))
        self.assertEqual(record.privacy["attempts"][0], [0, 8])
        self.assertLessEqual(record.privacy["epsilon"], budget)
        self.assertEqual(record.results["step"], 6)
        self.assertEqual(record.privacy["num_steps"], 6)
        self.assertEqual(record.results["epsilon"], record.privacy["epsilon"])
        self.assertIn("val_ema_accuracy", record.results)

    def test_one_process_at_a_time_whatever_its_checkpoint_dir(self):
        chosen = settings(self.root / "a")
        self.train(chosen, stop_after=0)
        elsewhere = settings(self.root / "a", run={"checkpoint_dir": str(self.root / "checkpoints")})
        with recorded_run.started(self.started.objects, chosen):
            with self.assertRaisesRegex(ValueError, "in use by another process"):
                with recorded_run.started(self.started.objects, elsewhere):
                    pass

    @parameterized.parameters("sgd", "noisy_sgd")
    def test_runs_without_privacy_go_on_too(self, algorithm):
        options = {"algorithm": algorithm, "l2_norm_clip": None}
        options["effective_noise"] = None if algorithm == "sgd" else 0.1
        whole, broken = self.root / "whole", self.root / "broken"
        self.train(settings(whole, **options))
        while self.train(settings(broken, **options), stop_after=1) is None:
            pass
        last = f"checkpoints/step_{STEPS:08d}.npz"
        for name in ("metrics.jsonl", last):
            self.assertEqual((whole / name).read_bytes(), (broken / name).read_bytes())
        self.assertFalse((whole / "private").exists())
        self.assertFalse((whole / "checkpoints" / "ledger.jsonl").exists())
        self.assertEqual(records.read(whole).results, records.read(broken).results)


if __name__ == "__main__":
    absltest.main()
