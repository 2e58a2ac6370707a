"""`morphisms migrate` as an author runs it: a manifest with comments, and a real OpenBao."""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.commands import migrate
from cli.main import main
from cli.migration.store import SecretStore, Write
from cli.support import whole_file
from tests.support.openbao import ROOT_TOKEN, OpenBao, openbao

PASSWORD, TOKEN = "tr0ub4dor&3", "ghp_" + "Zx81kQ" * 6
DIGEST = "sha256:" + "a" * 64
SERVICE = f"""\
# Payments of the shop.
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: payments
  namespace: shop   # the team's
spec:
  template:
    spec:
      containers:
        - image: registry.example/payments@{DIGEST}
          command: ["/app"]   # its entrypoint
          env:
            # The level of the log.
            - name: LOG_LEVEL
              value: debug
            - name: DB_PASSWORD
              value: "{PASSWORD}"   # ask the database's owner
            - {{name: GIT_TOKEN, value: {TOKEN}}}
"""


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with openbao(tmp_path_factory.mktemp("openbao")) as server:
        yield server


class Done:
    """One run: its exit code, and everything that it printed, which holds neither value."""

    def __init__(self, code: int, out: str, err: str, secrets: tuple[str, ...]) -> None:
        self.code, self.out, self.err = code, out, err
        for secret in secrets:
            assert secret not in out + err


