"""Registration of a face model to range scans."""
