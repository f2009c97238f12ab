"""The face of a synthetic clip: identity, pose and expression of every frame against the truth, before and after
smoothing.

    python -m benchmarks.clip subject=0,1,2 family=test seed=0 frames=60
    python -m benchmarks.clip subject=0 video=clip.mp4 ...                 and keep the clip

The clip (`synthetic/clip.py`) is encoded, read back, detected and followed as `facerecon video` does. Jitter is the
root mean square of the second difference of the error from frame to frame. The lag is the shift in frames at which a
curve correlates best with the truth, to a tenth of a frame. Of the expressions that move in the truth, those whose
estimate moves too count for the lag; `weights_followed` is their share. Of several subjects every figure is the median
over their clips.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.video.run import Track, follow_face, settle_track
from facerecon_torch.images.video import write_video
from facerecon_torch.synthetic.clip import ClipFrame, ClipSpec, render_clip
from facerecon_torch.synthetic.people.head import load_head
from facerecon_torch.tracking.smooth import SmoothingSpec

from .accuracy.rendered import aligned_error
from .keys import read_keys

__all__ = ["curves", "jitter", "lag", "main", "measure"]

_KEYS = ("subject", "family", "seed", "frames", "video", "cascade")
_RATE = 30  # frames a second
_LONGEST_LAG = 6  # frames that are tried
_FINE = 10  # steps of a frame
_MOVING = 0.3  # range of a true weight from which on its curve is compared
_FOLLOWED = 0.1  # range of an estimated weight that has a lag


def main(words: Sequence[str]) -> int:
    """Print the table.

    Raises:
        ValueError: an unknown key.
    """
    keys = read_keys(words, _KEYS)
    numbers = {name: int(keys[name]) for name in ("seed", "frames") if name in keys}
    model = FaceReconstructor.from_pretrained(keys.get("cascade"))
    measured = []
    for subject in map(int, keys.get("subject", "0").split(",")):
        spec = ClipSpec(**numbers, subject=subject, family=keys.get("family", "test"))
        clip = ClipFrame.stack(list(render_clip(spec)))
        with tempfile.TemporaryDirectory() as folder:
            video = Path(keys.get("video") or Path(folder) / "clip.mp4")
            measured.append(measure(clip, video, model, SmoothingSpec()))
        _print(f"subject {subject}, ", measured[-1])
    if len(measured) > 1:
        _print("median, ", {name: _median([figures[name] for figures in measured]) for name in measured[0]})
    return 0


def _print(begin: str, figures: Mapping[str, Mapping[str, float]]) -> None:
    for name, row in figures.items():
        told = "  ".join(f"{key} {value:.3f}" for key, value in row.items())
        sys.stdout.write(f"{begin}{name}: {told}\n")
    sys.stdout.flush()


def _median(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of every figure, over the clips that have it."""
    return {key: float(torch.tensor([row[key] for row in rows]).nanmedian()) for key in rows[0]}


def measure(
    clip: ClipFrame, video: Path, model: FaceReconstructor, smoothing: SmoothingSpec
) -> dict[str, dict[str, float]]:
    """Figures of single frames, of frames with one identity, and of the smoothed track; writes the clip to `video`."""
    write_video(video, _RATE, clip.image)
    track = follow_face(video, model, model.landmark_detector)
    joint = settle_track(track, model, joint=True, smoothing=replace(smoothing, enabled=False))
    smooth = settle_track(track, model, joint=True, smoothing=smoothing)
    return {
        "single frames": _row(track, clip, model),
        "one identity": _row(joint, clip, model),
        "smoothed": _row(smooth, clip, model),
    }


def _row(track: Track, clip: ClipFrame, model: FaceReconstructor) -> dict[str, float]:
    truth, faces = clip[list(track.frames)], track.faces
    face_model, identity = model.face_model, faces.parameters.identity
    rest = face_model.named.origin.expand(len(faces), -1)
    seen, true = curves(faces, truth)
    followed = seen.amax(0) - seen.amin(0) >= _FOLLOWED
    pose = torch.rad2deg(truth.angles.double())
    return {
        "frames": len(faces),
        "identity_mm": float(aligned_error(face_model, identity, rest, truth.neutral).mean()),
        "face_mm": float(aligned_error(face_model, identity, faces.parameters.expression, truth.vertices).mean()),
        "weight_jitter": jitter(seen - true),
        "weight_error": float((seen - true).abs().mean()),
        "weights_followed": float(followed.double().mean()),
        "weight_lag": lag(seen[:, followed], true[:, followed]),
        "pose_jitter": jitter(faces.euler_degrees.double() - pose),
        "pose_error": float((faces.euler_degrees.double() - pose).abs().mean()),
        "pose_lag": lag(faces.euler_degrees.double(), pose),
    }


def curves(faces: Reconstruction, truth: ClipFrame) -> tuple[Float[Tensor, "frames n"], Float[Tensor, "frames n"]]:
    """The weights of the expressions that move in the truth, as estimated and as they are."""
    names = load_head().source.expression_names
    moving = truth.expression_weights.amax(0) - truth.expression_weights.amin(0) >= _MOVING
    kept = [k for k, name in enumerate(names) if bool(moving[k]) and name in faces.expression_weights]
    seen = torch.stack([faces.expression_weights[names[k]] for k in kept], dim=-1)
    return seen.double(), truth.expression_weights[:, kept].double()


def jitter(errors: Float[Tensor, "frames n"]) -> float:
    """Root mean square of the second differences."""
    return float(errors.diff(n=2, dim=0).square().mean().sqrt())


def lag(seen: Float[Tensor, "frames n"], true: Float[Tensor, "frames n"]) -> float:
    """Frames by which `seen` is behind `true`: of the shift with the largest sum of correlations, negative where it is
    ahead; NaN without curves."""
    if not seen.shape[1]:
        return float("nan")
    frames = torch.arange(_LONGEST_LAG, len(true) - _LONGEST_LAG).double()
    shifts = torch.arange(-_LONGEST_LAG * _FINE, _LONGEST_LAG * _FINE + 1).double() / _FINE
    late = torch.stack([_correlation(_at(seen, frames + shift), _at(true, frames)) for shift in shifts])
    return float(shifts[late.argmax()])


def _at(values: Float[Tensor, "frames n"], places: Float[Tensor, "m"]) -> Float[Tensor, "m n"]:
    """The values between frames, linear."""
    low = places.floor().long().clamp(0, len(values) - 2)
    return torch.lerp(values[low], values[low + 1], (places - low)[:, None])


def _correlation(one: Float[Tensor, "m n"], other: Float[Tensor, "m n"]) -> Float[Tensor, ""]:
    one, other = one - one.mean(0), other - other.mean(0)
    norms = (one.square().sum(0) * other.square().sum(0)).sqrt()
    total: Tensor = torch.where(norms > 0, (one * other).sum(0) / norms.clamp_min(1e-12), 0.0).sum()
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
