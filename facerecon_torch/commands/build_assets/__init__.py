"""The tools that derive the package's assets: the default face and the table of landmark noise."""
