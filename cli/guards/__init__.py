"""The ValidatingAdmissionPolicies whose lists depend on the webhook's configuration.

Each is a YAML file of this folder with `@NAME@` in place of a list. The manifests hold what the default configuration
gives: `python -m tests.manifests` writes them, and a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Final

from webhook.configuration.model import Configuration
from webhook.wellknown import KMS_NAMESPACE

GUARDS: Final = ("injection-present", "runtime-class-guard", "knative-labels", "verifier-token")
"""The first one is in `base`, the others are in the component `cluster-guards`."""

_PLACE: Final = re.compile(r"@([a-z_]+)@")


def guard(name: str, configuration: Configuration) -> str:
    """The policy as one YAML document, with comments and without a binding."""
    lists = _lists(configuration)
    template = files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return _PLACE.sub(lambda match: lists[match[1]], template)


def _lists(configuration: Configuration) -> dict[str, str]:
    """CEL by the name of its place."""
    allowed = {"": _allowed(configuration, "")}
    for namespace in sorted({*configuration.namespaces, KMS_NAMESPACE}):
        allowed[namespace] = _allowed(configuration, namespace)
    used = [
        configuration.profile_by_name[name] for name in sorted({name for names in allowed.values() for name in names})
    ]
    handlers: dict[str, list[str]] = {}
    for _, profile in sorted(configuration.profile_by_name.items()):
        for runtime_class in profile.runtimeClasses:
            known = handlers.setdefault(runtime_class, [])
            known += [each for each in profile.handlers if each not in known]
    return {
        "profiles": _map(allowed),
        "runtime_classes": _map({profile.name: profile.runtimeClasses for profile in used}),
        "injecting": _list(profile.name for profile in used if profile.injects),
        "handlers": _map(dict(sorted(handlers.items()))),
        "knative": _list(configuration.identities.knative),
        "pod_controllers": _list(configuration.identities.podControllers),
        "audience": _text(configuration.verifier.audience),
    }


def _allowed(configuration: Configuration, namespace: str) -> list[str]:
    """The profiles of the namespace's pods, its default first. No namespace has an empty name: it has no entry."""
    default = configuration.default_profile_of(namespace)
    return [default, *sorted(configuration.profiles_allowed_in(namespace) - {default})]


def _map(lists: Mapping[str, Iterable[str]]) -> str:
    return "{" + ", ".join(f"{_text(key)}: {_list(values)}" for key, values in lists.items()) + "}"


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(map(_text, values)) + "]"


def _text(value: str) -> str:
    """A CEL string literal of printable ASCII, so that YAML has nothing to interpret in it."""
    plain = (each if " " <= each <= "~" and each not in "\\'" else f"\\U{ord(each):08x}" for each in value)
    return f"'{''.join(plain)}'"
