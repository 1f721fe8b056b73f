import os
from unittest import mock

from absl.testing import absltest

from noisy_sgd.experiments.support import startup


class EnvironmentTest(absltest.TestCase):
    def test_what_changes_the_arithmetic_is_told_and_nothing_else(self):
        changing = {"TF_ENABLE_ONEDNN_OPTS": "0", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "SSE41"}
        aside = {"TF_CONFIG": "{}", "TF_CPP_MIN_LOG_LEVEL": "2", "HOME": "/root", "NOISE_KEY": "secret"}
        with mock.patch.dict(os.environ, changing | aside, clear=True):
            self.assertEqual(startup.environment(), changing)


if __name__ == "__main__":
    absltest.main()
