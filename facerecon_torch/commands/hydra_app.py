"""Hydra's side of the command line: finds the configs anywhere, takes any path as it is, turns errors into one line."""

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.errors import HydraException

from facerecon_torch.commands.config_keys import checked, command_help, config_folder, search_path

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["quote_paths", "run_infer", "run_prepare", "run_synth", "run_train"]

_PATH_KEYS = (
    "input",
    "output",
    "cascade.path",
    "landmarks.path",
    "data.root",
    "model.path",
    "hydra.run.dir",
    "hydra.sweep.dir",
)
_PLAIN = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout")  # no run folder, no log file
_log = logging.getLogger(__name__)


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


def _launch(
    name: str, arguments: Sequence[str], run: "Callable[[DictConfig], int]", settings: Sequence[str] = _PLAIN
) -> int:
    """The status of one command, whose help, misspelt keys and wrong values are told in the command's own words.

    `settings` are arguments for Hydra itself.
    """
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(command_help(name))
        return 0
    statuses: list[int] = []

    def guarded(config: "DictConfig") -> None:
        statuses.append(_guarded(config, run))

    argv = sys.argv
    try:
        recorded, rest = _recorded(arguments)
        words = checked(name, quote_paths(rest), recorded)
        folder, config = (config_folder(), name) if recorded is None else (recorded.parent, recorded.stem)
        sys.argv = [name, *settings, *([] if recorded is None else [search_path()]), *words]
        hydra.main(version_base="1.3", config_path=str(folder), config_name=config)(guarded)()
    except (ValueError, HydraException) as error:
        sys.stderr.write(f"facerecon {name}: {error}\n")
        return 2
    except SystemExit as stop:  # Hydra has said why
        return 2 if stop.code else 0
    finally:
        sys.argv = argv
    return max(statuses, default=0)


def _recorded(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file that `config=FILE` names, if any, and all other arguments. Raises ValueError for a missing file."""
    files = [Path(argument[7:]) for argument in arguments if argument.startswith("config=")]
    if files and not (files[-1].is_file() and files[-1].suffix == ".yaml"):
        raise ValueError(f"config must be a recorded config.yaml; nothing of the kind is at {files[-1]}")
    rest = [argument for argument in arguments if not argument.startswith("config=")]
    return (files[-1].resolve() if files else None), rest


def _guarded(config: "DictConfig", run: "Callable[[DictConfig], int]") -> int:
    """Run and return the status: 2 where the user's input or configuration was wrong, told in one line."""
    from hydra.errors import InstantiationException
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
    return _launch("train", arguments, run, ())


def _launch_one_of_several(arguments: Sequence[str], run: "Callable[[DictConfig], int]") -> int:
    """facerecon train as one of the processes that torchrun started: the first has the run folder and the log, of the
    others only warnings are heard."""
    if {"-m", "--multirun"} & set(arguments):
        sys.stderr.write("facerecon train: torchrun trains one run at a time; leave out -m\n")
        return 2
    if os.environ["RANK"] == "0":
        return _launch("train", arguments, run, ())
    return _launch("train", arguments, run, [*_PLAIN, "hydra.job_logging.root.level=WARNING"])


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
