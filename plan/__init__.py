"""The plan: the contract between admission, which writes it into a pod, and the sidecar, which reads it there.

`document` has its types, `codec` its form as text, `layout` the names, paths and ports of the pod that both sides use.
"""
