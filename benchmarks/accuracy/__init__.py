"""Errors of cascades and detectors on renders, photographs, a scan and people of other models: one command each."""
