"""Writer and reader of synthetic image sets on disk.

Folder: images/<subject>_<image>.jpg, truth.safetensors, set.json. Every subject is a shard of a resumable job; set.json
is written last and marks the set as complete.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.errors import DataFileError
from facerecon_torch.files import write_bytes, write_json
from facerecon_torch.formats.checked_columns import load_columns, save_columns
from facerecon_torch.formats.json_file import read_json, require_entries
from facerecon_torch.runtime.sharded_job import Shard, ShardedJob, join_columns
from facerecon_torch.structures import Camera, FaceParameters
from facerecon_torch.synthetic.people.model_people import load_model_people, people_digest
from facerecon_torch.synthetic.render.subject import render_subject, warm_up
from facerecon_torch.synthetic.spec import SyntheticSpec

__all__ = ["VERSION", "SyntheticSet", "load_set", "render_set"]

VERSION = 2
"""Of the layout on disk; sets of another one are rendered again."""
_FORMAT = f"facerecon_torch.synthetic/{VERSION}"


@dataclass(frozen=True)
class SyntheticSet:
    """A rendered set with one row per image, sorted by subject.

    Attributes:
        spec: of the set.
        images: files.
        subjects: number of each image's person.
        vertices: M, the true mesh on the model's topology in mm, model frame; the neutral face of a person of the
            default face is rigidly aligned to the mean face.
        camera: true.
        landmarks: true, in px, with the contour at the silhouette.
        contour_vertices: of that contour.
        angles: yaw, pitch and roll, rad.
        expression_names: of the weights.
        expression_weights: true.
        macro: gender, age and the african, asian and caucasian shares of each subject.
        parameters: alpha and beta of M, for people of a face model.

    Example:
        >>> rendered = load_set(Path("people"))
        >>> read_image(rendered.images[0])
    """

    spec: SyntheticSpec
    images: tuple[Path, ...]
    subjects: Int[Tensor, "n"]
    vertices: Float[Tensor, "n v 3"]
    camera: Camera
    landmarks: Float[Tensor, "n 66 2"]
    contour_vertices: Int[Tensor, "n 17"]
    angles: Float[Tensor, "n 3"]
    expression_names: tuple[str, ...]
    expression_weights: Float[Tensor, "n exps"]
    macro: Float[Tensor, "n 5"]
    parameters: FaceParameters | None = None

    def __len__(self) -> int:
        return len(self.images)


def render_set(
    spec: SyntheticSpec,
    folder: Path,
    *,
    model: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> SyntheticSet:
    """The set in `folder`, after its missing images are rendered.

    Args:
        spec: the set; its bytes depend on this alone.
        folder: folder of the set; created if it is missing.
        model: the native file of the spec's model, for people of a face model.
        workers: number of processes; None: one per core.
        progress: whether a progress bar is shown.

    Raises:
        ValueError: `folder` holds a set of another spec, `workers` is below 1, or `model` is not the spec's.
        ModelFileError: no people can be drawn from `model`.

    Example:
        >>> rendered = render_set(SyntheticSpec(subjects=2, images_per_subject=3), Path("set"))
    """
    folder = Path(folder)
    if not (folder / "set.json").is_file():
        _require_model(spec, model)
    job = ShardedJob(
        folder=folder,
        header="set.json",
        description={"spec": spec.description(), "hash": spec.hash},
        shards={f"{subject:05d}": spec.images_per_subject for subject in range(spec.subjects)},
    )
    job.run(
        partial(_render_subject, spec, folder, model),
        partial(_complete, spec, folder, model),
        workers=workers,
        warm_up=warm_up,
        progress=f"rendering {spec.family}" if progress else None,
    )
    load_model_people.cache_clear()  # a large model would stay in memory
    return load_set(folder)


def _require_model(spec: SyntheticSpec, model: Path | None) -> None:
    """Raise ValueError unless `model` is the file of the spec's model, and ModelFileError if it has no people."""
    digest = None if model is None else people_digest(load_model_people(model).model)
    if digest != spec.model:
        raise ValueError(f"model must be the file of the spec's model, {spec.model}; got {digest} in {model}")


