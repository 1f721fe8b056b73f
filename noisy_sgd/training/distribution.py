"""Makes all tf.distribute strategies, and passes messages between the workers of a strategy.

distribution.use_logical_devices(2)                 # before TensorFlow starts: two replicas on one CPU
strategy = distribution.make_strategy("mirrored")
strategy = distribution.make_strategy("multi_worker")     # before TensorFlow runs anything; reads TF_CONFIG
index, count = distribution.worker(strategy)
secret = distribution.broadcast(strategy, keys.secret())  # the chief's, on every worker

All workers run the same program. A function that communicates with other workers must be called by all workers, in the
same order.
"""

import contextlib
import functools
import hashlib
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from noisy_sgd import checks, machine
from noisy_sgd.training import cluster

STRATEGIES = ("default", "mirrored", "multi_worker", "tpu")

_SECONDS_TO_ANSWER = 10.0
# The fields of /proc/cpuinfo for the kind of processor, and for the cache size that decides how matrix products are
# split; first x86's, then ARM's.
_PROCESSOR = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "cache size",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
)  # fmt: skip
_VECTOR_FLAGS = ("sse", "ssse", "avx", "amx", "fma", "f16c")


class WorkerLost(RuntimeError):
    """Another worker of the run died or cannot be reached; this process must end, and all workers must start again."""


def use_logical_devices(count: int) -> None:
    """Splits the CPU into `count` logical devices, so that several replicas run on any machine.

    Args:
        count: at least 1. The same count again does nothing.

    Raises:
        ValueError: for a count below 1, or if TensorFlow has started with another count.
    """
    checks.at_least("logical_devices", count, 1)
    cpu = tf.config.list_physical_devices("CPU")[0]
    present = tf.config.get_logical_device_configuration(cpu)
    if len(present or [None]) == count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        raise ValueError(
            "`logical_devices` must be set before TensorFlow runs anything; set it first. "
            f"Received: logical_devices={count}"
        ) from None


def make_strategy(
    name: str, tpu: str | None = None, *, say: Callable[[str], None] = lambda sentence: None
) -> tf.distribute.Strategy:
    """The strategy of a name.

    Args:
        name: "default", one device; "mirrored", one replica on each GPU, or on each logical CPU where there is no GPU;
            "multi_worker", the same over the processes that the environment variable TF_CONFIG lists; "tpu". Each
            process of "multi_worker" runs this program, with one CPU replica or all its GPUs, and all must start within
            five minutes. The last two must be made before TensorFlow runs anything, and only once per process.
        tpu: a Cloud TPU's name, its address "grpc://host:port", or "local". Only for "tpu".
        say: called with a sentence that names the workers that this one waits for. Defaults to nothing.

    Returns:
        A `tf.distribute.Strategy`; build model and optimizer in its `scope()`.

    Raises:
        ValueError: for another name, a TF_CONFIG that is missing or wrong, workers that do not start, a TPU that is not
            found, or a strategy that is made too late.
    """
    if tpu is not None and name != "tpu":
        raise ValueError(f'`tpu` must be left out for any strategy but "tpu". Received: strategy={name!r}, tpu={tpu!r}')
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return _mirrored()
    if name == "multi_worker":
        if name not in _multi_worker_strategies:
            _multi_worker_strategies[name] = _multi_worker(say)
        return _multi_worker_strategies[name]
    if name == "tpu":
        return _tpu(tpu)
    raise ValueError(f"`strategy` must be one of {STRATEGIES}. Received: strategy={name!r}")


