"""Rendering and reading synthetic sets on disk.

Folder: images/<subject>_<image>.jpg, truth.safetensors, set.json. While rendering, every finished subject leaves a file
in parts/, so an interrupted run goes on where it stopped. set.json is written last and marks the set as complete.
"""

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from facerecon_torch.data.synthetic.spec import SyntheticSpec
from facerecon_torch.data.synthetic.studio import photograph_subject, warm_up
from facerecon_torch.files import replacing
from facerecon_torch.structures import Camera

__all__ = ["SyntheticSet", "load_set", "render_set"]

_FORMAT = "facerecon_torch.synthetic/1"


@dataclass(frozen=True)
class SyntheticSet:
    """A rendered set. Rows of all tensors are images, sorted by subject.

    `vertices` is M, the true mesh on the model's topology (mm, model frame, rigidly aligned to the mean face when
    neutral); `landmarks` (px) are its true landmarks, the contour at the silhouette; `angles` are yaw, pitch, roll
    (rad); `macro` holds gender, age and the african, asian and caucasian shares of each subject.
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

    def __len__(self) -> int:
        return len(self.images)


def render_set(spec: SyntheticSpec, folder: Path, *, workers: int | None = None, progress: bool = True) -> SyntheticSet:
    """Render what is missing of the set into `folder` and read it back.

    The bytes depend on `spec` alone, not on `workers` (processes; default: one a core). Raises ValueError where
    `folder` holds a set of another spec.
    """
    folder = Path(folder)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers}")
    _require_same_set(spec, folder)
    if (folder / "set.json").is_file():
        return load_set(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "parts").mkdir(exist_ok=True)
    _write_json(folder / "parts" / "spec.json", {"spec": asdict(spec), "hash": spec.hash})
    todo = [s for s in range(spec.subjects) if not _part(folder, s).is_file()]
    count = workers if workers is not None else os.cpu_count() or 1
    with tqdm(
        total=spec.subjects,
        initial=spec.subjects - len(todo),
        unit="subject",
        desc=f"rendering {spec.family}",
        disable=not progress,
    ) as bar:
        for _ in _rendered(spec, folder, todo, min(count, max(1, len(todo)))):
            bar.update()
    _finish(spec, folder)
    return load_set(folder)


def load_set(folder: Path) -> SyntheticSet:
    """Read a complete set; FileNotFoundError where there is none, ValueError for another format."""
    folder = Path(folder)
    if not (folder / "set.json").is_file():
        raise FileNotFoundError(
            f"a synthetic set must hold set.json; {folder} does not (never rendered, or not to the end)"
        )
    header = json.loads((folder / "set.json").read_text())
    if header.get("format") != _FORMAT:
        raise ValueError(f"{folder / 'set.json'} must have format {_FORMAT}; got {header.get('format')!r}")
    truth = load_file(folder / "truth.safetensors")
    camera = Camera(
        truth["rotation"], truth["scale"], truth["translation"], torch.zeros(len(truth["scale"]), dtype=torch.bool)
    )
    return SyntheticSet(
        spec=SyntheticSpec(**header["spec"]),
        images=tuple(folder / "images" / name for name in header["images"]),
        subjects=truth["subjects"],
        vertices=truth["vertices"],
        camera=camera,
        landmarks=truth["landmarks"],
        contour_vertices=truth["contour_vertices"],
        angles=truth["angles"],
        expression_names=tuple(header["expression_names"]),
        expression_weights=truth["expression_weights"],
        macro=truth["macro"],
    )


def _require_same_set(spec: SyntheticSpec, folder: Path) -> None:
    for name in ("set.json", "parts/spec.json"):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text()).get("hash")
            if found != spec.hash:
                raise ValueError(
                    f"{folder} already holds a synthetic set of hash {found}; {spec} has hash {spec.hash}. "
                    "Give another folder, or remove that one"
                )


def _part(folder: Path, subject: int) -> Path:
    return folder / "parts" / f"{subject:05d}.safetensors"


def _image_name(subject: int, image: int) -> str:
    return f"{subject:05d}_{image:03d}.jpg"


def _rendered(spec: SyntheticSpec, folder: Path, todo: list[int], workers: int) -> Iterator[int]:
    """Subjects as they are finished."""
    if not todo:
        return
    if workers == 1:
        with _one_thread():
            for subject in todo:
                yield _render_subject(spec, folder, subject)
        return
    warm_up()  # compiles kernels and fills caches once, before every worker would
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = [pool.submit(_render_subject, spec, folder, subject) for subject in todo]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads; workers have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _render_subject(spec: SyntheticSpec, folder: Path, subject: int) -> int:
    """Render all images of one subject; its part file is written last."""
    rows = []
    for image, (jpeg, row) in enumerate(photograph_subject(spec, subject)):
        _write_bytes(folder / "images" / _image_name(subject, image), jpeg)
        rows.append(row)
    table = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    _write_bytes(_part(folder, subject), save(table))
    return subject


def _finish(spec: SyntheticSpec, folder: Path) -> None:
    parts = [load_file(_part(folder, subject)) for subject in range(spec.subjects)]
    truth = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    _write_bytes(folder / "truth.safetensors", save(truth))
    names = [_image_name(s, i) for s in range(spec.subjects) for i in range(spec.images_per_subject)]
    header: dict[str, object] = {
        "format": _FORMAT,
        "hash": spec.hash,
        "spec": asdict(spec),
        "expression_names": list(warm_up().expression_names),
        "images": names,
    }
    _write_json(folder / "set.json", header)
    shutil.rmtree(folder / "parts")


def _write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(content)


def _write_json(path: Path, content: dict[str, object]) -> None:
    _write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
