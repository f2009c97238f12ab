"""Recordings -> a prepared set: divided into shards, made in parallel, resumable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from facerecon_torch.commands.prepare.read import ReadyScan, ScanReader
from facerecon_torch.commands.prepare.register import ScanRegistrar
from facerecon_torch.commands.prepare.specs import PrepareSpecs
from facerecon_torch.data.prepared import HEADER, PreparedSet, load_prepared, save_prepared
from facerecon_torch.data.recordings import Recording
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.load import load_face_model
from facerecon_torch.runtime.sharded_job import Shard, ShardedJob

__all__ = ["PrepareTask", "plan_shards", "prepare_set"]

_ROW_BYTES = 3_000  # of a sample without mesh and mask


def plan_shards(
    recordings: Sequence[Recording], batch: int, *, whole_subjects: bool
) -> dict[str, tuple[Recording, ...]]:
    """The recordings of every shard, by name: `batch` at a time in order or, with `whole_subjects`, one subject each.

    The bytes of a set depend on this division, since the scans of a shard are registered together.
    """
    if whole_subjects:
        subjects = sorted({recording.subject for recording in recordings})
        groups = [tuple(r for r in recordings if r.subject == subject) for subject in subjects]
    else:
        groups = [tuple(recordings[start : start + batch]) for start in range(0, len(recordings), batch)]
    return {f"{number:06d}": group for number, group in enumerate(groups)}


@dataclass(frozen=True, kw_only=True)
class PrepareTask:
    """The making of shards. A process receives the task by pickling and loads model and data set on first use."""

    folder: Path
    specs: PrepareSpecs
    detector: LandmarkDetector
    pictured: frozenset[str]
    shards: Mapping[str, tuple[Recording, ...]]

    @cached_property
    def _model(self) -> FaceModel:
        replace(self.specs.runtime, device="cpu", threads=1).apply()
        return load_face_model(self.specs.model).to("cpu", self.specs.runtime.torch_dtype)

    @cached_property
    def _reader(self) -> ScanReader:
        return ScanReader(self.specs.recorded.name, self.detector, self._model, self.specs.prepare)

    @cached_property
    def _registrar(self) -> ScanRegistrar:
        return self.build_registrar(self._model)

    def build_registrar(self, model: FaceModel) -> ScanRegistrar:
        """The second half of the work, on the device of `model`."""
        return ScanRegistrar(model, self.specs.registration, self.specs.prepare, self.folder, self.pictured)

    def read(self, shard: str) -> tuple[list[ReadyScan], dict[str, str]]:
        """The first half of a shard: its scans, and the reasons of failures by name."""
        return self._reader.read_all(self.shards[shard])

    def make(self, shard: str) -> Shard:
        """A shard, made on the CPU."""
        return self._registrar.make_shard(self.read(shard))


def prepare_set(task: PrepareTask, fingerprint: dict[str, Any], model: FaceModel, device: torch.device) -> PreparedSet:
    """The prepared set in `task.folder`; what is missing of it is made first.

    On the CPU every process makes whole shards. With a GPU the processes read, and this process registers.

    Args:
        task: how shards are made.
        fingerprint: what the bytes depend on, beside the files of the recordings.
        model: the model of `task.specs`; moved to `device` if that is a GPU.
        device: where scans are registered.

    Raises:
        ValueError: the folder holds another set.
        FaceReconError: no recording gives a sample, or a process died.
        OSError: the disk is full, or would become so. Finished shards stay, and the next call goes on there.
    """
    folder, runtime = task.folder, task.specs.runtime
    samples = sum(len(recordings) for recordings in task.shards.values())
    row = _ROW_BYTES + model.n_vertices * 13  # mesh and mask

    def complete(shards: list[Shard]) -> None:
        save_prepared(folder, shards, model_sha256=fingerprint["model_sha256"], spec=fingerprint)

    job = ShardedJob(
        folder=folder,
        header=HEADER,
        description={"spec": fingerprint},
        shards={name: len(recordings) for name, recordings in task.shards.items()},
        beside=("config.yaml",),
    )
    on_cpu = device.type == "cpu"
    job.run(
        task.make if on_cpu else task.read,
        complete,
        finish=None if on_cpu else task.build_registrar(model.to(device, runtime.torch_dtype)).make_shard,
        workers=runtime.workers,
        # while the tables are written, all shards are there too
        bytes_needed=lambda missing: missing * (row + task.specs.prepare.crop.bytes_expected) + samples * row,
        progress="preparing" if runtime.progress else None,
        unit="scan",
    )
    return load_prepared(folder)