def worker(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """(index of this worker, number of workers); (0, 1) if one process drives all devices."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    addresses, index = cluster.workers(strategy.cluster_resolver)
    return index, len(addresses)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the chief, the worker that writes the files of the run."""
    return worker(strategy)[0] == 0


def broadcast(strategy: tf.distribute.Strategy, data: bytes) -> bytes:
    """The chief's bytes, on every worker; the bytes of the other workers are ignored."""
    return gather(strategy, data if is_chief(strategy) else b"")[0]


def gather(strategy: tf.distribute.Strategy, data: bytes) -> list[bytes]:
    """Every worker's bytes, of any length, in the workers' order."""
    index, count = worker(strategy)
    if count == 1:
        return [data]
    lengths = np.zeros(count, np.int64)
    lengths[index] = len(data)
    lengths = _sum_over_workers(strategy, lengths)
    rows = np.zeros([count, max(lengths)], np.int64)
    rows[index, : len(data)] = list(data)
    rows = _sum_over_workers(strategy, rows)
    return [row[:length].astype(np.uint8).tobytes() for row, length in zip(rows, lengths, strict=True)]


def any_worker(strategy: tf.distribute.Strategy, flag: bool) -> bool:
    """Whether the flag of any worker is set; the result is the same on all workers."""
    if worker(strategy)[1] == 1:
        return bool(flag)
    return bool(_sum_over_workers(strategy, np.asarray([flag], np.int64))[0])


def require_same(strategy: tf.distribute.Strategy, name: str, data: bytes) -> None:
    """Refuses data that differ between the workers.

    Args:
        strategy: from `make_strategy`.
        name: the name of the data, for the message.
        data: this worker's data, for example a configuration as text.

    Raises:
        ValueError: on every worker, for data that differ from the chief's.
    """
    rows = gather(strategy, data)
    different = [index for index, row in enumerate(rows) if row != rows[0]]
    if different:
        raise ValueError(
            f"`{name}` must be the same on every worker; start all workers with the same flags and data. "
            f"Received: a value different from worker 0's on workers {different} of {len(rows)}"
        )


def topology(strategy: tf.distribute.Strategy) -> dict[str, int | list[str]]:
    """What floating-point results depend on besides the program: "replicas", "workers", "devices" (one per worker)."""
    devices = [data.decode() for data in gather(strategy, _devices(strategy).encode())]
    return {"replicas": strategy.num_replicas_in_sync, "workers": worker(strategy)[1], "devices": devices}


@contextlib.contextmanager
def naming_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns TensorFlow's errors about another worker that died, or is silent for ten seconds, into `WorkerLost`.

    Raises:
        WorkerLost: if the block fails with such an error.
    """
    index, count = worker(strategy)
    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    ) as error:
        if count == 1:
            raise
        raise WorkerLost(
            f"Worker {index} of {count} ends, because another worker died or cannot be reached; "
            "start all workers again, and the run continues from its last checkpoint"
        ) from error


@functools.cache
def _mirrored() -> tf.distribute.Strategy:
    # One strategy per process, without collectives on logical CPUs: the collectives of two strategies would collide.
    gpus = tf.config.list_logical_devices("GPU")
    reduction = None if gpus else tf.distribute.ReductionToOneDevice()
    devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


_multi_worker_strategies: dict[str, tf.distribute.Strategy] = {}


def _multi_worker(say: Callable[[str], None]) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    cluster.check(resolver)
    addresses, own = cluster.workers(resolver)
    cluster.check_addresses(addresses)
    cluster.meet(addresses, own, say)
    try:
        with _keeping_sigterm():
            strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        if "startup" not in str(error):
            raise
        raise ValueError(
            '`strategy` "multi_worker" must be made before TensorFlow runs anything; make it first. '
            "Received: strategy='multi_worker'"
        ) from None
    except tf.errors.OpError as error:
        raise ValueError(
            f"`TF_CONFIG` must give every worker an address that it can listen on: "
            f"{cluster.first_sentence(error)}. Received: {addresses[own]!r} for worker {own}"
        ) from None
    # Otherwise every microbatch needs one more collective, which asks all workers whether they have a microbatch.
    strategy.extended.experimental_enable_get_next_as_optional = False
    return strategy


@contextlib.contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Restores the handler of SIGTERM, because TensorFlow's own handler ignores the signal."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if in_main_thread else None
    try:
        yield
    finally:
        # None is a handler that was not set from Python. Python cannot set it again.
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@functools.cache
def _tpu(name: str | None) -> tf.distribute.Strategy:
    if not name:
        raise ValueError(
            '`tpu` must name the TPU of strategy "tpu": its name in Google Cloud, grpc://host:port, or "local" on a '
            f"machine with TPUs. Received: tpu={name!r}"
        )
    with _naming_tpu(name):
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        jobs = resolver.cluster_spec().as_dict()
    hosts = sum(len(addresses) for addresses in jobs.values())
    if hosts > 1:
        # TensorFlow would read images on each host, but the functions of Python that read them are here alone.
        raise ValueError(
            "`tpu` must be a TPU of one host, because this process reads all images; train one run on each host, with "
            f'tpu="local". Received: tpu={name!r}, which has {hosts} hosts'
        )
    with _naming_tpu(name):
        _check_answering(jobs)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)


@contextlib.contextmanager
def _naming_tpu(name: str) -> Iterator[None]:
    try:
        yield
    # The metadata server, the network and the runtime raise errors of many types. All of them end the program.
    except Exception as error:
        raise ValueError(
            f"`tpu` must be a TPU that answers, with a TensorFlow built for TPUs: {cluster.first_sentence(error)}. "
            f"Received: tpu={name!r}"
        ) from None


def _check_answering(jobs: dict[str, list[str]]) -> None:
    # TensorFlow itself would wait for minutes.
    for address in (address for job in jobs.values() for address in job):
        host, _, port = address.removeprefix("grpc://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
        except (OSError, ValueError) as error:
            raise ConnectionError(f"nothing answers at {address} ({error})") from None


def _sum_over_workers(strategy: tf.distribute.Strategy, values: np.ndarray) -> np.ndarray:
    with naming_lost_workers(strategy):
        return _summation(strategy)(tf.constant(values.ravel())).numpy().reshape(values.shape)


@functools.cache
def _summation(strategy):
    local_replicas = strategy.num_replicas_in_sync // worker(strategy)[1]

    def on_replica(values):
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group % local_replicas, 0)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(first, values, tf.zeros_like(values)))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.int64)])
    def run(values):
        return strategy.experimental_local_results(strategy.run(on_replica, args=(values,)))[0]

    return run


def _devices(strategy: tf.distribute.Strategy) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "TPU"
    if gpus:
        return ", ".join(tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus)
    # The kernels depend on the processor. How they split their sums depends on the number of threads.
    return f"{_processor()}, {len(os.sched_getaffinity(0))} threads"


def _processor() -> str:
    """The properties that kernels are chosen by; a name alone may stand for processors of several generations."""
    fields = machine.processor()
    if not fields:
        return platform.machine()
    known = {name: fields[name] for name in _PROCESSOR if name in fields}
    # Only the flags of the vector units: other flags, which a newer Linux kernel may add, change no result.
    known["flags"] = sorted(flag for flag in fields.get("flags", "").split() if flag.startswith(_VECTOR_FLAGS))
    digest = hashlib.sha256(repr(sorted(known.items())).encode()).hexdigest()
    return f"{fields.get('model name', platform.machine())} ({digest[:12]})"
