import builtins
import concurrent.futures
import json
import os
import platform
import socket
import subprocess
import sys
import time
from unittest import mock

import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.training import cluster, distribution


def setUpModule():
    distribution.use_logical_devices(2)


def _free_port():
    with socket.create_server(("", 0)) as taken:
        return taken.getsockname()[1]


def _listen(address):
    return socket.create_server(("", int(address.rpartition(":")[2])))


class DistributionTest(parameterized.TestCase):
    def test_default_is_one_replica_and_mirrored_one_a_logical_device(self):
        self.assertEqual(distribution.make_strategy("default").num_replicas_in_sync, 1)
        strategy = distribution.make_strategy("mirrored")
        self.assertIsInstance(strategy, tf.distribute.MirroredStrategy)
        self.assertEqual(strategy.num_replicas_in_sync, 2)

    def test_bad_arguments_are_refused(self):
        with self.assertRaisesRegex(ValueError, "Received: strategy='many'"):
            distribution.make_strategy("many")
        with self.assertRaisesRegex(ValueError, "Received: logical_devices=0"):
            distribution.use_logical_devices(0)

    def test_splitting_after_the_start_is_refused(self):
        tf.zeros([])
        distribution.use_logical_devices(2)  # what it is already
        with self.assertRaisesRegex(ValueError, "before TensorFlow runs anything.*Received: logical_devices=3"):
            distribution.use_logical_devices(3)

    @parameterized.parameters(
        (
            None,
            "needs the list of workers in the environment variable TF_CONFIG.*Received: a TF_CONFIG that is not set",
        ),
        ("{", "`TF_CONFIG` must be JSON.*Received: Expecting property name"),
        ("[]", "Received: a TF_CONFIG that is not set or has no cluster"),
        ({"cluster": ["a:1"]}, "`TF_CONFIG` must be JSON with a cluster and a task"),
        ({"cluster": {"worker": "a:1"}}, "`TF_CONFIG` must be JSON with a cluster and a task"),
        ({"cluster": {"chief": ["a:1"]}}, "must list the workers under"),
        ({"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}, "must list the workers under.*Received: cluster="),
        ({"cluster": {"worker": ["a:1"]}}, "which of the workers this process is.*Received: type=None, index=None"),
        ({"cluster": {"worker": ["a:1"]}, "task": []}, "which of the workers this process is"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}, "Received: type='worker', index=1"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}, "index=-1"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}, "Received: type='chief', index=0"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}, "Received: invalid literal"),
    )
    def test_a_wrong_tf_config_is_refused(self, written, message):
        environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
        if written is not None:
            environment["TF_CONFIG"] = written if isinstance(written, str) else json.dumps(written)
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            self.assertRaisesRegex(ValueError, message) as caught,
        ):
            distribution.make_strategy("multi_worker")
        self.assertNotIn("\n", str(caught.exception))

    @parameterized.parameters("localhost", "localhost:", "localhost:0", "localhost:65536", ":2222", "a:b", "grpc://a:1")
    def test_what_is_no_address_is_refused(self, address):
        message = f"`TF_CONFIG` must give every worker as host:port .*Received: '{address}' for worker 1"
        self._assert_cluster_refused([f"localhost:{_free_port()}", address], message)

    def test_one_address_for_two_workers_is_refused(self):
        address = f"localhost:{_free_port()}"
        self._assert_cluster_refused([address, address], "`TF_CONFIG` must give every worker an address of its own")

    def test_a_port_that_is_taken_is_refused(self):
        with socket.create_server(("", 0)) as taken:
            port = taken.getsockname()[1]
            message = f"port that it can listen on: Address already in use. Received: 'localhost:{port}' for worker 0"
            self._assert_cluster_refused([f"localhost:{port}", "localhost:2222"], message)

    @mock.patch.object(cluster, "_SECONDS_TO_RESOLVE", 0.2)
    @mock.patch.object(cluster, "SECONDS_TO_MEET", 0.3)
    def test_workers_that_do_not_come_are_named(self):
        own, other = (f"localhost:{_free_port()}" for _ in range(2))
        message = f"must name hosts that are known, unlike worker 1 at {'x' * 64}:1;"
        self._assert_cluster_refused([own, f"{'x' * 64}:1"], message)
        said = []
        message = f"must list workers that start within 0.3 seconds of each other, unlike worker 1 at {other}; "
        self._assert_cluster_refused([own, other], message, say=said.append)
        self.assertEqual(said, [f"Waiting for worker 1 at {other}, 0.3 seconds at most ..."])

    def test_workers_meet_whoever_starts_first(self):
        addresses = [f"localhost:{_free_port()}" for _ in range(3)]
        said = []
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            first = pool.submit(cluster.meet, addresses, 2, said.append)
            time.sleep(0.3)
            self.assertFalse(first.done())
            others = [pool.submit(cluster.meet, addresses, index, said.append) for index in range(2)]
            listening = concurrent.futures.wait([first, *others], timeout=5).done
            # Who met first has left its port, where TensorFlow's server then listens.
            servers = [
                _listen(address) for address, one in zip(addresses, [*others, first], strict=True) if one in listening
            ]
            for one in (first, *others):
                one.result(timeout=20)
        for server in servers:
            server.close()
        self.assertLen(said, 3)

    def _assert_cluster_refused(self, addresses, message, **arguments):
        written = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}}
        with (
            mock.patch.dict(os.environ, {"TF_CONFIG": json.dumps(written)}),
            self.assertRaisesRegex(ValueError, message) as caught,
        ):
            distribution.make_strategy("multi_worker", **arguments)
        self.assertNotIn("\n", str(caught.exception))

    def test_several_workers_come_before_everything(self):
        tf.zeros([])
        alone = {"cluster": {"worker": [f"localhost:{_free_port()}"]}, "task": {"type": "worker", "index": 0}}
        with (
            mock.patch.dict(os.environ, {"TF_CONFIG": json.dumps(alone)}),
            self.assertRaisesRegex(ValueError, "must be made before TensorFlow runs anything"),
        ):
            distribution.make_strategy("multi_worker")

    @parameterized.parameters(
        (None, "`tpu` must name the TPU"),
        ("", "`tpu` must name the TPU"),
        ("local", "`tpu` must be a TPU that answers.*TPUs not found in the cluster.*Received: tpu='local'"),
        ("grpc://nowhere", "`tpu` must be a TPU that answers.*Received: tpu='grpc://nowhere'"),
    )
    def test_a_tpu_that_is_not_there_is_refused(self, tpu, message):
        with self.assertRaisesRegex(ValueError, message) as caught:
            distribution.make_strategy("tpu", tpu=tpu)
        self.assertNotIn("\n", str(caught.exception))

    def test_a_tpu_that_does_not_answer_is_refused_at_once(self):
        with socket.socket() as taken:
            taken.bind(("localhost", 0))  # and nobody listens
            address = f"grpc://localhost:{taken.getsockname()[1]}"
            with self.assertRaisesRegex(ValueError, "nothing answers at localhost:.*Received: tpu='grpc://localhost:"):
                distribution.make_strategy("tpu", tpu=address)

    def test_a_tpu_of_several_hosts_is_refused(self):
        hosts = tf.train.ClusterSpec({"worker": ["10.0.0.1:8470", "10.0.0.2:8470"]})
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver
        with mock.patch.object(resolver, "__init__", return_value=None):
            with mock.patch.object(resolver, "cluster_spec", return_value=hosts):
                with self.assertRaisesRegex(
                    ValueError, "^`tpu` must be a TPU of one host, .*'slice', which has 2 hosts$"
                ):
                    distribution.make_strategy("tpu", tpu="slice")

    def test_a_tpu_for_another_strategy_is_refused(self):
        with self.assertRaisesRegex(ValueError, "Received: strategy='default', tpu='mine'"):
            distribution.make_strategy("default", tpu="mine")

    @parameterized.parameters(("default", 1), ("mirrored", 2))
    def test_one_process_asks_only_itself(self, name, replicas):
        strategy = distribution.make_strategy(name)
        self.assertEqual(distribution.worker(strategy), (0, 1))
        self.assertTrue(distribution.is_chief(strategy))
        self.assertEqual(distribution.broadcast(strategy, b"mine"), b"mine")
        self.assertEqual([distribution.any_worker(strategy, flag) for flag in (False, True)], [False, True])
        distribution.require_same(strategy, "configuration", b"mine")
        topology = distribution.topology(strategy)
        self.assertEqual((topology["replicas"], topology["workers"]), (replicas, 1))
        self.assertRegex(topology["devices"][0], r"\w+.*, \d+ threads")
        with self.assertRaises(tf.errors.UnavailableError), distribution.naming_lost_workers(strategy):
            raise tf.errors.UnavailableError(None, None, "not a worker's")

    def test_processors_of_one_name_are_told_apart(self):
        x86 = {"processor": "0", "vendor_id": "X", "cpu family": "25", "model": "1", "model name": "AMD EPYC"}
        x86 |= {"cache size": "512 KB", "cpu MHz": "2400", "flags": "fpu sse2 avx2 ibrs"}
        arm = {"processor": "0", "BogoMIPS": "50", "Features": "fp asimd", "CPU part": "0xd0c"}

        def told(fields, **changed):
            first = "".join(f"{name}\t: {value}\n" for name, value in (fields | changed).items())
            text = f"{first}\nprocessor\t: 1\nmodel name\t: another\n"
            with mock.patch.object(builtins, "open", mock.mock_open(read_data=text)):
                return distribution._processor()

        self.assertStartsWith(told(x86), "AMD EPYC (")
        self.assertStartsWith(told(arm), platform.machine())
        for fields, names in ((x86, ("cpu family", "model", "cache size")), (arm, ("CPU part", "Features"))):
            for name in names:
                self.assertNotEqual(told(fields, **{name: "other"}), told(fields))
        self.assertNotEqual(told(x86, flags="fpu sse2 avx2 avx512f ibrs"), told(x86))
        for name in ("cpu MHz", "processor"):
            self.assertEqual(told(x86, **{name: "7"}), told(x86))
        self.assertEqual(told(x86, flags="fpu sse2 avx2"), told(x86))
        with mock.patch.object(builtins, "open", side_effect=FileNotFoundError):
            self.assertEqual(distribution._processor(), platform.machine())

    def test_the_package_imports_nothing_heavy(self):
        code = "import sys, noisy_sgd, noisy_sgd.keys; assert not {'tensorflow', 'keras'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    absltest.main()
