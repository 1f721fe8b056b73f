import dataclasses
import math
import subprocess
import sys

from absl.testing import absltest, parameterized

from noisy_sgd import config


class AlgorithmTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"batch_size": 0}, "--batch_size.*at least 1.*batch_size=0"),
        ({"batch_size": -4}, "--batch_size.*batch_size=-4"),
        (
            {"batch_size": 10, "microbatch_size": 4},
            "--batch_size.*multiple of `--microbatch_size`=4.*=10.*12",
        ),
        ({"microbatch_size": 0}, "--microbatch_size.*at least 1"),
        ({"num_steps": 0}, "--num_steps"),
        ({"learning_rate": 0.0}, "--learning_rate.*positive"),
        ({"learning_rate": math.nan}, "--learning_rate.*finite"),
        ({"momentum": 1.0}, "--momentum.*less than 1"),
        ({"ema_decay": 1.0}, "--ema_decay.*less than 1"),
        ({"algorithm": "adam"}, "--algorithm.*sgd, noisy_sgd, dp_sgd.*algorithm=adam"),
        ({"algorithm": "noisy_sgd", "noise_multiplier": -1.0}, "--noise_multiplier.*at least 0.*noise_multiplier=-1.0"),
        ({"algorithm": "noisy_sgd", "effective_noise": -0.1}, "--effective_noise.*at least 0"),
        ({"algorithm": "noisy_sgd", "effective_noise": math.inf}, "--effective_noise.*finite"),
        (
            {"algorithm": "noisy_sgd", "noise_multiplier": 1.0, "effective_noise": 0.1},
            "noise_multiplier=1.0, effective_noise=0.1",
        ),
        ({"algorithm": "noisy_sgd"}, "--noise_multiplier.*--effective_noise.*explicit 0"),
        ({"algorithm": "dp_sgd", "l2_norm_clip": 1.0}, "--noise_multiplier.*explicit 0"),
        ({"algorithm": "dp_sgd", "noise_multiplier": 1.0}, "--l2_norm_clip.*needed by dp_sgd"),
        ({"algorithm": "dp_sgd", "noise_multiplier": 1.0, "l2_norm_clip": 0.0}, "--l2_norm_clip.*positive"),
        ({"algorithm": "dp_sgd", "noise_multiplier": 1.0, "l2_norm_clip": math.nan}, "--l2_norm_clip.*positive"),
        (
            {"algorithm": "dp_sgd", "noise_multiplier": 1.0, "l2_norm_clip": math.inf},
            "--l2_norm_clip.*finite when there is noise",
        ),
        (
            {"algorithm": "dp_sgd", "noise_multiplier": 1.0, "l2_norm_clip": 1.0, "delta": 1.0},
            "--delta.*between 0 and 1",
        ),
        ({"algorithm": "sgd", "noise_multiplier": 1.0}, "--noise_multiplier.*means nothing to sgd"),
        ({"algorithm": "sgd", "effective_noise": 0.0}, "--effective_noise.*means nothing to sgd"),
        ({"algorithm": "sgd", "noise_seed": 3}, "--noise_seed.*means nothing to sgd"),
        ({"algorithm": "sgd", "l2_norm_clip": 1.0}, "--l2_norm_clip.*means nothing to"),
        ({"algorithm": "noisy_sgd", "noise_multiplier": 1.0, "l2_norm_clip": 1.0}, "--l2_norm_clip.*means nothing to"),
    )
    def test_what_cannot_run_is_refused_in_one_line(self, arguments, message):
        with self.assertRaisesRegex(config.ConfigError, message) as caught:
            config.Algorithm(**arguments)
        self.assertNotIn("\n", str(caught.exception))

    def test_both_ways_to_state_the_noise_agree(self):
        multiplier = config.Algorithm(algorithm="noisy_sgd", batch_size=64, noise_multiplier=0.64)
        effective = config.Algorithm(algorithm="noisy_sgd", batch_size=64, effective_noise=0.01)
        self.assertAlmostEqual(multiplier.resolved_noise_multiplier, effective.resolved_noise_multiplier)
        self.assertAlmostEqual(multiplier.noise_std, 0.01)
        self.assertAlmostEqual(effective.noise_std, 0.01)

    def test_the_clip_norm_scales_the_noise_of_dp_sgd(self):
        algorithm = config.Algorithm(algorithm="dp_sgd", batch_size=8, noise_multiplier=2.0, l2_norm_clip=3.0)
        self.assertAlmostEqual(algorithm.noise_std, 2.0 * 3.0 / 8)

    def test_no_noise_may_be_typed_even_without_a_bound(self):
        algorithm = config.Algorithm(algorithm="dp_sgd", noise_multiplier=0.0, l2_norm_clip=math.inf)
        self.assertEqual(algorithm.noise_std, 0.0)

    @parameterized.parameters((64, None, 64), (512, None, 256), (300, None, 150), (64, 16, 16))
    def test_the_microbatch_divides_the_batch(self, batch_size, typed, resolved):
        self.assertEqual(
            config.Algorithm(batch_size=batch_size, microbatch_size=typed).resolved_microbatch_size, resolved
        )


