"""Several runs together, against the longer run that they are, dp_accounting, and the sums."""

import dataclasses

import dp_accounting
from absl.testing import absltest, parameterized
from dp_accounting import pld

from noisy_sgd import privacy, sampling
from noisy_sgd.mechanisms import adaptive_clipping


def plan(noise_multiplier=4.0, num_steps=280, scheme=None, **changes):
    settings = {"delta": 1e-5, "accountant": "rdp", **changes}
    return privacy.Plan(
        event=dp_accounting.GaussianDpEvent(noise_multiplier),
        sampling=scheme or sampling.Poisson(1797, 64),
        num_steps=num_steps,
        **settings,
    )


class ComposedTest(parameterized.TestCase):
    @parameterized.product(kind=(sampling.Poisson, sampling.Shuffled), accountant=("rdp", "pld"))
    def test_two_halves_cost_what_the_whole_costs(self, kind, accountant):
        half = plan(num_steps=290, scheme=kind(1797, 64), accountant=accountant)
        together = privacy.composed([half, half], delta=1e-5)
        self.assertAlmostEqual(together.epsilon, half.with_steps(580).epsilon, delta=1e-9)
        self.assertEqual((together.num_runs, together.delta), (2, 1e-5))

    def test_different_runs_against_dp_accounting(self):
        runs = [plan(4.0, accountant="pld"), plan(9.0, 29, sampling.Shuffled(1797, 64), accountant="pld")]
        accountant = pld.PLDAccountant()
        accountant.compose(runs[0].event_of_run).compose(runs[1].event_of_run)
        self.assertAlmostEqual(privacy.composed(runs, 2e-5).epsilon, accountant.get_epsilon(2e-5), delta=1e-6)

    def test_the_deltas_add_up_and_the_sum_of_epsilons_is_a_bound(self):
        runs = [plan(4.0), plan(8.0, delta=1e-6)]
        together = privacy.composed(runs)
        self.assertAlmostEqual(together.delta, 1.1e-5, delta=1e-18)
        self.assertLess(together.epsilon, sum(run.epsilon for run in runs))
        self.assertGreater(together.epsilon, max(run.epsilon for run in runs))
        # For almost nothing after something, RDP's joint order is not the best one of each.
        uneven = [plan(0.5, 1, delta=1e-3), plan(1e5, 1, delta=1e-9)]
        total = sum(run.epsilon for run in uneven)
        self.assertLessEqual(privacy.composed(uneven).epsilon, total)

    def test_at_a_smaller_delta_the_sums_do_not_count(self):
        runs = [plan(4.0, delta=1e-3), plan(4.0, delta=1e-3)]
        self.assertGreater(privacy.composed(runs, 1e-8).epsilon, sum(run.epsilon for run in runs))

    def test_a_single_run_is_itself(self):
        self.assertEqual(privacy.composed([plan()]).epsilon, plan().epsilon)
        self.assertEqual(privacy.composed([plan(num_steps=0), plan(num_steps=0)]).epsilon, 0.0)

    def test_cut_off_batches_are_paid_for_in_every_run(self):
        capped = plan(scheme=sampling.CappedPoisson(1797, 64, capacity=120))
        plain = privacy.composed([plan(), plan()], 1e-5).epsilon
        self.assertGreater(privacy.composed([capped, capped], 1e-5).epsilon, plain)
        self.assertGreater(
            privacy.composed([capped] * 4, 1e-5).epsilon / privacy.composed([plan()] * 4, 1e-5).epsilon,
            privacy.composed([capped, plan(), plan(), plan()], 1e-5).epsilon
            / privacy.composed([plan()] * 4, 1e-5).epsilon,
        )

    def test_replacing_an_example_and_learned_clips(self):
        both = dataclasses.replace(plan(), neighbors="replace_one")
        self.assertGreater(privacy.composed([both, both], 1e-5).epsilon, privacy.composed([plan()] * 2, 1e-5).epsilon)
        learned = dataclasses.replace(
            plan(), event=adaptive_clipping.AdaptiveClipping(count_stddev=4.0).make(1.0, 4.0, 64, None)
        )
        together = privacy.composed([learned, learned], 1e-5).epsilon
        self.assertAlmostEqual(together, learned.with_steps(560).epsilon, delta=1e-9)

    def test_a_budget_has_a_plan(self):
        class Budget:
            plan = plan()

        self.assertEqual(privacy.composed([Budget(), plan()]), privacy.composed([plan(), plan()]))

    def test_it_answers_in_words(self):
        self.assertRegex(
            privacy.composed([plan(), plan()]).text,
            r"^epsilon = [\d.]+ at delta = 2e-05 \(add_or_remove\) for all 2 runs together$",
        )

    @parameterized.parameters(
        ([], {}, "`runs` must hold at least one run"),
        ([3.0], {}, "`runs` must hold plans, .*Received: float"),
        ([plan(), plan(neighbors="replace_one")], {}, "the same `neighbors`"),
        ([plan(), plan()], {"delta": 1.0}, "`delta` must be a finite number above 0 and below 1"),
        ([plan(delta=0.6), plan(delta=0.5)], {}, "`delta` must be below 1, .* such as 0.5. Received: delta=1.1"),
    )
    def test_refuses(self, runs, options, message):
        with self.assertRaisesRegex(ValueError, message):
            privacy.composed(runs, **options)


if __name__ == "__main__":
    absltest.main()
