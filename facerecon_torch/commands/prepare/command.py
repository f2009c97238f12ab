"""`facerecon prepare`: config -> recordings -> a prepared set, its failures, pictures and report."""

import logging
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from facerecon_torch.commands.prepare.pictures import choose_pictured
from facerecon_torch.commands.prepare.report import prepare_table, summarise
from facerecon_torch.commands.prepare.run import prepare_set
from facerecon_torch.commands.prepare.specs import PrepareSpecs
from facerecon_torch.commands.prepare.worker import PrepareTask
from facerecon_torch.data.prepared import PreparedSet
from facerecon_torch.data.recordings import Recording, choose_kinds, open_data_set
from facerecon_torch.files import replacing, write_json
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.model.load import load_face_model
from facerecon_torch.runtime.environment import REPORT_FORMAT, environment
from facerecon_torch.runtime.timer import Timer

__all__ = ["choose_recordings", "prepare", "prepare_from_config"]

_GROUPS = ("model", "data", "landmarks", "registration", "prepare", "runtime")
_log = logging.getLogger(__name__)


def prepare_from_config(config: DictConfig) -> int:
    """Prepare `config.data` into `config.output`. Returns 0, or 1 where more recordings failed than are allowed."""
    specs = PrepareSpecs(**{name: instantiate(config[name], _convert_="all") for name in _GROUPS})
    recordings = choose_recordings(specs)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "config.yaml") as part:
        plain = {k: v for k, v in config.items() if k != "output"}
        part.write_text(OmegaConf.to_yaml(OmegaConf.create(plain), resolve=True), encoding="utf-8")
    return prepare(specs, recordings, folder)


def choose_recordings(specs: PrepareSpecs) -> list[Recording]:
    """Those that the data spec asks for. Raises DataFileError for a folder that is none of the data set, ValueError
    for classes and subjects that are not there."""
    source = open_data_set(specs.recorded.name)
    options = {"signatures": specs.recorded.signatures} if specs.recorded.signatures else {}
    found = source.list_recordings(specs.recorded.require_root(), **options)
    chosen = choose_kinds(found, source, specs.recorded.classes)
    if specs.recorded.subjects is None:
        return chosen
    there = {recording.subject for recording in chosen}
    unknown = sorted(set(specs.recorded.subjects) - there)
    if unknown or not specs.recorded.subjects:
        known = ", ".join(sorted(there)[:5])
        raise ValueError(f"data.subjects must be among {known}, ...; got {', '.join(unknown) or 'none'}")
    return [recording for recording in chosen if recording.subject in set(specs.recorded.subjects)]


def prepare(specs: PrepareSpecs, recordings: list[Recording], folder: Path) -> int:
    """Make the set with its failures.json, pictures and report.json. Returns the exit status."""
    device = specs.runtime.apply()
    timer = Timer(device, memory=True)
    detector = build_detector(specs.landmarks.source, **specs.landmarks.options(device))
    model = load_face_model(specs.model)
    task = PrepareTask(
        folder,
        specs.recorded.name,
        specs.model,
        detector,
        specs.registration,
        specs.prepare,
        specs.runtime,
        choose_pictured(recordings, specs.prepare.pictures),
    )
    with timer.timed("prepare"):
        prepared = prepare_set(
            task,
            recordings,
            specs.fingerprint(model.sha256, detector.name, recordings),
            n_vertices=model.n_vertices,
            device=device,
            workers=specs.runtime.workers,
            progress=specs.runtime.progress,
        )
    summary = summarise(prepared, recordings)
    report = {"format": REPORT_FORMAT, "classes": summary} | environment(device, specs.runtime.seed, timer)
    write_json(folder / "report.json", report)
    write_json(folder / "failures.json", [{"name": n, "reason": r} for n, r in prepared.failures.items()])
    _log.info("%s", prepare_table(summary))
    return _told(prepared, recordings, specs)


def _told(prepared: PreparedSet, recordings: list[Recording], specs: PrepareSpecs) -> int:
    failed, count = len(prepared.failures), len(recordings)
    listed = prepared.folder / "failures.json"
    _log.info("%d samples of %d recordings in %s", len(prepared), count, prepared.folder)
    if not failed:
        return 0
    share = failed / count
    if share > specs.prepare.max_failures:
        _log.error(
            "%d of %d recordings failed, more than prepare.max_failures=%g allows; see %s",
            failed,
            count,
            specs.prepare.max_failures,
            listed,
        )
        return 1
    _log.warning("%d of %d recordings failed (%.1f %%); see %s", failed, count, 100 * share, listed)
    return 0
