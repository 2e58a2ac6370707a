"""`make demo`: the whole scenario on real parts.

The reviews are recordings from a real control plane; the pod's has the Service's `secret-password` annotation added.
"""
