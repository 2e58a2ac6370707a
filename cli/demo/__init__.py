"""`make demo`: the main job on real input, as a story. The reviews are recordings from a real control plane."""
