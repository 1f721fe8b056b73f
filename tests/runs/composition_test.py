"""What recorded runs cost together, from directories that a statement and a ledger are written to, and its refusals."""

import dataclasses
import json
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from noisy_sgd import keys, privacy, records, sampling
from noisy_sgd.mechanisms import adaptive_clipping, gaussian
from noisy_sgd.privacy import ledger, statement
from noisy_sgd.runs import composition

STEPS = 100


class CompositionTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

    def plan(self, noise_multiplier=4.0, scheme=None, **changes):
        return privacy.Plan(
            event=gaussian.IndependentNoise().make(0.3, noise_multiplier, 64, None),
            sampling=scheme or sampling.Poisson(1797, 64),
            num_steps=STEPS,
            delta=1e-5,
            **{"accountant": "rdp", **changes},
        )

    def record(self, name, plan=None, attempts=None, prints=None, changes=None, **options):
        """A run directory as `recorded_run` leaves it."""
        plan = plan or self.plan()
        said = statement.statement("dp_sgd", plan, attempts=attempts, **options)
        if prints is None:
            prints = [keys.fingerprint(f"{name} {number}".encode().ljust(16)) for number in range(len(attempts or [0]))]
        noted = {**said.as_dict(), composition.FINGERPRINTS: prints, **(changes or {})}
        run = records.create(self.root / name, {"name": name}, privacy=noted)
        run.finish({})
        spent = ledger.Ledger(attempts or ((0, STEPS),)).covering(STEPS)
        (self.root / name / "ledger.jsonl").write_text(spent.to_text())
        return self.root / name

    @parameterized.parameters(
        {},
        {"neighbors": "replace_one"},
        {"scheme": sampling.Shuffled(1797, 64), "accountant": "pld"},
        {"scheme": sampling.CappedPoisson(1797, 64, capacity=110)},
    )
    def test_the_plan_is_that_of_the_run(self, **changes):
        plan = self.plan(**changes)
        self.assertEqual(composition.plan(self.record("a", plan)).epsilon, plan.epsilon)

    def test_the_plan_of_a_learned_clip(self):
        event = adaptive_clipping.AdaptiveClipping(count_stddev=4.0).make(1.0, 4.0, 64, None)
        plan = dataclasses.replace(self.plan(), event=event)
        self.assertAlmostEqual(composition.plan(self.record("a", plan)).epsilon, plan.epsilon, delta=1e-12)

    def test_two_runs_cost_what_their_plans_cost(self):
        runs = [self.record("a"), self.record("b", self.plan(9.0))]
        expected = privacy.composed([self.plan(), self.plan(9.0)], 3e-5)
        self.assertEqual(composition.composed(runs, 3e-5), expected)
        self.assertEqual(composition.composed(runs).delta, 2e-5)

    def test_all_attempts_count(self):
        run = self.record("a", attempts=((0, 60), (40, STEPS)))
        self.assertEqual(composition.plan(run).epsilon, self.plan().with_steps(120).epsilon)

    def test_steps_that_only_the_ledger_holds_count(self):
        run = self.record("a")
        (run / "ledger.jsonl").write_text(ledger.Ledger(((0, 150),)).to_text())
        self.assertEqual(composition.plan(run).epsilon, self.plan().with_steps(150).epsilon)

    def test_runs_with_one_noise_key_are_refused(self):
        runs = [self.record(name, prints=["0123456789abcdef"]) for name in "ab"]
        with self.assertRaisesRegex(ValueError, "noise keys of their own: .*/a and .*/b, with .*0123456789abcdef"):
            composition.composed(runs)
        with self.assertRaisesRegex(ValueError, "noise keys of their own: .*/a and .*/a, with"):
            composition.composed([runs[0], runs[0]])

    def test_one_key_for_two_attempts_is_refused(self):
        both = self.record("a", attempts=((0, 60), (40, STEPS)), prints=["0123456789abcdef"] * 2)
        with self.assertRaisesRegex(ValueError, "noise keys of their own"):
            composition.composed([both])

    @parameterized.parameters(
        ({"explicit_noise_seed": True}, "have a privacy guarantee; .*can be recomputed from its explicit seed"),
        ({"prints": []}, "a fingerprint of the noise key of every attempt, .*0 fingerprints of 1 attempts"),
        ({"attempts": ((0, 60), (40, 100)), "prints": ["ab", None]}, "1 fingerprints of 2 attempts"),
        ({"attempts": ((0, 60), (40, 100)), "prints": ["ab"]}, "1 fingerprints of 2 attempts"),
        ({"changes": {"epsilon": 9.0}}, "records that describe what the run costs; .*states epsilon = 9, where"),
        ({"changes": {"guaranteed": None}}, "have a privacy guarantee; .*is not that of a DP-SGD run"),
    )
    def test_refuses_a_record(self, options, message):
        with self.assertRaisesRegex(ValueError, message) as caught:
            composition.composed([self.record("b"), self.record("a", **options)])
        self.assertIn(str(self.root / "a"), str(caught.exception))

    def test_an_older_record_without_fingerprints_is_refused(self):
        run = self.record("a")
        path = run / "run.json"
        described = json.loads(path.read_text())
        del described["privacy"][composition.FINGERPRINTS]
        path.write_text(json.dumps(described))
        with self.assertRaisesRegex(ValueError, "records of older versions have none"):
            composition.composed([run])

    def test_damaged_directories_are_refused(self):
        run = self.record("a")
        with self.assertRaisesRegex(ValueError, "`run_dir` must hold the run.json of a run"):
            composition.composed([run, self.root / "nowhere"])
        (run / "ledger.jsonl").write_text(ledger.Ledger(((0, 20), (10, 30))).to_text())
        with self.assertRaisesRegex(ValueError, "one ledger at different times"):
            composition.composed([run])
        (run / "ledger.jsonl").unlink()
        with self.assertRaisesRegex(ValueError, "ledger.jsonl cannot be read"):
            composition.composed([run])


if __name__ == "__main__":
    absltest.main()
