"""Tools that build the package's assets: the default face and the table of landmark noise."""