class GroupsTest(parameterized.TestCase):
    @parameterized.parameters(
        (config.Data, {"dataset": "mnits"}, "--dataset.*digits, mnist.*dataset=mnits"),
        (config.Data, {"num_train_examples": 0}, "--num_train_examples"),
        (config.Data, {"label_noise": 1.5}, "--label_noise.*between 0 and 1"),
        (config.Model, {"hidden": (8,)}, "--hidden.*--model=mlp"),
        (config.Model, {"model": "mlp", "hidden": (8, 0)}, "--hidden.*positive.*hidden=8,0"),
        (config.Model, {"model": "resnet"}, "--model.*nf_resnet_tiny.*model=resnet"),
        (config.Run, {"strategy": "horovod"}, "--strategy"),
        (config.Run, {"logical_devices": 0}, "--logical_devices"),
        (config.Run, {"eval_every": 0}, "--eval_every"),
    )
    def test_refuses(self, group, arguments, message):
        with self.assertRaisesRegex(config.ConfigError, message):
            group(**arguments)

    def test_a_saved_model_is_named_by_its_path(self):
        self.assertEqual(config.Model(model="somewhere/mine.keras").model, "somewhere/mine.keras")

    def test_positional_arguments_are_refused(self):
        with self.assertRaises(TypeError):
            config.Data("digits")


class ConfigTest(absltest.TestCase):
    def test_resolved_leaves_nothing_open_and_no_place(self):
        there = config.Config(
            data=config.Data(data_dir="/somewhere"),
            algorithm=config.Algorithm(algorithm="noisy_sgd", batch_size=512, effective_noise=0.01, num_steps=100),
            run=config.Run(run_dir="/elsewhere", seed=5),
        ).resolved()
        self.assertNotIn("/", str(there))
        self.assertEqual(there["algorithm"]["microbatch_size"], 256)
        self.assertAlmostEqual(there["algorithm"]["noise_multiplier"], 5.12)
        self.assertEqual(there["algorithm"]["noise_seed"], 5)
        self.assertEqual(there["run"]["eval_every"], 5)

    def test_dp_sgd_has_no_noise_seed_unless_typed(self):
        private = config.Algorithm(algorithm="dp_sgd", noise_multiplier=1.0, l2_norm_clip=1.0)
        self.assertIsNone(config.Config(algorithm=private, run=config.Run(seed=5)).noise_seed)
        self.assertEqual(config.Config(algorithm=dataclasses.replace(private, noise_seed=9)).noise_seed, 9)

    def test_needs_no_tensorflow(self):
        code = (
            "import sys; from noisy_sgd import config; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
        )
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False).returncode, 0)


class SweepTest(absltest.TestCase):
    def _sweep(self, algorithms=("sgd", "noisy_sgd", "dp_sgd"), batch_sizes=(8, 16), num_seeds=2, **changes):
        options = {"num_steps": 7, "learning_rate": 0.1, "effective_noise": 0.01, "l2_norm_clip": 2.0}
        base = config.Config(run=config.Run(seed=10, run_dir="sweep"))
        return config.sweep(algorithms, batch_sizes, num_seeds, base=base, **options, **changes)

    def test_only_the_batch_size_varies(self):
        runs = self._sweep().runs
        self.assertLen(runs, 3 * 2 * 2)
        self.assertEqual({c.algorithm.num_steps for c in runs.values()}, {7})
        self.assertEqual({c.run.seed for c in runs.values()}, {10, 11})
        noisy = [c for name, c in runs.items() if name.startswith("noisy_sgd")]
        self.assertLen(noisy, 4)
        for c in noisy:
            self.assertAlmostEqual(c.algorithm.noise_std, 0.01)
        for name, c in runs.items():
            self.assertEqual(name, f"{c.algorithm.algorithm}-batch_{c.algorithm.batch_size}-seed_{c.run.seed}")
            self.assertEqual(c.run.run_dir, f"sweep/{name}")

    def test_dp_sgd_may_have_noise_of_its_own(self):
        stds = {
            (c.algorithm.algorithm, round(c.algorithm.noise_std, 9))
            for c in self._sweep(dp_sgd_effective_noise=0.005).runs.values()
        }
        self.assertEqual(stds, {("sgd", 0.0), ("noisy_sgd", 0.01), ("dp_sgd", 0.01)})

    def test_refuses(self):
        for changes, message in (
            ({"num_seeds": 0}, "--num_seeds"),
            ({"batch_sizes": ()}, "--batch_size.*one or more"),
            ({"batch_sizes": (8, 8)}, "--batch_size.*different"),
            ({"algorithms": ("sgd", "adam")}, "--algorithm"),
        ):
            with self.assertRaisesRegex(config.ConfigError, message):
                self._sweep(**changes)


if __name__ == "__main__":
    absltest.main()
