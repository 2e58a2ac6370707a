"""From secrets to the bytes that are published: files, variables, templates. Pure; the plan decides."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from plan.document import EnvVariable, Plan, SecretFile
from plan.expansion import escaped, escapes_reference, split_expansions
from sidecar.errors import SidecarError
from sidecar.mounts import mount_of
from sidecar.publish.startup_variables import runs_code
from sidecar.reasons import Exit, Reason

Read = tuple[str, int | None]
Secrets = Mapping[Read, Mapping[str, Any]]

# The webhook has checked and expanded these (webhook/pod/references.py): PATH#KEY[@N] and nothing else is left.
_INLINE: Final = re.compile(r"\$\{vault:([^{}#]+)#([^{}#@]+)(?:@([1-9][0-9]{0,8}))?\}")
_OPEN: Final = "${vault:"
# sidecar/exec/contract.h: MAX_STRING with its final NUL; half of MAX_FILE, because `$` is written `$$`; MAX_PAIRS.
_MAX_PAIR: Final = 128 * 1024
_MAX_ENV_FILE: Final = 1024 * 1024
_MAX_PAIRS: Final = 4096


class File(NamedTuple):
    """A file's content and permission bits."""

    content: bytes
    mode: int

    def __repr__(self) -> str:  # without the content
        return f"File(mode={self.mode:o})"


def reads(plan: Plan) -> list[Read]:
    """Each distinct (path, version) once, in the plan's order. Raises SidecarError."""
    named: list[Read] = [(secret.path, secret.version) for secret in plan.secrets]
    named += [(source.path, source.version) for source in plan.env_from]
    for variable in plan.env:
        if variable.value is not None:
            named += [(path, version) for path, _, version in _inline(variable.value, variable.name)]
        else:
            named.append((variable.path or "", variable.version))
    found = list(dict.fromkeys(named))
    for path, _ in found if plan.agent == "init" else ():
        if mount_of(dict(plan.vault.mounts), path) is None:
            raise SidecarError(
                Reason.SECRET_PATH,
                f"{path} is not below a KV mount of the plan; a secret with a lease needs agent: sidecar",
            )
    return found


def files(plan: Plan, secrets: Secrets) -> dict[str, File]:
    """Relative path → file, for the secrets folder. Raises SidecarError."""
    found: dict[str, File] = {}
    for secret in plan.secrets:
        mode = int(secret.mode or plan.file_mode, 8)
        if secret.file in found:
            raise SidecarError(
                Reason.FILE_TWICE, f"two secrets would be written to {secret.file}; change one file annotation"
            )
        found[secret.file] = File(_content(secret, secrets[secret.path, secret.version]), mode)
    for name in found:
        parents = name.split("/")[:-1]
        if any("/".join(parents[: end + 1]) in found for end in range(len(parents))):
            raise SidecarError(Reason.FILE_TWICE, f"{name} lies below another secret's file")
    return found


def environments(plan: Plan, secrets: Secrets) -> dict[str, File]:
    """`env/CONTAINER` → NUL-separated pairs, as the exec helper reads and expands them. Raises SidecarError.

    A container that the plan names has a file even when there is nothing in it. Names as in a pod: `env` wins over
    `envFrom`, and a later `envFrom` over an earlier one.
    """
    containers = dict.fromkeys([each.container for each in plan.env_from] + [each.container for each in plan.env])
    return {
        f"env/{container}": File(_pairs(container, _variables(plan, secrets, container)), int(plan.file_mode, 8))
        for container in containers
    }


def _variables(plan: Plan, secrets: Secrets, container: str) -> dict[str, str]:
    """Values by name, in the exec helper's form: `$(NAME)` is expanded there, and `$$` is a `$`."""
    found: dict[str, str] = {}
    named = {variable.name for variable in plan.env if variable.container == container}
    for source in plan.env_from:
        if source.container == container:
            secret = secrets[source.path, source.version]
            for key in secret:
                # A variable that the plan names overrides the secret's key, and is the author's choice.
                if runs_code(key) and key not in named:
                    raise _unusable(
                        f"{source.path} has a key {key}, by which the secret would choose the code that runs in "
                        f"container {container}; remove the key, or name it: {key}: vault:{source.path}#{key}"
                    )
            found |= {key: escaped(_text(secret, source.path, key)) for key in secret}
    for variable in plan.env:
        if variable.container == container:
            if variable.value is not None:
                found[variable.name] = _expanded(variable, variable.value, secrets)
            else:
                path, key = variable.path or "", variable.key or ""
                found[variable.name] = escaped(_text(secrets[path, variable.version], path, key))
    return found


def _pairs(container: str, variables: Mapping[str, str]) -> bytes:
    pairs, size = [], 0
    for name, value in variables.items():
        # A name may be a key of the secret; it is printed only when it is a valid name.
        if not name or not all(" " <= letter <= "~" and letter != "=" for letter in name):
            raise _unusable(
                f"a key of a secret for container {container} is not a variable's name; name the keys one by one"
            )
        pair = f"{name}={value}".encode(errors="surrogatepass")
        if b"\0" in pair:
            raise _unusable(f"variable {name} of container {container} would hold a NUL; publish it as a file")
        length = len(pair) - pair.count(b"$$")
        if length >= _MAX_PAIR:
            raise _too_large(f"variable {name} of container {container}", _MAX_PAIR)
        pairs.append(pair + b"\0")
        size += length + 1
    content = b"".join(pairs)
    if size > _MAX_ENV_FILE or len(pairs) > _MAX_PAIRS:
        raise _too_large(f"the environment of container {container}", _MAX_ENV_FILE)
    return content


