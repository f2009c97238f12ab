"""Textures of photographs whose colours are known functions of the place on the face."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.export.texture import TextureAtlas, encode_texture
from facerecon_torch.export.uv_layout import corner_uv_of, packed_uv, uv_islands
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.projection import project_with_depth
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.structures import Camera, Mesh

SIZE = 128
MAGENTA = torch.tensor([1.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def mean():
    model = load_default_face()
    return Mesh(vertices=model.vertices(model.identity_mean, model.expression_mean), **model.topology.surface())


@pytest.fixture(scope="module")
def atlas(mean):
    return TextureAtlas(mean, size=SIZE)


def _colours(vertices):
    """Smooth and the same on both sides of the face."""
    x, y, z = vertices.unbind(-1)
    return torch.stack([0.5 + x.abs() / 250, 0.5 + y / 400, 0.5 + z / 500], -1).clamp(0, 1)


def _photograph(mean, yaw, *, middle=160.0):
    """A picture of the face on magenta, and its camera."""
    camera = Camera(
        rotation=euler_to_matrix(*(torch.tensor(angle) for angle in (yaw, 0.0, 0.0))),
        scale=torch.tensor(1.2),
        translation=torch.tensor([middle, 160.0]),
        degenerate=torch.tensor(False),
    )
    raster = get_backend().rasterise(project_with_depth(mean.vertices, camera), mean.triangles, 320, 320)
    corners = _colours(mean.vertices)[mean.triangles[raster.triangle.clamp_min(0)]]
    drawn = (corners * raster.barycentric[..., None]).sum(-2)
    return torch.where(raster.triangle[..., None] >= 0, drawn, MAGENTA).permute(2, 0, 1).contiguous(), camera


def _expected(atlas):
    """The colour of every texel of the largest island and its mm, by the atlas's own coordinates."""
    mesh = atlas.textured(atlas._mesh)
    island = uv_islands(mesh)
    outside = island == island.bincount().argmax()
    flat = corner_uv_of(mesh)[outside].reshape(-1, 2)
    points = torch.stack([flat[:, 0] * SIZE, (1 - flat[:, 1]) * SIZE, 0 * flat[:, 0]], -1) - 0.5
    raster = get_backend().rasterise(points, torch.arange(len(flat)).reshape(-1, 3), SIZE, SIZE)
    shown = raster.triangle >= 0
    corners = mesh.vertices[mesh.triangles[outside][raster.triangle[shown]]]
    places = (corners * raster.barycentric[shown][..., None]).sum(-2)
    return shown, _colours(places), places


@pytest.mark.parametrize("yaw", [0.0, 0.6, -0.6])
def test_seen_and_mirrored_texels_have_the_face_s_colours(atlas, mean, yaw):
    photograph, camera = _photograph(mean, yaw)
    texture = atlas.sample(photograph, mean.vertices, camera).float() / 255
    shown, colours, places = _expected(atlas)
    front = (places[:, 2] > 20) & (places[:, 0].abs() < 55) & (places[:, 1].abs() < 60)
    error = (texture[:, shown].T - colours).abs().amax(-1)[front]
    assert len(error) > 500
    assert error.quantile(0.98) < 0.03
    assert error.median() < 0.006


def test_without_completion_the_far_side_is_transparent(atlas, mean):
    photograph, camera = _photograph(mean, 0.9)
    texture = atlas.sample(photograph, mean.vertices, camera, completion="none").float() / 255
    assert texture.shape == (4, SIZE, SIZE)
    shown, colours, places = _expected(atlas)
    seen = texture[3, shown] == 1
    turned = places @ camera.rotation.T
    right = places[:, 0] > 0
    assert (seen & right).sum() != (seen & ~right).sum()
    near = seen[(right == bool(turned[right, 2].mean() > turned[~right, 2].mean())) & (places[:, 2] > 0)]
    far = seen[(right != bool(turned[right, 2].mean() > turned[~right, 2].mean())) & (places[:, 2] > 0)]
    assert near.float().mean() > 2 * far.float().mean()
    assert ((texture[:3, shown].T - colours).abs().amax(-1)[seen]).quantile(0.98) < 0.03


