"""Writes answers.safetensors: inputs from a photograph, and what the publisher's interpreter makes of them.

pip install ai-edge-litert==2.3.0
python -m tests.landmarks.mediapipe.store_answers FOLDER    (with the three .tflite files)
"""

import sys
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image
from safetensors.torch import save_file

FILES = {
    "face_detector_short_range": ("face_detection_short_range.tflite", 128),
    "face_detector_full_range": ("face_detection_full_range_sparse.tflite", 192),
    "face_mesh": ("face_landmarks_detector.tflite", 256),
}
FACE = (150, 50, 300, 200)  # of the astronaut


def inputs(size: int, face: bool) -> torch.Tensor:
    """The photograph, or its face, upright and turned by 20 degrees: bytes [2, size, size, 3]."""
    photo = Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")
    views = [photo, photo.rotate(20, Image.Resampling.BICUBIC, center=(225, 125))]
    views = [view.crop(FACE) if face else view for view in views]
    resized = [np.asarray(view.resize((size, size), Image.Resampling.BICUBIC)) for view in views]
    return torch.from_numpy(np.stack(resized))


def main(folder: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    stored = {}
    for name, (file, size) in FILES.items():
        face = name == "face_mesh"
        stored[f"{name}.input"] = inputs(size, face)
        interpreter = Interpreter(str(folder / file), num_threads=1)
        interpreter.allocate_tensors()
        answers = {}
        for picture in stored[f"{name}.input"]:
            values = picture.float() / 255 if face else picture.float() / 127.5 - 1
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values[None].numpy())
            interpreter.invoke()
            for output in interpreter.get_output_details():
                answers.setdefault(output["name"], []).append(torch.from_numpy(interpreter.get_tensor(output["index"])))
        stored |= {f"{name}.{output}": torch.stack(values).flatten(1) for output, values in answers.items()}
    save_file(stored, Path(__file__).parent / "answers.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
