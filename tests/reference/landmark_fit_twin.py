"""Eq. 7 one face at a time with numpy: the same alternation, written as loops and dense least squares."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import torch

from tests.reference.camera_twin import solve_camera_slowly

FLIP = np.array([1.0, -1.0])


def fit_slowly(model, spec, landmarks, weights, scale=None):
    """The fit of one face: `landmarks` [66, 2], `weights` [66], `scale` None or a number."""
    data = SimpleNamespace(landmarks=landmarks, weights=weights, scale=scale)
    part = np.r_[np.full(49, spec.inner_weight), np.full(17, spec.contour_weight)]
    data.weights = data.weights * part
    alpha, beta = model.identity_mean.numpy(), model.expression_mean.numpy()
    chosen = model.topology.landmark_vertices.numpy()
    for _ in range(spec.rounds):
        matrix, offset = (part.numpy() for part in model.expression_design(torch.from_numpy(alpha)))
        camera, chosen = look_slowly(model, spec, matrix @ beta + offset, chosen, data)
        directions = directions_slowly(spec, (matrix @ beta + offset)[chosen], camera)
        prior = (model.expression_mean.numpy(), spec.expression_penalty / model.expression_variance.numpy())
        beta = least_squares(matrix[chosen], offset[chosen], camera, directions, data, *prior)
        alpha, beta = gauge(model, alpha, beta)
        matrix, offset = (part.numpy() for part in model.identity_design(torch.from_numpy(beta)))
        prior = (model.identity_mean.numpy(), spec.identity_penalty / model.identity_variance.numpy())
        alpha = least_squares(matrix[chosen], offset[chosen], camera, directions, data, *prior)
    points = model.vertices(torch.from_numpy(alpha), torch.from_numpy(beta)).numpy()
    camera, chosen = look_slowly(model, spec, points, chosen, data)
    return SimpleNamespace(alpha=alpha, beta=beta, camera=camera, contour=chosen[49:])


def gauge(model, alpha, beta):
    pair = model.fix_gauge(torch.from_numpy(alpha), torch.from_numpy(beta))
    return tuple(value.numpy() for value in pair)


def look_slowly(model, spec, points, chosen, data):
    camera = camera_slowly(points[chosen], data)
    if spec.contour == "fixed":
        return camera, chosen
    chosen = np.r_[chosen[:49], march_slowly(model, spec.marching, points, camera.rotation)]
    return camera_slowly(points[chosen], data), chosen


def camera_slowly(points, data):
    scale = None if data.scale is None else torch.tensor(data.scale, dtype=torch.float64)
    arrays = (torch.from_numpy(value) for value in (points, data.landmarks, data.weights))
    camera = solve_camera_slowly(*arrays, scale)
    return SimpleNamespace(
        rotation=camera.rotation.numpy(), scale=float(camera.scale), translation=camera.translation.numpy()
    )


def march_slowly(model, spec, points, rotation):
    """The vertex of every contour landmark by the rule of `march_contour`, line by line, vertex by vertex."""
    fixed = model.topology.landmark_vertices[49:].tolist()
    mean = model.vertices(model.identity_mean, model.expression_mean).numpy()
    roll = np.arctan2(rotation[1, 0] - rotation[0, 1], rotation[0, 0] + rotation[1, 1])
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    answer = []
    for i, line in enumerate(model.topology.contour_lines.tolist()):
        before, after = mean[fixed[max(i - 1, 0)], :2], mean[fixed[min(i + 1, 16)], :2]
        tangent = (after - before) / np.linalg.norm(after - before)
        outward = np.array([tangent[1], -tangent[0]])
        away = -rotation[2, :2] @ outward
        reluctance = np.clip(1 - away / np.sin(np.radians(spec.full_turn_degrees)), 0, 1) ** 2
        best, vertex, path = (turn @ outward) @ (rotation @ points[fixed[i]])[:2], fixed[i], 0.0
        front = [v for v in line if v >= 0]
        front = front[front.index(fixed[i]) :]
        for previous, candidate in pairwise(front):
            path += np.linalg.norm(mean[candidate] - mean[previous])
            reach = (turn @ outward) @ (rotation @ points[candidate])[:2] - reluctance * path
            if away > 0 and reach > best:
                best, vertex = reach, candidate
        answer.append(vertex)
    return np.array(answer)


def directions_slowly(spec, points, camera):
    """Rows along which each landmark's residual counts."""
    answer = [np.eye(2)] * 66
    if spec.contour_component == "full":
        return answer
    seen = (points @ camera.rotation.T)[:, :2]
    for i in range(49, 66):
        tangent = seen[min(i + 1, 65)] - seen[max(i - 1, 49)]
        answer[i] = np.array([[tangent[1], -tangent[0]]]) / np.linalg.norm(tangent)
    return answer


def least_squares(matrix, offset, camera, directions, data, mean, penalty):
    """The ridge solve as an ordinary least-squares problem with the prior as extra rows."""
    rows, goal = [np.diag(np.sqrt(penalty))], [np.sqrt(penalty) * mean]
    for i, direction in enumerate(directions):
        measured = FLIP * (data.landmarks[i] - camera.translation) / camera.scale
        axes = np.sqrt(data.weights[i]) * direction @ camera.rotation[:2]
        rows.append(axes @ matrix[i])
        goal.append(np.sqrt(data.weights[i]) * direction @ measured - axes @ offset[i])
    return np.linalg.lstsq(np.concatenate(rows), np.concatenate(goal), rcond=None)[0]
