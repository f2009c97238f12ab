"""`facerecon import-model`: conversion of published face models to native files. Its help does not import torch."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BUILD", "KINDS", "Kind", "dest_of", "run_import"]

_IMPORTERS = "facerecon_torch.model.importers"
BUILD = ("identity_rank", "expression_rank", "scratch", "device")  # the fields of the reader's `spec`
_COUNTS = ("n_identity", "n_expression")


@dataclass(frozen=True)
class Kind:
    """One kind of model: its reader and the options that the reader accepts as keywords."""

    reader: str  # module in model/importers, and function
    path: str  # description of PATH
    options: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "facewarehouse": Kind("facewarehouse.read_facewarehouse", "folder of the testers", ("leave_out", *BUILD)),
    "facewarehouse-tensor": Kind(
        "tensor_file.read_tensor_core", "core, .tensor", ("mesh", "identity_rows", "expression_rows", "mm_per_unit")
    ),
    "facewarehouse-raw": Kind(
        "tensor_file.read_raw_tensor",
        "raw float32 tensor",
        ("mesh", "n_people", "n_expressions", "mm_per_unit", *BUILD),
    ),
    "facewarehouse-bin": Kind(
        "tensor_file.read_core_bin", "core, .bin", ("mesh", "identity_rows", "people_of_core", "mm_per_unit")
    ),
    "facewarehouse-mat": Kind("facewarehouse.read_facewarehouse_mat", "MATLAB 5 file", ("mm_per_unit",)),
    "facescape": Kind("facescape.read_facescape", "v1.6 .npz", ("front", "mm_per_unit")),
    "facescape-v13": Kind("facescape.read_facescape_v13", "v1.3 core .npy", ("mesh", "factors_id", "mm_per_unit")),
    "ict": Kind("template_mesh.read_ict", "folder FaceXModel", ("ict_region", *_COUNTS)),
    "bfm2009": Kind("bfm2009.read_bfm2009", ".mat file, or folder with it", ("bfm_region", "texture", *_COUNTS)),
    "bfm2017": Kind("bfm_h5.read_bfm_h5", ".h5 file", ("texture", *_COUNTS)),
    "bfm2019": Kind("bfm_h5.read_bfm_h5", ".h5 file", ("texture", *_COUNTS)),
    "deep3d": Kind("bfm2009.read_deep3d", "BFM_model_front.mat", ("texture", *_COUNTS)),
    "3ddfa-v2": Kind("bfm_noneck.read_bfm_noneck", "bfm_noneck_v3.pkl", ("spread", *_COUNTS)),
    "gnm": Kind("gnm.read_gnm", "gnm_head.npz", ("gnm_region", *_COUNTS)),
    "flame": Kind("flame.read_flame", ".pkl or .npz", ("split", *_COUNTS)),
    "surrey": Kind("surrey.read_surrey", ".bin file", ("blendshapes", "contours", "texture", *_COUNTS)),
    "mesh": Kind("template_mesh.read_template_mesh", "template, OBJ or PLY", ("modes", "unit", *_COUNTS)),
}
"""All kinds of models; a new kind is one entry."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "leave_out": {"nargs": "+", "metavar": "NAME", "help": "people left out, such as those of a test set: Tester_7 .."},
    "identity_rank": {"type": int, "help": "identity weights (default: 50)"},
    "expression_rank": {"type": int, "help": "expression weights (default: 25)"},
    "scratch": {"type": Path, "help": "folder of the temporary file (default: the system's)"},
    "device": {"help": "device that reduces the tensor: cpu or cuda (default: cpu)"},
    "mesh": {"type": Path, "required": True, "help": "OBJ or PLY with the triangles"},
    "identity_rows": {"type": Path, "help": "rows of U_id"},
    "expression_rows": {"type": Path, "help": "rows of U_exp"},
    "factors_id": {"type": Path, "help": "factors_id_847_50_52.npy"},
    "mm_per_unit": {"type": float, "help": "millimetres of one unit (default: from the size of the mean face)"},
    "n_people": {"type": int, "metavar": "N", "help": "people in the tensor"},
    "n_expressions": {"type": int, "metavar": "N", "help": "expressions in the tensor"},
    "people_of_core": {
        "type": int,
        "metavar": "N",
        "dest": "n_people",
        "help": "people behind the core (default: 150)",
    },
    "front": {"action": "store_true", "help": "only the face, not the head"},
    "ict_region": {"dest": "region", "choices": ("face", "narrow", "whole"), "help": "(default: face)"},
    "bfm_region": {"dest": "region", "choices": ("all", "front"), "help": "(default: all)"},
    "gnm_region": {"dest": "region", "choices": ("skin", "all"), "help": "(default: skin)"},
    "spread": {"type": Path, "help": "mean and std of the weights (default: param_mean_std_62d_120x120.pkl beside it)"},
    "texture": {"action": "store_true", "help": "with the texture basis"},
    "n_identity": {"type": int, "metavar": "N", "help": "identity modes to keep (default: all)"},
    "n_expression": {"type": int, "metavar": "N", "help": "expression modes to keep (default: all)"},
    "split": {"type": int, "help": "identity columns in shapedirs (default: 300 of 400)"},
    "blendshapes": {"type": Path, "help": "file of expression blendshapes"},
    "contours": {"type": Path, "help": "sfm_model_contours.json: where the landmarks of the contour are"},
    "modes": {"type": Path, "required": True, "help": "folder of deformed meshes, or .npz of offsets"},
    "unit": {"help": "unit of the template: mm, cm, dm, m .. (default: mm)"},
}
_FLAGS = {"people_of_core": "--people", "n_people": "--people", "n_expressions": "--expressions"}
_FLAGS |= {"ict_region": "--region", "bfm_region": "--region", "gnm_region": "--region"}


