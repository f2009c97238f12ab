"""One identity per subject, solved over the tables of a run that is complete."""
