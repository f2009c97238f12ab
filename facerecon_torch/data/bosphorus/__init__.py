"""The Bosphorus 3D face database: names of scans, range grids, landmarks."""