def load_set(folder: Path) -> SyntheticSet:
    """The complete set in `folder`, whose files are compared with their checksums.

    Raises:
        FileNotFoundError: there is none.
        DataFileError: it has another format, or a file of it is missing or damaged; the message names it.

    Example:
        >>> len(load_set(Path("people")))
    """
    folder = Path(folder)
    if not (folder / "set.json").is_file():
        raise FileNotFoundError(
            f"a synthetic set must hold set.json; {folder} does not (never rendered, or not to the end)"
        )
    header = read_json(folder / "set.json")
    if header.get("format") != _FORMAT:
        raise DataFileError(f"{folder / 'set.json'} must have format {_FORMAT}; got {header.get('format')!r}")
    require_entries(header, {"spec": dict, "images": list, "expression_names": list}, folder / "set.json")
    try:
        spec = SyntheticSpec(**header["spec"])
    except (TypeError, ValueError) as error:
        raise DataFileError(f"{folder / 'set.json'}: spec: {error}") from error
    truth, _ = load_columns(folder / "truth.safetensors")
    images = tuple(folder / "images" / name for name in header["images"])
    _require_undamaged(images, truth["image_crc32"])
    camera = Camera(
        rotation=truth["rotation"],
        scale=truth["scale"],
        translation=truth["translation"],
        degenerate=torch.zeros(len(truth["scale"]), dtype=torch.bool),
    )
    return SyntheticSet(
        spec=spec,
        images=images,
        subjects=truth["subjects"],
        vertices=truth["vertices"],
        camera=camera,
        landmarks=truth["landmarks"],
        contour_vertices=truth["contour_vertices"],
        angles=truth["angles"],
        expression_names=tuple(header["expression_names"]),
        expression_weights=truth["expression_weights"],
        macro=truth["macro"],
        parameters=None if spec.model is None else FaceParameters(truth["identity"], truth["expression"]),
    )


def _require_undamaged(images: Sequence[Path], checksums: Int[Tensor, "n"]) -> None:
    """Raise DataFileError unless every image is there and has the CRC-32 that was written with the set."""
    for path, checksum in zip(images, checksums.tolist(), strict=True):
        try:
            state = None if zlib.crc32(path.read_bytes()) == checksum else "another content"
        except (OSError, ValueError) as error:
            state = f"nothing that can be read ({error})"
        if state is not None:
            raise DataFileError(
                f"{path}: expected the image that was rendered; got {state}. Remove {path.parents[1]}: the set is "
                "rendered again"
            )


def _image_name(subject: int, image: int) -> str:
    return f"{subject:05d}_{image:03d}.jpg"


def _render_subject(spec: SyntheticSpec, folder: Path, model: Path | None, shard: str) -> Shard:
    """The truth of one subject, whose images are rendered to `folder`."""
    rows = []
    for image, (jpeg, row) in enumerate(render_subject(spec, int(shard), model)):
        write_bytes(folder / "images" / _image_name(int(shard), image), jpeg)
        rows.append({**row, "image_crc32": torch.tensor(zlib.crc32(jpeg))})
    return Shard({key: torch.stack([row[key] for row in rows]) for key in rows[0]})


def _complete(spec: SyntheticSpec, folder: Path, model: Path | None, shards: list[Shard]) -> None:
    save_columns(folder / "truth.safetensors", join_columns(shards))
    names = [_image_name(s, i) for s in range(spec.subjects) for i in range(spec.images_per_subject)]
    source = warm_up() if model is None else load_model_people(model)
    header = {
        "format": _FORMAT,
        "hash": spec.hash,
        "spec": spec.description(),
        "expression_names": list(source.expression_names),
        "images": names,
    }
    write_json(folder / "set.json", header)
