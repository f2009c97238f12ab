"""The command `facerecon`: a table of commands and the functions that run them.

Torch is imported by the command that needs it, not by `facerecon --help`.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from facerecon_torch.commands.suggest import did_you_mean

__all__ = ["main"]


class _Command(NamedTuple):
    module: str  # below facerecon_torch.commands
    function: str
    purpose: str
    call: str
    go_on: str = "run it again"  # after Ctrl-C

    def load(self) -> Callable[[Sequence[str]], int]:
        function: Callable[[Sequence[str]], int] = getattr(
            importlib.import_module(f"facerecon_torch.commands.{self.module}"), self.function
        )
        return function


_COMMANDS = {
    "train": _Command(
        "hydra_app",
        "run_train",
        "train a cascade",
        "[group=option] [key=value] ...",
        "run it again: rendered photographs are kept",
    ),
    "infer": _Command(
        "hydra_app",
        "run_infer",
        "reconstruct photographs",
        "input=PHOTO_OR_FOLDER output=DIR",
        "run it again with resume=true: images with results are skipped",
    ),
    "video": _Command(
        "hydra_app",
        "run_video",
        "follow a face through a video",
        "input=CLIP.mp4 output=DIR",
    ),
    "evaluate": _Command(
        "hydra_app",
        "run_evaluate",
        "run the paper's experiments on a prepared set",
        "experiment=table1|...|paper data.root=DIR output=DIR",
        "run it again: methods and folds that are done are kept",
    ),
    "prepare": _Command(
        "hydra_app",
        "run_prepare",
        "register a data set's scans",
        "data=bosphorus data.root=DIR output=DIR",
        "run it again: finished recordings are kept",
    ),
    "synth": _Command(
        "hydra_app",
        "run_synth",
        "make a synthetic set",
        "layout=photos|bosphorus|facewarehouse|frgc output=DIR subjects=N",
        "run it again: finished subjects are kept",
    ),
    "compare": _Command(
        "hydra_app",
        "run_compare",
        "measure other systems' faces beside ours",
        "output=DIR [external=DIR] [peers=[eos,mediapipe]]",
    ),
    "export-parameters": _Command(
        "export.parameters", "run_export", "write fitted weights as .mat, .data and Parquet", "SOURCE OUT"
    ),
    "export-cascade": _Command(
        "export.cascade", "run_export_cascade", "write a cascade as a program for torch alone", "[CASCADE] OUT.pt2"
    ),
    "import-model": _Command(
        "import_model.command", "run_import", "read a foreign face model", "KIND PATH OUT.safetensors"
    ),
    "show": _Command(
        "show", "run_show", "draw a face model, or sum up results with a gallery", "MODEL OUT.png | RESULTS"
    ),
    "view": _Command(
        "view.command", "run_view", "show a face in a browser, with sliders", "FACE.json | MESH.obj|.ply|.glb"
    ),
    "bench": _Command(
        "bench",
        "run_bench",
        "measure speed, memory and error beside rivals",
        "[NAME ...] [device=cpu,cuda] [key=value]",
    ),
    "doctor": _Command("doctor", "run_doctor", "report packages, GPU, detectors and weights", "[--json] [--quick]"),
}


def _usage() -> str:
    width = max(map(len, _COMMANDS))
    lines = [
        f"  {name:<{width}} {command.purpose}: facerecon {name} {command.call}" for name, command in _COMMANDS.items()
    ]
    return "\n".join(
        [
            "usage: facerecon COMMAND [arguments]",
            "",
            "3D faces with expression from single images, by cascaded regression over a bilinear model.",
            "",
            *lines,
            "",
            "facerecon COMMAND --help says more; facerecon --version prints the version.",
        ]
    )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("facerecon-torch")
    except PackageNotFoundError:
        return "unknown: facerecon-torch runs from a folder where it is not installed"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of one command: 0 done, 1 some inputs failed, 2 the call was wrong, 130 stopped by Ctrl-C.

    Args:
        arguments: the command's name and its own arguments; None: those of this process.

    Example:
        >>> main(["infer", "input=photo.jpg", "output=out"])
        0
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("", "-h", "--help", "help"):
        sys.stdout.write(_usage() + "\n")
        return 0 if name else 2
    if {"-V", "--version"} & {name, *rest}:
        sys.stdout.write(_version() + "\n")
        return 0
    if name not in _COMMANDS:
        hint = did_you_mean(name, _COMMANDS, f"commands are {', '.join(_COMMANDS)}")
        sys.stderr.write(f"facerecon: unknown command {name!r}; {hint}\n")
        return 2
    try:
        return _COMMANDS[name].load()(rest)
    except KeyboardInterrupt:
        sys.stderr.write(f"\nfacerecon {name}: stopped; to go on, {_COMMANDS[name].go_on}\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
