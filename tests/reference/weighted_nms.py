"""Weighted non-maximum suppression as MediaPipe describes it: one face after the other, the surest first."""

import torch
import torchvision


def weighted_nms(points, scores, same_face):
    """(points, scores) of the faces among candidates of one picture; the first two points are corners."""
    left = torch.argsort(scores, descending=True).tolist()
    faces, best = [], []
    while left:
        top = left[0]
        boxes = points[left, :2].flatten(1)
        overlap = torchvision.ops.box_iou(points[top, :2].flatten()[None], boxes)[0]
        own = [k for k, value in zip(left, overlap.tolist()) if value > same_face or k == top]
        weights = scores[own].double()
        faces.append((points[own] * weights[:, None, None]).sum(0) / weights.sum())
        best.append(scores[top])
        left = [k for k in left if k not in own]
    return torch.stack(faces), torch.stack(best)
