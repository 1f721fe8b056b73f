import numpy as np
from absl.testing import absltest

from noisy_sgd.studies.laboratory import arm_runs, arms, images, networks, training

DATA = images.load("digits", 2, num_train_examples=40)
RATES = {arms.PLAIN: 0.1, arms.NOISE: 0.1, arms.CLIP: 0.3, arms.NOISE_CLIP: 0.2}
NUMBERS = {"batch_size": 8, "noise_std": 0.05, "l2_norm_clip": 0.7}


def flat(weights):
    return np.concatenate([value.ravel() for value in weights])


class ArmRunsTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        network = networks.builder("mlp", DATA, width=5)
        self.trainers = arm_runs.Trainers(network, ema_decay=0.9, **NUMBERS)
        self.group = arm_runs.Group(self.trainers, DATA, seed=4, rates=RATES, num_steps=16)

        def train(arm, num_steps, **beginning):
            trainer = training.Trainer(network, arms.optimizer(arm, **NUMBERS), batch_size=8)
            trainer.start(DATA.train.images, DATA.train.labels, seed=4, learning_rate=RATES[arm], **beginning)
            trainer.advance(num_steps)
            return trainer

        self.train = train

    def test_a_switched_run_ends_between_the_two_ends(self):
        plain, both = (self.train(arm, 16).weights for arm in (arms.PLAIN, arms.NOISE_CLIP))
        half = self.train(arms.NOISE_CLIP, 8)
        switched = self.train(arms.PLAIN, 8, weights=half.weights, step=8)
        way = flat(both) - flat(plain)
        position = np.linalg.lstsq(way[:, None], flat(switched.weights) - flat(plain), rcond=None)[0][0]
        found = self.group.switched(arms.NOISE_CLIP, arms.PLAIN, 0.5)
        self.assertAlmostEqual(found["position"], position, places=5)
        evaluated = switched.evaluate(DATA.judged.images, DATA.judged.labels)
        self.assertEqual(found["accuracy"], evaluated.accuracy)
        # The other way round, the position is measured on the same line.
        quarter = self.train(arms.PLAIN, 4)
        switched = self.train(arms.NOISE_CLIP, 12, weights=quarter.weights, step=4)
        position = np.linalg.lstsq(way[:, None], flat(switched.weights) - flat(plain), rcond=None)[0][0]
        found = self.group.switched(arms.PLAIN, arms.NOISE_CLIP, 0.25)
        self.assertAlmostEqual(found["position"], position, places=5)
        self.assertLess(found["train_loss"], 10)

    def test_a_whole_run_is_that_of_a_trainer_whatever_is_looked_at(self):
        trainer, run = self.train(arms.NOISE_CLIP, 16), self.group.whole(arms.NOISE_CLIP)
        for value, expected in zip(run.end, trainer.weights, strict=True):
            np.testing.assert_array_equal(value, expected)
        judged = trainer.evaluate(DATA.judged.images, DATA.judged.labels)
        self.assertEqual((run.measured["accuracy"], run.measured["test_loss"]), (judged.accuracy, judged.loss))
        looks = run.measured["looks"]
        self.assertEqual([look["part"] for look in looks], list(arm_runs.LOOKS))
        self.assertEqual(looks[0]["distance"], 0.0)
        beginning = flat(self.train(arms.NOISE_CLIP, 0).weights)
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
