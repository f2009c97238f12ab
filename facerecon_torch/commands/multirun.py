"""The summary of a Hydra multirun: mean and standard deviation over its jobs, per setting."""

import logging
import statistics
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

from facerecon_torch.commands.own_files import SUMMARY_FORMAT, require_own
from facerecon_torch.files import write_json
from facerecon_torch.formats.json_file import read_json
from facerecon_torch.report.tables import ALIGNMENTS

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["SummaryCallback", "summarise"]

_log = logging.getLogger(__name__)


def _setting(overrides: list[str]) -> str:
    """The arguments of a run without its fold: folds are repeats of one setting."""
    return " ".join(o for o in overrides if not o.startswith("cv.fold=")) or "default"


def summarise(folder: Path) -> dict[str, Any]:
    """Mean and standard deviation of the test MAE in mm (vs M, whole face) over the jobs of a multirun.

    Args:
        folder: of the multirun, with a folder per job.

    Returns:
        `settings`: setting -> method -> alignment -> mean, sd and number of jobs; `missing`: jobs without a report.
    """
    values: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    missing: list[str] = []
    for job in sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: (len(p.name), p.name)):
        try:
            report = read_json(job / "report.json")
        except FileNotFoundError:
            missing.append(job.name)
            continue
        for method, errors in report["test"].items():
            for align in ALIGNMENTS:
                values[_setting(report["overrides"])][method][align].append(errors["mae_mm"][align]["M"]["whole"])
    settings = {
        setting: {m: {a: _spread(v) for a, v in by_align.items()} for m, by_align in methods.items()}
        for setting, methods in values.items()
    }
    return {
        "format": SUMMARY_FORMAT,
        "version": 1,
        "unit": "mm, MAE vs M, whole face",
        "settings": settings,
        "missing": missing,
    }


def _spread(values: list[float]) -> dict[str, float | int]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "sd": deviation, "jobs": len(values)}


class SummaryCallback(Callback):
    """A callback of Hydra that writes summary.json beside the jobs of a multirun and logs its table."""

    def on_multirun_end(self, config: "DictConfig", **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        result = summarise(folder)
        summary = folder / "summary.json"
        try:
            require_own([summary])
            write_json(summary, result)
            _log.info("test MAE in mm vs M, mean +- sd over jobs; summary in %s", summary)
        except OSError as error:  # the jobs are done: their table is still worth reading
            _log.error("%s; the summary is in this log alone", error)
        for setting, methods in result["settings"].items():
            for method, by_align in methods.items():
                row = "  ".join(f"{a} {v['mean']:.3f} +- {v['sd']:.3f}" for a, v in by_align.items())
                _log.info("%s | %-18s | %s", setting, method, row)
