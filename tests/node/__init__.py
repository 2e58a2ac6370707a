"""The node tier: a kubelet runs what Morphisms injects, under stock Knative, in namespaces of the run's own."""
