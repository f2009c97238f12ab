"""`facerecon prepare`: config -> recordings -> a prepared set, its failures, pictures and report."""

import logging
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from facerecon_torch.commands.own_files import FAILURES_FORMAT, REPORT_FORMAT, require_own
from facerecon_torch.commands.prepare.report import choose_pictured, prepare_table, summarise
from facerecon_torch.commands.prepare.run import PrepareTask, plan_shards, prepare_set
from facerecon_torch.commands.prepare.specs import PrepareSpecs
from facerecon_torch.config.recorded import build, write_config
from facerecon_torch.data.prepared import PreparedSet
from facerecon_torch.data.recordings import Recording, choose_kinds, open_data_set
from facerecon_torch.files import write_json
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.model.load import load_face_model
from facerecon_torch.runtime.environment import environment
from facerecon_torch.runtime.timer import Timer

__all__ = ["choose_recordings", "prepare", "prepare_from_config"]

_GROUPS = ("model", "data", "landmarks", "registration", "prepare", "runtime")
_log = logging.getLogger(__name__)


def prepare_from_config(config: DictConfig) -> int:
    """Prepare `config.data` into `config.output`. Returns 0, or 1 where more recordings failed than are allowed."""
    specs = PrepareSpecs(**{name: build(config[name], name) for name in _GROUPS})
    specs = replace(specs, landmarks=specs.landmarks.settled(specs.runtime.own_device()))
    folder = Path(config.output)
    require_own(folder / name for name in ("config.yaml", "failures.json", "report.json"))
    recordings = choose_recordings(specs)
    write_config(folder / "config.yaml", specs, "prepare", head={"output": "???"})
    return prepare(specs, recordings, folder)


def choose_recordings(specs: PrepareSpecs) -> list[Recording]:
    """The recordings that the data spec selects.

    Raises DataFileError for a folder that is not the data set, ValueError for classes and subjects that do not exist.
    """
    source = open_data_set(specs.recorded.name)
    options = {"signatures": specs.recorded.signatures} if specs.recorded.signatures else {}
    listed = source.list_recordings(specs.recorded.require_root(), **options)
    recordings = choose_kinds(listed, source, specs.recorded.classes)
    if specs.recorded.subjects is None:
        return recordings
    existing = sorted({recording.subject for recording in recordings})
    unknown = sorted(set(specs.recorded.subjects) - set(existing))
    if unknown or not specs.recorded.subjects:
        raise ValueError(
            f"data.subjects must be among {', '.join(existing[:5])}, ...; got {', '.join(unknown) or 'none'}"
        )
    return [recording for recording in recordings if recording.subject in set(specs.recorded.subjects)]


def prepare(specs: PrepareSpecs, recordings: list[Recording], folder: Path) -> int:
    """Make the set with its failures.json, pictures and report.json. Returns the exit status."""
    device = specs.runtime.apply()
    timer = Timer(device, memory=True)
    detector = build_detector(specs.landmarks.source, **specs.landmarks.options(device))
    model = load_face_model(specs.model)
    per_subject = specs.registration.identity == "per_subject"
    task = PrepareTask(
        folder=folder,
        specs=specs,
        detector=detector,
        pictured=choose_pictured(recordings, specs.prepare.pictures),
        shards=plan_shards(recordings, specs.prepare.batch, whole_subjects=per_subject),
    )
    with timer.timed("prepare"):
        fingerprint = specs.fingerprint(model.sha256, detector.name, recordings)
        prepared = prepare_set(task, fingerprint, model, device)
    summary = summarise(prepared, recordings)
    report = {"format": REPORT_FORMAT, "version": 1, "classes": summary} | environment(
        device, specs.runtime.seed, timer
    )
    write_json(folder / "report.json", report)
    listed = [{"name": name, "reason": reason} for name, reason in prepared.failures.items()]
    write_json(folder / "failures.json", {"format": FAILURES_FORMAT, "version": 1, "failures": listed})
    _log.info("%s", prepare_table(summary))
    return _exit_status(prepared, recordings, specs)


def _exit_status(prepared: PreparedSet, recordings: list[Recording], specs: PrepareSpecs) -> int:
    """0, or 1 where more recordings failed than are allowed; the log says how many."""
    failed, count = len(prepared.failures), len(recordings)
    _log.info("%d samples of %d recordings in %s", len(prepared), count, prepared.folder)
    if not failed:
        return 0
    failures, rate = prepared.folder / "failures.json", failed / count
    if rate > specs.prepare.max_failures:
        message = "%d of %d recordings failed, more than prepare.max_failures=%g allows; see %s"
        _log.error(message, failed, count, specs.prepare.max_failures, failures)
        return 1
    _log.warning("%d of %d recordings failed (%.1f %%); see %s", failed, count, 100 * rate, failures)
    return 0
