"""The clusters that ranks run on, behind one small interface: workers that hold objects and call them.

A cluster is named ``"dask"`` (that of the current ``distributed.Client``), ``"ray"`` (that which ``ray.init``
joined), or by the address of a scheduler of Dask; any other object with the methods of :class:`Cluster` is
taken too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from nki_isa.diagnostics import error
from nki_sim.workers.shard import Shard

#: Asks for the answer to orders; it raises :class:`Lost` if the worker is gone.
Answer = Callable[[], bytes]


_PATIENCE = 5.0  # seconds between two looks whether a worker is there


class Lost(Exception):
    """A worker is gone, and what it held."""


class RemoteShard(Protocol):
    """A :class:`~nki_sim.workers.shard.Shard` in a worker."""

    where: str

    def do(self, orders: bytes) -> Answer:
        """Have it carry out orders; other workers do meanwhile what they were asked to."""
        ...

    def release(self) -> None:
        """Let it go: the launch is over, or the worker is lost."""
        ...


class Cluster(Protocol):
    """Workers that hold shards."""

    def workers(self) -> Sequence[Any]:
        """Those that are there now."""
        ...

    def hold(self, worker: Any) -> RemoteShard:
        """Make a shard in a worker.

        Raises:
            Lost: it is gone.
        """
        ...


class Dask:
    """The workers of the current client of Dask, or of `client`; each shard is an actor of one."""

    def __init__(self, client: Any = None):
        distributed: Any = _imported("dask", "distributed")
        try:
            self._client = client or distributed.get_client()
        except ValueError:
            help = "make one before: client = distributed.Client('tcp://HOST:8786')"
            raise error("NKI-L032", "Dask has no current client", help=help) from None

    def workers(self) -> Sequence[str]:
        """Their addresses."""
        return sorted(self._client.nthreads())

    def hold(self, worker: str) -> RemoteShard:
        """An actor on the worker of this address."""
        future = self._client.submit(Shard, actor=True, workers=[worker], pure=False)
        while True:
            try:
                with self._client.as_current():  # an actor asks for the current client when it arrives
                    return _OnDask(worker, future.result(timeout=_PATIENCE), future)
            except TimeoutError:
                if worker not in self._client.nthreads():
                    raise Lost(f"{worker} left the cluster") from None
            except Exception as problem:
                raise Lost(f"{type(problem).__name__}: {problem}") from problem


class _OnDask:
    def __init__(self, where: str, actor: Any, future: Any):
        self.where, self._actor, self._future = where, actor, future

    def do(self, orders: bytes) -> Answer:
        answer = _asked(lambda: self._actor.do(orders))
        return lambda: bytes(_asked(answer.result))

    def release(self) -> None:
        self._future.release()


class Ray:
    """The cluster of Ray that this process joined; each shard is an actor with a processor of its own."""

    def __init__(self) -> None:
        self._ray: Any = _imported("ray", "ray")
        if not self._ray.is_initialized():
            self._ray.init(log_to_driver=False, logging_level="ERROR")

    def workers(self) -> Sequence[int]:
        """A number for each processor."""
        return range(int(self._ray.cluster_resources().get("CPU", 1)))

    def hold(self, worker: int) -> RemoteShard:
        """An actor where Ray has room."""
        options = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
        return _OnRay(self._ray, self._ray.remote(Shard).options(**options).remote())


class _OnRay:
    def __init__(self, ray: Any, actor: Any):
        self._ray, self._actor = ray, actor
        self.where = f"actor {actor._actor_id.hex()[:8]} of Ray"

    def do(self, orders: bytes) -> Answer:
        answer = self._actor.do.remote(orders)
        return lambda: bytes(_asked(lambda: self._ray.get(answer)))

    def release(self) -> None:
        self._ray.kill(self._actor)


def _asked(ask: Callable[[], Any]) -> Any:
    """What a worker answers. A shard raises nothing itself, so what is raised says that it is gone."""
    try:
        return ask()
    except Exception as problem:
        raise Lost(f"{type(problem).__name__}: {problem}") from problem


@functools.cache
def _at(address: str) -> Any:
    """The client of a scheduler of Dask that this process has."""
    distributed: Any = _imported("dask", "distributed")
    try:
        return distributed.Client(address, set_as_default=False, timeout=_PATIENCE)
    except (OSError, TimeoutError, ValueError) as problem:
        help = "start one: dask scheduler"
        raise error("NKI-L032", f"no scheduler of Dask answers at {address}: {problem}", help=help) from None


#: By name.
CLUSTERS: dict[str, Callable[[], Cluster]] = {"dask": Dask, "ray": Ray}


def as_cluster(value: Any) -> Cluster:
    """A cluster from its name, an address or client of Dask, or what has its methods.

    Raises:
        NkiError: NKI-L032 for another name or object; NKI-L034 for one whose package is not installed.
    """
    if isinstance(value, str) and value in CLUSTERS:
        return CLUSTERS[value]()
    if isinstance(value, str) and "://" in value:
        if _at(value).status == "closed":
            _at.cache_clear()
        return Dask(_at(value))
    if type(value).__module__.partition(".")[0] == "distributed":
        return Dask(value)
    if not isinstance(value, str) and hasattr(value, "hold") and hasattr(value, "workers"):
        cluster: Cluster = value
        return cluster
    help = f"pass {', '.join(map(repr, CLUSTERS))}, the address or a client of a scheduler of Dask"
    raise error("NKI-L032", f"ranks cannot run on {value!r}", help=help)


def _imported(extra: str, package: str) -> Any:
    try:
        return __import__(package)
    except ImportError:
        help = f"pip install 'nki-sim[{extra}]'"
        raise error("NKI-L034", f"workers of {extra} need the package {package}", help=help) from None


__all__ = ["CLUSTERS", "Answer", "Cluster", "Dask", "RemoteShard", "Lost", "Ray", "as_cluster"]
