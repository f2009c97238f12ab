"""The same method written plainly: numpy, one face at a time, a loop wherever the paper has a sum over things.

Camera by least squares and SVD (Eq. 6), landmark fit with a fixed contour (Eq. 7), HOG (UoCTTI, linear votes) of each
patch with its halo (Section 3.3), displacements (Eq. 8, 9) and x + W'h + b (Eq. 11). It is what somebody who knows the
paper would write first, and it agrees with the product.
"""

from dataclasses import dataclass

import numpy as np

from facerecon_torch.features.hog import HogSpec
from facerecon_torch.features.hog.gradients import TIE_SHARE
from facerecon_torch.fitting.landmark_fit import FitSpec
from facerecon_torch.model.base import FaceModel
from facerecon_torch.regression import Cascade

__all__ = ["PlainCamera", "PlainFace", "PlainModel", "describe_patch", "fit_landmarks", "run_cascade", "solve_camera"]

_INNER = 49
_FLIP = np.array([1.0, -1.0])
_CORNERS = ((-1, -1), (-1, 0), (0, -1), (0, 0))  # of the four blocks that hold a cell
_FLOOR = 1e-4  # added to the energy of a block


@dataclass
class PlainCamera:
    """p = s F (R v)_xy + t."""

    rotation: np.ndarray
    scale: float
    translation: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        return self.scale * (points @ self.rotation.T)[:, :2] * _FLIP + self.translation


