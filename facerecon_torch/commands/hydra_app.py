"""The commands that Hydra configures: paths are taken as they are, errors are one line, recorded runs can run again."""

import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from facerecon_torch.commands.config_keys import checked, command_help, config_folder, search_path
from facerecon_torch.config.recorded import RECORDED_DEFAULTS
from facerecon_torch.errors import FaceReconError
from facerecon_torch.runtime.memory import is_out_of_memory

__all__ = [
    "quote_paths",
    "run_compare",
    "run_evaluate",
    "run_infer",
    "run_prepare",
    "run_synth",
    "run_train",
    "run_video",
]

_PATH_KEYS = (
    "input",
    "output",
    "external",
    "truth",
    "triangles",
    "landmark_vertices",
    "eos.model",
    "eos.mapping",
    "eos.contour",
    "eos.edges",
    "cascade.path",
    "landmarks.path",
    "data.root",
    "test_data.root",
    "evaluation.facewarehouse",
    "evaluation.frgc",
    "model.path",
    "hydra.run.dir",
    "hydra.sweep.dir",
)
_PLAIN = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout")  # no run folder, no log file
_TASKS = {
    "compare": ("compare.command", "compare_from_config"),
    "evaluate": ("evaluate.command", "evaluate_from_config"),
    "train": ("train.command", "train_from_config"),
    "infer": ("infer.command", "infer_from_config"),
    "prepare": ("prepare.command", "prepare_from_config"),
    "synth": ("synth", "synth_from_config"),
    "video": ("video.command", "video_from_config"),
}
_LESS_MEMORY = {
    "compare": "set fewer images or points",
    "evaluate": "set runtime.memory=GB to what is free, or fewer evaluation.folds_at_once",
    "train": "set runtime.memory=GB to what is free, or train on fewer images",
    "infer": "set a smaller batch=, or fewer runtime.workers",
    "prepare": "set fewer runtime.workers",
    "synth": "set fewer runtime.workers",
    "video": "use a smaller video",
}
_log = logging.getLogger(__name__)


def run_train(arguments: Sequence[str]) -> int:
    """The status of `facerecon train`; under torchrun, of one of its processes.

    The first process has the run folder and the log; the others log warnings only.
    """
    several = {"-m", "--multirun"} & set(arguments)
    folder = "${hydra.sweep.dir}/${hydra.sweep.subdir}" if several else "${output}"
    log = f"hydra.job_logging.handlers.file.filename={folder}/train.log"  # Hydra's default cannot hold `${` in a path
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return _launch("train", arguments, (log,))
    if several:
        sys.stderr.write("facerecon train: torchrun trains one run at a time; leave out -m\n")
        return 2
    quiet = [*_PLAIN, "hydra.job_logging.root.level=WARNING"]
    return _launch("train", arguments, (log,) if os.environ["RANK"] == "0" else quiet)


def run_evaluate(arguments: Sequence[str]) -> int:
    """The status of `facerecon evaluate`."""
    return _launch("evaluate", arguments)


def run_infer(arguments: Sequence[str]) -> int:
    """The status of `facerecon infer`."""
    return _launch("infer", arguments)


def run_compare(arguments: Sequence[str]) -> int:
    """The status of `facerecon compare`."""
    return _launch("compare", arguments)


def run_video(arguments: Sequence[str]) -> int:
    """The status of `facerecon video`."""
    return _launch("video", arguments)


def run_prepare(arguments: Sequence[str]) -> int:
    """The status of `facerecon prepare`."""
    return _launch("prepare", arguments)


def run_synth(arguments: Sequence[str]) -> int:
    """The status of `facerecon synth`."""
    return _launch("synth", arguments)


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """The arguments with the values of path keys quoted, so that spaces, commas, '=' and brackets mean themselves.

    Values that are quoted already, and null, stay as they are. `-m` comes first, where Hydra's parser expects it.

    Raises:
        ValueError: a path is empty.

    Example:
        >>> quote_paths(["input=a, b.jpg", "-m"])
        ['-m', "input='a, b.jpg'"]
    """
    multirun = [argument for argument in arguments if argument in ("-m", "--multirun")]
    return multirun + [_quoted(argument) for argument in arguments if argument not in multirun]


