"""Reads pose_k.poses: one photograph with the depth of every pixel."""

import numpy as np
import torch


def read_poses(file, *, height=480, width=640):
    """Colours [3, H, W] in [0, 1] and depths [H, W] in mm; fails for a file of another layout."""
    content, pixels = file.read_bytes(), height * width
    assert len(content) == 4 + 5 * pixels + 12
    assert int(np.frombuffer(content, "<i4", 1)[0]) == 1
    assert content[-12:] == bytes(12)
    colour = np.frombuffer(content, np.uint8, 3 * pixels, 4).reshape(height, width, 3)
    depth = np.frombuffer(content, "<u2", pixels, 4 + 3 * pixels).reshape(height, width)
    rgb = colour.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return torch.from_numpy(rgb), torch.from_numpy(depth.astype(np.float32))
