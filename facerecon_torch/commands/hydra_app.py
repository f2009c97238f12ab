"""Hydra's side of the command line: finds the configs anywhere, takes any path as it is, turns errors into one line."""

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["config_folder", "quote_paths", "run_infer", "run_prepare", "run_synth", "run_train"]

_PATH_KEYS = (
    "input",
    "output",
    "out",
    "cascade.path",
    "landmarks.path",
    "data.root",
    "model.path",
    "hydra.run.dir",
    "hydra.sweep.dir",
)
_log = logging.getLogger(__name__)


def config_folder() -> Path:
    """The configs inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"the config folder is missing; looked for train.yaml in {package / 'configs'}")


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Quote the values of path keys, so that spaces, commas, '=' and brackets in a path mean themselves.

    A value that is already quoted, or null, stays as it is. `-m` comes first, wherever it stood: Hydra's parser
    wants it there. Raises ValueError for an empty path.
    """
    multirun = [argument for argument in arguments if argument in ("-m", "--multirun")]
    return multirun + [_quoted(argument) for argument in arguments if argument not in multirun]


def _quoted(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in _PATH_KEYS or value == "null" or value[:1] in ("'", '"'):
        return argument
    if not value:
        raise ValueError(f"{key} must not be empty")
    escaped = re.sub(r"(\\*)'", lambda m: m[1] * 2 + "\\'", value).replace("${", "\\${")
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"{key}='{escaped}{escaped[len(escaped) - trailing :]}'"


def _launch(name: str, arguments: Sequence[str], run: "Callable[[DictConfig], int]") -> int:
    statuses: list[int] = []

    def guarded(config: "DictConfig") -> None:
        statuses.append(_guarded(config, run))

    kept = sys.argv
    try:
        sys.argv = [name, *quote_paths(arguments)]
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)(guarded)()
    except ValueError as error:
        sys.stderr.write(f"facerecon {name}: {error}\n")
        return 2
    except SystemExit as stop:  # Hydra's own refusals, a misspelt key among them
        return 2 if stop.code else 0
    finally:
        sys.argv = kept
    return max(statuses, default=0)


def _guarded(config: "DictConfig", run: "Callable[[DictConfig], int]") -> int:
    """Run and return the status: 2 where the user's input or configuration was wrong, told in one line."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    from facerecon_torch.errors import FaceReconError

    try:
        return run(config)
    except InstantiationException as error:
        cause = error.__cause__ or error
        _log.error("%s", str(cause).replace("\n", " "))
    except (FaceReconError, ValueError, OSError, HydraException, OmegaConfBaseException) as error:
        _log.error("%s", error)
        _log.debug("where it happened", exc_info=True)
    return 2


def run_train(arguments: Sequence[str]) -> int:
    """facerecon train."""

    def run(config: "DictConfig") -> int:
        from facerecon_torch.commands.train.command import train_from_config

        return train_from_config(config)

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return _launch_one_of_several(arguments, run)
    return _launch("train", arguments, run)


def _launch_one_of_several(arguments: Sequence[str], run: "Callable[[DictConfig], int]") -> int:
    """facerecon train as one of the processes that torchrun started: the first has the run folder and the log, of the
    others only warnings are heard."""
    if {"-m", "--multirun"} & set(arguments):
        sys.stderr.write("facerecon train: torchrun trains one run at a time; leave out -m\n")
        return 2
    if os.environ["RANK"] == "0":
        return _launch("train", arguments, run)
    quiet = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]
    return _launch("train", [*arguments, *quiet, "hydra.job_logging.root.level=WARNING"], run)


def run_infer(arguments: Sequence[str]) -> int:
    """facerecon infer."""

    def run(config: "DictConfig") -> int:
        from facerecon_torch.commands.infer.command import infer_from_config

        return infer_from_config(config)

    return _launch("infer", arguments, run)


def run_prepare(arguments: Sequence[str]) -> int:
    """facerecon prepare."""

    def run(config: "DictConfig") -> int:
        from facerecon_torch.commands.prepare.command import prepare_from_config

        return prepare_from_config(config)

    return _launch("prepare", arguments, run)


def run_synth(arguments: Sequence[str]) -> int:
    """facerecon synth."""

    def run(config: "DictConfig") -> int:
        from facerecon_torch.commands.synth import synth_from_config

        return synth_from_config(config)

    return _launch("synth", arguments, run)
