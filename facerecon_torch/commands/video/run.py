"""One face through a video: detection, cascade, one identity, smoothing, and its files."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from facerecon_torch.cascade.found_faces import faces_at_once
from facerecon_torch.cascade.joint_identity import JointIdentity
from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.own_files import require_own
from facerecon_torch.commands.video.curves import draw_curves, write_curves
from facerecon_torch.errors import NoFaceError
from facerecon_torch.export.face_table import FaceTable, ImageRow
from facerecon_torch.export.parameters import FittedFaces
from facerecon_torch.geometry.projection import project_with_depth
from facerecon_torch.images.read import in_unit_range
from facerecon_torch.images.video import frame_rate, read_frames, write_video
from facerecon_torch.landmarks.batches import detect_in_batches
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.report.overlay import draw_overlay
from facerecon_torch.structures import Detection
from facerecon_torch.tracking.follow import FaceFollower
from facerecon_torch.tracking.smooth import SmoothingSpec, smooth_track

__all__ = ["Track", "follow_face", "settle_track", "write_track"]

TABLE, CURVES, PLOT, OVERLAY = "parameters.parquet", "expressions.csv", "expressions.png", "overlay.mp4"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Track:
    """One face through a video.

    Attributes:
        faces: one per frame in which the face was found, on the CPU.
        frames: number of each of these frames, from 0.
        seconds: time of each.
        total: frames of the video.
        rate: frames a second.
        person: of a joint identity.
    """

    faces: Reconstruction
    frames: tuple[int, ...]
    seconds: Float[Tensor, "faces"]
    total: int
    rate: Fraction
    person: JointIdentity | None = None


@dataclass(frozen=True)
class _Seen:
    pixels: UInt8[Tensor, "3 height width"]
    seconds: float


def follow_face(path: Path, reconstructor: FaceReconstructor, detector: LandmarkDetector) -> Track:
    """The largest face of the first frame that has one, through the video; every frame by itself.

    Raises:
        ImageFileError: the video cannot be read.
        DetectorError: the detector cannot run.
        NoFaceError: no frame shows a face.
    """
    follower, limit = FaceFollower(), faces_at_once(reconstructor.device)
    held, solved = list[tuple[_Seen, Detection]](), list[Reconstruction]()
    frames, seconds, total = list[int](), list[float](), 0
    pictures = ((None, _Seen(frame.pixels, frame.seconds)) for frame in read_frames(path))
    for total, (_, found) in enumerate(detect_in_batches(detector, pictures), 1):
        if isinstance(found, Exception):
            raise found
        seen, detections = found
        face = follower.next(detections)
        if face is None:
            continue
        held.append((seen, face))
        frames.append(total - 1)
        seconds.append(seen.seconds)
        if len(held) >= limit:
            solved.append(_solved(held, reconstructor))
            held = []
    if held:
        solved.append(_solved(held, reconstructor))
    if not solved:
        raise NoFaceError(f"{path}: expected a face in at least one of {total} frames; found none")
    times = torch.tensor(seconds, dtype=torch.float64)
    return Track(Reconstruction.cat(solved), tuple(frames), times, total, frame_rate(path))


def _solved(held: Sequence[tuple[_Seen, Detection]], reconstructor: FaceReconstructor) -> Reconstruction:
    points = to_paper66(torch.stack([face.points for _, face in held]))
    faces = reconstructor.reconstruct([seen.pixels for seen, _ in held], points)
    boxes, scores = [face.box for _, face in held], [face.score for _, face in held]
    like = faces.boxes
    return replace(faces, boxes=like.new_tensor(boxes), scores=like.new_tensor(scores)).cpu()


def settle_track(track: Track, reconstructor: FaceReconstructor, *, joint: bool, smoothing: SmoothingSpec) -> Track:
    """The track with one identity, if `joint`, and with smoothed pose and expression."""
    faces, person = track.faces.to(reconstructor.device), None
    if joint:
        subject = torch.zeros(len(faces), dtype=torch.int64, device=reconstructor.device)
        faces, person = reconstructor.join(faces, subject)
    faces = smooth_track(faces, track.seconds, reconstructor, smoothing)
    return replace(track, faces=faces.cpu(), person=None if person is None else person.cpu())


def write_track(track: Track, video: Path, folder: Path, reconstructor: FaceReconstructor, *, overlay: bool) -> None:
    """Write the files of a track into `folder`.

    Raises:
        FileExistsError: a file of another program has the name of a result.
        MissingExtraError: a package of the extra `video` is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    require_own([folder / TABLE])
    names = tuple(reconstructor.face_model.expression_names)
    table = FaceTable(names, convention=reconstructor.spec.convention)
    for k, frame in enumerate(track.frames):
        row = ImageRow(input=frame, path=str(video), frame=frame, time=float(track.seconds[k]))
        table.append(row, FittedFaces.of(track.faces[k : k + 1]))
    table.save(folder / TABLE)
    write_curves(folder / CURVES, track.faces, track.frames, track.seconds)
    draw_curves(folder / PLOT, track.faces, track.seconds)
    if overlay:
        write_video(folder / OVERLAY, track.rate, _drawn(track, video))


def _drawn(track: Track, video: Path) -> Iterator[UInt8[Tensor, "3 height width"]]:
    """The frames of the video with the face on those that show it."""
    place = {frame: k for k, frame in enumerate(track.frames)}
    for number, frame in enumerate(read_frames(video)):
        if number not in place:
            yield frame.pixels
            continue
        face = track.faces[place[number]]
        points = project_with_depth(face.vertices, face.camera)
        drawn = draw_overlay(in_unit_range(frame.pixels), points, face.mesh.triangles)
        yield (drawn * 255).round().to(torch.uint8)
