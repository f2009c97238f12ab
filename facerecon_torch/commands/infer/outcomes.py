"""The outcome of an input without faces: its status, and where and why it failed."""

from dataclasses import dataclass, field

from facerecon_torch.commands.infer.inputs.entry import Entry
from facerecon_torch.errors import (
    FaceReconError,
    ImageFileError,
    LandmarkFileError,
    NoFaceError,
    TimeLimitError,
)
from facerecon_torch.files import path_text

__all__ = ["OK", "STATUSES", "ImplausibleFaceError", "Outcome", "outcome_of"]

OK = "ok"
STATUSES = (OK, "no_face", "implausible", "bad_image", "bad_landmarks", "timeout", "not_written", "failed")
"""`ok`, and what an input without faces may be."""
_LONGEST = 900  # characters of a reason


class ImplausibleFaceError(NoFaceError):
    """All faces of an image are impossible ones."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Why an input has no faces.

    Attributes:
        entry: the input.
        status: one of `STATUSES`.
        stage: `list`, `read`, `decode`, `detect`, `fit` or `write`.
        exception: name of the error's type.
        reason: for people; it names the input.
        size: bytes of its file, where it can be read.
        sha256: of these bytes.
    """

    entry: Entry
    status: str
    stage: str
    exception: str
    reason: str
    size: int | None = field(default=None)
    sha256: str | None = field(default=None)


def outcome_of(
    entry: Entry, stage: str, error: Exception, *, size: int | None = None, sha256: str | None = None
) -> Outcome:
    """The outcome of an input on which `error` was raised at `stage`."""
    reason = str(error)
    if not isinstance(error, (FaceReconError, ValueError, OSError)) or not reason:
        reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    if str(entry.place) not in reason:
        reason = f"{entry.place}: {reason}"
    reason = path_text(reason)
    if not reason.isprintable():
        reason = "".join(c if c.isprintable() else repr(c)[1:-1] for c in reason)
    stage = "list" if entry.problem is not None else stage
    return Outcome(
        entry=entry,
        status=_status(stage, error),
        stage=stage,
        exception=type(error).__name__,
        reason=reason if len(reason) <= _LONGEST else f"{reason[: _LONGEST - 3]}...",
        size=size,
        sha256=sha256,
    )


def _status(stage: str, error: Exception) -> str:
    for kind, status in (
        (TimeLimitError, "timeout"),
        (ImplausibleFaceError, "implausible"),
        (NoFaceError, "no_face"),
        (ImageFileError, "bad_image"),
        (LandmarkFileError, "bad_landmarks"),
    ):
        if isinstance(error, kind):
            return status
    return {"list": "bad_image", "read": "bad_image", "decode": "bad_image", "write": "not_written"}.get(
        stage, "failed"
    )
