"""The ledger: an exact replay leaves it as it was, everything else is counted again, and nothing ever gets cheaper."""

import json
import math
import random

import dp_accounting
import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import privacy
from noisy_sgd import sampling as sampling_schemes
from noisy_sgd.privacy import accounting, calibration, ledger, plan

DIGITS = {"batch_size": 64, "num_examples": 1797}
RUN = {"noise_multiplier": 4.0, **DIGITS, "delta": 1e-5, "accountant": "rdp"}
STRIDE = 29


def counted(record: ledger.Ledger, sampling: str) -> int:
    return ledger.counted_steps(record, scheme(sampling))


def scheme(name: str) -> sampling_schemes.Scheme:
    return sampling_schemes.named(name)(DIGITS["num_examples"], DIGITS["batch_size"])


def spent(record: ledger.Ledger, **run) -> float:
    return ledger.spent(record, plan.gaussian(**run, num_steps=0))


def example_takes_part(record: ledger.Ledger, position: int) -> int:
    """By brute force: how often the example that is in that batch of every shuffled epoch may have been released."""
    return sum(step % STRIDE == position for first, end in record.attempts for step in range(first, end))


class AttemptsTest(parameterized.TestCase):
    def test_an_exactly_replayed_run_leaves_the_text_of_an_unbroken_one(self):
        unbroken = replayed = ledger.Ledger()
        for end in range(10, 101, 10):
            unbroken = unbroken.covering(end)
        for end in (10, 20, 30, 20, 30, 40, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100):
            replayed = ledger.from_text(replayed.covering(end).to_text())
        self.assertEqual(replayed.to_text(), unbroken.to_text())
        self.assertEqual(unbroken.to_text(), '{"attempt": 1, "first_step": 0, "end_step": 100}\n')

    def test_covering_what_is_covered_is_the_same_ledger(self):
        record = ledger.Ledger().covering(100)
        self.assertIs(record.covering(60), record)
        self.assertIs(record.covering(100), record)
        self.assertEqual(record.covering(np.int64(101)).attempts, ((0, 101),))

    def test_a_restart_keeps_what_was_counted(self):
        record = ledger.Ledger().covering(100).restarted(60)
        self.assertEqual(record.attempts, ((0, 100), (60, 60)))
        self.assertEqual(record.attempt, 2)
        record = record.covering(80).restarted(70).covering(90)
        self.assertEqual(record.attempts, ((0, 100), (60, 80), (70, 90)))
        self.assertEqual(ledger.from_text(record.to_text()), record)
        self.assertLen([json.loads(line) for line in record.to_text().splitlines()], 3)

    def test_an_attempt_that_released_nothing_is_replaced(self):
        record = ledger.Ledger().covering(100).restarted(60)
        self.assertEqual(record.restarted(60), record)
        self.assertEqual(record.restarted(40).attempts, ((0, 100), (40, 40)))
        self.assertEqual(ledger.Ledger().restarted(0), ledger.Ledger())

    def test_of_copies_the_furthest_is_taken_in_any_order(self):
        states = [ledger.Ledger(), ledger.Ledger().covering(50), ledger.Ledger().covering(100)]
        states += [states[-1].restarted(60), states[-1].restarted(40).covering(90)]
        states += [states[-1].restarted(80).covering(81)]
        for index, earlier in enumerate(states):
            for later in states[index:]:
                for copies in ([earlier, later], [later, earlier]):
                    self.assertEqual(ledger.furthest(copies), later)

    @parameterized.parameters(
        (((0, 100),), ((0, 50), (20, 90))),
        (((0, 100), (60, 70)), ((0, 100), (50, 90))),
        (((0, 100), (60, 70)), ((0, 200),)),
    )
    def test_copies_of_two_ledgers_are_refused(self, one, other):
        with self.assertRaisesRegex(ValueError, "`copies` must be one ledger at different times"):
            ledger.furthest([ledger.Ledger(one), ledger.Ledger(other)])

    def test_a_checkpoint_beyond_the_ledger_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`first_step` must be at most 100, .*Received: first_step=101"):
            ledger.Ledger().covering(100).restarted(101)

    @parameterized.parameters(
        (((1, 2),),), (((0, 5), (6, 7)),), (((0, 5), (3, 2)),), ((),), (((-1, 2),),), (((0, 1.5),),), (((0, True),),)
    )  # fmt: skip
    def test_attempts_that_cannot_be_are_refused(self, attempts):
        with self.assertRaisesRegex(ValueError, "`attempts` must .*Received: attempts="):
            ledger.Ledger(attempts)

    def test_another_text_is_refused(self):
        whole = ledger.Ledger(((0, 100), (60, 80))).to_text()
        self.assertEqual(ledger.from_text(whole).attempt, 2)
        lines = whole.splitlines(keepends=True)
        for text in ("", "{}", "[1]\n", "1\n", whole[:-1], whole[:-5], lines[1], lines[0] * 2, whole + "\n", "damaged"):
            with self.assertRaisesRegex(ValueError, "`text` must be a ledger, .*Received: text=") as raised:
                ledger.from_text(text)
            self.assertNotIn("\n", str(raised.exception))