def test_the_background_is_not_sampled(atlas, mean):
    photograph, camera = _photograph(mean, 0.3)
    texture = atlas.sample(photograph, mean.vertices, camera).float() / 255
    assert (texture - MAGENTA[:, None, None]).abs().amax(0).min() > 0.3


def test_a_face_cut_by_the_border_is_completed_from_its_other_half(atlas, mean):
    photograph, camera = _photograph(mean, 0.0, middle=0.0)  # half of the face lies outside
    texture = atlas.sample(photograph, mean.vertices, camera).float() / 255
    shown, colours, places = _expected(atlas)
    front = (places[:, 2] > 30) & (places[:, 0].abs() < 45) & (places[:, 1].abs() < 50)
    for side in (places[:, 0] > 5, places[:, 0] < -5):
        error = (texture[:, shown].T - colours).abs().amax(-1)[front & side]
        assert error.quantile(0.95) < 0.04


def test_a_face_outside_the_photograph_gives_some_texture(atlas, mean):
    photograph, camera = _photograph(mean, 0.0)
    away = replace(camera, translation=torch.tensor([9000.0, 160.0]))
    assert atlas.sample(photograph, mean.vertices, away).shape == (3, SIZE, SIZE)


def test_bytes_and_floats_give_the_same(atlas, mean):
    photograph, camera = _photograph(mean, 0.2)
    pixels = (photograph * 255).round().to(torch.uint8)
    one = atlas.sample(pixels, mean.vertices, camera)
    assert_close(atlas.sample(pixels.double() / 255, mean.vertices, camera).int(), one.int(), rtol=0, atol=1)


def test_a_large_photograph_is_not_aliased(atlas, mean):
    """Stripes of one px, far finer than the texture, become grey."""
    _, camera = _photograph(mean, 0.0)
    factor = 6
    stripes = (torch.arange(320 * factor) % 2).float().expand(3, 320 * factor, -1).contiguous()
    larger = replace(camera, scale=camera.scale * factor, translation=camera.translation * factor)
    texture = atlas.sample(stripes, mean.vertices, larger).float() / 255
    assert (texture[:, _expected(atlas)[0]] - 0.5).abs().max() < 0.1


def test_packed_islands_lie_in_the_texture_and_apart(mean):
    uv = packed_uv(mean)
    assert uv.min() > 0
    assert uv.max() < 1
    island, size = uv_islands(mean), 512
    cover = torch.zeros(size, size)
    for k in island.unique():
        flat = uv[island == k].reshape(-1, 2) * size
        points = torch.cat([flat, 0 * flat[:, :1]], -1)
        cover += (
            get_backend().rasterise(points, torch.arange(len(flat)).reshape(-1, 3), size, size).triangle >= 0
        ).float()
    assert cover.max() == 1
    assert len(island.unique()) > 1
    largest = uv[island == island.bincount().argmax()].reshape(-1, 2)
    assert float((largest.amax(0) - largest.amin(0)).max()) > 0.6
    assert uv_islands(replace(mean, corner_uv=uv)).equal(island)


def test_the_model_s_own_coordinates_are_kept_where_asked(mean):
    atlas = TextureAtlas(mean, size=SIZE, coordinates="model")
    assert_close(atlas.textured(mean).corner_uv, mean.corner_uv.float())


def test_the_file_is_a_png_of_this_package(atlas, mean):
    content = encode_texture(atlas.sample(*_photograph(mean, 0.0)[:1], mean.vertices, _photograph(mean, 0.0)[1]))
    assert content.startswith(b"\x89PNG")
    assert b"facerecon_torch" in content[:4096]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"size": 4}, "texture.size must be at least 8 px; got 4"), ({"coordinates": "own"}, "must be packed or model")],
)
def test_bad_settings_are_named(mean, change, words):
    with pytest.raises(ValueError, match=words):
        TextureAtlas(mean, **change)
    with pytest.raises(ValueError, match="needs a face model with texture coordinates"):
        TextureAtlas(Mesh(vertices=mean.vertices, triangles=mean.triangles))
    photograph, camera = _photograph(mean, 0.0)
    with pytest.raises(ValueError, match=r"texture\.completion must be symmetry or none"):
        TextureAtlas(mean, size=16).sample(photograph, mean.vertices, camera, completion="mirror")
