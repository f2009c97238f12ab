"""`facerecon export-cascade`: a cascade as one program that runs where there is torch and nothing of this package."""

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
    """Export; 0 done, 1 where the written program differs from the package, 2 where the call or a file was wrong."""
    given = _parser().parse_args(arguments)
    try:
        if given.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device: expected a device that is there; torch sees no CUDA device")
        source = pretrained_path() if given.cascade is None else given.cascade
        named = None if given.model == "default" else given.model
        model = FaceReconstructor.from_pretrained(source, face_model=named).to(given.device)
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        about = save_program(model, given.out, cascade_sha256=digest, vertices=given.vertices)
    except ProgramDiffersError as error:
        sys.stderr.write(f"facerecon export-cascade: {error}\n")
        return 1
    except (FaceReconError, ValueError, OSError) as error:
        sys.stderr.write(f"facerecon export-cascade: {error}\n")
        return 2
    sys.stdout.write(_summary(given.out, about))
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
        for name, told in about[kind].items():
            shape = ", ".join(map(str, told["shape"]))
            lines.append(f"  {kind[:-1]:<6} {name:<13} [{shape}] {told['unit']}")
    return "\n".join(lines) + "\nchecked: it answers as the package does\n"