class CountTest(parameterized.TestCase):
    @parameterized.product(
        sampling=tuple(sampling_schemes.SCHEMES), num_steps=(0, 1, 29, 30, 280), neighbors=accounting.NEIGHBORS
    )
    def test_an_unbroken_run_costs_what_its_steps_cost(self, sampling, num_steps, neighbors):
        choices = {"sampling": sampling, "neighbors": neighbors}
        found = spent(ledger.Ledger().covering(num_steps), **RUN, **choices)
        self.assertEqual(found, privacy.epsilon(**RUN, num_steps=num_steps, **choices))

    def test_under_poisson_a_restart_costs_exactly_the_repeated_steps(self):
        record = ledger.Ledger().covering(180).restarted(100).covering(280)
        self.assertEqual(counted(record, "poisson"), 280 + 80)
        self.assertEqual(
            spent(record, **RUN, sampling="poisson"), privacy.epsilon(**RUN, num_steps=360, sampling="poisson")
        )
        nothing_repeated = ledger.Ledger().covering(100).restarted(100).covering(280)
        self.assertEqual(counted(nothing_repeated, "poisson"), 280)

    @parameterized.parameters(
        (((0, 29), (29, 58)), 2),  # Whole epochs, none repeated.
        (((0, 29), (0, 29)), 2),
        (((0, 30),), 2),
        (((0, 30), (28, 31)), 4),  # Epochs 0 and 1, and both again.
        (((0, 58), (58, 58)), 2),
        (((0, 100), (86, 88)), 6),
    )
    def test_shuffled_attempts_cost_the_epochs_that_they_touch(self, attempts, epochs):
        record = ledger.Ledger(attempts)
        self.assertEqual(counted(record, "shuffled"), epochs * STRIDE)
        # Composed by hand, on every attempt's own events.
        gaussian = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(4.0), epochs)
        expected = accounting.epsilon_of_event(gaussian, 1e-5, "rdp")
        self.assertEqual(spent(record, **RUN, sampling="shuffled"), expected)

    def test_random_histories_are_monotone_and_never_undercounted(self):
        generator = random.Random(2)
        for _ in range(200):
            record, released = ledger.Ledger(), [0]
            for _ in range(generator.randrange(1, 12)):
                before = {sampling: counted(record, sampling) for sampling in tuple(sampling_schemes.SCHEMES)}
                if generator.random() < 0.6:
                    start = record.attempts[-1][1]
                    record = record.covering(generator.randrange(start, start + 70))
                else:
                    record = record.restarted(generator.randrange(max(end for _, end in record.attempts) + 1))
                for sampling, steps in before.items():
                    self.assertGreaterEqual(counted(record, sampling), steps)
            released = sum(end - first for first, end in record.attempts)
            self.assertEqual(counted(record, "poisson"), released)
            worst = max(example_takes_part(record, position) for position in range(STRIDE))
            self.assertGreaterEqual(counted(record, "shuffled"), worst * STRIDE)

    def test_epsilon_grows_with_every_restart(self):
        for sampling in tuple(sampling_schemes.SCHEMES):
            record, found = ledger.Ledger().covering(100), [0.0]
            for first_step in (60, 60, 90):
                found.append(spent(record, **RUN, sampling=sampling))
                record = record.restarted(first_step).covering(120)
            self.assertEqual(found, sorted(set(found)))

    def test_no_noise_is_no_privacy_once_something_was_released(self):
        without = {**RUN, "noise_multiplier": 0.0, "sampling": "poisson"}
        self.assertEqual(spent(ledger.Ledger(), **without), 0.0)
        self.assertEqual(spent(ledger.Ledger().covering(1), **without), math.inf)

    def test_nonsense_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`sampling` must be one of"):
            counted(ledger.Ledger().covering(3), "fixed")


class BudgetTest(parameterized.TestCase):
    @parameterized.product(
        sampling=tuple(sampling_schemes.SCHEMES),
        attempts=(((0, 0),), ((0, 100),), ((0, 100), (60, 60)), ((0, 100), (60, 90), (29, 40))),
        num_steps=(0, 1, 28, 29, 30, 100, 130, 200, 290),
    )
    def test_the_last_step_that_fits(self, sampling, attempts, num_steps):
        record = ledger.Ledger(attempts)
        first, reached = attempts[-1]
        end = ledger.last_end(record, num_steps, scheme(sampling))
        self.assertGreaterEqual(end, first)
        # The current attempt, as if it ended there, and one step later.
        ending = [ledger.Ledger((*attempts[:-1], (first, last))) for last in (end, end + 1)]
        if end > first:
            self.assertLessEqual(counted(ending[0], sampling), num_steps)
        self.assertGreater(counted(ending[1], sampling), num_steps)

    @parameterized.product(sampling=tuple(sampling_schemes.SCHEMES), count_noise=(None, 8.0))
    def test_a_budget_in_epsilon_ends_a_resumed_run_in_time(self, sampling, count_noise):
        noise_multiplier = 4.0 if count_noise is None else accounting.joint_noise_multiplier(4.0, count_noise)
        run = {**RUN, "noise_multiplier": noise_multiplier, "sampling": sampling}
        steps = calibration.steps_for(3.0, **run)
        record = ledger.Ledger().covering(70).restarted(40)
        end = ledger.last_end(record, steps, scheme(sampling))
        self.assertLess(end, steps)
        self.assertLessEqual(spent(record.covering(end), **run), 3.0)
        self.assertGreater(spent(record.covering(end + 1), **run), 3.0)


if __name__ == "__main__":
    absltest.main()
