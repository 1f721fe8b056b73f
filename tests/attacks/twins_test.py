"""Broken copies of the training, and which check sees which: every cell of this table is tested, but those with a dash.

| twin                        | sensitivity | law of the noise | its independence | keys  | draws | audit |
|-----------------------------|-------------|------------------|------------------|-------|-------|-------|
| none                        |             |                  |                  |       |       |       |
| noise forgotten             |             | found            |                  | -     |       | found |
| noise scaled by microbatch  |             | found            |                  | -     |       | -     |
| noise reused                |             |                  | found            | -     |       |       |
| one replica's noise         |             | found            |                  | -     |       | -     |
| clip forgotten              | found       |                  |                  | -     |       | found |
| divided by the actual batch | found       |                  |                  | -     |       | -     |
| one key for all             | -           | -                | -                | found |       | -     |
| fixed batches               | -           | -                | -                | -     | found | -     |
| sensitivity forgotten       | -           | -                | -                | -     | -     | found |

No check sees everything. An audit sees what a run leaks to its attacker and nothing else: it takes weights from which
the noise can be subtracted, because it was used before or because its key is known, for as private as all others. A
recorder of sums sees no noise, and a test of the noise sees no gradient. Neither sees a price that is too low: that
the sensitivity of correlated noise was forgotten shows in an audit alone. That one key serves two purposes shows in no
statistic, because batches and noise have different generators. The audits of the correct training and of forgotten
noise are in tests/studies/audit_test.py.
"""

import functools

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import sampling
from noisy_sgd.studies import audit
from noisy_sgd.training import distribution
from tests.attacks import findings, training, twins

STEPS, NOISE = 4, 1.0
EXPECTED = {
    "none": set(),
    "noise forgotten": {"law"},
    "noise scaled by microbatch": {"law"},
    "noise reused": {"independence"},
    "one replica's noise": {"law"},
    "clip forgotten": {"sensitivity"},
    "divided by the actual batch": {"sensitivity"},
}
OF_NOISE = [twin for twin, checks in EXPECTED.items() if checks <= {"law", "independence"}]
# These do not change what a step does with its batch and its keys.
OUTSIDE_A_STEP = {"one key for all": "keys", "fixed batches": "draws"}
AUDITED = {"noise reused": False, "clip forgotten": True}
# This does not change what is done, but what is claimed for it.
OF_THE_CLAIM = ("sensitivity forgotten",)


def setUpModule():
    distribution.use_logical_devices(2)


def use_keys():
    """Poisson-sampled private training by `fit`."""
    private = training.Training(NOISE)
    x, y = training.data()
    private.model.fit(x, y, epochs=2, verbose=0, sampling="poisson")


@functools.cache
def without_noise():
    """What a training without noise releases, and what the recorder of sums finds in it."""
    private = training.Training(0.0, microbatch_size=2)
    return private.updates(*training.data()), findings.of_sensitivity(private, ["far away"])


def draws():
    return findings.of_draws(sampling.Poisson(60, 12, seed=5))


class TwinsTest(parameterized.TestCase):
    def test_the_table_is_of_all_twins(self):
        self.assertEqual([*EXPECTED, *OUTSIDE_A_STEP, *OF_THE_CLAIM], list(twins.TWINS))
        for twin in twins.TWINS:
            self.assertRegex(__doc__, rf"\n\| {twin} ")

    @parameterized.parameters(*EXPECTED)
    def test_each_is_found_by_its_check_and_by_no_other(self, twin):
        x, y = training.data()
        # Two replicas take long to trace.
        strategy = "mirrored" if twin in ("none", "one replica's noise") else "default"
        with twins.TWINS[twin]():
            # What changes the noise alone is not in a training without noise.
            sums, unbounded = (without_noise if twin in OF_NOISE else without_noise.__wrapped__)()
            noise = training.Training(NOISE, strategy=strategy, microbatch_size=2).updates(x, y, STEPS) - sums
            found = {
                "sensitivity": unbounded,
                "law": findings.of_law(noise, NOISE * training.CLIP),
                "independence": findings.of_independence(noise),
                "draws": draws(),
            }
        self.assertEqual({name for name, sentences in found.items() if sentences}, EXPECTED[twin], found)

    def test_keys_and_draws(self):
        for twin in ("none", *OUTSIDE_A_STEP):
            with twins.TWINS[twin]():
                found = {"keys": findings.of_keys(use_keys) if twin != "fixed batches" else [], "draws": draws()}
            expected = {OUTSIDE_A_STEP[twin]} if twin in OUTSIDE_A_STEP else set()
            self.assertEqual({name for name, sentences in found.items() if sentences}, expected, found)

    @parameterized.parameters(*AUDITED.items())
    def test_the_audit_sees_what_leaks_from_one_run(self, twin, seen):
        setup = audit.Setup(num_examples=20, hidden=32, num_steps=4, seed=3)
        with twins.TWINS[twin]():
            lines = audit.one_run(setup, "dp_sgd", epsilon=1.0, num_canaries=120, num_guesses=60, num_runs=4)
        highest = max(line["epsilon_lower_bound"] for line in lines)
        self.assertEqual(highest > 1.0, seen, highest)

    @parameterized.parameters(("none", False), ("sensitivity forgotten", True))
    def test_the_audit_sees_correlated_noise_that_is_priced_too_low(self, twin, seen):
        setup = audit.Setup(
            num_examples=20, hidden=32, num_steps=30, learning_rate=0.1, noise_correlation="lambda_cgd:0.99", seed=3
        )
        with twins.TWINS[twin]():
            lines = audit.one_run(setup, "dp_sgd", epsilon=1.0, num_canaries=120, num_guesses=60, num_runs=4)
        self.assertTrue(all(0.99 < line["claimed_epsilon"] <= 1.0 for line in lines))
        highest = max(line["epsilon_lower_bound"] for line in lines)
        self.assertEqual(highest > 1.0, seen, highest)


class SensitivityTest(parameterized.TestCase):
    @parameterized.parameters(
        *(
            {"clipping": clipping, "engine": engine, "augmentation_multiplicity": views, "microbatch_size": size}
            for clipping, engine, views, size in (
                ("flat", "book_keeping", 3, 2),
                ("flat", "vectorized", 3, None),
                ("automatic", "book_keeping", 1, 2),
                ("normalized", "book_keeping", 3, None),
                ("per_layer", "book_keeping", 1, 4),
                ("per_layer", "vectorized", 3, 2),
            )
        )
    )
    def test_no_neighbor_moves_the_sum_beyond_the_bound(self, **arguments):
        private = training.Training(0.0, **arguments)
        self.assertEmpty(findings.of_sensitivity(private))
        whole = private.updates(*training.data())
        self.assertTrue(np.all(np.isfinite(whole)))
        self.assertGreater(np.linalg.norm(whole), training.CLIP)


if __name__ == "__main__":
    absltest.main()
