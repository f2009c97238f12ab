"""The engines: how the shards of a run come to a worker, here one after the other, or by Ray Data."""

import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Any

from facerecon_torch.commands.infer.parts import Parts, RunCounts
from facerecon_torch.commands.infer.plan import Plan
from facerecon_torch.commands.infer.shard_worker import ShardWorker, WorkerSpec
from facerecon_torch.errors import MissingExtraError
from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["shards_by_ray", "shards_here"]


def shards_here(
    spec: WorkerSpec, plan: Plan, shards: Sequence[int], advance: Callable[[int], object]
) -> Generator[RunCounts, None, None]:
    """The counts of every shard, committed one after the other in this process.

    Args:
        spec: of the worker.
        plan: of the run.
        shards: to be made.
        advance: as of `ShardWorker.run`.
    """
    if not shards:
        return
    worker = ShardWorker(spec)
    try:
        for shard in shards:
            yield _make_shard(worker, Parts(spec.output, plan), plan, shard, advance)
    finally:
        worker.close()


def shards_by_ray(
    spec: WorkerSpec, plan: Plan, shards: Sequence[int], actors: int | None
) -> Generator[RunCounts, None, None]:
    """The counts of every shard in the order of their completion, committed by actors of Ray Data.

    Args:
        spec: of the workers; the output folder must be shared by all machines.
        plan: of the run.
        shards: to be made.
        actors: workers; None: one per GPU of the cluster, without GPUs one per two CPUs.

    Raises:
        MissingExtraError: Ray is missing.
    """
    if not shards:
        return
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("runs with engine=ray", "Ray", "ray") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    is_cuda = spec.reconstructor.device.type == "cuda"
    default = resources.get("GPU", 1) if is_cuda else resources.get("CPU", 2) // 2
    count = min(actors or max(int(default), 1), len(shards))
    ray.data.DataContext.get_current().enable_progress_bars = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own code
        data = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
        counts = data.map_batches(
            _RayWorker, batch_size=1, concurrency=count, fn_constructor_args=(spec, plan),
            num_gpus=1 if is_cuda else 0, num_cpus=1,
        )  # fmt: skip
        for row in counts.iter_rows():
            yield RunCounts(Counter(json.loads(row["statuses"])), int(row["faces"]))


class _RayWorker:
    """An actor of Ray Data that makes one shard after the other."""

    def __init__(self, spec: WorkerSpec, plan: Plan) -> None:
        self._worker, self._parts, self._plan = ShardWorker(spec), Parts(spec.output, plan), plan

    @in_own_precision
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        made = [_make_shard(self._worker, self._parts, self._plan, int(shard), _quiet) for shard in batch["shard"]]
        return {
            "statuses": [json.dumps(dict(counts.statuses)) for counts in made],
            "faces": [counts.faces for counts in made],
        }


def _quiet(failures: int) -> None:
    """Progress inside an actor, which the driver does not see."""


def _make_shard(
    worker: ShardWorker, parts: Parts, plan: Plan, shard: int, advance: Callable[[int], object]
) -> RunCounts:
    """Reconstruct a shard and commit it, of a committed one the inputs without faces again. Returns its counts, read
    back from its tables."""
    entries, kept = plan.entries(shard), None
    if parts.counts(shard) is not None:
        failed = set(parts.failed_inputs(shard))
        entries, kept = [entry for entry in entries if entry.number in failed], parts.faces(shard)
    result = worker.run(shard, entries, advance)
    parts.commit(shard, result.faces, result.failures, kept=kept)
    counts = parts.counts(shard)
    if counts is None:
        raise RuntimeError(f"{parts.faces_file(shard)}: expected exactly one outcome for every input of the shard")
    return counts
