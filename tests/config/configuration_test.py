"""Tests of the groups together: what a record keeps of them, and what they require of each other."""

import dataclasses
import subprocess
import sys

from absl.testing import absltest

from noisy_sgd import config, records

_PRIVATE = {"algorithm": "dp_sgd", "noise_multiplier": 1.0, "l2_norm_clip": 1.0}


class ConfigTest(absltest.TestCase):
    def test_resolved_leaves_nothing_open_and_no_place(self):
        there = config.Config(
            data=config.Data(data_dir="/somewhere"),
            training=config.Training(algorithm="noisy_sgd", batch_size=512, effective_noise=0.01, num_steps=100),
            run=config.Run(run_dir="/elsewhere", seed=5),
        ).resolved()
        self.assertNotIn("/", str(there))
        self.assertEqual(there["algorithm"]["microbatch_size"], 256)
        self.assertAlmostEqual(there["algorithm"]["noise_multiplier"], 5.12)
        self.assertEqual(there["algorithm"]["noise_seed"], 5)
        self.assertEqual(there["run"]["eval_every"], 5)

    def test_what_changes_no_number_is_not_part_of_what_a_run_is(self):
        private = config.Training(**_PRIVATE)
        elsewhere = config.Run(
            run_dir="here",
            resume=False,
            checkpoint_dir="gs://there",
            checkpoint_every=7,
            checkpoint_minutes=1.0,
            keep_checkpoints=9,
            show_private_metrics=True,
        )
        made = config.Config(data=config.Data(data_dir="data"), training=private, run=elsewhere).resolved()
        self.assertEqual(made, config.Config(training=private).resolved())
        on_tpus = [config.Config(run=config.Run(strategy="tpu", tpu=name)).resolved() for name in ("one", "other")]
        self.assertEqual(*on_tpus)
        self.assertEqual(on_tpus[0]["run"]["strategy"], "tpu")

    def test_what_changes_a_number_is_part_of_what_a_run_is(self):
        data = config.Data(dataset="imagenet2012", augmentation="flip_and_crop")
        model = config.Model(precision="bfloat16")
        options = {"sampling": "poisson", "target_quantile": 0.5, "augmentation_multiplicity": 2, "max_epsilon": 3.0}
        made = config.Config(data=data, model=model, training=config.Training(**_PRIVATE, **options)).resolved()
        self.assertEqual((made["data"]["image_size"], made["data"]["augmentation"]), (224, "flip_and_crop"))
        self.assertEqual(made["model"]["precision"], "bfloat16")
        self.assertEqual({name: made["algorithm"][name] for name in options}, options)
        self.assertEqual(made["algorithm"]["clipping"], "flat")

    def test_resolves_to_what_a_record_of_before_the_optimizers_holds(self):
        record = {
            "data": {
                "dataset": "digits",
                "num_train_examples": None,
                "label_noise": 0.0,
                "augmentation": "none",
                "image_size": None,
            },
            "model": {"model": "mlp", "hidden": [32], "precision": "float32"},
            "algorithm": {
                "algorithm": "dp_sgd",
                "batch_size": 64,
                "microbatch_size": 64,
                "num_steps": 40,
                "learning_rate": 0.5,
                "momentum": 0.0,
                "ema_decay": 0.0,
                "noise_multiplier": 1.1,
                "effective_noise": 0.0171875,
                "l2_norm_clip": 1.0,
                "noise_seed": 5,
                "delta": None,
                "sampling": "shuffled",
                "clipping": "flat",
                "target_quantile": None,
                "augmentation_multiplicity": 1,
                "max_epsilon": None,
                "noise_std": 0.0171875,
            },
            "run": {"seed": 3, "strategy": "default", "logical_devices": None, "eval_every": 2},
        }
        options = {"num_steps": 40, "noise_multiplier": 1.1, "noise_seed": 5}
        settings = config.Config(
            model=config.Model(model="mlp", hidden=(32,)),
            training=config.Training(**_PRIVATE | options),
            run=config.Run(seed=3),
        )
        self.assertEqual(records.plain(settings.resolved()), record)
        adam = dataclasses.replace(settings, training=dataclasses.replace(settings.training, optimizer="adam"))
        difference = records.first_difference(record, records.plain(adam.resolved()))
        self.assertEqual(difference, "algorithm.optimizer is 'absent' there and 'adam' here")

    def test_several_copies_of_an_image_need_an_augmentation(self):
        with self.assertRaisesRegex(config.ConfigError, "--augmentation_multiplicity.*--augmentation=crop"):
            config.Config(training=config.Training(augmentation_multiplicity=2))

    def test_only_dp_sgd_has_private_metrics_to_show(self):
        with self.assertRaisesRegex(config.ConfigError, "--show_private_metrics.*means nothing to sgd"):
            config.Config(run=config.Run(show_private_metrics=True))

    def test_dp_sgd_has_no_noise_seed_unless_typed(self):
        private = config.Training(algorithm="dp_sgd", noise_multiplier=1.0, l2_norm_clip=1.0)
        self.assertIsNone(config.Config(training=private, run=config.Run(seed=5)).noise_seed)
        self.assertEqual(config.Config(training=dataclasses.replace(private, noise_seed=9)).noise_seed, 9)

    def test_names_what_the_library_has(self):
        from noisy_sgd import sampling
        from noisy_sgd.gradients import clipping
        from noisy_sgd.privacy import statement
        from noisy_sgd.training import distribution

        self.assertEqual(config.CLIPPINGS, clipping.CLIPPINGS)
        self.assertEqual(config.STRATEGIES, distribution.STRATEGIES)
        self.assertEqual(config.ALGORITHMS, statement.ALGORITHMS)
        self.assertCountEqual(config.SAMPLINGS, sampling.SCHEMES)

    def test_needs_no_tensorflow(self):
        code = (
            "import sys; from noisy_sgd import config; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
        )
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False).returncode, 0)


if __name__ == "__main__":
    absltest.main()
