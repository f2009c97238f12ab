import json
from dataclasses import replace

import pyarrow.parquet
import pytest
import torch

from facerecon_torch.export import FaceRecord, save_parameters_json, save_parameters_parquet
from facerecon_torch.structures import Camera, FaceParameters

NAMES = ("jawOpen", "smile_L")


def _record(rng, image="a, b=c.jpg", face=0, names=NAMES):
    def draw(*shape):
        return torch.randn(shape, generator=rng)

    camera = Camera(rotation=draw(3, 3), scale=draw().exp(), translation=draw(2), degenerate=torch.tensor(False))
    return FaceRecord(
        image=image,
        face=face,
        box=(1.0, 2.0, 30.5, 40.0),
        score=0.75,
        parameters=FaceParameters(identity=draw(50), expression=draw(25)),
        expression_names=names,
        expression_weights=draw(len(names)).abs(),
        camera=camera,
        landmarks_2d=draw(66, 2),
        landmarks_3d=draw(66, 3),
        projected_2d=draw(66, 2),
    )


def test_json_holds_every_value(rng, tmp_path):
    record = _record(rng)
    path = save_parameters_json(record, tmp_path / "deep" / "face.json")
    read = json.loads(path.read_text(encoding="utf-8"))
    head = [read.pop(name) for name in ("format", "version", "made_from", "faces")]
    assert head == ["facerecon-face", 2, {}, 1]
    assert read == record.as_dict()
    assert torch.tensor(read["alpha"]).equal(record.parameters.identity)
    assert torch.tensor(read["camera"]["rotation"]).reshape(3, 3).equal(record.camera.rotation)
    assert read["expression_weights"]["smile_L"] == record.expression_weights[1]


def test_parquet_holds_a_row_a_face(rng, tmp_path):
    records = [_record(rng, image, face) for image, face in (("x.png", 0), ("x.png", 1), ("ü.png", 0))]
    path = save_parameters_parquet(records, tmp_path / "run.parquet", expression_names=NAMES)
    table = pyarrow.parquet.read_table(path)
    assert table.to_pylist() == [record.as_dict() for record in records]
    assert table.schema.metadata[b"facerecon_format"] == b"1"
    assert table.column_names == list(records[0].as_dict())


@pytest.mark.parametrize("names", [NAMES, ()])
def test_a_run_without_faces_has_the_same_columns(names, rng, tmp_path):
    full = [_record(rng, names=names)]
    tables = []
    for records in (full, []):
        path = save_parameters_parquet(records, tmp_path / f"{len(records)}.parquet", expression_names=names)
        tables.append(pyarrow.parquet.read_table(path))
    assert tables[0].schema == tables[1].schema
    assert [len(t) for t in tables] == [1, 0]
    assert ("expression_weights" in tables[0].column_names) == bool(names)


def test_other_expressions_are_refused_and_leave_no_file(rng, tmp_path):
    with pytest.raises(ValueError, match=r"x\.png, face 3"):
        save_parameters_parquet([_record(rng, "x.png", 3)], tmp_path / "a.parquet", expression_names=["jawOpen"])
    with pytest.raises(ValueError, match=r"end in \.parquet"):
        save_parameters_parquet([], tmp_path / "a.csv", expression_names=NAMES)
    with pytest.raises(ValueError, match=r"end in \.json"):
        save_parameters_json(_record(rng), tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": float("nan")}, "box and score"),
        ({"expression_names": ("one",)}, "expression_weights"),
        ({"parameters": FaceParameters(identity=torch.zeros(2, 50), expression=torch.zeros(2, 25))}, "one face"),
        (
            {"parameters": FaceParameters(identity=torch.full((50,), torch.nan), expression=torch.zeros(25))},
            "must be finite",
        ),
    ],
)
def test_a_record_that_cannot_be_written_is_refused_at_once(change, words, rng):
    record = _record(rng)
    with pytest.raises(ValueError, match=words):
        replace(record, **change)
