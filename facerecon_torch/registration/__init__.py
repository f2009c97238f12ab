"""Registration of scans (`scan`) and of imported face models (`topology`); both share `surface_parts` alone."""
