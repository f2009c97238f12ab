"""Files that show faces: textures, meshes and depth maps of `infer`, the gallery of `show`, the page of `view`."""

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import cKDTree
from skimage import data

from facerecon_torch.commands.cli import main
from facerecon_torch.commands.infer.files.mesh_files import FIT
from facerecon_torch.commands.view.command import open_viewer
from facerecon_torch.export.frames import DEPTH_ZERO
from facerecon_torch.export.glb import METRES_PER_UNIT
from tests.browser import open_browser

WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A result folder of one portrait, one picture without a face and one file that is no picture."""
    photographs = tmp_path_factory.mktemp("some photographs")
    Image.fromarray(data.astronaut()).save(photographs / "astronaut.png")
    Image.fromarray(np.full((120, 160, 3), 128, np.uint8)).save(photographs / "grey & <plain>.png")
    (photographs / "broken.jpg").write_bytes(b"no picture")
    output = tmp_path_factory.mktemp("results, öpened")
    words = [f"input={photographs}", f"output={output}", "landmarks=mediapipe", "runtime.progress=false"]
    assert main(["infer", *words, "formats=[json,obj,ply,glb,texture,depth,overlay]"]) == 1
    return output


@pytest.fixture(scope="module")
def neutral(results, tmp_path_factory) -> Path:
    """The same portrait without expression, in the frame of the camera."""
    output = tmp_path_factory.mktemp("neutral")
    photograph = results.parent / "some photographs0" / "astronaut.png"
    words = [f"input={photograph}", f"output={output}", "landmarks=mediapipe", "runtime.progress=false"]
    assert main(["infer", *words, "formats=[ply,glb]", "mesh.expression=neutral", "mesh.frame=camera"]) == 0
    return output


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = open_browser(tmp_path_factory.mktemp("profile"), *WEBGL)
    driver.set_window_size(1280, 860)
    yield driver
    driver.quit()


def test_every_format_is_written(results):
    names = {path.name for path in results.glob("astronaut*")}
    endings = (".json", ".obj", ".mtl", ".ply", ".glb", "_texture.png", "_depth.png", "_overlay.jpg")
    assert names == {f"astronaut{ending}" for ending in endings}


def _camera(folder):
    camera = json.loads((folder / "astronaut.json").read_text())["camera"]
    return {key: np.asarray(value) for key, value in camera.items()} | {
        "rotation": np.reshape(camera["rotation"], (3, 3))
    }


def test_the_texture_shows_the_portrait_in_obj_and_glb(results):
    png = np.asarray(Image.open(results / "astronaut_texture.png").convert("RGB")).astype(float)
    shape, camera = trimesh.load_mesh(results / "astronaut.obj", process=False), _camera(results)
    turned = np.asarray(shape.vertices) @ camera["rotation"].T
    x, y = (camera["scale"] * turned[:, :2] * [1, -1] + camera["translation"]).T
    facing = np.asarray(shape.vertex_normals) @ camera["rotation"].T[:, 2] > 0.8
    forehead = (x > 205) & (x < 245) & (y > 85) & (y < 105) & facing & (turned[:, 2] > np.median(turned[:, 2]))
    assert forehead.sum() > 20
    place = np.asarray(shape.visual.uv)[forehead] * [1, -1] + [0, 1]
    column, row = (place * (np.array(png.shape[1::-1]) - 1)).round().astype(int).T
    texels = png[row, column]
    photographed = data.astronaut()[y[forehead].round().astype(int), x[forehead].round().astype(int)]
    assert np.median(np.abs(texels - photographed)) < 10  # of 255: texels lie between pixels
    for name in ("astronaut.glb", "astronaut.obj"):
        mesh = trimesh.load_mesh(results / name, process=False)
        material = mesh.visual.material
        picture = material.baseColorTexture if hasattr(material, "baseColorTexture") else material.image
        assert np.array_equal(np.asarray(picture.convert("RGB")).astype(float), png)


def test_the_depth_map_lies_on_the_photograph_nearest_at_the_nose(results):
    depth = np.asarray(Image.open(results / "astronaut_depth.png")).astype(int)
    assert depth.shape == data.astronaut().shape[:2]
    document = json.loads((results / "astronaut.json").read_text())
    x, y = np.asarray(document["projected_2d"])[:49].T
    assert (depth[y.round().astype(int), x.round().astype(int)] > 0).all()
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    nose = np.abs(np.hypot(x - column, y - row)).argmin()
    assert 10 <= nose < 19  # of the 49 inner landmarks, brows first
    assert depth.max() > DEPTH_ZERO


def test_frame_and_expression_change_the_mesh(results, neutral):
    posed, still = (trimesh.load_mesh(folder / "astronaut.ply", process=False) for folder in (results, neutral))
    document = json.loads((results / "astronaut.json").read_text())
    camera = document["camera"]
    turned = np.asarray(posed.vertices) @ np.asarray(camera["rotation"]).reshape(3, 3).T
    x = camera["scale"] * np.asarray(still.vertices)[:, 0]
    assert abs(np.median(x - (camera["scale"] * turned[:, 0] + camera["translation"][0]))) < 1  # px of the image
    gap = np.linalg.norm(turned - turned.mean(0) - (still.vertices - still.vertices.mean(0)), axis=1)
    assert 0.3 < gap.max() < 25  # the smile


def test_show_sums_up_a_run(results, capsys):
    assert main(["show", str(results)]) == 0
    text = capsys.readouterr().out
    assert "no_face 1" in text
    assert "faces            1" in text
    assert str(results / "gallery.html") in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_gallery_opens_from_disk_and_filters(results, browser, scheme):
    assert main(["show", str(results)]) == 0
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get((results / "gallery.html").as_uri())
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
    cards = browser.execute_script("return [...document.querySelectorAll('li')].map(c => c.innerText)")
    assert len(cards) == 3
    assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert any("grey & <plain>.png" in card for card in cards)
    shown = "return [...document.querySelectorAll('li')].filter(c => !c.hidden).length"
    for field, value, count in (("status", "ok", 1), ("status", "", 3), ("words", "grey", 1), ("words", "", 3)):
        browser.execute_script(
            f"const f = document.getElementById('{field}'); f.value = '{value}'; f.dispatchEvent(new Event('input'))"
        )
        assert browser.execute_script(shown) == count
    links = browser.execute_script("return [...document.querySelectorAll('li a')].map(a => a.getAttribute('href'))")
    assert {link.rpartition(".")[2] for link in links} == {"jpg", "glb", "obj", "png", "json"}
    assert all((results / link).is_file() for link in links)


def _picture(browser, after: np.ndarray | None = None) -> np.ndarray:
    """The pixels of the scene, once it shows something else than `after` and does not change any more."""
    before = np.zeros(1)
    for _ in range(120):
        page = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")).astype(int)
        now = page[120:, :880]  # beside the panel of sliders, below messages of the browser
        still = now.shape == before.shape and np.array_equal(now, before) and now.min() < 128
        if still and (after is None or not np.array_equal(now, after)):
            return now
        before = now
        time.sleep(0.5)
    raise AssertionError("the scene stays empty or does not come to rest")


def test_a_slider_changes_the_face_in_the_browser(results, browser):
    viewer = open_viewer(results / "astronaut.json", port=8631)
    try:
        browser.get(viewer.address)
        first = _picture(browser)
        viewer._weights["jawOpen"].value = 1.0
        viewer.draw()
        changed = _picture(browser, first)
        assert 0.0005 < (np.abs(changed - first).max(-1) > 12).mean() < 0.3
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    finally:
        browser.get("about:blank")  # a page whose viewer is gone would go on calling it
        viewer.stop()


def test_a_glb_file_is_shown_with_its_weights_and_a_slider_for_each(results, browser):
    viewer = open_viewer(results / "astronaut.glb", port=8651)
    try:
        document = json.loads((results / "astronaut.json").read_text())
        names = [name for name in document["expression_weights"] if name != "neutral"]
        assert list(viewer.weights) == [*names, FIT]
        posed = np.asarray(trimesh.load_mesh(results / "astronaut.ply", process=False).vertices)
        gap, _ = cKDTree(np.asarray(viewer.mesh().vertices) / METRES_PER_UNIT).query(posed)
        assert gap.max() < 0.05  # mm; the sliders have steps of 0.001
        browser.get(viewer.address)
        first = _picture(browser)
        assert first.std() > 10
        viewer.weights["jawOpen"].value = 1.0
        viewer.draw()
        assert 0.0005 < (np.abs(_picture(browser, first) - first).max(-1) > 12).mean() < 0.3
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    finally:
        browser.get("about:blank")  # a page whose viewer is gone would go on calling it
        viewer.stop()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "nowhere"], "a picture of a model needs OUT.png"),
        (["show", "."], "expected a result folder"),
        (["view", "face.png"], "expected a face (.json) or a mesh"),
        (["view", "none.json"], "none.json"),
        (["view", "other.json"], "expected a face of facerecon infer"),
        (["view", "empty.obj"], "expected a mesh with triangles"),
        (["view", "points.ply"], "expected a mesh with triangles"),
        (["view", "cut.ply"], "expected a PLY file"),
        (["view", "outside.obj"], "expected an OBJ file"),
        (["view", "nan.obj"], "expected finite vertices; 1 of 3 are not"),
        (["view", "point.obj"], "expected a mesh of some size"),
        (["view", "good.obj", "--port", "70000"], "port must lie in 1 to 65535; got 70000"),
        (["view", "good.obj", "--port", "0"], "port must lie in 1 to 65535; got 0"),
        (["view", "good.obj", "--host", "203.0.113.9"], "host must be an address of this machine; got '203.0.113.9'"),
    ],
)
def test_wrong_calls_are_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "empty.obj").write_text("v 0 0 0\n")
    head = "ply\nformat ascii 1.0\nelement vertex 1\n"
    (tmp_path / "cut.ply").write_text(head)
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    (tmp_path / "points.ply").write_text(f"{head}{axes}end_header\n0 0 0\n")
    for name, first, last in (("good", "0", 3), ("nan", "nan", 3), ("outside", "0", 9)):
        (tmp_path / f"{name}.obj").write_text(f"v 0 0 {first}\nv 1 0 0\nv 0 1 0\nf 1 2 {last}\n")
    (tmp_path / "point.obj").write_text("v 0 0 0\n" * 3 + "f 1 2 3\n")
    assert main(words) == 2
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda face: face.pop("camera"), "it lacks 'camera'"),
        (lambda face: face.pop("image"), "it lacks 'image'"),
        (lambda face: face.update(camera=[]), "it is damaged"),
        (lambda face: face.update(image=7), "it is damaged"),
        (lambda face: face.update(expression_weights=[1.0]), "it is damaged"),
        (lambda face: face.update(alpha="many"), "it is damaged"),
        (lambda face: face.update(alpha=[float("nan")] * 50), "parameters.identity must be finite"),
        (lambda face: face.update(landmarks_3d=[[0.0, 0.0, 0.0]]), "it is damaged"),
        (lambda face: face["camera"].update(scale=0.0), "camera.scale must be positive"),
    ],
)
def test_damaged_faces_are_refused_in_one_line(results, change, message, tmp_path, capsys):
    document = json.loads((results / "astronaut.json").read_text())
    change(document)
    (tmp_path / "face.json").write_text(json.dumps(document))
    assert main(["view", str(tmp_path / "face.json")]) == 2
    text = capsys.readouterr().err
    assert "face.json: expected a face of facerecon infer; " in text
    assert message in text
    assert text.count("\n") == 1
