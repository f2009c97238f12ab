"""MediaPipe's face networks: `FaceDetector` finds faces, `FaceMesh` gives 478 points of each (docs/detectors.md)."""

from facerecon_torch.landmarks.mediapipe.face_detector import FaceBoxes, FaceDetector
from facerecon_torch.landmarks.mediapipe.face_mesh import FaceMesh

__all__ = ["FaceBoxes", "FaceDetector", "FaceMesh"]
