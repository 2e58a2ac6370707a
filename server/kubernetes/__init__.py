"""The Kubernetes API over aiohttp: raw JSON by path, and what the servers build on that.

`client` sends requests, as whom `credentials` (a pod's service account) or `kubeconfig` (a person's) says. `reflector`
keeps a copy of a collection current, `objects` of one object, and `lease` elects a leader. `untyped` reads objects
whose shape is not to be trusted. `errors` shows what can go wrong. The page docs/decisions/kubernetes-client.md says
why this is not kubernetes-asyncio.
"""
