"""Second half of preparing: scans that were read -> registered in batches, written as one part of the set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from facerecon_torch.commands.prepare.pictures import draw_sample
from facerecon_torch.commands.prepare.read import ReadyScan, attempt
from facerecon_torch.commands.prepare.specs import PrepareSpec
from facerecon_torch.data.prepared import CROPS, PreparedRows, write_part
from facerecon_torch.data.recordings import Recording
from facerecon_torch.files import replacing
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.register import FLAGS, RegistrationSpec, register
from facerecon_torch.registration.scan.surface import stack_scans

__all__ = ["ScanRegistrar", "Unit", "UnitDone"]


@dataclass(frozen=True)
class Unit:
    """Recordings that are registered together; the set's bytes depend on how recordings are grouped."""

    number: int
    recordings: tuple[Recording, ...]


@dataclass(frozen=True)
class UnitDone:
    """What became of a unit."""

    number: int
    samples: int
    failures: dict[str, str]


class ScanRegistrar:
    """Registers units on the device of `model` and writes their parts and crops into `folder`."""

    def __init__(
        self,
        model: FaceModel,
        registration: RegistrationSpec,
        prepare: PrepareSpec,
        folder: Path,
        pictured: frozenset[str],
    ) -> None:
        self._model = model
        self._spec = registration
        self._prepare = prepare
        self._folder = folder
        self._pictured = pictured

    def finish(self, unit: Unit, ready: Sequence[ReadyScan], failures: dict[str, str]) -> UnitDone:
        """Register what could be read and write the part, crops first. Raises OSError where the disk is full."""
        failures = dict(failures)
        rows: list[PreparedRows] = []
        if ready:
            answer = attempt(lambda: self._register(ready))
            if not isinstance(answer, str):
                rows.append(answer)
            for scan in ready if isinstance(answer, str) else ():  # one of them spoils the batch: each for itself
                alone = attempt(lambda scan=scan: self._register([scan]))  # type: ignore[misc]
                if isinstance(alone, str):
                    failures[scan.recording.name] = alone
                else:
                    rows.append(alone)
        joined = _join(rows, failures)
        crops = {scan.recording.name: scan.crop for scan in ready}
        for name, image in zip(joined.names, joined.images):
            with replacing(self._folder / CROPS / image) as aside:
                aside.write_bytes(crops[name])
        self._draw(ready, joined)
        write_part(self._folder, unit.number, joined)
        return UnitDone(unit.number, len(joined.names), joined.failures)

    def _draw(self, ready: Sequence[ReadyScan], rows: PreparedRows) -> None:
        """Pictures of those samples that are to be looked at."""
        scans = {scan.recording.name: scan for scan in ready}
        for row, name in enumerate(rows.names):
            if name in self._pictured:
                draw_sample(self._folder, scans[name], rows, row, self._model)

    @torch.no_grad()
    def _register(self, ready: Sequence[ReadyScan]) -> PreparedRows:
        device, dtype = self._model.device, self._model.dtype
        scans = stack_scans([scan.scan for scan in ready]).to(device).to(dtype)
        labelled = torch.stack([scan.labelled for scan in ready]).to(device, dtype)
        lifted = torch.stack([scan.lifted for scan in ready]).to(device, dtype)
        registered = register(self._model, scans, labelled, lifted, self._spec, _groups(ready, device))
        tables = {
            "identity": registered.parameters.identity,
            "expression": registered.parameters.expression,
            "rotation": registered.rotation,
            "translation": registered.translation,
            "meshes": registered.mesh,
            "covered": registered.covered,
            "landmarks": torch.stack([scan.landmarks for scan in ready]),
        }
        stored = {name: _stored(values) for name, values in tables.items()}
        measures = {name: _stored(values) for name, values in registered.measures.items()}
        reasons = [self._refusal(k, stored, measures, registered.flags[k]) for k in range(len(ready))]
        kept = [k for k, reason in enumerate(reasons) if reason is None]
        index = torch.tensor(kept, dtype=torch.int64)
        recordings = [ready[k].recording for k in kept]
        return PreparedRows(
            tuple(recording.name for recording in recordings),
            tuple(recording.subject for recording in recordings),
            tuple(recording.kind for recording in recordings),
            tuple(recording.code for recording in recordings),
            tuple(f"{recording.name}.{self._prepare.crop.format}" for recording in recordings),
            {name: values[index] for name, values in stored.items()},
            {name: values[index] for name, values in measures.items()},
            tuple((*ready[k].flags, *registered.flags[k]) for k in kept),
            {ready[k].recording.name: reason for k, reason in enumerate(reasons) if reason is not None},
        )

    def _refusal(
        self, row: int, tables: dict[str, Tensor], measures: dict[str, Tensor], flags: tuple[str, ...]
    ) -> str | None:
        """Why a registered scan is no sample; None where it is one."""
        if "failed" in flags:
            return f"registration: {FLAGS['failed']}"
        for name in ("identity", "expression", "rotation", "translation", "meshes"):
            if not bool(torch.isfinite(tables[name][row]).all()):
                return f"registration: expected finite {name}; got NaN"
        share = float(measures["inlier_share"][row])
        if not share >= self._prepare.min_inliers:
            least = float(self._prepare.min_inliers)
            return f"registration: expected at least {least:.0%} of the vertices on the scan; got {share:.0%}"
        return None


def _stored(values: Tensor) -> Tensor:
    host = values.detach().cpu()
    return host.float() if host.is_floating_point() else host


def _groups(ready: Sequence[ReadyScan], device: torch.device) -> Tensor:
    """A number for every subject of the batch."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(s.recording.subject, len(numbers)) for s in ready], device=device)


def _join(rows: Sequence[PreparedRows], failures: dict[str, str]) -> PreparedRows:
    """Rows of one unit."""
    filled = [part for part in rows if part.names]
    told = dict(failures)
    for part in rows:
        told |= part.failures

    def column(name: str) -> tuple[str, ...]:
        return tuple(value for part in filled for value in getattr(part, name))

    tables = {key: torch.cat([part.tables[key] for part in filled]) for key in (filled[0].tables if filled else ())}
    keys = filled[0].measures if filled else ()
    return PreparedRows(
        column("names"),
        column("subjects"),
        column("kinds"),
        column("codes"),
        column("images"),
        tables,
        {key: torch.cat([part.measures[key] for part in filled]) for key in keys},
        tuple(row for part in filled for row in part.flags),
        dict(sorted(told.items())),
    )
