"""`make demo`: trains a small cascade on synthetic people, then reconstructs a photograph with the shipped one.

python -m facerecon_torch.commands.demo FOLDER
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from facerecon_torch.commands.cli import main as facerecon
from facerecon_torch.images.write import save_png

__all__ = ["demo"]

_PRODUCTS = (
    "report.json",
    "cascade.safetensors",
    "astronaut_overlay.jpg",
    "astronaut.obj",
    "astronaut.glb",
    "parameters/part-00000.parquet",
)


def _say(text: str) -> None:
    sys.stdout.write(f"\n=== {text}\n")
    sys.stdout.flush()


def _photograph(folder: Path) -> Path:
    """The file of a photograph of Eileen Collins (NASA, public domain) that scikit-image contains."""
    import skimage.data
    import torch

    image = torch.from_numpy(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    image = image.permute(2, 0, 1).float() / 255
    return save_png(image, folder / "astronaut.png")


def demo(folder: Path) -> int:
    """Train a small cascade and reconstruct a photograph.

    Args:
        folder: where all files go; created if it is missing.

    Returns:
        The exit status: 0 if every expected file was written.
    """
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    _say("1 of 2: train a small cascade on synthetic people")
    status = facerecon(["train", "experiment=small", f"output={folder}"])
    if status:
        return status
    _say("2 of 2: reconstruct a photograph with the cascade that the package ships")
    photographs = folder / "photographs"
    photographs.mkdir(exist_ok=True)
    photograph = _photograph(photographs)
    status = facerecon(["infer", f"input={photograph}", f"output={folder}"])
    if status:
        return status
    missing = [name for name in _PRODUCTS if not (folder / name).is_file()]
    _say(f"{folder} holds {', '.join(name for name in _PRODUCTS if name not in missing)}")
    _say(f"done in {time.perf_counter() - began:.0f} s; look at {folder / 'astronaut_overlay.jpg'}")
    return 1 if missing else 0


def main(arguments: Sequence[str]) -> int:
    """The status of `python -m facerecon_torch.commands.demo FOLDER`."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m facerecon_torch.commands.demo FOLDER\n")
        return 2
    return demo(Path(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
