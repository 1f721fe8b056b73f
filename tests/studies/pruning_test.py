import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import privacy, sampling
from noisy_sgd.optimizers import sgd
from noisy_sgd.studies import pruning, verdicts
from noisy_sgd.studies.laboratory import images, masked, networks, training

SETTING = pruning.Setting(
    dataset="digits",
    num_train_examples=80,
    num_public_examples=64,
    widths=(6,),
    fractions=(0.0, 0.9),
    epsilons=(5.0,),
    batch_size=20,
    num_steps=6,
    num_public_steps=4,
    learning_rates=(0.5, 1.0),
    num_tuning_seeds=1,
    num_seeds=5,
)


def case(fraction, start, seed=3):
    return {
        "stage": "final",
        "epsilon": 5.0,
        "width": 6,
        "fraction": fraction,
        "start": start,
        "rate": 0.5,
        "seed": seed,
    }


class PruningTest(parameterized.TestCase):
    def test_without_pruning_it_is_dp_sgd(self):
        data = images.load("digits", 3, num_train_examples=80)
        noise = privacy.noise_multiplier_for(5.0, 20, 80, 6, 1e-5, sampling="poisson")
        expected = training.Trainer(
            networks.builder("mlp", data, width=6),
            sgd.DPSGD(0.5, 1.0, noise, 20, seed=0),
            batch_size=20,
            sampled=sampling.Poisson,
        )
        expected.start(data.train.images, data.train.labels, seed=3, learning_rate=0.5)
        expected.advance(6)
        found = pruning.measure(SETTING, case(0.0, pruning.RANDOM))
        trained = pruning._trainer(SETTING, 5.0, 6, False).weights
        for value, other in zip(trained, expected.weights, strict=True):
            np.testing.assert_array_equal(value, other)
        judged = expected.evaluate(data.judged.images, data.judged.labels)
        self.assertEqual(found["accuracy"], judged.accuracy)
        self.assertEqual(found["noise_multiplier"], noise)

    @parameterized.parameters(pruning.RANDOM, pruning.PUBLIC)
    def test_the_largest_weights_of_the_start_are_kept(self, start):
        pruning.measure(SETTING, case(0.9, start))
        kernel = pruning._trainer(SETTING, 5.0, 6, True).model.get_layer("hidden1").kernel.numpy()
        model = networks.builder("mlp", images.load("digits", 3, num_train_examples=80), width=6)(3)
        source = masked.kernels(model) if start == pruning.RANDOM else pruning._public_kernels(SETTING, 6, 3)
        np.testing.assert_array_equal(kernel != 0, masked.mask(source[0], 0.9) == 1)
        if start == pruning.PUBLIC:
            self.assertFalse(np.allclose(source[0], masked.kernels(model)[0]))

    def test_pruning_changes_neither_noise_nor_sensitivity(self):
        plain, pruned = (pruning._trainer(SETTING, 5.0, 6, is_pruned).model.optimizer for is_pruned in (False, True))
        self.assertEqual((plain.noise_multiplier, plain.l2_norm_clip), (pruned.noise_multiplier, pruned.l2_norm_clip))
        self.assertEqual(plain.event, pruned.event)
        epsilon = privacy.epsilon(pruned.noise_multiplier, 20, 80, 6, 1e-5, sampling="poisson")
        self.assertBetween(epsilon, 4.99, 5.0)

    def test_rows(self):
        setting = pruning.Setting(dataset="digits", num_seeds=10, learning_rates=(0.5, 1.0), epsilons=(3.0, 1.0))

        def measured(case):
            random = np.random.default_rng([case["seed"], int(100 * case["fraction"])])
            better = {0.9: 0.02, 0.95: 0.01}.get(case["fraction"], 0.0) * (case["start"] == "random")
            better *= 2 if case["width"] == 1024 else 1
            wrong_rate = 0.1 * (case["rate"] != (0.5 if case["fraction"] else 1.0))
            return {"accuracy": 0.7 + better - wrong_rate + 0.002 * random.normal()}

        lines = []
        for stage in pruning.stages(setting):
            lines += [{**one, **measured(one)} for one in stage(lines)]
        points = list(dict.fromkeys((line["epsilon"], line["width"]) for line in lines))
        self.assertEqual(points, [(3.0, 128), (3.0, 1024), (1.0, 128)])
        self.assertLen(lines, 3 * 5 * 2 * (2 * 2 + 10))
        found = pruning.summary(setting, lines)
        for rate in found["rates"]:
            self.assertEqual(rate["rate"], 0.5 if rate["fraction"] else 1.0)
        rows = {row["row"]: row for row in found["rows"]}
        for width in (128, 1024):
            self.assertEqual(rows[f"random, width {width}"]["verdict"], verdicts.CONFIRMED)
            self.assertNotEqual(rows[f"public, width {width}"]["verdict"], verdicts.CONFIRMED)
        self.assertEqual(rows["random, wider"]["verdict"], verdicts.CONFIRMED)
        (part,) = rows["random, wider"]["parts"]
        self.assertEqual(part["part"], "90 % at 1024 less 90 % at 128")
        self.assertAlmostEqual(part["mean"], 2.0, delta=1e-9)


if __name__ == "__main__":
    absltest.main()