def _quoted(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in _PATH_KEYS or value == "null" or value[:1] in ("'", '"'):
        return argument
    if not value:
        raise ValueError(f"{key} must not be empty")
    if key == "external" and value[0] == "[":  # a list of folders
        return argument
    escaped = re.sub(r"(\\*)'", lambda m: m[1] * 2 + "\\'", value).replace("${", "\\${")
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"{key}='{escaped}{escaped[len(escaped) - trailing :]}'"


def _launch(name: str, arguments: Sequence[str], settings: Sequence[str] = _PLAIN) -> int:
    """The status of one command; `settings` are arguments about Hydra's own side of it."""
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(command_help(name))
        return 0
    statuses: list[int] = []

    def task(config: DictConfig) -> None:
        sys.argv = [name, *arguments]  # as the user gave them: reports repeat the call
        statuses.append(_guarded(name, config))

    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it would print with advice of its own
    try:
        recorded, rest = _recorded(arguments)
        words = [*settings, *([] if recorded is None else [search_path()]), *rest]
        sys.argv = [name, *checked(name, quote_paths(words), recorded)]
        folder, config = (config_folder(), name) if recorded is None else (recorded.parent, recorded.stem)
        hydra.main(version_base="1.3", config_path=str(folder), config_name=config)(task)()
    except (ValueError, OSError, HydraException, OmegaConfBaseException) as error:
        sys.stderr.write(f"facerecon {name}: {one_line(error)}\n")
        return 2
    finally:
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR") if full is None else os.environ.update(HYDRA_FULL_ERROR=full)
    return max(statuses, default=0)


def _recorded(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file that `config=FILE` names, if any, and all other arguments. Raises ValueError for a missing file."""
    files = [Path(argument[7:]) for argument in arguments if argument.startswith("config=")]
    if files and not (files[-1].is_file() and files[-1].suffix == ".yaml"):
        raise ValueError(f"config must be the config.yaml of a recorded run; there is none at {files[-1]}")
    if files:
        _require_recorded(files[-1])
    rest = [argument for argument in arguments if not argument.startswith("config=")]
    return (files[-1].resolve() if files else None), rest


def _require_recorded(path: Path) -> None:
    """Raise ValueError unless a file is a config that a run may have recorded. One from somebody else could make Hydra
    itself call anything, by a section `hydra` or a config of another place."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: expected the config.yaml of a recorded run; {one_line(error)}") from None
    defaults = content.get("defaults", []) if isinstance(content, dict) else None
    if defaults is None or defaults not in ([], RECORDED_DEFAULTS) or "hydra" in content:
        raise ValueError(f"{path}: expected the config.yaml of a recorded run, without a section hydra")


def one_line(error: BaseException) -> str:
    """The message of an error in one line; of the system's errors the file and the reason."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _guarded(name: str, config: DictConfig) -> int:
    """Run the command and return its status: 2, with one line on standard error, where input or configuration was
    wrong, or memory ran out."""
    module, function = _TASKS[name]
    run: Callable[[DictConfig], int] = getattr(importlib.import_module(f"facerecon_torch.commands.{module}"), function)
    try:
        return run(config)
    except (FaceReconError, ValueError, OSError, HydraException, OmegaConfBaseException) as error:
        _tell(name, one_line(error))
        _log.debug("where it happened", exc_info=True)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _tell(name, f"memory ran out ({one_line(error)}); {_LESS_MEMORY[name]}")
    return 2


def _tell(name: str, error: str) -> None:
    """Write what went wrong to standard error, and to the log file of a run that has one; the log's other lines go to
    standard output."""
    sys.stderr.write(f"facerecon {name}: {error}\n")
    record = _log.makeRecord(_log.name, logging.ERROR, __file__, 0, error, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
