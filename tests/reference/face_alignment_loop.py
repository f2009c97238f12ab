"""face-alignment's own calls, picture by picture and face by face; slow."""

import numpy as np


def detect_one_by_one(native, pictures, reduced):
    """For each picture rows [(x0, y0, x1, y1, score), points [68, 2], point scores [68]] in the package's order.

    `native` is a FaceAlignment, `pictures` and `reduced` are [height, width, 3] of bytes: the faces are searched in the
    latter, landmarks in the former.
    """
    answers = []
    for picture, small in zip(pictures, reduced):
        ratio = np.array([small.shape[1] / picture.shape[1], small.shape[0] / picture.shape[0]] * 2)
        faces = []
        for row in native.face_detector.detect_from_image(small):
            box = np.append((row[:4] + 0.5) / ratio - 0.5, row[4]).astype(np.float64)
            points, scores, _ = native.get_landmarks_from_image(
                picture, detected_faces=[box], return_landmark_score=True
            )
            faces.append((box, points[0], np.asarray(scores[0])))
        answers.append(faces)
    return answers
