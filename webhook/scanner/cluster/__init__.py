"""What the guarantees rest on in the cluster itself: nodes, RuntimeClasses, guards, registration, key server."""
