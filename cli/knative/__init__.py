"""The pod that a cluster's Knative Serving makes of a Service, offline: from the Service and the cluster's settings.

Source: knative.dev/serving, `pkg/reconciler/revision/resources` and `pkg/apis/serving/v1/*_defaults.go`.
"""
