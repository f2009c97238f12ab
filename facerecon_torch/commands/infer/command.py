"""`facerecon infer`: config -> photographs -> results, failures and the exit status."""

import logging
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from facerecon_torch.cascade.reconstruction import KnownSize
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.run import find_images, infer
from facerecon_torch.files import write_json
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.model.load import load_face_model
from facerecon_torch.runtime.timer import Timer

__all__ = ["infer_from_config"]

_log = logging.getLogger(__name__)


def infer_from_config(config: DictConfig) -> int:
    """Reconstruct `config.input` into `config.output`. Returns 0, or 1 where some file gave no face."""
    source = instantiate(config.landmarks, _convert_="all")
    runtime = instantiate(config.runtime, _convert_="all")
    for key in ("input", "output"):
        if config[key] is None:
            raise ValueError(f"{key} must be a path; got null")
    source_path, output = Path(config.input), Path(config.output)
    images = find_images(source_path)
    if source_path.is_dir() and source_path.resolve() == output.resolve():
        raise ValueError(
            f"output must not be the input folder, where overlays would be taken for photographs: {output}"
        )
    options = InferOptions(
        faces=config.faces,
        mode=config.mode,
        batch=config.batch,
        decode=config.decode,
        formats=tuple(str(f) for f in config.formats),
        resume=config.resume,
        size=KnownSize(**config.size),
        workers=runtime.workers,
        progress=runtime.progress,
    )
    device = runtime.apply()
    detector = build_detector(source.source, **source.options(device))
    model = load_face_model(instantiate(config.model, _convert_="all"))
    reconstructor = FaceReconstructor.from_pretrained(config.cascade.path, face_model=model)
    reconstructor = reconstructor.to(device, runtime.torch_dtype)
    times = Timer(device) if config.times else None
    report = infer(images, output, reconstructor, detector, options, times=times)
    _log.info(
        "%d faces of %d images in %s: %.1f s, %.1f faces/s",
        report.faces,
        report.images,
        output,
        report.seconds,
        report.faces / report.seconds,
    )
    if times is not None:
        _log.info("stages, which overlap: %s", times.line())
    if report.skipped:
        _log.info("%d images were done before", report.skipped)
    if report.failures:
        listed = [{"image": str(path), "reason": reason} for path, reason in report.failures]
        write_json(output / "failures.json", listed)
        _log.error("%d of %d images gave no face; see %s", len(listed), len(images), output / "failures.json")
        return 1
    (output / "failures.json").unlink(missing_ok=True)
    return 0
