"""`facerecon infer`: config -> photographs -> results, failures and the exit status."""

import logging
from dataclasses import replace

from omegaconf import DictConfig

from facerecon_torch.cascade.checkpoint import pretrained_path
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.options import InferSpecs
from facerecon_torch.commands.infer.output_files import FAILURES
from facerecon_torch.commands.infer.run import find_images, infer
from facerecon_torch.commands.own_files import FAILURES_FORMAT
from facerecon_torch.config.recorded import build
from facerecon_torch.files import path_text, write_json
from facerecon_torch.landmarks.registry import build_detector, require_convention
from facerecon_torch.model.load import load_face_model
from facerecon_torch.runtime.timer import Timer

__all__ = ["infer_from_config"]

_log = logging.getLogger(__name__)


def infer_from_config(config: DictConfig) -> int:
    """Reconstruct `config.input` into `config.output`. Returns 0, or 1 if an image gave no face."""
    specs: InferSpecs = build(config)
    images, output = find_images(specs.input), specs.output
    if specs.input.is_dir() and specs.input.resolve() == output.resolve():
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
    report = infer(images, output, reconstructor, detector, specs.options, times=times)
    _log.info(
        "%d faces of %d images in %s: %.1f s, %.1f faces/s",
        report.faces,
        report.images,
        output,
        report.seconds,
        report.faces / report.seconds,
    )
    if times is not None:
        _log.info("parts, which overlap: %s", times.line())
    if report.skipped:
        _log.info("%d images were done before", report.skipped)
    failures = output / FAILURES
    if report.failures:
        listed = [{"image": path_text(path), "reason": reason} for path, reason in report.failures]
        write_json(failures, {"format": FAILURES_FORMAT, "version": 1, "failures": listed})
        _log.error("%d of %d images gave no face; see %s", len(listed), len(images), failures)
        return 1
    failures.unlink(missing_ok=True)
    return 0


def _reconstructor(specs: InferSpecs) -> FaceReconstructor:
    """The cascade that was asked for, else the shipped one for the run's landmarks."""
    path = specs.cascade or pretrained_path(specs.landmarks.own_convention)
    return FaceReconstructor.from_pretrained(path, face_model=load_face_model(specs.model))
