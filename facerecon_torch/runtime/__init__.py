"""Devices, memory, processes and timing of a run: what every other package may ask of the machine."""
