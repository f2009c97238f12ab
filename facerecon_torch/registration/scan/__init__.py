"""Registration of a face model to range scans: landmarks, fit (S*), deformation (M) and measures."""
