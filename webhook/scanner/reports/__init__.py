"""Reports in the cluster's own formats, which existing dashboards read."""
