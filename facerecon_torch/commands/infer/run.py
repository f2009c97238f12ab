"""Reconstructs any number of inputs; every one of them ends in a table of faces or in quarantine.

A run is a plan of shards. What is committed stays: a run that was stopped or killed goes on behind it.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.engine import shards_by_ray, shards_here
from facerecon_torch.commands.infer.finish import count_run, finish_run
from facerecon_torch.commands.infer.inputs.entry import Entry, file_entry
from facerecon_torch.commands.infer.inputs.listing import InputSpec, list_entries
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.parts import Parts, RunCounts
from facerecon_torch.commands.infer.plan import QUARANTINE, SUBJECTS, Plan, fingerprint, prepare_plan, working
from facerecon_torch.commands.infer.progress import Progress, progress_file
from facerecon_torch.commands.infer.records import settings_of
from facerecon_torch.commands.infer.shard_worker import WorkerSpec
from facerecon_torch.commands.infer.subjects.join import SubjectCounts, join_subjects, remove_subjects
from facerecon_torch.commands.own_files import is_own, require_own
from facerecon_torch.files import is_disk_full
from facerecon_torch.formats.face_document import PARAMETERS
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.runtime.timer import Timer

__all__ = ["InferReport", "infer"]

_log = logging.getLogger(__name__)
_EARLIER = ("parameters.parquet", "failures.json")  # of versions without shards


@dataclass
class InferReport:
    """The outcome of a run.

    Attributes:
        counts: inputs by status and faces of the shards of this worker, those done before among them.
        skipped: inputs that were done before.
        complete: whether every shard of the run is committed, those of other workers too.
        total: counts of the whole run, where it is complete.
        people: what the tables of subjects hold, of a complete run with `group_by`.
        stopped: name of the signal that stopped the run.
        seconds: that the run took.
    """

    counts: RunCounts = field(default_factory=RunCounts)
    skipped: int = 0
    complete: bool = False
    total: RunCounts | None = None
    people: SubjectCounts | None = None
    stopped: str | None = None
    seconds: float = 0.0

    @property
    def faces(self) -> int:
        return self.counts.faces


@in_own_precision
def infer(
    inputs: InputSpec | Sequence[Path],
    output: Path,
    reconstructor: FaceReconstructor,
    detector: LandmarkDetector,
    options: InferOptions,
    *,
    times: Timer | None = None,
) -> InferReport:
    """Reconstruct the faces of all inputs into `output`.

    Args:
        inputs: where they are listed from, or their files.
        output: folder; where it holds a run of the same inputs and settings, that run goes on.
        reconstructor: on the device of the work.
        detector: of landmarks.
        options: of the run.
        times: gathers the seconds of the parts.

    Raises:
        ValueError: subjects are asked for, and the inputs are no manifest that names them.
        DataFileError: the landmarks of a manifest have another convention than the cascade's.
        RunMismatchError: `output` holds another run.
        FileExistsError: names of the run are taken by files of somebody else.
        OSError: the disk is full; what is committed stays.
        DetectorError: the detector cannot run.
    """
    if times is not None:
        with times.active():
            return infer(inputs, output, reconstructor, detector, options)
    if options.group_by is not None:
        spec = inputs if isinstance(inputs, InputSpec) else InputSpec(path="a list of files")
        spec.require_subjects()
    if isinstance(inputs, InputSpec):
        inputs.require_landmarks(reconstructor.spec.convention)
    began = time.perf_counter()
    with working(output, options.shard_index, options.shard_count):
        report = _Run(inputs, output, reconstructor, detector, options).go()
    report.seconds = time.perf_counter() - began
    return report


class _Run:
    """One call of `infer`."""

    def __init__(
        self,
        inputs: InputSpec | Sequence[Path],
        output: Path,
        reconstructor: FaceReconstructor,
        detector: LandmarkDetector,
        options: InferOptions,
    ) -> None:
        self._output, self._options, self._report = output, options, InferReport()
        _require_own_names(output, options)
        self._plan, settings = prepare_plan(
            output,
            partial(_entries, inputs, output),
            lambda count: settings_of(reconstructor, detector, options, options.formats_of(count)),
            shard_size=options.shard_size,
            resume=options.resume,
            repairable=self._failed_inputs if options.retry == "failed" else None,
            mark=getattr(detector, "stamp", None),
        )
        self._parts = Parts(output, self._plan)
        self._spec = WorkerSpec(
            output=output, reconstructor=reconstructor, detector=detector, options=options,
            formats=options.formats_of(self._plan.inputs), fingerprint=fingerprint(settings),
            inputs=self._plan.inputs, shards=self._plan.shards,
        )  # fmt: skip

    def _failed_inputs(self, plan: Plan) -> set[int]:
        parts = Parts(self._output, plan)
        return {k for shard in range(plan.shards) if parts.counts(shard) for k in parts.failed_inputs(shard)}

    def go(self) -> InferReport:
        options, report = self._options, self._report
        own = range(options.shard_index, self._plan.shards, options.shard_count)
        todo = []
        for shard in own:
            counts = self._parts.counts(shard)
            if counts is None or (options.retry == "failed" and counts.failures):
                todo.append(shard)
            else:
                report.counts.add(counts)
        report.skipped = report.counts.inputs
        for name in _EARLIER:
            if is_own(self._output / name):
                (self._output / name).unlink()
        file = progress_file(self._output, options.shard_index, options.shard_count)
        total = sum(len(self._plan.numbers(shard)) for shard in own)
        progress = Progress(file, total, report.counts, shown=options.progress)
        state = "stopped"
        try:
            self._work(todo, progress)
            state = "stopped" if report.stopped else "finished"
        except OSError as error:
            if is_disk_full(error):
                left = f"{report.counts.inputs} of {total} inputs are done; the same command goes on behind them"
                raise OSError(error.errno, f"{error.strerror}; {left}", error.filename) from error
            raise
        finally:
            progress.close(state)
        if not report.stopped:
            report.total = count_run(self._parts, self._plan)
            report.complete = report.total is not None
        if report.complete:
            finish_run(self._output, self._spec.formats)
        if report.total is not None and options.group_by is not None:
            report.people = join_subjects(
                self._output, self._spec.reconstructor, options.size,
                fingerprint=self._spec.fingerprint, faces=report.total.faces,
            )  # fmt: skip
        return report

    def _work(self, todo: Sequence[int], progress: Progress) -> None:
        """Make the shards, up to a signal."""
        report, options = self._report, self._options
        if todo:
            remove_subjects(self._output)
        with _stopping() as stop:
            if options.engine == "ray":
                made = shards_by_ray(self._spec, self._plan, todo, options.actors)
            else:
                made = shards_here(self._spec, self._plan, todo, progress.advance)
            with closing(made):
                for done, counts in enumerate(made, 1):
                    report.counts.add(counts)
                    progress.commit(counts)
                    if stop and done < len(todo):
                        report.stopped = stop[0]
                        return


def _entries(inputs: InputSpec | Sequence[Path], output: Path) -> Iterable[Entry]:
    if isinstance(inputs, InputSpec):
        return list_entries(replace(inputs, left_out=output))
    return (file_entry(str(path)) for path in inputs)


def _require_own_names(output: Path, options: InferOptions) -> None:
    """Raise FileExistsError where a name of the run is taken by something of somebody else."""
    folders = (PARAMETERS, QUARANTINE, SUBJECTS) if options.group_by is not None else (PARAMETERS, QUARANTINE)
    for folder in folders:
        if (output / folder).is_symlink() or ((output / folder).exists() and not (output / folder).is_dir()):
            raise FileExistsError(f"{output / folder}: expected a free name or an earlier result; got a file")
    require_own([progress_file(output, options.shard_index, options.shard_count)])
    for folder in folders:
        require_own((output / folder).glob("part-*.parquet"))


@contextmanager
def _stopping() -> Iterator[list[str]]:
    """A list that gets the name of the first SIGINT or SIGTERM; a second one acts at once."""
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        for known, handler in before.items():
            signal.signal(known, handler)
        _log.warning("%s received: the current shard is finished first; send it again to stop at once", received[0])

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
