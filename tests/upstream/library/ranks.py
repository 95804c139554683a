"""The library's tests over several ranks: one simulation of all; results go where a device leaves them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

import nki
from tests.upstream.library.simulator import copy_argument


def install() -> None:
    """Let the orchestrator simulate kernels on the ranks that a test asks for."""
    from test.utils.common_dataclasses import INF_ARTIFACT_DIR_NAME, normalize_golden_output
    from test.utils.exceptions import InferenceException
    from test.utils.test_orchestrator import Orchestrator

    of_one = Orchestrator._run_simulator_inference

    def inference(self: Any, kernel: Any) -> Any:
        ranks = kernel.inference_args.collective_ranks
        if ranks == 1:
            return of_one(self, kernel)
        try:
            results = simulate(kernel, ranks)
        except Exception as failed:  # as the orchestrator itself reports them
            raise InferenceException(str(failed)) from failed
        folder = os.path.join(self.fs_config.artifacts_output_directory_path, INF_ARTIFACT_DIR_NAME)
        for rank, outputs in enumerate(results):
            golden = normalize_golden_output(kernel.validation_args.golden_output, rank)
            named = {
                name: np.asarray(output, dtype=expected.dtype)
                for (name, expected), output in zip(golden.items(), outputs, strict=True)
            }
            path = os.path.join(folder, f"output_worker_{rank}")
            self.__dump_tensors__(path, named, lambda name: name)
        return folder

    Orchestrator._run_simulator_inference = inference


def simulate(kernel: Any, ranks: int) -> list[list[np.ndarray]]:
    """The outputs of each rank, in order; inputs are those of each rank, or the same for all."""
    given = kernel.kernel_input

    def inputs(rank: int) -> dict[str, Any]:
        values = given.for_rank(rank) if hasattr(given, "for_rank") else given
        return {
            name.removesuffix(".must_alias_input"): copy_argument(value) for name, value in values.items()
        }

    cores = kernel.compiler_input.logical_nc_config
    results = nki.simulate(kernel.kernel_func, ranks=ranks)[cores](inputs)
    return [list(one) if isinstance(one, (list, tuple)) else [one] for one in results]
