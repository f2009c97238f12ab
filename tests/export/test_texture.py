"""Textures of photographs whose colours are known functions of the place on the face."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.export.spread_colours import spread_colours
from facerecon_torch.export.texture import TextureAtlas, encode_texture
from facerecon_torch.export.uv_layout import corner_uv_of, middle_islands, packed_uv, uv_islands
from facerecon_torch.export.uv_packing import packed_pieces
from facerecon_torch.geometry.mesh_queries import get_backend
from facerecon_torch.geometry.projection import project_with_depth
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.named_shapes import named_shapes
from facerecon_torch.structures import Camera, FaceParameters, Mesh

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


def _inner(mesh):
    """Whether each triangle is of the mouth, and of an eye."""
    island = uv_islands(mesh)
    middle = torch.tensor([k in middle_islands(mesh, island) for k in range(int(island.max()) + 1)])
    skin = island == island.bincount().argmax()
    return middle[island] & ~skin, ~middle[island]


def _painted(mesh, vertices, colours, camera):
    """A picture of the face whose triangles have colours of their own."""
    raster = get_backend().rasterise(project_with_depth(vertices, camera), mesh.triangles, 320, 320)
    return torch.where(raster.triangle[..., None] >= 0, colours[raster.triangle.clamp_min(0)], MAGENTA).permute(2, 0, 1)


def _render(atlas, mesh, vertices, texture, camera):
    """The textured face in the view of a camera, and the triangle of each pixel."""
    raster = get_backend().rasterise(project_with_depth(vertices, camera), mesh.triangles, 320, 320)
    uv = (corner_uv_of(atlas.textured(mesh))[raster.triangle.clamp_min(0)] * raster.barycentric[..., None]).sum(-2)
    column, row = (
        (uv * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 1.0])).mul(SIZE).long().clamp(0, SIZE - 1).unbind(-1)
    )
    return texture[:, row, column].float() / 255, raster.triangle


def test_both_eyes_have_the_colours_of_the_photograph_and_their_own_gaze(atlas, mean):
    """Iris right of the middle in both eyes: a mirrored one would lie left of it."""
    _, camera = _photograph(mean, 0.0)
    _, eye = _inner(mean)
    middle = mean.vertices[mean.triangles].mean(1)
    iris = eye & ((middle[:, 0] - 30.5 * middle[:, 0].sign()) > 2)
    skin, white, dark = (torch.tensor(colour) for colour in ([0.8, 0.5, 0.4], [0.95, 0.95, 0.95], [0.05, 0.1, 0.5]))
    colours = torch.where(eye[:, None], white, skin.expand(len(eye), 3))
    colours[iris] = dark
    photograph = _painted(mean, mean.vertices, colours, camera)
    texture = atlas.sample(photograph, mean.vertices, camera)
    shown, triangle = _render(atlas, mean, mean.vertices, texture, camera)
    for side in (-1, 1):
        own = (triangle >= 0) & eye[triangle.clamp_min(0)] & (middle[triangle.clamp_min(0), 0].sign() == side)
        assert own.sum() > 60
        error = (shown - photograph)[:, own].abs().amax(0)
        assert error.mean() < 0.12
        assert (error < 0.3).float().mean() > 0.75


def test_eyes_have_twice_the_texels_of_the_skin(mean):
    uv = packed_uv(mean)
    raster = get_backend().rasterise(
        mean.vertices.float() * torch.tensor([1.0, -1.0, 1.0]) + 100, mean.triangles, 240, 200
    )
    seen = raster.triangle[raster.triangle >= 0].unique()
    _, eye = _inner(mean)
    edges = (mean.vertices[mean.triangles[:, 1]] - mean.vertices[mean.triangles[:, 0]]).norm(dim=-1)
    scale = (uv[:, 1] - uv[:, 0]).norm(dim=-1) / edges
    both = [scale[seen[eye[seen]]].median(), scale[seen[~eye[seen]]].median()]
    assert 1.5 < both[0] / both[1] < 3


@pytest.mark.parametrize("yaw", [0.0, 0.35, -0.35])
def test_teeth_are_spread_over_the_mouth_beside_them(atlas, mean, yaw):
    """White is seen between the lips from the front; turned, the face shows no dark mouth."""
    model = load_default_face()
    shapes = named_shapes(model, FaceParameters(model.identity_mean, model.expression_mean))
    open_mouth = (shapes.neutral + 0.5 * shapes.displacements[shapes.names.index("jawOpen")]).float()
    mouth, _ = _inner(mean)
    _, front = _photograph(mean, 0.0)
    colours = torch.where(mouth[:, None], torch.tensor(0.9), torch.tensor([0.7, 0.3, 0.3]))
    texture = atlas.sample(_painted(mean, open_mouth, colours, front), open_mouth, front)
    shown, triangle = _render(atlas, mean, open_mouth, texture, _photograph(mean, yaw)[1])
    inside = (triangle >= 0) & mouth[triangle.clamp_min(0)]
    assert inside.sum() > 100
    assert shown[:, inside].amin(0).quantile(0.05) > 0.7


def test_a_closed_mouth_is_darker_than_the_face(atlas, mean):
    photograph, camera = _photograph(mean, 0.0)
    texture = atlas.sample(photograph, mean.vertices, camera).float() / 255
    mouth, _ = _inner(mean)
    uv = corner_uv_of(atlas.textured(mean))[mouth].mean(1)
    inside = texture[:, ((1 - uv[:, 1]) * SIZE).long(), (uv[:, 0] * SIZE).long()]
    assert inside.mean(0).median() < 0.5 * _colours(mean.vertices).mean()


def test_colours_spread_to_the_ends_of_an_image():
    layers = torch.zeros(1, 4, 37, 61)
    layers[:, :, 3, 5] = torch.tensor([0.2, 0.4, 0.6, 1.0])
    colour = torch.tensor([0.2, 0.4, 0.6])[None, :, None, None]
    assert_close(spread_colours(layers), colour.expand(1, 3, 37, 61), rtol=0, atol=1e-3)
    assert_close(spread_colours(torch.zeros(1, 4, 5, 7)), torch.full((1, 3, 5, 7), 0.5))


def test_a_texture_in_very_many_pieces_is_refused():
    corner = np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    scale, starts = packed_pieces([corner, corner])
    assert scale > 0.6  # two triangles in the square, though not turned
    assert len(starts) == 2
    with pytest.raises(ValueError, match=r"at most 64 islands; this one has 65: use texture\.coordinates=model"):
        packed_pieces([corner] * 65)


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixels": torch.rand(1, 20, 20)}, "pixels must have trailing shape"),
        ({"pixels": torch.rand(2, 3, 20, 20)}, "pixels must be a photograph"),
        ({"pixels": torch.zeros(3, 0, 20)}, "pixels must be a photograph"),
        ({"pixels": torch.zeros(3, 20, 20, dtype=torch.int64)}, "pixels must be a photograph"),
        ({"pixels": torch.full((3, 20, 20), torch.nan)}, "must lie in"),
        ({"pixels": torch.full((3, 20, 20), 200.0)}, "divide it by 255"),
        ({"vertices": torch.zeros(7, 3)}, r"vertices must have trailing shape \(3960, 3\); got \(7, 3\)"),
        ({"vertices": torch.zeros(2, 3960, 3)}, "vertices must be that of one face"),
        ({"vertices": torch.full((3960, 3), torch.inf)}, "vertices must be finite"),
        ({"scale": torch.tensor(torch.nan)}, r"camera\.scale must be finite"),
        ({"scale": torch.tensor(0.0)}, r"camera\.scale must be positive"),
    ],
)
def test_wrong_photographs_and_faces_are_named(atlas, mean, change, words):
    photograph, camera = _photograph(mean, 0.0)
    given = {"pixels": photograph, "vertices": mean.vertices}
    given |= {name: value for name, value in change.items() if name in given}
    camera = replace(camera, **{name: value for name, value in change.items() if name not in given})
    with pytest.raises(ValueError, match=words):
        atlas.sample(given["pixels"], given["vertices"], camera)


def test_a_photograph_that_is_no_tensor_is_a_type_error(atlas, mean):
    with pytest.raises(TypeError, match="pixels"):
        atlas.sample(np.zeros((3, 20, 20)), mean.vertices, _photograph(mean, 0.0)[1])


def test_the_cameras_of_several_faces_are_refused(atlas, mean):
    photograph, camera = _photograph(mean, 0.0)
    with pytest.raises(ValueError, match=r"camera\.rotation must be that of one face"):
        atlas.sample(photograph, mean.vertices, Camera.stack([camera, camera]))
