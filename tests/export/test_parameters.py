"""Fitted faces in JSON files and in the table of a run: schema, values, order and refusals."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from facerecon_torch.export import FaceTable, ImageRow, face_in_document, save_parameters_json
from facerecon_torch.export import face_table as module
from facerecon_torch.geometry.rotation import matrix_to_euler
from facerecon_torch.structures import FaceParameters, TensorRecord
from tests.export.fitted_faces import drawn_faces

NAMES = ("jawOpen", "smile_L")
SCHEMA = {
    "input": pa.int64(),
    "id": pa.string(),
    "path": pa.string(),
    "frame": pa.int64(),
    "time": pa.float64(),
    "subject": pa.string(),
    "face": pa.int64(),
    "status": pa.string(),
    "box": pa.list_(pa.float64(), 4),
    "score": pa.float64(),
    "plausible": pa.bool_(),
    "residual_mm": pa.float64(),
    "contour_residual_mm": pa.float64(),
    "shape_distance": pa.float64(),
    "view_angle": pa.float64(),
    "proportion": pa.float64(),
    "reprojection_px": pa.float64(),
    "disagreement_mm": pa.float64(),
    "pose_excess": pa.float64(),
    "predicted_error_mm": pa.float64(),
    "alpha": pa.list_(pa.float64()),
    "beta": pa.list_(pa.float64()),
    "expression_weights": pa.struct([(name, pa.float64()) for name in NAMES]),
    "camera": pa.struct(
        [
            ("rotation", pa.list_(pa.float64(), 9)),
            ("scale", pa.float64()),
            ("translation", pa.list_(pa.float64(), 2)),
            ("degenerate", pa.bool_()),
        ]
    ),
    "euler_degrees": pa.list_(pa.float64(), 3),
    "landmarks_2d": pa.list_(pa.list_(pa.float64(), 2)),
    "landmarks_3d": pa.list_(pa.list_(pa.float64(), 3)),
    "projected_2d": pa.list_(pa.list_(pa.float64(), 2)),
    "sha256": pa.string(),
    "fingerprint": pa.string(),
    "files": pa.string(),
}
OF_THE_TABLE = {"input", "id", "path", "frame", "time", "subject", "status", "euler_degrees", "sha256", "fingerprint",
                "files"}  # fmt: skip


def leaves(record):
    for value in vars(record).values():
        yield from leaves(value) if isinstance(value, TensorRecord) else [value]


def documents(image, faces, folder, names=NAMES):
    """The JSON documents of an image's faces, without their marks."""
    paths = [
        save_parameters_json(face, folder / f"{k}.json", image=image, number=k, expression_names=names)
        for k, face in enumerate(faces)
    ]
    read = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return [{name: value for name, value in document.items() if name in SCHEMA} for document in read]


def test_json_holds_every_value(rng, tmp_path):
    face = drawn_faces(2, 2, rng)[1]
    path = tmp_path / "deep" / "face.json"
    assert save_parameters_json(face, path, image="a, b=\u00fc.jpg", number=1, expression_names=NAMES) == path
    text = path.read_text(encoding="utf-8")
    read = json.loads(text)
    assert "\u00fc" in text
    assert (
        set(read)
        == {"format", "version", "made_from", "convention", "faces", "warnings", "image", *SCHEMA} - OF_THE_TABLE
    )
    assert [read[name] for name in ("format", "version", "made_from", "faces")] == ["facerecon-face", 4, {}, 1]
    assert (read["plausible"], read["warnings"]) == (False, ["the landmarks are degenerate: they fix no pose"])
    assert read["residual_mm"] == face.plausibility.residual
    assert (read["image"], read["face"]) == ("a, b=\u00fc.jpg", 1)
    assert torch.tensor(read["alpha"]).equal(face.parameters.identity)
    assert torch.tensor(read["camera"]["rotation"]).reshape(3, 3).equal(face.camera.rotation)
    assert read["camera"]["degenerate"] is True
    assert read["expression_weights"]["smile_L"] == face.expression_weights[1]
    assert torch.tensor(read["box"], dtype=torch.float64).equal(face.boxes)


