"""Tests of the flags of training: what is refused, the two ways to state the noise, and the microbatch."""

import math

from absl.testing import absltest, parameterized

from noisy_sgd import config

_PRIVATE = {"algorithm": "dp_sgd", "noise_multiplier": 1.0, "l2_norm_clip": 1.0}
_CLIPPED = {"algorithm": "dp_sgd", "noise_multiplier": 0.0, "l2_norm_clip": math.inf}


class TrainingTest(parameterized.TestCase):
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
        ({"optimizer": "rmsprop"}, "--optimizer"),
        ({"optimizer": "adam", "momentum": 0.9}, "--momentum.*means nothing to adam"),
        (
            {"algorithm": "noisy_sgd", "optimizer": "adam", "noise_multiplier": 1.0},
            "--optimizer.*must be one of sgd, lars, extrap_sgd for noisy_sgd",
        ),
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
            config.Training(**arguments)
        self.assertNotIn("\n", str(caught.exception))

    @parameterized.parameters(
        ({"noise_correlation": "1,-0.9"}, "--noise_correlation.*means nothing to sgd"),
        (_PRIVATE | {"noise_correlation": "1,-0.9"}, "--sampling.*must be cyclic.*sampling=shuffled.*=cyclic"),
        (
            _PRIVATE | {"noise_correlation": "1,-0.9", "sampling": "cyclic", "target_quantile": 0.5},
            "--target_quantile.*cannot go with `--noise_correlation`",
        ),
        *(
            (
                {"algorithm": "noisy_sgd", "noise_multiplier": 1.0, "noise_correlation": text},
                f"--noise_correlation.*{said}",
            )
            for text, said in (
                ("lambda_cgd:1", "less than 1"),
                ("lambda_cgd:0.5,0.4", "one number"),
                ("lambda_cgd:", "one number"),
                ("banded_inverse_square_root:2.5", "whole number"),
                ("banded_inverse_square_root:0", "whole number"),
                ("0,1", "the first one positive"),
                ("1,nan", "finite"),
                ("one", "finite numbers"),
                ("brownian:3", "no kind of noise"),
            )
        ),
    )
    def test_noise_correlation_that_cannot_be_is_refused(self, arguments, message):
        with self.assertRaisesRegex(config.ConfigError, message):
            config.Training(**arguments)

    def test_noise_correlation(self):
        made = config.Training(**_PRIVATE, noise_correlation="lambda_cgd:0.9", sampling="cyclic")
        self.assertEqual(config.parsed_noise_correlation(made.noise_correlation), ("lambda_cgd", (0.9,)))
        self.assertEqual(config.parsed_noise_correlation("1,-0.5"), ("coefficients", (1.0, -0.5)))
        self.assertEqual(config.Config(training=made).resolved()["algorithm"]["noise_correlation"], "lambda_cgd:0.9")
        self.assertNotIn("noise_correlation", config.Config().resolved()["algorithm"])

    def test_both_ways_to_state_the_noise_agree(self):
        multiplier = config.Training(algorithm="noisy_sgd", batch_size=64, noise_multiplier=0.64)
        effective = config.Training(algorithm="noisy_sgd", batch_size=64, effective_noise=0.01)
        self.assertAlmostEqual(multiplier.resolved_noise_multiplier, effective.resolved_noise_multiplier)
        self.assertAlmostEqual(multiplier.noise_std, 0.01)
        self.assertAlmostEqual(effective.noise_std, 0.01)

    def test_the_clip_norm_scales_the_noise_of_dp_sgd(self):
        algorithm = config.Training(algorithm="dp_sgd", batch_size=8, noise_multiplier=2.0, l2_norm_clip=3.0)
        self.assertAlmostEqual(algorithm.noise_std, 2.0 * 3.0 / 8)

    @parameterized.parameters(*config.ALGORITHMS)
    def test_poisson_sampling_and_several_copies_are_for_every_algorithm(self, name):
        needed = {"sgd": {}, "noisy_sgd": {"noise_multiplier": 1.0}, "dp_sgd": _PRIVATE}[name]
        made = config.Training(**{**needed, "algorithm": name}, sampling="poisson", augmentation_multiplicity=4)
        self.assertEqual((made.sampling, made.augmentation_multiplicity), ("poisson", 4))

    def test_no_noise_may_be_typed_even_without_a_bound(self):
        algorithm = config.Training(algorithm="dp_sgd", noise_multiplier=0.0, l2_norm_clip=math.inf)
        self.assertEqual(algorithm.noise_std, 0.0)

    @parameterized.parameters((64, None, 64), (512, None, 256), (300, None, 150), (64, 16, 16))
    def test_the_microbatch_divides_the_batch(self, batch_size, typed, resolved):
        self.assertEqual(
            config.Training(batch_size=batch_size, microbatch_size=typed).resolved_microbatch_size, resolved
        )


if __name__ == "__main__":
    absltest.main()
