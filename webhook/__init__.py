"""Admission: decide, patch, explain; the server around it; audit."""