def _content(secret: SecretFile, data: Mapping[str, Any]) -> bytes:
    if secret.template is not None:
        # With a key, the template sees that key alone.
        if secret.key is not None:
            data = {secret.key: _value(data, secret.path, secret.key)}
        return _rendered(secret.template, secret.name, data).encode(errors="surrogatepass")
    if secret.key is not None:
        return _text(data, secret.path, secret.key).encode(errors="surrogatepass")
    return _json(data, secret.path)


def _rendered(template: str, name: str, data: Mapping[str, Any]) -> str:
    """A mustache template with the secret's keys at top level; `{{{key}}}` writes a value as it is.

    The library shows Python's attributes of values for dotted names that are not keys, reads files for partials and
    writes nothing for a name that does not exist. Here each of these is an error: an empty credential without a
    message costs days.
    """
    import chevron
    from chevron.tokenizer import tokenize

    try:
        tokens = list(tokenize(template))
    except Exception:  # of the library: ChevronError for syntax, IndexError for some of it
        raise _bad_template(name, "is not a mustache template") from None
    depth, dotted = 0, set[str]()
    for kind, key in tokens:
        if kind == "partial":
            raise _bad_template(name, "uses a partial, which is not supported")
        if kind in ("variable", "no escape") and depth == 0 and key not in data:
            raise _bad_template(name, f"names {key[:64]!r}, which the secret does not have", Exit.SECRET_MISSING)
        if kind in ("variable", "no escape", "section", "inverted section") and "." in key.strip("."):
            if key not in data:
                raise _bad_template(name, f"steps into a value by the dotted name {key[:64]!r}; use a section")
            dotted.add(key)
        depth += {"section": 1, "inverted section": 1, "end": -1}.get(kind, 0)
    try:
        prepared = {key: _for_template(value) for key, value in data.items() if key not in dotted}
        for key in dotted:
            _nest(prepared, key, _for_template(data[key]), name)
        return str(chevron.render(template, prepared, partials_path=None, partials_dict={}))
    except SidecarError:
        raise
    except Exception:  # its text may hold a value
        raise _bad_template(name, "cannot be rendered with this secret") from None


def _nest(prepared: dict[str, Any], key: str, value: Any, name: str) -> None:
    """Where the library, which takes names apart at their dots, finds a key such as `tls.crt`."""
    *parents, last = key.split(".")
    scope = prepared
    for part in parents:
        scope = scope.setdefault(part, _Parent())
        if type(scope) is not _Parent:
            break
    if (parents and type(scope) is not _Parent) or last in scope:
        raise _bad_template(name, f"uses {key[:64]!r}, beside which the secret has a key that it begins with")
    scope[last] = value


class _Parent(dict[str, Any]):
    """The first part of a dotted key, which is not a value of the secret."""


class _False(str):
    """Printed as JSON's false, and still false for a section."""

    _CHEVRON_return_scope_when_falsy = True

    def __bool__(self) -> bool:
        return False


def _for_template(value: Any) -> Any:
    """Numbers, true and false as JSON writes them; lists and objects for sections; null prints nothing."""
    if isinstance(value, dict):
        return {key: _for_template(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_for_template(each) for each in value]
    if value is False:
        return _False("false")
    return json.dumps(value) if isinstance(value, (int, float)) else value


def _expanded(variable: EnvVariable, value: str, secrets: Secrets) -> str:
    """The references resolved; what the exec helper shall not expand is escaped, above all what was fetched."""
    for path, key, version in _inline(value, variable.name):
        _text(secrets[path, version], path, key)  # the error names the first that is missing
    parts, literal = [], ""
    for text, name in split_expansions(value):
        if name in variable.expand:
            parts += [escaped(_resolved(literal, secrets)), text]
            literal = ""
        else:
            literal += text
    return "".join((*parts, escaped(_resolved(literal, secrets))))


def _resolved(text: str, secrets: Secrets) -> str:
    return _INLINE.sub(lambda match: _text(secrets[_read(match)], match[1], match[2]), text)


def _inline(value: str, name: str) -> Iterable[tuple[str, str, int | None]]:
    matches = list(_INLINE.finditer(value))
    if len(matches) != value.count(_OPEN) or escapes_reference(value):
        raise SidecarError(
            Reason.INLINE_REFERENCE, f"variable {name} holds a malformed inline reference; write ${{vault:PATH#KEY}}"
        )
    return [(match[1], match[2], _read(match)[1]) for match in matches]


def _read(match: re.Match[str]) -> Read:
    return match[1], int(match[3]) if match[3] else None


def _value(data: Mapping[str, Any], path: str, key: str) -> Any:
    if key not in data:
        raise SidecarError(Reason.KEY_MISSING, f"the secret {path} has no key {key}")
    return data[key]


def _text(data: Mapping[str, Any], path: str, key: str) -> str:
    value = _value(data, path, key)
    return value if isinstance(value, str) else _json(value, path).decode()


def _json(value: Any, path: str) -> bytes:
    """RFC 8785, so that the same secret is always the same bytes."""
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except (ValueError, RecursionError):
        raise _unusable(
            f"{path} has a number beyond 2^53, text that is not Unicode, or too many levels: store it as a string"
        ) from None


def _bad_template(name: str, words: str, exit_code: Exit | None = None) -> SidecarError:
    return SidecarError(Reason.TEMPLATE, f"the template of secret {name} {words}", exit_code=exit_code)


def _unusable(detail: str) -> SidecarError:
    return SidecarError(Reason.SECRET_UNUSABLE, detail)


def _too_large(what: str, limit: int) -> SidecarError:
    return SidecarError(Reason.TOO_LARGE, f"{what} is larger than {limit} bytes")
