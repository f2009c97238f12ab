"""`facerecon synth`: a synthetic set on disk from a config."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from facerecon_torch.config.recorded import build
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.synthetic.dataset import render_set
from facerecon_torch.synthetic.layouts import LAYOUTS, LayoutSpec, find_layout, write_set
from facerecon_torch.synthetic.people.model_people import load_model_people, people_digest
from facerecon_torch.synthetic.spec import SyntheticSpec

__all__ = ["synth_from_config"]

_PHOTOS = "photos"
_OF_PHOTOS = {"images": "images_per_subject", "family": "family", "size": "size"}  # key -> field of SyntheticSpec
_log = logging.getLogger(__name__)


def synth_from_config(config: DictConfig) -> int:
    """Write the set that `config` describes into `config.output`; returns 0."""
    runtime = build(config.runtime, "runtime")
    if config.layout not in (_PHOTOS, *LAYOUTS):
        raise ValueError(f"layout must be one of {', '.join((_PHOTOS, *LAYOUTS))}; got {config.layout!r}")
    for key in ("subjects", "samples", "images", "size"):
        if config[key] is not None and (type(config[key]) is not int or config[key] < 1):
            raise ValueError(f"{key} must be a whole number of at least 1; got {config[key]!r}")
    foreign = ["samples"] if config.layout == _PHOTOS else list(_OF_PHOTOS)
    given = [key for key in foreign if config[key] is not None]
    given += ["model.path"] if config.layout != _PHOTOS and config.model.path is not None else []
    if given:
        raise ValueError(f"layout={config.layout} has no {', '.join(given)}; leave it out")
    if config.output is None:
        raise ValueError("output must be a path; got null")
    output = Path(config.output)
    write = _write_photos if config.layout == _PHOTOS else _write_layout
    _log.info("%s in %s", write(config, runtime, output), output)
    return 0


def _write_photos(config: DictConfig, runtime: RuntimeSpec, output: Path) -> str:
    """A summary of the image set, which is written to `output`."""
    given = {field: config[key] for key, field in _OF_PHOTOS.items() if config[key] is not None}
    subjects = 10 if config.subjects is None else config.subjects
    path = build(config.model, "model").path
    model = None if path is None else Path(path)
    given["model"] = None if model is None else people_digest(load_model_people(model).model)
    spec = SyntheticSpec(**{"subjects": subjects, "images_per_subject": 12, "seed": runtime.seed, **given})
    rendered = render_set(spec, output, model=model, workers=runtime.workers, progress=runtime.progress)
    return f"{len(rendered)} images of {spec.subjects} people"


def _write_layout(config: DictConfig, runtime: RuntimeSpec, output: Path) -> str:
    """A summary of the set in a real layout, which is written to `output`."""
    full = find_layout(config.layout).full_subjects
    spec = LayoutSpec(
        layout=config.layout,
        subjects=full if config.subjects is None else config.subjects,
        samples=config.samples,
        seed=runtime.seed,
    )
    truth = write_set(spec, output, workers=runtime.workers, progress=runtime.progress)
    return f"{len(truth.names)} samples of {spec.subjects} people"
