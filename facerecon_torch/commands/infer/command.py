"""`facerecon infer`: config -> inputs -> tables and files, and the exit status."""

import logging
import signal
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from facerecon_torch.cascade.checkpoint import pretrained_path
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.options import InferOptions, InferSpecs
from facerecon_torch.commands.infer.plan import QUARANTINE, SUBJECTS
from facerecon_torch.commands.infer.run import InferReport, infer
from facerecon_torch.config.recorded import build
from facerecon_torch.landmarks.registry import build_detector, require_convention
from facerecon_torch.model.load import load_face_model
from facerecon_torch.runtime.timer import Timer

__all__ = ["infer_from_config"]

_log = logging.getLogger(__name__)


def infer_from_config(config: DictConfig) -> int:
    """Reconstruct `config.input` into `config.output`. Returns 0, 1 if an input gave no face, 130 or 143 if a signal
    stopped the run."""
    specs: InferSpecs = build(config)
    output = specs.output
    specs.input.require()
    if Path(specs.input.path).is_dir() and Path(specs.input.path).resolve() == output.resolve():
        raise ValueError(
            f"output must not be the input folder, where overlays would be taken for photographs: {output}"
        )
    device = specs.runtime.apply()
    reconstructor, landmarks = _reconstructor(specs), specs.landmarks
    reconstructor = reconstructor.to(device, specs.runtime.torch_dtype)
    if landmarks.source == "auto" and landmarks.convention is None:
        landmarks = replace(landmarks, convention=reconstructor.spec.convention)
    detector = build_detector(landmarks.source, **landmarks.options(device))
    require_convention(detector, reconstructor.spec.convention)
    times = Timer(device) if specs.times else None
    report = infer(specs.input, output, reconstructor, detector, specs.options, times=times)
    _tell(report, output, specs.options)
    if times is not None:
        _log.info("parts, which overlap: %s", times.line())
    if report.stopped is not None:
        return 128 + int(signal.Signals[report.stopped])
    return 1 if report.counts.failures else 0


def _tell(report: InferReport, output: Path, options: InferOptions) -> None:
    """Log how the run went, and how it goes on."""
    done = report.counts.inputs - report.skipped
    _log.info("%s: %d inputs in %.1f s, %.1f a second", output, done, report.seconds, done / report.seconds)
    if report.skipped:
        _log.info("%d inputs were done before", report.skipped)
    _log.info("%s, %d faces", report.counts.line(), report.faces)
    if report.stopped is not None:
        _log.warning("stopped by %s; the same command goes on behind these inputs", report.stopped)
    elif report.total is None:
        _log.info("the inputs of other workers (shard=I/%d) are not all done yet", options.shard_count)
    else:
        _log.info("every input has one outcome: %s", report.total.line())
    if report.people is not None:
        _log.info("%s: %s", output / SUBJECTS, report.people.line())
    if report.counts.failures:
        _log.error(
            "%d of %d inputs gave no face; %s says why, and retry=failed does them again",
            report.counts.failures, report.counts.inputs, output / QUARANTINE,
        )  # fmt: skip


def _reconstructor(specs: InferSpecs) -> FaceReconstructor:
    """The cascade that was asked for, else the shipped one for the run's landmarks."""
    path = specs.cascade or pretrained_path(specs.landmarks.own_convention)
    return FaceReconstructor.from_pretrained(path, face_model=load_face_model(specs.model))
