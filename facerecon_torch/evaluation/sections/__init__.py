"""Sections of the page: what each experiment shows of a study."""
