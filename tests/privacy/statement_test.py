"""What a run says about privacy: every case, in words and as strict JSON."""

import json
import math
import re

from absl.testing import absltest, parameterized

from noisy_sgd import privacy
from noisy_sgd import sampling as sampling_schemes
from noisy_sgd.mechanisms import adaptive_clipping, gaussian
from noisy_sgd.privacy import ledger, plan, statement, truncation
from noisy_sgd.sampling import poisson

RUN = {
    "noise_multiplier": 4.0,
    "l2_norm_clip": 0.5,
    "batch_size": 64,
    "num_examples": 1797,
    "num_steps": 280,
    "delta": 1e-5,
    "accountant": "rdp",
}
ACCOUNTED = {name: value for name, value in RUN.items() if name != "l2_norm_clip"}


def made(**changes) -> statement.PrivacyStatement:
    """The statement of a DP-SGD run that differs from `RUN`."""
    run = {**RUN, "sampling": "shuffled", "capacity": None, "count_noise_multiplier": None, **changes}
    said = {name: run.pop(name) for name in ("clipping", "explicit_noise_seed", "attempts") if name in run}
    sizes = run.pop("num_examples"), run.pop("batch_size")
    clip, noise, count = (run.pop(name) for name in ("l2_norm_clip", "noise_multiplier", "count_noise_multiplier"))
    name, capacity = run.pop("sampling"), run.pop("capacity")
    if count is None:
        mechanism = gaussian.IndependentNoise().make(clip, noise, sizes[1], None)
    else:
        recipe = adaptive_clipping.AdaptiveClipping(count_stddev=count / 2)
        mechanism = recipe.make(clip, noise, sizes[1], None)
    scheme = sampling_schemes.named(name)(*sizes)
    if capacity is not None:
        scheme = sampling_schemes.CappedPoisson(*sizes, capacity=capacity)
    return statement.statement("dp_sgd", plan.Plan(event=mechanism, sampling=scheme, **run), **said)


def as_json(said: statement.PrivacyStatement) -> dict:
    """The record, after a round trip through strict JSON."""
    return json.loads(json.dumps(said.as_dict(), allow_nan=False))


