"""Waiting until the API server judges by the admission policies that it was given.

It takes policies up some time after they were written, and says so nowhere. Its informers see the policies in the order
of their writing, and the bindings likewise; what it judges by is one snapshot of both. So once a policy and a binding
that were written last refuse, all that were written before them are in force.
"""

from __future__ import annotations

import uuid
from typing import Final

from tests.cluster.client import Client, Object
from tests.support.until import until

_REGISTRATION: Final = "/apis/admissionregistration.k8s.io/v1"
_POLICIES: Final = f"{_REGISTRATION}/validatingadmissionpolicies"
_BINDINGS: Final = f"{_REGISTRATION}/validatingadmissionpolicybindings"
_CONFIG_MAPS: Final = "/api/v1/namespaces/default/configmaps"


def wait_for_policies(admin: Client) -> None:
    """Return when every ValidatingAdmissionPolicy and binding written so far is in force."""
    name = f"marker-{uuid.uuid4().hex}"
    attempt: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    admin.create(_POLICIES, _policy(name))
    admin.create(_BINDINGS, _binding(name))
    try:
        until(lambda: _is_refused_by(name, admin, attempt))
    finally:
        admin.delete(f"{_BINDINGS}/{name}")
        admin.delete(f"{_POLICIES}/{name}")


def _is_refused_by(name: str, admin: Client, attempt: Object) -> bool:
    answer = admin.request("POST", _CONFIG_MAPS, attempt, query={"dryRun": "All"})
    return answer.status >= 400 and f"ValidatingAdmissionPolicy '{name}'" in answer.message


def _policy(name: str) -> Object:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{**rule, "resourceNames": [name]}]},
            "validations": [{"expression": "false"}],
        },
    }


def _binding(name: str) -> Object:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
