"""Whether the application's containers may start while `morphisms-init` works: by a hook, without a startup probe.

A kubelet that waits for a startup probe looks at whole seconds, so it starts the application up to a second late. The
exec helper of a wrapped container waits for the secrets itself. So the application may start early if nothing of it
runs, and nothing counts it as ready, before the guest is attested and the secrets are published.
"""

from __future__ import annotations

from webhook.pod.container import Container
from webhook.pod.env_references import PROBES
from webhook.pod.pod import Pod
from webhook.wellknown import INITDATA, QUEUE_PROXY


def starts_by_hook(pod: Pod) -> bool:
    """Whether `morphisms-init`, a native sidecar, has the hook in place of the startup probe.

    Only behind Knative's queue-proxy: it asks the application itself, so the pod is not ready while the application's
    helper waits. Elsewhere a pod without a readiness probe would be, and a Job's pod that gave up would have failed. A
    guest with an initdata document may refuse to run the hook; ours does, and `render` names the template beforehand.
    """
    if not (pod.template.may_hook and pod.options.agent == "sidecar" and pod.is_knative):
        return False
    if INITDATA in pod.annotations or "template" in pod.own_annotations:
        return False
    if not any(each.name == QUEUE_PROXY for each in pod.containers if each.group == "containers"):
        return False
    started = [each for each in pod.checked if each.group != "ephemeralContainers"]
    return bool(started) and all(_is_wrapped(pod, each) and not _runs_more(each) for each in started)


def _is_wrapped(pod: Pod, container: Container) -> bool:
    """Whether the container's command runs through the exec helper, or will after the rewrite."""
    return container in pod.consumers and pod.receives_env(container) and bool(container.object.get("command"))


def _runs_more(container: Container) -> bool:
    """Whether the kubelet runs a command of the author's in the container as soon as that one has started."""
    handlers = [container.object.get(name) for name in PROBES]
    handlers.append((container.object.get("lifecycle") or {}).get("postStart"))
    return any(each and "exec" in each for each in handlers)