class Author:
    """A folder with a manifest, and the command as its author runs it. `path` is a secret that this test alone has."""

    def __init__(self, folder: Path, path: str, bao: OpenBao, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = folder / "service.yaml"
        self.file.write_text(SERVICE)
        self.path, self.bao, self._capsys = path, bao, capsys

    def run(self, *options: str, path: str | None = None, secrets: tuple[str, ...] = (PASSWORD, TOKEN)) -> Done:
        at = ("--vault-path", path or self.path, "--vault-url", self.bao.url)
        code = main(["migrate", "-f", str(self.file), *at, *options])
        return Done(code, *self._capsys.readouterr(), secrets)

    def stored(self, path: str | None = None) -> tuple[dict[str, str] | None, int]:
        """The secret's keys and its version; (None, 0) where there is none."""
        mount, _, rest = (path or self.path).partition("/")
        status, answer = self.bao.call("GET", f"{mount}/data/{rest}")
        return (None, 0) if status == 404 else (answer["data"]["data"], answer["data"]["metadata"]["version"])

    def store(self, data: dict[str, str]) -> None:
        mount, _, rest = self.path.partition("/")
        self.bao.done("POST", f"{mount}/data/{rest}", {"data": data})


@pytest.fixture
def author(
    tmp_path: Path,
    bao: OpenBao,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Author:
    monkeypatch.setenv("VAULT_TOKEN", ROOT_TOKEN)
    name = "".join(each if each.isalnum() else "-" for each in request.node.name)
    return Author(tmp_path, f"secret/{name}", bao, capsys)


def test_values_move_into_vault_and_comments_and_order_stay(author: Author) -> None:
    done = author.run()
    assert done.code == 0, done.err
    assert author.stored() == ({"DB_PASSWORD": PASSWORD, "GIT_TOKEN": TOKEN}, 1)
    text = author.file.read_text()
    lines = iter(text.splitlines())
    expected = SERVICE.replace(PASSWORD, f"vault:{author.path}#DB_PASSWORD").replace(
        TOKEN, f"vault:{author.path}#GIT_TOKEN"
    )
    for line in expected.splitlines():
        assert line in lines, line  # in this order, other lines between them
    [document] = yaml.safe_load_all(text)
    assert document["spec"]["template"]["metadata"] == {"annotations": {"morphisms.dev/inject": "true"}}
    assert main(["check", "-f", str(author.file)]) == 0
    assert "rotate, because those copies hold the old values: DB_PASSWORD (" in done.out
    assert "`kubectl get revisions -n shop -l serving.knative.dev/service=payments` lists them" in done.out


def test_a_dry_run_sends_nothing_and_leaves_the_file(author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_TOKEN")
    done = author.run("--dry-run")
    assert done.code == 1
    assert f"would move: Service/shop/payments: container user-container: DB_PASSWORD -> {author.path}#" in done.out
    assert f"+          value: vault:{author.path}#DB_PASSWORD" in done.out
    assert (author.file.read_text(), author.stored()) == (SERVICE, (None, 0))


def test_a_second_run_changes_nothing(author: Author) -> None:
    author.run()
    text = author.file.read_text()
    done = author.run()
    assert (done.code, done.out.splitlines()[0]) == (0, "nothing to move")
    assert (author.file.read_text(), author.stored()[1]) == (text, 1)


def test_a_run_that_dies_before_the_file_is_replaced_loses_nothing(
    author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(migrate, "write_whole", die)
        with pytest.raises(KeyboardInterrupt):
            author.run()
    assert author.file.read_text() == SERVICE
    assert author.stored()[0] == {"DB_PASSWORD": PASSWORD, "GIT_TOKEN": TOKEN}
    assert author.run().code == 0
    assert author.stored()[1] == 1  # the values were there: no second version
    assert PASSWORD not in author.file.read_text()


def test_a_file_that_cannot_be_replaced_stays_whole(author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_file.os, "fsync", full)
    done = author.run()
    assert (done.code, "No space left on device" in done.err) == (2, True)
    assert author.file.read_text() == SERVICE
    assert [each.name for each in author.file.parent.iterdir()] == ["service.yaml"]


def test_an_editor_that_saves_meanwhile_keeps_its_change(author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    write = SecretStore.write

    def and_save(self: SecretStore, each: Write) -> None:
        write(self, each)
        author.file.write_text(SERVICE + "# saved\n")

    monkeypatch.setattr(SecretStore, "write", and_save)
    done = author.run()
    assert (done.code, "was changed meanwhile" in done.err) == (2, True)
    assert author.file.read_text() == SERVICE + "# saved\n"


def test_other_keys_of_the_secret_stay(author: Author) -> None:
    author.store({"older": "kept", "DB_PASSWORD": PASSWORD})
    assert author.run().code == 0
    assert author.stored() == ({"older": "kept", "DB_PASSWORD": PASSWORD, "GIT_TOKEN": TOKEN}, 2)


def test_a_key_with_another_value_is_never_written_over(author: Author) -> None:
    author.store({"GIT_TOKEN": "of another team"})
    done = author.run()
    assert (done.code, "has a key GIT_TOKEN with another value" in done.err) == (2, True)
    assert author.stored() == ({"GIT_TOKEN": "of another team"}, 1)
    assert author.file.read_text() == SERVICE


def test_two_runs_at_once_overwrite_nothing(author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    write = SecretStore.write

    def too_late(self: SecretStore, each: Write) -> None:
        author.store({"of-the-other": "kept"})
        write(self, each)

    with monkeypatch.context() as patched:
        patched.setattr(SecretStore, "write", too_late)
        done = author.run()
    assert (done.code, "was changed by another client meanwhile" in done.err) == (2, True)
    assert (author.file.read_text(), author.stored()) == (SERVICE, ({"of-the-other": "kept"}, 1))
    assert author.run().code == 0
    assert author.stored()[0] == {"of-the-other": "kept", "DB_PASSWORD": PASSWORD, "GIT_TOKEN": TOKEN}


def test_a_deleted_secret_gets_a_new_version(author: Author) -> None:
    author.store({"GIT_TOKEN": "old"})
    author.bao.done("DELETE", author.path.replace("secret/", "secret/data/"))
    assert author.run().code == 0
    assert author.stored() == ({"DB_PASSWORD": PASSWORD, "GIT_TOKEN": TOKEN}, 2)


def test_several_secrets_of_which_one_is_refused(author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    author.file.write_text(f"{SERVICE}---\n{SERVICE.replace('payments', 'orders')}")
    folder = author.path.removeprefix("secret/")
    rules = [f'path "secret/data/{folder}/shop/payments" {{ capabilities = ["read", "create", "update"] }}']
    rules += [f'path "secret/data/{folder}/shop/orders" {{ capabilities = ["read"] }}']
    author.bao.done("PUT", f"sys/policies/acl/{folder}", {"policy": "\n".join(rules)})
    token = author.bao.done("POST", "auth/token/create", {"policies": [folder]})["auth"]["client_token"]
    paths = f"{author.path}/{{namespace}}/{{name}}"
    monkeypatch.setenv("VAULT_TOKEN", token)
    done = author.run(path=paths)
    assert done.code == 2
    assert "permission denied: the token lacks create and update on secret/data/" in done.err
    assert author.stored(f"{author.path}/shop/orders") == (None, 0)
    assert author.file.read_text().count(PASSWORD) == 2
    monkeypatch.setenv("VAULT_TOKEN", ROOT_TOKEN)
    assert author.run(path=paths).code == 0
    assert author.stored(f"{author.path}/shop/payments")[1] == author.stored(f"{author.path}/shop/orders")[1] == 1


def test_two_workloads_with_different_values_need_two_secrets(author: Author) -> None:
    other = SERVICE.replace("payments", "orders").replace(PASSWORD, "an0ther-pass")
    author.file.write_text(f"{SERVICE}---\n{other}")
    done = author.run(secrets=(PASSWORD, TOKEN, "an0ther-pass"))
    assert (done.code, "--vault-path secret/{namespace}/{name}" in done.err) == (2, True)
    assert author.stored() == (None, 0)


def test_two_containers_with_different_values_share_a_secret(author: Author) -> None:
    container = SERVICE[SERVICE.index("        - image") :]
    first = container.replace("- image", "- name: a\n          ports: [{containerPort: 80}]\n          image")
    second = container.replace("- image", "- name: b\n          image").replace(PASSWORD, "an0ther-pass")
    author.file.write_text(SERVICE.replace(container, first + second))
    assert author.run(secrets=(PASSWORD, TOKEN, "an0ther-pass")).code == 0
    assert author.stored()[0] == {"DB_PASSWORD": PASSWORD, "GIT_TOKEN": TOKEN, "b.DB_PASSWORD": "an0ther-pass"}
    assert f"vault:{author.path}#b.DB_PASSWORD" in author.file.read_text()


def test_what_kubernetes_makes_of_dollars_is_what_vault_holds(author: Author) -> None:
    author.file.write_text(SERVICE.replace(PASSWORD, "pa$$w0rd$x9"))
    assert author.run(secrets=("pa$$w0rd$x9", "pa$w0rd$x9")).code == 0
    stored, _ = author.stored()
    assert stored is not None
    assert stored["DB_PASSWORD"] == "pa$w0rd$x9"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('          command: ["/app"]   # its entrypoint\n', ""), "has no command"),
        ((PASSWORD, "$(USER)-tr0ub4dor"), "it expands $(…)"),
        (('["/app"]', '["/app", "$(DB_PASSWORD)"]'), "expands a Vault reference"),
        (
            (
                "    spec:\n      containers",
                '    metadata: {annotations: {morphisms.dev/inject: "false"}}\n    spec:\n      containers',
            ),
            "opts out",
        ),
        (
            (
                "    spec:\n      containers",
                "    metadata: {annotations: {morphisms.dev/literal-env: DB_PASSWORD}}\n    spec:\n      containers",
            ),
            "morphisms.dev/literal-env says that it is text",
        ),
        (
            (
                "    spec:\n      containers",
                '    metadata: {annotations: {vault.hashicorp.com/agent-inject: "true"}}\n    spec:\n      containers',
            ),
            "convert",
        ),
    ],
)
def test_what_injection_would_refuse_is_left_with_the_reason(
    author: Author, change: tuple[str, str], reason: str
) -> None:
    text = SERVICE.replace(*change)
    assert text != SERVICE
    author.file.write_text(text)
    done = author.run(secrets=(PASSWORD, TOKEN, "tr0ub4dor"))
    [line] = [each for each in done.out.splitlines() if "DB_PASSWORD was not moved" in each]
    assert (done.code, reason in line) == (1, True), line
    assert ("DB_PASSWORD" in (author.stored()[0] or {})) is False
    assert 'name: DB_PASSWORD\n              value: "' in author.file.read_text()


def test_secrets_outside_env_are_named(author: Author) -> None:
    config = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app}}\ndata: {{DB_PASSWORD: '{PASSWORD}'}}\n"
    rollout = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: r}\nspec: {containers: [{image: x}]}\n"
    service = SERVICE.replace('["/app"]', f'["/app", "{TOKEN}"]')
    author.file.write_text("---\n".join((service, config, rollout)))
    done = author.run()
    left = [line for line in done.out.splitlines() if line.startswith("left: ")]
    assert done.code == 1
    assert any("outside env" in line for line in left)
    assert any("ConfigMap/default/app: key DB_PASSWORD" in line for line in left)
    assert any("Rollout/default/r: not looked at" in line for line in left)


def test_copies_in_the_file_are_found_by_line(author: Author) -> None:
    encoded = base64.b64encode(PASSWORD.encode()).decode()
    author.file.write_text(f"# was {PASSWORD}\n{SERVICE}# {encoded}\n")
    done = author.run()
    lines = [line.partition(":")[2].strip() for line in done.out.splitlines() if line.startswith("copy: ")]
    numbers = [line.rpartition("service.yaml:")[2].partition(":")[0] for line in lines if "service.yaml:" in line]
    assert numbers == ["1", str(len(author.file.read_text().splitlines()))]


def test_a_document_that_would_lose_its_comments_is_left(author: Author) -> None:
    anchored = SERVICE.replace(f'"{PASSWORD}"', f'&password "{PASSWORD}"')
    author.file.write_text(f"{anchored}x-other: *password\n")
    before = author.file.read_text()
    done = author.run()
    assert (done.code, "write it by hand" in done.out) == (1, True)
    assert (author.file.read_text(), author.stored()) == (before, (None, 0))


def test_the_files_mode_and_link_stay(author: Author) -> None:
    author.file.chmod(0o600)
    link = author.file.with_name("link.yaml")
    link.symlink_to(author.file)
    assert main(["migrate", "-f", str(link), "--vault-path", author.path, "--vault-url", author.bao.url]) == 0
    assert link.is_symlink()
    assert stat.S_IMODE(author.file.stat().st_mode) == 0o600
    assert PASSWORD not in author.file.read_text()


def test_windows_line_ends_and_byte_order_mark_stay(author: Author) -> None:
    author.file.write_bytes(b"\xef\xbb\xbf" + SERVICE.replace("\n", "\r\n").encode())
    assert author.run().code == 0
    content = author.file.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf# Payments")
    assert content.count(b"\n") == content.count(b"\r\n") == len(SERVICE.splitlines()) + 3


def test_a_file_in_utf_16_stays_one(author: Author) -> None:
    author.file.write_bytes(SERVICE.encode("utf-16"))
    assert author.run().code == 0
    assert len(author.file.read_text(encoding="utf-16").splitlines()) == len(SERVICE.splitlines()) + 3


def test_a_mount_of_version_1_has_no_check_and_set(author: Author, tmp_path: Path) -> None:
    author.bao.done("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
    assert "lies in a KV mount" not in author.run(path="old/app").err
    configuration = tmp_path / "webhook.yaml"
    configuration.write_text("version: 1\nvault: {mounts: {old: 2}}\n")
    done = author.run("--config", str(configuration), path="old/app")
    assert (done.code, "is not KV version 2" in done.err) == (2, True)
    assert author.bao.call("GET", "old/data/app")[0] == 404


def test_another_variable_moves_when_it_is_named(author: Author) -> None:
    author.run("--env", "LOG_LEVEL")
    stored, _ = author.stored()
    assert stored == {"LOG_LEVEL": "debug", "DB_PASSWORD": PASSWORD, "GIT_TOKEN": TOKEN}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--vault-path", "shop"), "has no usable path"),
        (("--vault-path", "secret/x#key"), "has a key"),
        (("--vault-path", "secret/x@3"), "names a version"),
        (("--vault-path", "other/x"), "does not lie in a KV mount of version 2"),
        (("--vault-path", "~/x"), "needs --config"),
        (("--vault-url", "http://vault.example:8200"), "has to begin with https://"),
        (("-f", "-"), "cannot be replaced"),
    ],
)
def test_unusable_input_changes_nothing(author: Author, options: tuple[str, ...], message: str) -> None:
    done = author.run(*options)
    assert (done.code, message in done.err) == (2, True), done.err
    assert author.file.read_text() == SERVICE
