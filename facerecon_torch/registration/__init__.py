"""Registration: a face model fitted to range scans, and the mesh deformed onto them."""