class GuaranteeTest(parameterized.TestCase):
    @parameterized.product(sampling=("shuffled", "poisson"), neighbors=("add_or_remove", "replace_one"))
    def test_the_epsilon_is_that_of_the_sampling_used(self, sampling, neighbors):
        said = made(sampling=sampling, neighbors=neighbors)
        expected = privacy.epsilon(**ACCOUNTED, sampling=sampling, neighbors=neighbors)
        self.assertTrue(said.guaranteed)
        self.assertIsNone(said.reason)
        self.assertEqual(said.epsilon, expected)
        record = as_json(said)
        for name, value in {**RUN, "sampling": sampling, "neighbors": neighbors, "epsilon": expected}.items():
            self.assertEqual(record[name], value, name)
        for words in (
            "(rdp|accountant)",
            "one training example",
            neighbors,
            "norm 0.5",
            "280 steps",
            "noise of 4 times",
            "1e-05",
        ):
            self.assertRegex(said.text, words)

    @parameterized.parameters(
        ("flat", "gradients clipped to norm 0.5, summed"),
        ("automatic", "gradients scaled to just below norm 0.5, summed"),
        ("normalized", "gradients scaled to norm 0.5, summed"),
        ("per_layer", "gradients clipped layer by layer, to bounds that together make norm 0.5, summed"),
    )
    def test_the_clipping_is_named_and_changes_no_epsilon(self, clipping, words):
        said = made(clipping=clipping)
        self.assertIn(words, said.text)
        self.assertEqual(as_json(said)["clipping"], clipping)
        self.assertEqual(said.epsilon, made().epsilon)

    @parameterized.parameters("shuffled", "poisson")
    def test_neighbors_leave_the_other_examples_as_they_are(self, sampling):
        # Their order and augmentation are functions of a public seed and of their numbers.
        said = made(sampling=sampling).text
        self.assertRegex(
            said, "Neighbors: data sets of which one lacks one example.*(keeping their numbers|left empty)"
        )
        self.assertIn("how long a step takes", said)
        self.assertIn("other runs on the same data", said)

    def test_a_learned_clip_is_accounted_for_and_named(self):
        said = made(count_noise_multiplier=5.0)
        joint = privacy.accounting.joint_noise_multiplier(4.0, 5.0)
        expected = privacy.epsilon(**{**ACCOUNTED, "noise_multiplier": joint}, sampling="shuffled")
        self.assertEqual(said.epsilon, expected)
        self.assertGreater(said.epsilon, made().epsilon)
        self.assertEqual(as_json(said)["noise_multiplier"], 4.0)
        self.assertEqual(as_json(said)["count_noise_multiplier"], 5.0)
        for words in ("norm that is 0.5 at first and then learned", "multiplier 5,", "noise of 4 times"):
            self.assertIn(words, said.text)

    def test_the_printed_epsilon_is_never_below_the_true_one(self):
        for noise_multiplier in (1.0, 3.3, 7.0, 50.0, 900.0):
            said = made(noise_multiplier=noise_multiplier)
            printed = float(re.search(r"Guaranteed: \(([^,]+),", said.text).group(1))
            self.assertGreaterEqual(printed, said.epsilon)
            self.assertLess(printed, said.epsilon * 1.002)

    def test_shuffled_names_the_poisson_number_only_as_not_claimed(self):
        said = made(sampling="shuffled")
        number = f"epsilon = {privacy.accounting.rounded_up(privacy.epsilon(**ACCOUNTED, sampling='poisson'))}"
        claimed, not_claimed = said.text.split("Not claimed:")
        self.assertIn(number, not_claimed)
        self.assertNotIn(number, claimed)
        self.assertIn("10 epochs started", claimed)
        self.assertIn("without amplification", claimed)
        self.assertFalse(as_json(said)["amplification"])

    def test_a_poisson_number_that_is_no_smaller_tempts_nobody(self):
        self.assertNotIn(
            "epsilon =", made(noise_multiplier=1e-3, batch_size=1).text.split("Not claimed:")[1].split("Warning")[0]
        )

    def test_poisson_claims_amplification_and_says_what_must_stay_secret(self):
        said = made(sampling="poisson")
        self.assertTrue(said.amplification)
        self.assertIn("decides who is in which batch", said.text)
        self.assertNotIn("epsilon =", said.text.split("Not claimed:")[1])

    def test_poisson_from_a_known_seed_counts_an_example_in_every_step(self):
        said = made(sampling="poisson", batches_known=True)
        self.assertFalse(said.amplification)
        self.assertEqual(said.epsilon, privacy.epsilon(4.0, 1, 1, 280, 1e-5, sampling="shuffled", accountant="rdp"))
        self.assertIn("without amplification", said.text)
        self.assertIn("which needs amplification by Poisson sampling", said.text.split("Not claimed:")[1])

    @parameterized.parameters("poisson", "shuffled")
    def test_a_resumed_run_says_what_it_really_spent(self, sampling):
        record = ledger.Ledger().covering(180).restarted(100).covering(200)
        said = made(sampling=sampling, attempts=record.attempts)
        run = plan.gaussian(**ACCOUNTED, sampling=sampling)
        expected = ledger.spent(record.covering(280), run)
        self.assertEqual(said.epsilon, expected)
        self.assertGreater(said.epsilon, made(sampling=sampling).epsilon)
        self.assertEqual(as_json(said)["attempts"], [[0, 180], [100, 280]])
        self.assertEqual(made(sampling=sampling, attempts=as_json(said)["attempts"]), said)
        for words in ("steps 0 to 179, and again with other noise steps 100 to 279", "; 280 steps", "new noise key"):
            self.assertIn(words, said.text)
        self.assertEqual("new key that decides" in said.text, sampling == "poisson")
        if sampling == "shuffled":
            # Steps 0 to 179 touch epochs 0 to 6, steps 100 to 279 epochs 3 to 9.
            self.assertIn("14 epochs started", said.text)

    def test_an_unbroken_run_says_nothing_of_attempts(self):
        record = ledger.Ledger().covering(100)
        self.assertEqual(made(attempts=record.attempts), made())
        self.assertNotIn("Counted", made().text)

    def test_a_run_that_ended_early_counts_what_was_written_ahead(self):
        said = made(num_steps=25, attempts=((0, 30),))
        self.assertEqual(said.epsilon, made(num_steps=30).epsilon)
        self.assertIn("; 25 steps", said.text)
        self.assertIn("Counted: steps 0 to 29, all that may", said.text)
        self.assertIn("2 epochs started", said.text)

    def test_a_known_inclusion_seed_counts_every_step_of_every_attempt(self):
        said = made(sampling="poisson", batches_known=True, attempts=((0, 180), (100, 280)))
        self.assertEqual(said.epsilon, privacy.epsilon(4.0, 1, 1, 360, 1e-5, sampling="shuffled", accountant="rdp"))

    def test_a_capacity_is_paid_for_and_stated(self):
        said = made(sampling="poisson", capacity=120)
        self.assertEqual(said.epsilon, privacy.epsilon(**ACCOUNTED, sampling="poisson", capacity=120))
        self.assertGreater(said.epsilon, made(sampling="poisson").epsilon)
        self.assertEqual(as_json(said)["capacity"], 120)
        added = truncation.delta_added(said.epsilon, 280 * poisson.overflow_probability(64, 1797, 120))
        self.assertIn(f"cut off at 120 examples, and delta includes {added:.3g} for", said.text)

    def test_what_no_epsilon_covers_is_named(self):
        text = made().text.split("Not claimed:")[1]
        for words in (
            "hyper-parameters",
            "preprocessing",
            "training loss",
            "checkpoints",
            "same person",
            "floating-point",
        ):
            self.assertIn(words, text)

    def test_an_honest_but_useless_setting_is_warned_about(self):
        self.assertEqual(made().warnings, ())
        self.assertIn("delta = 0.001 is not below 1 / num_examples", made(delta=1e-3).text)
        self.assertIn("too large to protect anybody", made(noise_multiplier=0.5).text)