def dest_of(option: str) -> str:
    """The keyword argument of an option."""
    return str(_OPTIONS[option].get("dest", option))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="facerecon import-model",
        description="Read a face model of another format and write OUT as a native model file, with OUT.report.json "
        "and OUT.review.png beside it. What its mesh lacks (landmarks, contour lines, vertex sets) is derived by "
        "registering the default face to its mean face; look at the review before using it.",
        epilog="facerecon import-model KIND --help says which options a kind has.",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for name, kind in KINDS.items():
        sub = kinds.add_parser(name, help=kind.path, argument_default=argparse.SUPPRESS)
        sub.add_argument("path", type=Path, metavar="PATH", help=kind.path)
        sub.add_argument("out", type=Path, metavar="OUT", help="the native model file (.safetensors)")
        for option in kind.options:
            flag = _FLAGS.get(option, "--" + option.replace("_", "-"))
            sub.add_argument(flag, **{**_OPTIONS[option], "dest": dest_of(option)})
        sub.add_argument("--landmarks", type=Path, help="JSON: iBUG point -> vertex from 0, or -> [x, y, z] in mm")
        sub.add_argument("--allow-uncertain", action="store_true", help="write the model even with doubtful tables")
        sub.add_argument("--storage", choices=("float16", "float32", "float64"), help="(default: float32)")
    return parser


def run_import(arguments: Sequence[str]) -> int:
    """The exit code: 0, or 2 for a wrong argument or file or an uncertain table."""
    given = vars(_parser().parse_args(arguments))
    from facerecon_torch.errors import FaceReconError

    kind, path, out = KINDS[given.pop("kind")], given.pop("path"), given.pop("out")
    try:
        if out.suffix != ".safetensors":
            raise ValueError(f"OUT must end in .safetensors; got {out}")
        lines = _run(kind, path, out, given)
    except (FaceReconError, ValueError, TypeError, OSError) as error:
        sys.stderr.write(f"facerecon import-model: {' '.join(str(error).split())}\n")
        return 2
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _run(kind: Kind, path: Path, out: Path, given: dict[str, Any]) -> list[str]:
    from facerecon_torch.commands.import_model.convert import ImportSpec, import_model, read_known, summary_lines

    landmarks = given.pop("landmarks", None)
    spec = ImportSpec(allow_uncertain=given.pop("allow_uncertain", False), storage=given.pop("storage", "float32"))
    if build := {name: given.pop(name) for name in BUILD if name in given}:
        given["spec"] = importlib.import_module(f"{_IMPORTERS}.building").BuildSpec(**build)
    module, _, function = kind.reader.partition(".")
    imported = getattr(importlib.import_module(f"{_IMPORTERS}.{module}"), function)(path, **given)
    extra = {} if landmarks is None else read_known(landmarks, imported)
    return summary_lines(import_model(imported, out, known=extra, spec=spec))
