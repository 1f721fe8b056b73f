import dataclasses
import math
import subprocess
import sys

from absl.testing import absltest, parameterized

from noisy_sgd import config

_PRIVATE = {"algorithm": "dp_sgd", "noise_multiplier": 1.0, "l2_norm_clip": 1.0}
_CLIPPED = {"algorithm": "dp_sgd", "noise_multiplier": 0.0, "l2_norm_clip": math.inf}


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
        ({"sampling": "uniform"}, "--sampling.*shuffled, poisson.*sampling=uniform"),
        ({"clipping": "hard"}, "--clipping.*flat, automatic, normalized, per_layer.*clipping=hard"),
        ({"clipping": "automatic"}, "--clipping.*means nothing to sgd.*--algorithm=dp_sgd"),
        ({"target_quantile": 0.5}, "--target_quantile.*means nothing to sgd"),
        ({"max_epsilon": 3.0}, "--max_epsilon.*means nothing to sgd.*max_epsilon=3.0"),
        (_PRIVATE | {"target_quantile": 0.0}, "--target_quantile.*between 0 and 1.*target_quantile=0.0"),
        (_PRIVATE | {"target_quantile": 1.0}, "--target_quantile.*between 0 and 1"),
        (_PRIVATE | {"target_quantile": 0.5, "clipping": "per_layer"}, "--target_quantile.*--clipping=per_layer.*flat"),
        (_CLIPPED | {"target_quantile": 0.5}, "--l2_norm_clip.*finite to be learned"),
        (_CLIPPED | {"clipping": "normalized"}, "--l2_norm_clip.*finite for `--clipping=normalized`"),
        ({"augmentation_multiplicity": 0}, "--augmentation_multiplicity.*at least 1"),
        (_PRIVATE | {"max_epsilon": 0.0}, "--max_epsilon.*positive"),
        (_PRIVATE | {"max_epsilon": math.inf}, "--max_epsilon.*finite.*max_epsilon=inf"),
        (_PRIVATE | {"max_epsilon": 3.0, "noise_multiplier": 0.0}, "--max_epsilon.*needs noise.*--noise_multiplier"),
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

    @parameterized.parameters(*config.ALGORITHMS)
    def test_poisson_sampling_and_several_copies_are_for_every_algorithm(self, name):
        needed = {"sgd": {}, "noisy_sgd": {"noise_multiplier": 1.0}, "dp_sgd": _PRIVATE}[name]
        made = config.Algorithm(**{**needed, "algorithm": name}, sampling="poisson", augmentation_multiplicity=4)
        self.assertEqual((made.sampling, made.augmentation_multiplicity), ("poisson", 4))

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
        (config.Data, {"augmentation": "mixup"}, "--augmentation.*none, crop, flip_and_crop.*augmentation=mixup"),
        (config.Data, {"image_size": 64}, "--image_size.*means nothing to digits.*imagenet2012"),
        (config.Data, {"dataset": "imagenet2012", "image_size": 0}, "--image_size.*at least 1"),
        (config.Data, {"dataset": "imagenet2012", "label_noise": 0.1}, "--label_noise.*imagenet2012.*label_noise=0.1"),
        (config.Model, {"precision": "float16"}, "--precision.*float32, bfloat16.*precision=float16"),
        (config.Model, {"model": "my.keras", "precision": "bfloat16"}, "--precision.*saved model.*its own"),
        (config.Run, {"strategy": "tpu"}, "--tpu.*needed by `--strategy=tpu`.*local"),
        (config.Run, {"tpu": "node-1"}, "--tpu.*means nothing to `--strategy=default`.*--strategy=tpu"),
        (config.Run, {"strategy": "tpu", "tpu": "local", "logical_devices": 2}, "--logical_devices.*--strategy=tpu"),
        (config.Run, {"strategy": "multi_worker", "logical_devices": 2}, "--logical_devices.*--strategy=multi_worker"),
        (config.Run, {"checkpoint_every": 0}, "--checkpoint_every.*at least 1"),
        (config.Run, {"checkpoint_minutes": 0.0}, "--checkpoint_minutes.*positive"),
        (config.Run, {"checkpoint_minutes": math.nan}, "--checkpoint_minutes.*checkpoint_minutes=nan"),
        (config.Run, {"keep_checkpoints": 0}, "--keep_checkpoints.*at least 1"),
    )
    def test_refuses(self, group, arguments, message):
        with self.assertRaisesRegex(config.ConfigError, message) as caught:
            group(**arguments)
        self.assertNotIn("\n", str(caught.exception))

    @parameterized.parameters("default", "mirrored")
    def test_the_processor_can_be_split_on_one_machine(self, strategy):
        self.assertEqual(config.Run(strategy=strategy, logical_devices=2).logical_devices, 2)

    @parameterized.parameters(("digits", None, None), ("imagenet2012", None, 224), ("imagenet2012", 64, 64))
    def test_only_imagenet_has_an_image_size(self, dataset, typed, resolved):
        self.assertEqual(config.Data(dataset=dataset, image_size=typed).resolved_image_size, resolved)

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

    def test_what_changes_no_number_is_not_part_of_what_a_run_is(self):
        private = config.Algorithm(**_PRIVATE)
        elsewhere = config.Run(
            run_dir="here",
            resume=False,
            checkpoint_dir="gs://there",
            checkpoint_every=7,
            checkpoint_minutes=1.0,
            keep_checkpoints=9,
            show_private_metrics=True,
        )
        made = config.Config(data=config.Data(data_dir="data"), algorithm=private, run=elsewhere).resolved()
        self.assertEqual(made, config.Config(algorithm=private).resolved())
        on_tpus = [config.Config(run=config.Run(strategy="tpu", tpu=name)).resolved() for name in ("one", "other")]
        self.assertEqual(*on_tpus)
        self.assertEqual(on_tpus[0]["run"]["strategy"], "tpu")

    def test_what_changes_a_number_is_part_of_what_a_run_is(self):
        data = config.Data(dataset="imagenet2012", augmentation="flip_and_crop")
        model = config.Model(precision="bfloat16")
        options = {"sampling": "poisson", "target_quantile": 0.5, "augmentation_multiplicity": 2, "max_epsilon": 3.0}
        made = config.Config(data=data, model=model, algorithm=config.Algorithm(**_PRIVATE, **options)).resolved()
        self.assertEqual((made["data"]["image_size"], made["data"]["augmentation"]), (224, "flip_and_crop"))
        self.assertEqual(made["model"]["precision"], "bfloat16")
        self.assertEqual({name: made["algorithm"][name] for name in options}, options)
        self.assertEqual(made["algorithm"]["clipping"], "flat")

    def test_several_copies_of_an_image_need_an_augmentation(self):
        with self.assertRaisesRegex(config.ConfigError, "--augmentation_multiplicity.*--augmentation=crop"):
            config.Config(algorithm=config.Algorithm(augmentation_multiplicity=2))

    def test_only_dp_sgd_has_private_metrics_to_show(self):
        with self.assertRaisesRegex(config.ConfigError, "--show_private_metrics.*means nothing to sgd"):
            config.Config(run=config.Run(show_private_metrics=True))

    def test_dp_sgd_has_no_noise_seed_unless_typed(self):
        private = config.Algorithm(algorithm="dp_sgd", noise_multiplier=1.0, l2_norm_clip=1.0)
        self.assertIsNone(config.Config(algorithm=private, run=config.Run(seed=5)).noise_seed)
        self.assertEqual(config.Config(algorithm=dataclasses.replace(private, noise_seed=9)).noise_seed, 9)

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

    def test_what_is_for_dp_sgd_alone_reaches_it_alone(self):
        for name, c in self._sweep(sampling="poisson", target_quantile=0.5).runs.items():
            self.assertEqual(c.algorithm.sampling, "poisson")
            self.assertEqual(c.algorithm.target_quantile, 0.5 if name.startswith("dp_sgd") else None)
        clippings = {
            c.algorithm.algorithm: c.algorithm.clipping for c in self._sweep(clipping="automatic").runs.values()
        }
        self.assertEqual(clippings, {"sgd": "flat", "noisy_sgd": "flat", "dp_sgd": "automatic"})

    def test_refuses(self):
        for changes, message in (
            ({"clipping": "hard"}, "--clipping"),
            ({"sampling": "uniform"}, "--sampling"),
            ({"num_seeds": 0}, "--num_seeds"),
            ({"batch_sizes": ()}, "--batch_size.*one or more"),
            ({"batch_sizes": (8, 8)}, "--batch_size.*different"),
            ({"algorithms": ("sgd", "adam")}, "--algorithm"),
        ):
            with self.assertRaisesRegex(config.ConfigError, message):
                self._sweep(**changes)