class NoGuaranteeTest(parameterized.TestCase):
    @parameterized.parameters("sgd", "noisy_sgd")
    def test_without_clipping(self, algorithm):
        said = privacy.statement.statement(algorithm)
        self.assertFalse(said.guaranteed)
        self.assertIn("No privacy guarantee: nothing is clipped", said.text)
        self.assertIn("unbounded sensitivity", said.text)
        self.assertEqual("no noise" in said.text, algorithm == "sgd")
        self.assertEqual(as_json(said)["epsilon"], "infinity")

    @parameterized.parameters(
        ({"noise_multiplier": 0.0}, "no noise is added"),
        ({"l2_norm_clip": math.inf}, "clip norm is infinite"),
        ({"explicit_noise_seed": True}, "the noise can be recomputed"),
        ({"noise_multiplier": 0.0, "sampling": "poisson"}, "no noise is added"),
        ({"noise_multiplier": 1e-9}, "the noise is too little, for any epsilon at delta = 1e-05"),
        ({"sampling": "poisson", "capacity": 80}, "or batches too often larger than 80, for any epsilon"),
        ({"noise_multiplier": 0.0, "l2_norm_clip": math.inf}, "clip norm is infinite"),
    )
    def test_dp_sgd_that_is_not_private(self, changes, reason):
        said = made(**changes)
        self.assertFalse(said.guaranteed)
        self.assertEqual(said.epsilon, math.inf)
        self.assertIn(reason, said.text)
        self.assertIn("No privacy guarantee", said.text)
        self.assertNotIn("Guaranteed", said.text)
        self.assertIsNone(said.covers)
        record = as_json(said)
        self.assertEqual(float(record["epsilon"]), math.inf)
        self.assertEqual(float(record["l2_norm_clip"]), said.l2_norm_clip)

    def test_a_count_without_noise(self):
        mechanism = adaptive_clipping.QuantileAdaptiveClipSumQuery(1.0, 4.0, 0.5, 0.2, 0.0, 64, None)
        run = plan.Plan(event=mechanism, sampling=poisson.Poisson(1797, 64), num_steps=3, delta=1e-5)
        self.assertIn("no noise is added to the count", statement.statement("dp_sgd", run).reason)

    def test_an_explicit_seed_names_the_number_it_gives_up(self):
        self.assertIn("which the same run would have with secret noise", made(explicit_noise_seed=True).not_claimed[0])
        self.assertEqual(made(explicit_noise_seed=True, noise_multiplier=0.0).not_claimed, ())


class RefusalTest(parameterized.TestCase):
    @parameterized.parameters(
        ("delta", None),
        ("num_steps", None),
        ("clipping", "median"),
        ("attempts", ((5, 9),)),
    )
    def test_nonsense_is_refused(self, name, value):
        with self.assertRaisesRegex(ValueError, rf"`{name}` must .*Received: {name}={re.escape(repr(value))}"):
            made(**{name: value})

    def test_a_plan_of_a_bare_event_is_refused(self):
        for run in (None, plan.gaussian(**ACCOUNTED, sampling="poisson")):
            with self.assertRaisesRegex(ValueError, "`plan` must be a noisy_sgd.privacy.Plan whose event"):
                statement.statement("dp_sgd", run)

    def test_unknown_algorithms_are_refused(self):
        with self.assertRaisesRegex(ValueError, "`algorithm` must be one of .*Received: algorithm='adam'"):
            privacy.statement.statement("adam")


if __name__ == "__main__":
    absltest.main()
