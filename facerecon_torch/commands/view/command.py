"""`facerecon view`: a fitted face or a mesh in the browser."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from facerecon_torch.commands.view.face import read_face
from facerecon_torch.commands.view.face_viewer import FaceViewer
from facerecon_torch.commands.view.mesh_viewer import MeshViewer
from facerecon_torch.errors import FaceReconError
from facerecon_torch.model.load import ModelSpec, load_face_model

__all__ = ["open_viewer", "run_view"]

_MESHES = (".obj", ".ply", ".glb")


def open_viewer(
    source: Path, *, photograph: Path | None = None, model: str | None = None, host: str = "127.0.0.1", port: int = 8080
) -> FaceViewer | MeshViewer:
    """A running viewer of a face (.json of `facerecon infer`) or a mesh (.obj, .ply, .glb).

    Args:
        source: the file.
        photograph: of the face; None: the one that the file names, if it is there.
        model: file of the face model; None: the default face.
        host: address to listen on.
        port: to listen on; where it is taken, the next free one.

    Raises:
        MissingExtraError: viser is not installed.
        DataFileError, OSError, ValueError: a file is missing or another one than expected.
    """
    if source.suffix.lower() in _MESHES:
        return MeshViewer(source, title=source.name, host=host, port=port)
    if source.suffix.lower() != ".json":
        raise ValueError(f"expected a face (.json) or a mesh ({', '.join(_MESHES)}); got {source}")
    face = read_face(source, load_face_model(ModelSpec(path=model)), photograph)
    return FaceViewer(face, title=source.stem, host=host, port=port)


def run_view(arguments: Sequence[str]) -> int:
    """Serve the viewer until Ctrl-C; returns 2 for a wrong call or file."""
    parser = argparse.ArgumentParser(
        prog="facerecon view",
        description="Show a face that facerecon infer wrote, or a mesh, in a browser. Needs facerecon-torch[viewer].",
    )
    parser.add_argument("source", type=Path, help="NAME.json of facerecon infer, or a mesh (.obj, .ply, .glb)")
    parser.add_argument("--photo", type=Path, help="the photograph; default: the one that NAME.json names")
    parser.add_argument("--model", help="file of the face model (.safetensors); default: the default face")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args(arguments)
    try:
        viewer = open_viewer(
            options.source, photograph=options.photo, model=options.model, host=options.host, port=options.port
        )
    except (FaceReconError, ValueError, OSError) as error:
        sys.stderr.write(f"facerecon view: {error}\n")
        return 2
    sys.stdout.write(f"{viewer.address}   (Ctrl-C ends it)\n")
    sys.stdout.flush()
    try:
        while True:
            time.sleep(3600)
    finally:
        viewer.stop()