@pytest.mark.parametrize("names", [NAMES, ()])
def test_json_is_read_back_to_the_last_bit(names, rng, tmp_path):
    face = drawn_faces(1, len(names), rng)[0]
    path = save_parameters_json(face, tmp_path / "a.json", image="x/y.png", number=0, expression_names=names)
    document = json.loads(path.read_text(encoding="utf-8"))
    again = face_in_document(document)
    assert document["image"] == "x/y.png"
    for got, want in zip(leaves(again), leaves(face), strict=True):
        assert torch.equal(got, want.to(got.dtype))


@pytest.mark.parametrize("names", [NAMES, ()])
def test_the_table_has_the_values_of_the_json_files_in_the_order_of_the_images(names, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 3)  # several chunks
    table = FaceTable(names, fingerprint="print")
    expected = {}
    for position, count in ((7, 2), (2, 3), (5, 0), (4, 1), (3, 2)):
        image, faces = f"\u00fc {position}.jpg", drawn_faces(count, len(names), rng)
        row = ImageRow(input=position, path=image, id=f"n{position}", subject="s", sha256="abc", files=f"f{position}")
        table.append(row, faces)
        expected[position] = documents(image, faces, tmp_path, names)
        about = {"input": position, "path": image, "id": f"n{position}", "frame": None, "time": None, "subject": "s",
                 "status": "ok", "sha256": "abc", "fingerprint": "print", "files": f"f{position}"}  # fmt: skip
        for document, angles in zip(expected[position], torch.stack(matrix_to_euler(faces.camera.rotation), -1)):
            document |= about | {"euler_degrees": torch.rad2deg(angles).tolist()}
    rows = [row for position in sorted(expected) for row in expected[position]]
    if not names:
        rows = [{key: value for key, value in row.items() if key != "expression_weights"} for row in rows]
    read = pyarrow.parquet.read_table(table.save(tmp_path / "run.parquet"))
    assert len(table) == len(rows) == 8
    assert read.to_pylist() == rows


@pytest.mark.parametrize("count", [0, 3])
def test_the_schema_is_fixed(count, rng, tmp_path):
    table = FaceTable(NAMES)
    table.append(ImageRow(input=0, path="a.jpg"), drawn_faces(count, 2, rng))
    read = pyarrow.parquet.read_table(table.save(tmp_path / "run.parquet"))
    assert len(read) == count
    assert dict(zip(read.schema.names, read.schema.types)) == SCHEMA
    assert read.schema.metadata == {
        b"facerecon_format": b"3",
        b"units": b"px in the image frame, mm in the model frame",
    }


def test_a_run_without_named_expressions_has_no_column_for_them(tmp_path):
    read = pyarrow.parquet.read_table(FaceTable(()).save(tmp_path / "run.parquet"))
    assert read.column_names == [name for name in SCHEMA if name != "expression_weights"]


def test_other_suffixes_leave_no_file(rng, tmp_path):
    with pytest.raises(ValueError, match=r"end in \.parquet"):
        FaceTable(NAMES).save(tmp_path / "a.csv")
    face = drawn_faces(1, 2, rng)[0]
    with pytest.raises(ValueError, match=r"end in \.json"):
        save_parameters_json(face, tmp_path / "a.txt", image="a", number=0, expression_names=NAMES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": torch.full((2,), torch.nan)}, "score must be finite"),
        ({"boxes": torch.full((2, 4), torch.inf)}, "box must be finite"),
        ({"expression_weights": torch.zeros(2, 3)}, r"expression_weights must have trailing shape \(2\)"),
        (
            {"parameters": FaceParameters(identity=torch.zeros(50), expression=torch.zeros(25))},
            "parameters.identity must belong to a batch of 2 faces",
        ),
        (
            {"parameters": FaceParameters(identity=torch.full((2, 50), torch.nan), expression=torch.zeros(2, 25))},
            "parameters.identity must be finite",
        ),
    ],
)
def test_faces_that_cannot_be_written_are_refused_at_once(change, words, rng):
    table = FaceTable(NAMES)
    with pytest.raises(ValueError, match=words):
        table.append(ImageRow(input=0, path="a.jpg"), replace(drawn_faces(2, 2, rng), **change))
    assert len(table) == 0


def test_a_json_file_holds_one_face(rng, tmp_path):
    with pytest.raises(ValueError, match="box must belong to one face"):
        save_parameters_json(drawn_faces(2, 2, rng), tmp_path / "a.json", image="a", number=0, expression_names=NAMES)
    assert not list(tmp_path.iterdir())
