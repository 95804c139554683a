"""Where the points of a sweep run: processes of joblib, or a cluster by the name of its backend."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from functools import lru_cache

import joblib

from nki_isa.diagnostics import error
from nki_tools.sweep.packing import packed, unpacked
from nki_tools.sweep.points import Call, Job, Row

#: A point: its key, and what is called at it.
Task = tuple[str, Call]

#: Points in flight with a backend that gives results only when all that it was given are done.
_PART = 64


@lru_cache(maxsize=4)
def _job(common: bytes) -> Job:
    """The job of a sweep, unpacked once in each worker."""
    job: Job = unpacked(common)
    return job


def _run(common: bytes, key: str, call: bytes) -> tuple[str, Row]:
    """One point, in a worker."""
    job = _job(common)
    job.enter()
    return key, job.run(unpacked(call))


def results(
    job: Job, points: Iterator[Task], jobs: int | None, backend: str | None
) -> Iterator[tuple[str, Row]]:
    """The key of each point and its row, as they are done.

    Raises:
        NkiError: NKI-L032 for a backend that joblib lacks or that is not ready; NKI-L034, NKI-L058.
    """
    try:
        if backend == "ray":
            importlib.import_module("ray.util.joblib").register_ray()
        configured = joblib.parallel_config(backend=backend or "loky", n_jobs=-1 if jobs is None else jobs)
    except ImportError:
        needed = {"dask": "distributed"}.get(str(backend), backend)
        help = f"pip install 'nki-sim[{backend}]'"
        raise error("NKI-L034", f"the backend {backend!r} needs the package {needed}", help=help) from None
    except ValueError as problem:
        help = "pass a backend of joblib: loky, dask with a distributed.Client, or ray"
        raise error("NKI-L032", f"the backend {backend!r} cannot be used: {problem}", help=help) from None
    common = packed(job)
    tasks = (joblib.delayed(_run)(common, key, packed(call)) for key, call in points)
    with configured:
        try:
            if joblib.parallel.get_active_backend()[0].supports_return_generator:
                yield from joblib.Parallel(return_as="generator_unordered")(tasks)
                return
            with joblib.Parallel() as parallel:  # it gives nothing before the last is done: a part at a time
                while part := list(itertools.islice(tasks, _PART)):
                    yield from parallel(part)
        except ModuleNotFoundError as problem:
            help = "install it on the workers, or define the kernel in the script that sweeps"
            raise error("NKI-L034", f"a worker lacks the module {problem.name}", help=help) from None
        except Exception as problem:
            if not _is_loss(problem):
                raise
            raise error(
                "NKI-L058",
                f"a worker of the sweep ended before its point was done: {type(problem).__name__}",
                help="run it again with the same store, which has the finished points, and with fewer jobs "
                "if memory was short",
            ) from None


#: What says that a process of a backend was lost, by module and name: they are imported where they are used.
_LOSSES = (
    ("concurrent.futures.process", "BrokenProcessPool"),
    ("distributed.scheduler", "KilledWorker"),
    ("ray.exceptions", "RayActorError"),
    ("ray.exceptions", "WorkerCrashedError"),
    ("ray.exceptions", "OutOfMemoryError"),
)


def _is_loss(problem: Exception) -> bool:
    kinds = (getattr(sys.modules.get(module), name, ()) for module, name in _LOSSES)
    return any(isinstance(problem, kind) for kind in kinds)


__all__ = ["results"]