class PixelRangeTest(parameterized.TestCase):
    @parameterized.parameters(("raw", None), ("auto", None), ("0,1", (0.0, 1.0)), ("-1,1.5", (-1.0, 1.5)))
    def test_is_read(self, typed, expected):
        self.assertEqual(config.pixel_bounds(typed), expected)
        made = config.Config(model=config.Model(model="mine.keras", pixel_range=typed))
        self.assertEqual(made.resolved()["model"]["pixel_range"], typed)

    @parameterized.parameters("", "0", "1,0", "1,1", "0,1,2", "0,inf", "nan,1", "a,b", "0,")
    def test_is_refused(self, typed):
        with self.assertRaisesRegex(ValueError, "^`--pixel_range` must be raw, auto, or two rising numbers"):
            config.Model(model="mine.keras", pixel_range=typed)

    def test_is_for_saved_models(self):
        with self.assertRaisesRegex(ValueError, "^`--pixel_range` means nothing to mlp"):
            config.Model(model="mlp", pixel_range="0,1")
        self.assertNotIn("pixel_range", config.Config(model=config.Model(model="mlp")).resolved()["model"])

    def test_an_mlp_has_hidden_units(self):
        with self.assertRaisesRegex(ValueError, "^`--hidden` needs .* one or more positive whole numbers"):
            config.Model(model="mlp", hidden=())


if __name__ == "__main__":
    absltest.main()
