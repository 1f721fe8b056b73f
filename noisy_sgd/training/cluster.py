"""The workers of the environment variable TF_CONFIG: checks the variable, and waits until all workers have started.

addresses, own = cluster.workers(resolver)      # ["host0:2222", "host1:2222"], 0
cluster.meet(addresses, own, say=print)         # "Waiting for worker 1 at host1:2222, 300 seconds at most ..."

Covered by tests/training/distribution_test.py.
"""

import os
import socket
import time
from collections.abc import Callable
from typing import NoReturn

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
# The longest time between the starts of the workers. Schedulers take minutes; a worker that never starts is a mistake.
SECONDS_TO_MEET = 300.0
# The name server of a cluster may know the name of a worker only after that worker has started.
_SECONDS_TO_RESOLVE = 30.0
_SECONDS_BETWEEN_TRIES = 0.1
_SECONDS_TO_ANSWER = 10.0


def workers(resolver) -> tuple[list[str], int]:
    """The addresses of all workers, the chief's first, and the index of this worker."""
    cluster = resolver.cluster_spec().as_dict()
    chiefs = list(cluster.get("chief", []))
    index = int(resolver.task_id) + (len(chiefs) if resolver.task_type == "worker" else 0)
    return chiefs + list(cluster["worker"]), index


def check_addresses(addresses: list[str]) -> None:
    """Refuses addresses that are not valid.

    Raises:
        ValueError: naming the worker.
    """
    for index, address in enumerate(addresses):
        host, _, port = address.rpartition(":")
        if not host or "/" in host or not (port.isascii() and port.isdigit() and 1 <= int(port) < 2**16):
            raise ValueError(
                "`TF_CONFIG` must give every worker as host:port with a port from 1 to 65535. "
                f"Received: {address!r} for worker {index}"
            )
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"`TF_CONFIG` must give every worker an address of its own. Received: {', '.join(addresses)}")


def meet(addresses: list[str], own: int, say: Callable[[str], None]) -> None:
    """Waits until every worker has started, because TensorFlow itself would wait silently for an hour or forever.

    Each worker listens at its port until it has reached all others. TensorFlow's server uses the same port afterwards.
    """
    port = int(addresses[own].rpartition(":")[2])
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise ValueError(
            f"`TF_CONFIG` must give this worker a port that it can listen on: {os.strerror(error.errno)}. "
            f"Received: {addresses[own]!r} for worker {own}"
        ) from None
    with server:
        others = [index for index in range(len(addresses)) if index != own]
        unknown = _wait_for(others, lambda index: _resolves(addresses[index]), _SECONDS_TO_RESOLVE)
        if unknown:
            _refuse_addresses("must name hosts that are known", addresses, unknown)
        if others:
            say(f"Waiting for {_listed(addresses, others)}, {SECONDS_TO_MEET:g} seconds at most ...")
        missing = _wait_for(others, lambda index: _answers(addresses[index]), SECONDS_TO_MEET)
        if missing:
            constraint = f"must list workers that start within {SECONDS_TO_MEET:g} seconds of each other"
            _refuse_addresses(constraint, addresses, missing)


def _refuse_addresses(constraint: str, addresses: list[str], indices: list[int]) -> NoReturn:
    raise ValueError(
        f"`TF_CONFIG` {constraint}, unlike {_listed(addresses, indices)}; start all workers with the same addresses. "
        f"Received: {', '.join(addresses)}"
    )


def _listed(addresses: list[str], indices: list[int]) -> str:
    return ", ".join(f"worker {index} at {addresses[index]}" for index in indices)


def _wait_for(indices: list[int], ready: Callable[[int], bool], seconds: float) -> list[int]:
    """Waits until each worker was ready once; returns the workers that were not ready in time."""
    deadline = time.monotonic() + seconds
    while (indices := [index for index in indices if not ready(index)]) and time.monotonic() < deadline:
        time.sleep(_SECONDS_BETWEEN_TRIES)
    return indices


def _resolves(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        return bool(socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM))
    # A label that is empty or too long is a UnicodeError.
    except (OSError, UnicodeError):
        return False


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER) as connection:
            # If no process listens, a connection within one machine may by chance connect to itself.
            return connection.getsockname() != connection.getpeername()
    except OSError:
        return False


def check(resolver) -> None:
    """Refuses a TF_CONFIG that does not list the workers, or does not say which of them this process is.

    Raises:
        ValueError: naming the part that is wrong.
    """
    way_out = f"for example TF_CONFIG='{_EXAMPLE}'"
    try:
        cluster = resolver.cluster_spec().as_dict()
        kind, index = resolver.task_type, resolver.task_id
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"`TF_CONFIG` must be JSON with a cluster and a task; {way_out}. Received: {first_sentence(error)}"
        ) from None
    if not cluster:
        raise ValueError(
            f'`strategy` "multi_worker" needs the list of workers in the environment variable TF_CONFIG; {way_out}. '
            "Received: a TF_CONFIG that is not set or has no cluster"
        )
    if not cluster.get("worker") or set(cluster) - {"chief", "worker"} or len(cluster.get("chief", [])) > 1:
        raise ValueError(
            '`TF_CONFIG` must list the workers under "cluster", "worker" (one of them may be called "chief"), and '
            f"nothing else; {way_out}. Received: cluster={cluster}"
        )
    if kind not in cluster or index is None or not 0 <= index < len(cluster[kind]):
        raise ValueError(
            f'`TF_CONFIG` must say under "task" which of the workers this process is; {way_out}. '
            f"Received: type={kind!r}, index={index!r}, cluster={cluster}"
        )


def first_sentence(error: Exception) -> str:
    """The first sentence of a long TensorFlow error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(": No OpKernel")[0].rstrip(". ")
