"""`make demo`: the whole story on real parts. The reviews are recordings from a real control plane; the pod's got the
Service's `secret-password` annotation added."""
