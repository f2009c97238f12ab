"""`facerecon train`: a run folder with config.yaml, report.json and a cascade for each fold."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from facerecon_torch.commands.own_files import require_own
from facerecon_torch.commands.train.train import train
from facerecon_torch.config.recorded import RECORDED_DEFAULTS, build, write_config
from facerecon_torch.config.train import TrainSpecs
from facerecon_torch.errors import FaceReconError
from facerecon_torch.evaluation.errors import error_table
from facerecon_torch.files import write_json
from facerecon_torch.runtime.ranks import Ranks, joined_ranks

__all__ = ["train_from_config"]

_log = logging.getLogger(__name__)
_GROUPS = ("model", "data", "landmarks", "fitting", "features", "cascade", "cv", "runtime")


def train_from_config(config: DictConfig) -> int:
    """The exit status of a training run that writes its run folder.

    Under torchrun every process of the run calls it, and the first one writes. The recorded config.yaml holds the
    settled specs: it is the run that happens.
    """
    asked = TrainSpecs(**{name: build(config[name], name) for name in _GROUPS})
    device = asked.runtime.apply()
    specs = asked.settled(device)
    running = HydraConfig.get() if HydraConfig.initialized() else None
    with joined_ranks(device) as ranks, _lost_ranks_reported(ranks):
        folder = Path(ranks.share(str(_run_folder(config, running))))
        if ranks.is_first:
            require_own(
                [*(folder / name for name in ("config.yaml", "report.json")), *folder.glob("cascade*.safetensors")]
            )
            write_config(folder / "config.yaml", specs, "train", head={"defaults": RECORDED_DEFAULTS})
            if specs.cv != asked.cv:
                _log.info("this data has no test people of its own: cv.protocol=%s", specs.cv.protocol)
        half = specs.runtime.half
        report = train(
            specs, save=lambda model, name: model.save_pretrained(folder / name, half=half), folder=folder, ranks=ranks
        )
        if ranks.is_first:
            overrides = [] if running is None else list(running.overrides.task)
            write_json(folder / "report.json", {**report, "overrides": overrides})
            _log.info("%s", error_table(report["test"]))
            _log.info("run folder: %s", folder)
    return 0


def _run_folder(config: DictConfig, running: Any) -> Path:
    """The folder of this run; of several runs (-m), a numbered folder inside.

    It is not Hydra's `runtime.output_dir`, which takes `${` in a path for a reference.
    """
    if running is None or running.mode != RunMode.MULTIRUN:
        return Path(config.output)
    return Path(running.sweep.dir) / str(running.sweep.subdir)


@contextmanager
def _lost_ranks_reported(ranks: Ranks) -> Iterator[None]:
    """A block in which the loss of another process is a FaceReconError; the lost process logs the reason."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or "Connection closed by peer" in str(error)
        if ranks.world == 1 or not lost:
            raise
        raise FaceReconError(f"process {ranks.rank} stops: another process of this run has ended") from error
