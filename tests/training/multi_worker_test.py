"""Two processes over loopback, one process with two replicas, and one with one: the same training."""

import itertools
import json
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd.training import distribution

_PROGRAM = pathlib.Path(__file__).with_name("multi_worker_program.py")
_ROOT = _PROGRAM.parents[2]
_SECONDS = 300.0
PROGRAM = runpy.run_path(str(_PROGRAM))
LAST = f"after {PROGRAM['NUM_STEPS']}"
TOPOLOGIES = ("1 replica", "2 replicas", "2 workers")


def setUpModule():
    distribution.use_logical_devices(2)


def _free_ports(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def _start(folder):
    addresses = [f"localhost:{port}" for port in _free_ports(2)]
    workers = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        own = {"TF_CONFIG": json.dumps(config), "PYTHONPATH": str(_ROOT), "no_proxy": "localhost"}
        with open(folder / f"errors{index}", "wb") as errors:
            process = subprocess.Popen(
                [sys.executable, _PROGRAM, folder / f"worker{index}.npz"], env=os.environ | own,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        workers.append(process)
    return workers


class MultiWorkerTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.workers = _start(cls.folder)
        for process in cls.workers:
            cls.addClassCleanup(process.communicate)
            cls.addClassCleanup(process.kill)
        cls.found = {
            "1 replica": PROGRAM["answers"](distribution.make_strategy("default")),
            "2 replicas": PROGRAM["answers"](distribution.make_strategy("mirrored")),
        }
        paths = [cls.folder / f"worker{index}.npz" for index in range(2)]
        deadline = time.monotonic() + _SECONDS
        while not all(path.exists() for path in paths):
            ended = [process.poll() for process in cls.workers]
            if time.monotonic() > deadline or any(code is not None for code in ended):
                errors = "\n\n".join((cls.folder / f"errors{index}").read_text()[-4000:] for index in range(2))
                raise AssertionError(f"workers ended with {ended}:\n{errors}")
            time.sleep(0.1)
        cls.both = [dict(np.load(path)) for path in paths]
        cls.found["2 workers"] = cls.both[0]

    @parameterized.parameters(*itertools.product(itertools.combinations(TOPOLOGIES, 2), ("after 1", LAST, "average")))
    def test_the_weights_are_those_of_one_replica(self, pair, kind):
        for dtype, atol in (("float32", 1e-6 if kind == "after 1" else 1e-4), ("float64", 1e-10)):
            first, second = (self.found[name][f"{dtype} {kind}"] for name in pair)
            self.assertEqual(first.dtype, dtype)
            np.testing.assert_allclose(first, second, rtol=0, atol=atol)
        self.assertGreater(np.std(first), 0.1)

    def test_metrics_and_evaluations_count_every_example_once(self):
        for name in TOPOLOGIES[1:]:
            np.testing.assert_allclose(
                self.found[name]["float64 metrics"], self.found["1 replica"]["float64 metrics"], rtol=1e-5
            )

    @parameterized.parameters(*TOPOLOGIES)
    def test_restored_metrics_count_every_example_once(self, topology):
        for found in self.both if topology == "2 workers" else [self.found[topology]]:
            self.assertEqual(found["rows"], int(topology[0]))
            self.assertGreater(found["metrics"][0], 0)
            np.testing.assert_array_equal(found["metrics after the same replicas"], found["metrics"])
            for other in ("one replica", "five replicas"):
                np.testing.assert_allclose(found[f"metrics after {other}"], found["metrics"], rtol=1e-6)
            np.testing.assert_allclose(found["metrics"], self.found["1 replica"]["metrics"], rtol=1e-5)

    def test_replicas_are_bit_identical(self):
        for dtype in ("float32", "float64"):
            self.assertEqual(self.found["2 replicas"][f"{dtype} replicas differ"], 0)
            for kind in (LAST, "average"):
                np.testing.assert_array_equal(*(one[f"{dtype} {kind}"] for one in self.both))
        for name in ("secret noise", "secret key"):
            np.testing.assert_array_equal(*(one[name] for one in self.both))

    @parameterized.parameters(*itertools.product(TOPOLOGIES, ("noise", "secret noise")))
    def test_the_noise_is_the_stated_one(self, topology, name):
        # 20,003 draws tell 2/3 and 3/2 of the scale apart from 1 with certainty.
        sample = self.found[topology][name]
        self.assertLen(sample, 16 * 1000 + 1000 + 3 * 1000 + 3)
        self.assertGreater(stats.kstest(sample, "norm").pvalue, 1e-4)
        for scale in (2 / 3, 3 / 2):
            self.assertLess(stats.kstest(sample * scale, "norm").pvalue, 1e-10)

    def test_secrets_are_new(self):
        self.assertNotEqual(*(self.found[name]["secret key"][0] for name in TOPOLOGIES[:2]))
        found = self.found["1 replica"]
        self.assertGreater(np.max(np.abs(found["secret noise"] - found["noise"])), 1)

    def test_workers_tell_each_other(self):
        for index, one in enumerate(self.both):
            self.assertEqual(one["worker"].tolist(), [index, 2])
            self.assertEqual(one["broadcast"].tobytes(), b"\x00\xffchief")
            self.assertEqual(one["gathered"].tolist(), [0, 3])
            self.assertEqual(one["any"].tolist(), [False, True, True])
            self.assertEqual(one["topology"].tolist(), [2, 2, 2])
            message = r"`configuration` must be the same on every worker.*on workers \[1\]"
            self.assertRegex(str(one["require_same refuses"]), message)
            self.assertRegex(str(one["fit refuses"]), "`fit` trains on one host.*Received: 2 workers")

    def test_a_step_has_one_all_reduce_after_its_microbatches(self):
        for one in self.both:
            self.assertEqual(one["collectives"].tolist(), [1, 1])

    def test_the_survivor_of_a_lost_worker_says_so(self):
        survivor, killed = self.workers
        # TensorFlow would take SIGTERM for itself, and go on.
        killed.terminate()
        self.assertEqual(killed.wait(timeout=60), -signal.SIGTERM)
        self.assertEqual(survivor.wait(timeout=60), PROGRAM["LOST"])
        self.assertRegex(survivor.stdout.read().decode(), r"^Worker 0 of 2 ends, because another worker died [^\n]*\n$")


if __name__ == "__main__":
    absltest.main()
