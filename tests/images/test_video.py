"""Video files: what is written comes back, damage is named, and PyAV is asked for only on use."""

import sys

import pytest
import torch

from facerecon_torch.errors import ImageFileError, MissingExtraError
from facerecon_torch.images.video import frame_rate, read_frames, write_video


def ramp(k, height=48, width=64):
    across = torch.linspace(0, 200, width).expand(height, width)
    return torch.stack([across, across.flip(1), torch.full_like(across, 8.0 * k)]).to(torch.uint8)


def test_frames_come_back_in_order_with_their_times(tmp_path):
    pytest.importorskip("av")
    frames = [ramp(k) for k in range(12)]
    path = write_video(tmp_path / "clip.mp4", 25, iter(frames))
    read = list(read_frames(path))
    assert float(frame_rate(path)) == 25
    assert [frame.seconds for frame in read] == pytest.approx([k / 25 for k in range(12)], abs=1e-3)
    for frame, wrote in zip(read, frames, strict=True):
        assert frame.pixels.shape == wrote.shape
        assert float((frame.pixels.float() - wrote.float()).abs().mean()) < 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4"]


def test_odd_sides_lose_a_row_and_other_sizes_are_refused(tmp_path):
    pytest.importorskip("av")
    path = write_video(tmp_path / "odd.mp4", 30, [ramp(k, 49, 65) for k in range(3)])
    assert next(read_frames(path)).pixels.shape == (3, 48, 64)
    with pytest.raises(ValueError, match=r"one size; got \[40, 64\] after \[48, 64\]"):
        write_video(tmp_path / "two.mp4", 30, [ramp(0), ramp(1, 40)])
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "none.mp4", 30, [])
    assert not (tmp_path / "two.mp4").exists()


def test_what_is_no_video_is_named(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "text.mp4").write_text("no video")
    for path in (tmp_path / "text.mp4", tmp_path / "missing.mp4"):
        with pytest.raises(ImageFileError, match=f"{path.name}: expected a video"):
            list(read_frames(path))


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'facerecon-torch\[video\]'"):
        list(read_frames(tmp_path / "clip.mp4"))
