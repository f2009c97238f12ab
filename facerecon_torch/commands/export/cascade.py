"""`facerecon export-cascade`: a cascade as one program that needs torch and nothing of this package."""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from facerecon_torch.cascade.checkpoint import pretrained_path
from facerecon_torch.cascade.export_file import ProgramDiffersError, save_program
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.errors import FaceReconError

__all__ = ["run_export_cascade"]


def run_export_cascade(arguments: Sequence[str]) -> int:
    """The status of `facerecon export-cascade`: 0 done, 1 the program answers otherwise than the package, 2 the call
    or a file was wrong."""
    options = _parser().parse_args(arguments)
    try:
        if options.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device: expected a device that is there; torch sees no CUDA device")
        source = pretrained_path() if options.cascade is None else options.cascade
        named = None if options.model == "default" else options.model
        model = FaceReconstructor.from_pretrained(source, face_model=named).to(options.device)
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        about = save_program(model, options.out, cascade_sha256=digest, vertices=options.vertices)
    except ProgramDiffersError as error:
        sys.stderr.write(f"facerecon export-cascade: {error}\n")
        return 1
    except (FaceReconError, ValueError, OSError) as error:
        sys.stderr.write(f"facerecon export-cascade: {error}\n")
        return 2
    sys.stdout.write(_summary(options.out, about))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="facerecon export-cascade",
        description="Write a cascade as a .pt2 file: canonical crops and 66 landmarks in, parameters, camera and "
        "landmarks out. torch.export.load runs it without this package (docs/exporting.md). The file is compared "
        "with the package before it gets its name.",
    )
    parser.add_argument(
        "cascade", nargs="?", type=Path, help="a cascade (.safetensors); the one the package ships if left out"
    )
    parser.add_argument("out", type=Path, help="the program (.pt2)")
    parser.add_argument(
        "--model", default="default", help="the cascade's native model file, or `default` (default: %(default)s)"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where the program will run (default: %(default)s)"
    )
    parser.add_argument("--vertices", action="store_true", help="also put out all vertices of the face")
    return parser


def _summary(out: Path, about: dict[str, Any]) -> str:
    low, high = about["batch"]
    lines = [f"{out}: {out.stat().st_size / 1e6:.1f} MB, {about['dtype']} on {about['device']}, b = {low} to {high}"]
    for kind in ("inputs", "outputs"):
        for name, tensor in about[kind].items():
            shape = ", ".join(map(str, tensor["shape"]))
            lines.append(f"  {kind[:-1]:<6} {name:<13} [{shape}] {tensor['unit']}")
    return "\n".join(lines) + "\nchecked: it answers as the package does\n"
