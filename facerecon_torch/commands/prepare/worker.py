"""What a process of `facerecon prepare` does: it holds a reader, and on the CPU a registrar, and works unit by unit."""

import pickle
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from facerecon_torch.commands.prepare.read import ReadyScan, ScanReader
from facerecon_torch.commands.prepare.register import ScanRegistrar, Unit, UnitDone
from facerecon_torch.commands.prepare.specs import PrepareSpec
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.load import ModelSpec, load_face_model
from facerecon_torch.registration.scan.register import RegistrationSpec
from facerecon_torch.runtime.processes import end_with_parent

__all__ = ["PrepareTask", "Workplace", "build_registrar", "prepare_unit", "read_unit", "start_worker", "unpack"]


@dataclass(frozen=True)
class PrepareTask:
    """All that a process needs to know; small enough to send."""

    folder: Path
    data: str
    model: ModelSpec
    detector: LandmarkDetector
    registration: RegistrationSpec
    prepare: PrepareSpec
    runtime: RuntimeSpec
    pictured: frozenset[str]


class Workplace:
    """Both halves of the work on the CPU; the second is set up where it is asked for."""

    def __init__(self, task: PrepareTask) -> None:
        self._task = task
        self._model = load_face_model(task.model).to("cpu", task.runtime.torch_dtype)
        self.reader = ScanReader(task.data, task.detector, self._model, task.prepare)

    @cached_property
    def registrar(self) -> ScanRegistrar:
        return _registrar(self._task, self._model)

    def prepare(self, unit: Unit) -> UnitDone:
        """Both halves of a unit."""
        ready, failures = self.reader.read_all(unit.recordings)
        return self.registrar.finish(unit, ready, failures)


def build_registrar(task: PrepareTask, device: torch.device) -> ScanRegistrar:
    """The second half alone, on `device`."""
    model = load_face_model(task.model).to(device, task.runtime.torch_dtype)
    return _registrar(task, model)


def _registrar(task: PrepareTask, model: FaceModel) -> ScanRegistrar:
    return ScanRegistrar(model, task.registration, task.prepare, task.folder, task.pictured)


_workplace: Workplace | None = None


def start_worker(task: PrepareTask) -> None:
    """Make this process a worker of its parent, and end it with its parent."""
    global _workplace
    end_with_parent()
    replace(task.runtime, device="cpu", threads=1).apply()  # sums of floats depend on the number of threads
    _workplace = Workplace(task)


def prepare_unit(unit: Unit) -> UnitDone:
    """Both halves of a unit, in a worker."""
    return _here().prepare(unit)


def read_unit(unit: Unit) -> bytes:
    """The first half of a unit, in a worker; packed, so that no tensor travels through shared memory, whose handles
    are few."""
    return pickle.dumps(_here().reader.read_all(unit.recordings))


def unpack(answer: bytes) -> tuple[list[ReadyScan], dict[str, str]]:
    """What `read_unit` packed."""
    content: tuple[list[ReadyScan], dict[str, str]] = pickle.loads(answer)
    return content


def _here() -> Workplace:
    if _workplace is None:
        raise RuntimeError("start_worker must run before a unit is worked on")
    return _workplace
