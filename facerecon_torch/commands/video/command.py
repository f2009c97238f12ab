"""`facerecon video`: config -> one face through a video -> its parameters, curves and overlay."""

import logging
from dataclasses import replace

from omegaconf import DictConfig

from facerecon_torch.cascade.checkpoint import pretrained_path
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.video.options import VideoSpecs
from facerecon_torch.commands.video.run import follow_face, settle_track, write_track
from facerecon_torch.config.recorded import build
from facerecon_torch.errors import NoFaceError
from facerecon_torch.landmarks.registry import build_detector, require_convention
from facerecon_torch.model.load import load_face_model

__all__ = ["video_from_config"]

_log = logging.getLogger(__name__)


def video_from_config(config: DictConfig) -> int:
    """Follow the face of `config.input` into `config.output`. Returns 0, or 1 if no frame shows a face."""
    specs: VideoSpecs = build(config)
    device, landmarks = specs.runtime.apply(), specs.landmarks
    path = specs.cascade or pretrained_path(landmarks.own_convention)
    reconstructor = FaceReconstructor.from_pretrained(path, face_model=load_face_model(specs.model))
    reconstructor = reconstructor.to(device, specs.runtime.torch_dtype)
    if landmarks.source == "auto" and landmarks.convention is None:
        landmarks = replace(landmarks, convention=reconstructor.spec.convention)
    detector = build_detector(landmarks.source, **landmarks.options(device))
    require_convention(detector, reconstructor.spec.convention)
    try:
        track = follow_face(specs.input, reconstructor, detector)
    except NoFaceError as error:
        _log.error("%s", error)
        return 1
    track = settle_track(track, reconstructor, joint=specs.joint, smoothing=specs.smoothing)
    write_track(track, specs.input, specs.output, reconstructor, overlay=specs.overlay)
    _log.info("a face in %d of %d frames of %s; see %s", len(track.frames), track.total, specs.input, specs.output)
    if track.person is not None and bool(track.person.mixed.any()):
        _log.warning("the frames seem to show several people: spread %.1f mm", float(track.person.spread[0]))
    return 0
