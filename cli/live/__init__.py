"""A live cluster as commands read it: by a person's kubeconfig, with get and list alone, and never a Secret."""
