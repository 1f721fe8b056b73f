import functools

import numpy as np
from absl.testing import absltest

from noisy_sgd.studies.laboratory import arm_runs, arms, images, networks, training

DATA = images.load("digits", 2, num_train_examples=40)
RATES = {arms.PLAIN: 0.1, arms.NOISE: 0.1, arms.CLIP: 0.3, arms.NOISE_CLIP: 0.2}
NUMBERS = {"batch_size": 8, "noise_std": 0.05, "l2_norm_clip": 0.7}


def flat(weights):
    return np.concatenate([value.ravel() for value in weights])


NETWORK = networks.builder("mlp", DATA, width=5)


@functools.cache
def trainer_of(arm):
    return training.Trainer(NETWORK, arms.optimizer(arm, **NUMBERS), batch_size=8)


def train(arm, num_steps, **beginning):
    """The weights after some steps, and the trainer."""
    trainer = trainer_of(arm)
    trainer.start(DATA.train.images, DATA.train.labels, seed=4, learning_rate=RATES[arm], **beginning)
    trainer.advance(num_steps)
    return trainer.weights, trainer


class ArmRunsTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        trainers = arm_runs.Trainers(NETWORK, ema_decay=0.9, **NUMBERS)
        cls.group = arm_runs.Group(trainers, DATA, seed=4, rates=RATES, num_steps=16)

    def test_a_switched_run_ends_between_the_two_ends(self):
        plain, both = (train(arm, 16)[0] for arm in (arms.PLAIN, arms.NOISE_CLIP))
        way = flat(both) - flat(plain)
        # The other way round, the position is measured on the same line.
        for first, then, steps in ((arms.NOISE_CLIP, arms.PLAIN, 8), (arms.PLAIN, arms.NOISE_CLIP, 4)):
            weights, switched = train(then, 16 - steps, weights=train(first, steps)[0], step=steps)
            position = np.linalg.lstsq(way[:, None], flat(weights) - flat(plain), rcond=None)[0][0]
            found = self.group.switched(first, then, steps / 16)
            self.assertAlmostEqual(found["position"], position, places=5)
            self.assertBetween(position, 0.05, 0.95)
            self.assertEqual(found["accuracy"], switched.evaluate(DATA.judged.images, DATA.judged.labels).accuracy)
            self.assertEqual(found["train_loss"], switched.evaluate(DATA.train.images, DATA.train.labels).loss)

    def test_a_whole_run_is_that_of_a_trainer_whatever_is_looked_at(self):
        run = self.group.whole(arms.NOISE_CLIP)
        beginning = flat(train(arms.NOISE_CLIP, 0)[0])
        weights, trainer = train(arms.NOISE_CLIP, 16)
        for value, expected in zip(run.end, weights, strict=True):
            np.testing.assert_array_equal(value, expected)
        judged = trainer.evaluate(DATA.judged.images, DATA.judged.labels)
        self.assertEqual((run.measured["accuracy"], run.measured["test_loss"]), (judged.accuracy, judged.loss))
        looks = run.measured["looks"]
        self.assertEqual([look["part"] for look in looks], list(arm_runs.LOOKS))
        self.assertEqual(looks[0]["distance"], 0.0)
        for part, weights in run.at_switches.items():
            (look,) = [look for look in looks if look["part"] == part]
            self.assertAlmostEqual(look["distance"], np.linalg.norm(flat(weights) - beginning), places=5)
        self.assertGreater(looks[-1]["fraction_clipped"], 0.5)

    def test_a_line_ends_at_the_losses_of_the_runs(self):
        line = self.group.line(arms.CLIP)
        for place, arm in ((0, arms.PLAIN), (-1, arms.CLIP)):
            measured = self.group.whole(arm).measured
            self.assertAlmostEqual(line["train_loss"][place], measured["train_loss"], places=6)
            self.assertAlmostEqual(line["test_loss"][place], measured["test_loss"], places=6)
        self.assertLen(line["train_loss"], len(arm_runs.LINE))


if __name__ == "__main__":
    absltest.main()
