"""The command `facerecon`: one word, one importable function. Torch is imported only by the word that needs it."""

import importlib
import sys
from collections.abc import Callable, Sequence

__all__ = ["main"]

_WORDS = {
    "train": "train a cascade: facerecon train [group=option] [key=value] ...",
    "infer": "reconstruct photographs: facerecon infer input=PHOTO_OR_FOLDER output=DIR",
    "prepare": "register a data set's scans: facerecon prepare data=bosphorus data.root=DIR output=DIR",
    "synth": "make a synthetic set: facerecon synth layout=photos|bosphorus|facewarehouse|frgc out=DIR subjects=N",
    "export-parameters": "write fitted weights as .mat, .data and Parquet: facerecon export-parameters SOURCE OUT",
    "export-cascade": "write a cascade as a program for torch alone: facerecon export-cascade [CASCADE] OUT.pt2",
    "import-model": "read a foreign face model: facerecon import-model KIND PATH OUT.safetensors",
    "show": "draw a model's mean face, modes and expressions: facerecon show MODEL OUT.png",
    "bench": "measure speed, memory and error beside rivals: facerecon bench [NAME ...] [device=cpu,cuda] [key=value]",
    "doctor": "say what is installed, which GPU, detectors and weights work",
}


def _usage() -> str:
    width = max(len(word) for word in _WORDS)
    words = "\n".join(f"  {word:<{width}} {text}" for word, text in _WORDS.items())
    return (
        "usage: facerecon WORD [arguments]\n\n"
        "3D faces with expression from single images, by cascaded regression over a bilinear model.\n\n"
        f"{words}\n\n"
        "facerecon WORD --help says more; facerecon --version prints the version."
    )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("facerecon-torch")
    except PackageNotFoundError:
        return "unknown: facerecon-torch runs from a folder where it is not installed"


_HOME = {
    "train": ("facerecon_torch.commands.hydra_app", "run_train"),
    "infer": ("facerecon_torch.commands.hydra_app", "run_infer"),
    "prepare": ("facerecon_torch.commands.hydra_app", "run_prepare"),
    "synth": ("facerecon_torch.commands.hydra_app", "run_synth"),
    "export-parameters": ("facerecon_torch.commands.export.parameters", "run_export"),
    "export-cascade": ("facerecon_torch.commands.export.cascade", "run_export_cascade"),
    "import-model": ("facerecon_torch.commands.import_model.command", "run_import"),
    "show": ("facerecon_torch.commands.show", "run_show"),
    "bench": ("facerecon_torch.commands.bench", "run_bench"),
    "doctor": ("facerecon_torch.commands.doctor", "run_doctor"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one word and return the exit status: 0 done, 1 some inputs failed, 2 the call was wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_usage() + "\n")
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        sys.stdout.write(_version() + "\n")
        return 0
    if words[0] not in _WORDS:
        sys.stderr.write(f"facerecon: {words[0]!r} is none of its words ({', '.join(_WORDS)})\n")
        return 2
    module, function = _HOME[words[0]]
    run: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
    return run(words[1:])


if __name__ == "__main__":
    sys.exit(main())
