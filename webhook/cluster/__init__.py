"""The cluster that decisions look at: a live one, or one described by a file (`protocol.Cluster`)."""
