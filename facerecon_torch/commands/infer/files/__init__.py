"""Files of single faces and images beside the tables of a run."""
