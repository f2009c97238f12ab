"""eos-py (Apache-2.0, Patrik Huber) run on the same images and landmarks: its files, and its landmark fit."""