@dataclass
class PlainModel:
    """The rows of a bilinear model at its 66 landmarks, contour fixed; float64."""

    core: np.ndarray  # [66, 3, I, E]
    identity_mean: np.ndarray
    identity_variance: np.ndarray
    expression_mean: np.ndarray
    expression_variance: np.ndarray
    gauge_direction: np.ndarray

    @classmethod
    def of(cls, model: FaceModel) -> "PlainModel":
        if model.topology is None:
            raise ValueError("the plain pipeline needs a whole model; this one was restricted to some vertices")
        names = ("identity_mean", "identity_variance", "expression_mean", "expression_variance", "gauge_direction")
        rows = model.core[model.topology.landmark_vertices]  # type: ignore[index]
        return cls(*(t.detach().cpu().double().numpy() for t in (rows, *(getattr(model, name) for name in names))))

    def points(self, alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
        return np.einsum("vdie,i,e->vd", self.core, alpha, beta)

    def gauge(self, alpha: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(c alpha, beta / c): beta's component along its mean becomes 1."""
        c = float(beta @ self.gauge_direction / (self.gauge_direction @ self.gauge_direction))
        return alpha * c, beta / c


def solve_camera(points: np.ndarray, landmarks: np.ndarray, weights: np.ndarray) -> PlainCamera:
    """Eq. 6: weighted least squares for a 2x3 matrix, the nearest rotation by SVD, then s and t again."""
    share = weights / weights.sum()
    mean3, mean2 = share @ points, share @ (landmarks * _FLIP)
    solid, flat = points - mean3, landmarks * _FLIP - mean2
    root = np.sqrt(share)[:, None]
    affine = np.linalg.lstsq(root * solid, root * flat, rcond=None)[0].T
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    two = left @ right
    rotation = np.vstack([two, np.cross(two[0], two[1])])
    seen = solid @ two.T
    scale = float((share[:, None] * seen * flat).sum() / (share[:, None] * seen**2).sum())
    return PlainCamera(rotation, scale, (mean2 - scale * (two @ mean3)) * _FLIP)


def contour_normals(line: np.ndarray) -> np.ndarray:
    """Unit normals of the projected contour, one a landmark; a tangent joins its two neighbours."""
    tangents = np.empty_like(line)
    for k in range(len(line)):
        tangents[k] = line[min(k + 1, len(line) - 1)] - line[max(k - 1, 0)]
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    return np.stack([-tangents[:, 1], tangents[:, 0]], 1)


@dataclass
class PlainFace:
    """The answer for one face."""

    identity: np.ndarray
    expression: np.ndarray
    camera: PlainCamera


def fit_landmarks(model: PlainModel, landmarks: np.ndarray, spec: FitSpec) -> PlainFace:
    """Eq. 7 by turns: expression, then identity, `spec.rounds` times."""
    weights = np.r_[np.full(_INNER, spec.inner_weight), np.full(len(landmarks) - _INNER, spec.contour_weight)]
    alpha, beta = model.identity_mean, model.expression_mean
    for _ in range(spec.rounds):
        points = model.points(alpha, beta)
        camera = solve_camera(points, landmarks, weights)
        axes, goal = _system(camera, points, landmarks, weights)
        design = np.einsum("vdie,i->vde", model.core, alpha)
        penalty = spec.expression_penalty / model.expression_variance
        beta = _ridge(axes, goal, design, penalty, model.expression_mean)
        alpha, beta = model.gauge(alpha, beta)
        design = np.einsum("vdie,e->vdi", model.core, beta)
        penalty = spec.identity_penalty / model.identity_variance
        alpha = _ridge(axes, goal, design, penalty, model.identity_mean)
        alpha, beta = model.gauge(alpha, beta)
    return PlainFace(alpha, beta, solve_camera(model.points(alpha, beta), landmarks, weights))


def _system(
    camera: PlainCamera, points: np.ndarray, landmarks: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (a, g) with a . v = g in mm: both axes of inner landmarks, the normal alone of contour landmarks."""
    measured = (landmarks - camera.translation) / camera.scale * _FLIP
    normals = contour_normals(camera.project(points)[_INNER:] * _FLIP)
    axes, goal = [], []
    for k, weight in enumerate(np.sqrt(weights)):
        for direction in np.eye(2) if k < _INNER else normals[k - _INNER : k - _INNER + 1]:
            axes.append((k, weight * direction @ camera.rotation[:2]))
            goal.append(weight * direction @ measured[k])
    return np.array([np.r_[k, axis] for k, axis in axes]), np.array(goal)


def _ridge(axes: np.ndarray, goal: np.ndarray, design: np.ndarray, penalty: np.ndarray, mean: np.ndarray) -> np.ndarray:
    matrix = np.array([axis[1:] @ design[int(axis[0])] for axis in axes])
    system = matrix.T @ matrix + np.diag(penalty)
    return np.asarray(np.linalg.solve(system, matrix.T @ goal + penalty * mean))


def displacements(landmarks: np.ndarray, projected: np.ndarray, scale: float) -> np.ndarray:
    """Eq. 8 and 9 in mm; of contour landmarks the component across the contour."""
    moved = (landmarks - projected) / scale
    normals = contour_normals(projected[_INNER:])
    moved[_INNER:] = (moved[_INNER:] * normals).sum(1, keepdims=True) * normals
    return moved


def describe_patch(crop: np.ndarray, centre: np.ndarray, spec: HogSpec) -> np.ndarray:
    """UoCTTI HOG of the patch around one point of a crop [h, w, 3]: histograms of the patch and of a ring of cells
    around it, four normalisations, 18 + 9 + 4 numbers a cell. The patch is resampled first."""
    if spec.variant != "uoctti" or spec.vote != "linear" or not spec.colour:
        raise ValueError(f"the plain pipeline knows uoctti with linear votes on colour; got {spec}")
    cell, cells = spec.cell_px, spec.cells
    margin = cell + cell // 2 + 1  # a ring of cells for the norms, what they reach beyond, a pixel for gradients
    start, side = centre - spec.patch_px // 2 - margin, spec.patch_px + 2 * margin
    patch = np.pad(_cut(crop, start, side), ((1, 1), (1, 1), (0, 0)), mode="edge")
    dx, dy = patch[1:-1, 2:] - patch[1:-1, :-2], patch[2:, 1:-1] - patch[:-2, 1:-1]
    strongest = _steepest(dx**2 + dy**2)[..., None]
    dx, dy = (np.take_along_axis(d, strongest, 2)[..., 0] for d in (dx, dy))
    inside = [_inside(start[axis], side, crop.shape[1 - axis]) for axis in (0, 1)]
    magnitude = np.hypot(dx, dy) * inside[1][:, None] * inside[0]
    return _normalise(_pool(magnitude, np.arctan2(dy, dx), spec, margin), cells)


def _steepest(squared: np.ndarray) -> np.ndarray:
    """The channel of the longest gradient; a later one has to be longer by more than rounding."""
    chosen, largest = np.zeros(squared.shape[:2], dtype=int), squared[..., 0]
    for channel in range(1, squared.shape[2]):
        longer = squared[..., channel] > (1 + TIE_SHARE) * largest
        chosen, largest = np.where(longer, channel, chosen), np.where(longer, squared[..., channel], largest)
    return chosen


def _inside(start: float, side: int, extent: int) -> np.ndarray:
    """1 for pixels within the crop, falling to 0 within a px beyond its border."""
    place = start + np.arange(side)
    return np.clip(np.minimum(place + 1, extent - place), 0, 1)


def _cut(crop: np.ndarray, start: np.ndarray, side: int) -> np.ndarray:
    """A window of the crop, bilinear; its border repeats."""
    low = np.floor(start).astype(int)
    fx, fy = start - low
    x = np.clip(low[0] + np.arange(side + 1), 0, crop.shape[1] - 1)
    y = np.clip(low[1] + np.arange(side + 1), 0, crop.shape[0] - 1)
    window = crop[np.ix_(y, x)]
    across = window[:, :-1] * (1 - fx) + window[:, 1:] * fx
    return np.asarray(across[:-1] * (1 - fy) + across[1:] * fy)


def _pool(magnitude: np.ndarray, angle: np.ndarray, spec: HogSpec, margin: int) -> np.ndarray:
    """Histograms [cells + 2, cells + 2, 18]: votes shared between two orientations and four cells; an orientation's
    centre lies at a whole multiple of 20 degrees."""
    place = np.mod(angle / np.pi * 9, 18)
    low = np.floor(place).astype(int)
    share = place - low
    votes = np.zeros((*magnitude.shape, 18))
    rows, columns = np.indices(magnitude.shape)
    votes[rows, columns, low % 18] += magnitude * (1 - share)
    votes[rows, columns, (low + 1) % 18] += magnitude * share
    pixels = np.arange(len(magnitude)) - margin
    centres = (np.arange(-1, spec.cells + 1) + 0.5) * spec.cell_px - 0.5
    weight = np.maximum(0, 1 - np.abs(centres[:, None] - pixels) / spec.cell_px)
    return np.einsum("ay,yxo,bx->abo", weight, votes, weight, optimize=True)


def _normalise(histograms: np.ndarray, cells: int) -> np.ndarray:
    undirected = histograms[..., :9] + histograms[..., 9:]
    energy = (undirected**2).sum(-1)
    out = np.zeros((cells, cells, 31))
    for y in range(1, cells + 1):
        for x in range(1, cells + 1):
            both = np.r_[histograms[y, x], undirected[y, x]]
            for k, (sy, sx) in enumerate(_CORNERS):
                block = energy[y + sy : y + sy + 2, x + sx : x + sx + 2].sum()
                clipped = np.minimum(both / np.sqrt(block + _FLOOR), 0.2)
                out[y - 1, x - 1, :27] += 0.5 * clipped
                out[y - 1, x - 1, 27 + k] = clipped[18:].sum() / np.sqrt(18)
    return out.reshape(-1)


def run_cascade(
    model: PlainModel, cascade: Cascade, crop: np.ndarray, landmarks: np.ndarray, fit: FitSpec, hog: HogSpec
) -> PlainFace:
    """All stages for one face whose crop [h, w, 3] and landmarks (px of the crop) are given."""
    face = fit_landmarks(model, landmarks, fit)
    weights = np.r_[np.full(_INNER, fit.inner_weight), np.full(len(landmarks) - _INNER, fit.contour_weight)]
    for stage in cascade.stages:
        points = model.points(face.identity, face.expression)
        camera = solve_camera(points, landmarks, weights)
        projected = camera.project(points)
        feature = [describe_patch(crop, point, hog) for point in projected]
        feature.append(displacements(landmarks, projected, camera.scale).reshape(-1))
        scales = np.repeat(stage.block_scales.double().numpy(), stage.block_sizes)
        moved = (np.concatenate(feature) * scales) @ stage.ridge.weight.double().numpy() + stage.ridge.bias.numpy()
        flat = np.r_[face.identity, face.expression] + moved
        alpha, beta = model.gauge(flat[: len(face.identity)], flat[len(face.identity) :])
        face = PlainFace(alpha, beta, camera)
    return face
