"""From landmarks to camera, parameters and canonical crops (Eq. 6, 7)."""
