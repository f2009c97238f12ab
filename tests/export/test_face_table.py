import pyarrow.parquet as pq
import pytest
import torch

from facerecon_torch.export.face_table import FaceLayout, FaceTable
from facerecon_torch.export.parameters import save_parameters_parquet
from facerecon_torch.structures import Camera, FaceParameters


def faces(n, names, rng):
    layout = FaceLayout(5, 3, names)
    camera = Camera(
        rotation=torch.randn(n, 3, 3, generator=rng),
        scale=torch.rand(n, generator=rng),
        translation=torch.randn(n, 2, generator=rng),
        degenerate=torch.arange(n) % 2 == 1,
    )
    parameters = FaceParameters(identity=torch.randn(n, 5, generator=rng), expression=torch.randn(n, 3, generator=rng))
    points = [torch.randn(n, 66, k, generator=rng) for k in (2, 3, 2)]
    rows = layout.pack(parameters, torch.rand(n, len(names), generator=rng), camera, *points)
    about = [(7 - k // 2, k % 2, f"picture {7 - k // 2}.jpg", (1.0, 2.0, 3.0 + k, 4.0), 0.5 * k) for k in range(n)]
    return layout, rows, about


@pytest.mark.parametrize("names", [("smile", "jaw open"), ()])
@pytest.mark.parametrize("n", [0, 5])
def test_the_table_is_that_of_the_records(names, n, tmp_path, rng):
    layout, rows, about = faces(n, names, rng)
    table = FaceTable(layout)
    for part in (slice(0, 2), slice(2, None)):
        table.add(rows[part], about[part])
    records = [layout.record(row, image, k, box, score) for row, (_, k, image, box, score) in zip(rows, about)]
    ordered = [records[i] for i in sorted(range(n), key=lambda i: about[i][:2])]
    one = save_parameters_parquet(ordered, tmp_path / "records.parquet", expression_names=names)
    other = table.save(tmp_path / "columns.parquet")
    assert len(table) == n
    assert pq.read_schema(other).equals(pq.read_schema(one), check_metadata=True)
    assert pq.read_table(other).to_pylist() == pq.read_table(one).to_pylist()


def test_a_record_is_its_row_and_back(rng):
    layout, rows, about = faces(3, ("smile",), rng)
    for row, (_, k, image, box, score) in zip(rows, about):
        assert torch.equal(layout.row(layout.record(row, image, k, box, score)), row)
    assert layout.degenerate(rows).tolist() == [False, True, False]


def test_rows_without_faces_and_numbers_that_are_none_are_refused(rng):
    layout, rows, about = faces(3, ("smile",), rng)
    with pytest.raises(ValueError, match="got 3 rows and 2 faces"):
        FaceTable(layout).add(rows, about[:2])
    rows[1, 0] = float("nan")
    with pytest.raises(ValueError, match=r"parameters\.identity must be finite"):
        layout.record(rows[1], "a.jpg", 0, (0.0, 0.0, 1.0, 1.0), 1.0)
