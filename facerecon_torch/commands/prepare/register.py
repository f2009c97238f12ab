"""Second half of preparing: scans that were read -> one shard of the set, registered as a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from facerecon_torch.commands.prepare.read import ReadyScan, attempt
from facerecon_torch.commands.prepare.report import draw_sample
from facerecon_torch.commands.prepare.specs import PrepareSpec
from facerecon_torch.data.prepared import CROPS, MEASURE
from facerecon_torch.files import write_bytes
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.register import FLAGS, Registered, RegistrationSpec, register
from facerecon_torch.registration.scan.surface import stack_scans
from facerecon_torch.runtime.sharded_job import Shard

__all__ = ["ScanRegistrar"]


@dataclass(frozen=True)
class ScanRegistrar:
    """Registers batches of scans on the device of `model` and writes their crops, and pictures of the samples named in
    `pictured`, into `folder`."""

    model: FaceModel
    registration: RegistrationSpec
    prepare: PrepareSpec
    folder: Path
    pictured: frozenset[str]

    def make_shard(self, reading: tuple[list[ReadyScan], dict[str, str]]) -> Shard:
        """The shard of the scans and failures that `ScanReader.read_all` returned. Raises OSError where the disk is
        full."""
        ready, failures = reading[0], dict(reading[1])
        scans, registered = self._register_each(ready, failures)
        if registered is None:
            return Shard({}, {"samples": [], "failures": failures})
        refusals = {k: reason for k in range(len(scans)) if (reason := self._refusal(registered[k : k + 1]))}
        failures |= {scans[k].recording.name: reason for k, reason in refusals.items()}
        rows = [k for k in range(len(scans)) if k not in refusals]
        registered = registered[torch.tensor(rows, dtype=torch.int64)]
        entries: list[dict[str, object]] = []
        for row, k in enumerate(rows):
            scan, recording = scans[k], scans[k].recording
            image = f"{recording.name}.{self.prepare.crop.format}"
            write_bytes(self.folder / CROPS / image, scan.crop)
            if recording.name in self.pictured:
                draw_sample(self.folder, image, scan, registered[row : row + 1], self.model)
            about = {name: getattr(recording, name) for name in ("name", "subject", "kind", "code")}
            entries.append({**about, "image": image, "flags": [*scan.flags, *registered.flags[row]]})
        landmarks = torch.stack([scan.landmarks for scan in scans])[rows]
        return Shard(_columns(registered, landmarks), {"samples": entries, "failures": failures})

    def _register_each(
        self, ready: Sequence[ReadyScan], failures: dict[str, str]
    ) -> tuple[list[ReadyScan], Registered | None]:
        """Scans that could be registered, and their registration. If the batch fails, each scan is registered alone;
        scans that fail are added to `failures`."""
        together = attempt(lambda: self._register(ready)) if ready else "no scan"
        if not isinstance(together, str):
            return list(ready), together
        scans: list[ReadyScan] = []
        pieces: list[Registered] = []
        for scan in ready:
            alone = attempt(lambda scan=scan: self._register([scan]))  # type: ignore[misc]
            if isinstance(alone, str):
                failures[scan.recording.name] = alone
            else:
                scans.append(scan)
                pieces.append(alone)
        return scans, Registered.cat(pieces) if pieces else None

    @torch.no_grad()
    def _register(self, ready: Sequence[ReadyScan]) -> Registered:
        device, dtype = self.model.device, self.model.dtype
        scans = stack_scans([scan.scan for scan in ready]).to(device, dtype)
        labelled = torch.stack([scan.labelled for scan in ready]).to(device, dtype)
        lifted = torch.stack([scan.lifted for scan in ready]).to(device, dtype)
        subjects = list(dict.fromkeys(scan.recording.subject for scan in ready))
        groups = torch.tensor([subjects.index(scan.recording.subject) for scan in ready], device=device)
        return register(self.model, scans, labelled, lifted, self.registration, groups).to("cpu", torch.float32)

    def _refusal(self, registered: Registered) -> str | None:
        """Why a registered scan is no sample; None where it is one."""
        if "failed" in registered.flags[0]:
            return f"registration: {FLAGS['failed']}"
        for name, values in _fit_columns(registered).items():
            if not bool(torch.isfinite(values).all()):
                return f"registration: expected finite {name}; got NaN"
        inliers = float(registered.measures["inlier_share"])
        if not inliers >= self.prepare.min_inliers:
            least = float(self.prepare.min_inliers)
            return f"registration: expected at least {least:.0%} of the vertices on the scan; got {inliers:.0%}"
        return None


def _fit_columns(registered: Registered) -> dict[str, Tensor]:
    return {
        "identity": registered.parameters.identity,
        "expression": registered.parameters.expression,
        "rotation": registered.rotation,
        "translation": registered.translation,
        "meshes": registered.mesh,
    }


def _columns(registered: Registered, landmarks: Tensor) -> dict[str, Tensor]:
    """Columns of a prepared set."""
    measures = {MEASURE + name: values for name, values in registered.measures.items()}
    return _fit_columns(registered) | {"covered": registered.covered, "landmarks": landmarks} | measures
