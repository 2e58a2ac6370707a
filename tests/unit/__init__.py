"""Examples of the small parts that admission and the pod's sidecar stand on."""
