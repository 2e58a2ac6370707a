"""The configuration file: read, and checked for rule ids, which the types cannot know."""

from __future__ import annotations

import difflib
from pathlib import Path

from server.yamlfile import ConfigurationError, Loaded, load
from webhook.configuration import Configuration
from webhook.rules import BY_ID


def load_configuration(path: Path) -> Loaded[Configuration]:
    """The configuration in the file, with the digest of the effective configuration. Raises ConfigurationError."""
    loaded = load(path, Configuration)
    problems = []
    for rule in loaded.value.rules:
        if rule not in BY_ID:
            near = difflib.get_close_matches(rule, BY_ID, 1)
            problems.append(f"{path}: rules: unknown rule {rule}" + (f", did you mean {near[0]}?" if near else ""))
    if problems:
        raise ConfigurationError(problems)
    return Loaded(loaded.value, loaded.value.digest)
