"""`morphisms render` with the registry that the images are in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import main
from cli.rendering.workload import KINDS
from tests.cli import kinds, rendering
from tests.cli.registry.conftest import Home
from tests.cli.registry.images import configuration, index, manifest, platform
from tests.cli.registry.real import Registry

Said = pytest.CaptureFixture[str]
FILES = ("service.yaml", "policy.rego", "appraisal.yaml")
COMMAND = '          command: ["/app"]\n'


class Pushed:
    """The three images of a rendering in a registry, and the files that name them."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.folder = folder
        self.names = {old: self._push(registry, old, config) for old, config in rendering.CONFIGURATIONS.items()}
        for old, new in self.names.items():
            repository = new.partition("@")[0]
            registry.push(repository.partition("/")[2], "v1", *self._documents(rendering.CONFIGURATIONS[old]))

    @staticmethod
    def _documents(config: dict[str, Any]) -> Any:
        return manifest(configuration(config)), configuration(config)

    def _push(self, registry: Registry, old: str, config: dict[str, Any]) -> str:
        repository = old.partition("@")[0].partition("/")[2].partition(":")[0]
        whole, blob = self._documents(config)
        if old != rendering.APP:
            return registry.push(repository, "v1", whole, blob)
        # The application's is an index.
        registry.push(repository, whole.digest, whole, blob)
        return registry.push(repository, "v0", index(whole.descriptor(**platform("amd64"))))

    def arguments(self, *, images: bool = False, service: str = rendering.SERVICE) -> list[str]:
        """The command line. `images`: with a complete file of configurations, and no registry."""
        words = rendering.write_inputs(self.folder)
        for path in (self.folder / name for name in ("service.yaml", "cluster.yaml", "trust.yaml", "images.json")):
            text = service if path.name == "service.yaml" else path.read_text()
            for old, new in self.names.items():
                text = text.replace(old, new)
            path.write_text(text)
        if not images:
            words.remove("--offline")
            at = words.index("--images")
            del words[at : at + 2]
        return words


@pytest.fixture
def pushed(open_registry: Registry, home: Home) -> Pushed:
    return Pushed(open_registry, home.folder)


def test_looked_up_images_render_to_the_same_bytes_as_a_file_of_them(pushed: Pushed, home: Home, capsys: Said) -> None:
    assert main([*pushed.arguments(images=True), "-o", str(home.folder / "given")]) == 0
    given = capsys.readouterr().err
    assert main([*pushed.arguments(), "-o", str(home.folder / "found")]) == 0
    found = capsys.readouterr().err
    for name in FILES:
        assert (home.folder / "given" / name).read_bytes() == (home.folder / "found" / name).read_bytes()
    for new in pushed.names.values():
        digest = new.partition("@")[2]
        assert f"image           {digest} from --images {home.folder / 'images.json'}" in given
        assert f"image           {digest} from {new.partition('/')[0]}: linux/amd64, manifest sha256:" in found
    # Later runs take them from the cache, and say so.
    assert main([*pushed.arguments(), "-o", str(home.folder / "again")]) == 0
    assert " from cache: linux/amd64, manifest sha256:" in capsys.readouterr().err
    assert main([*pushed.arguments(), "--check", str(home.folder / "given")]) == 0


def test_a_file_that_lacks_an_image_is_completed(pushed: Pushed, home: Home, capsys: Said) -> None:
    words = pushed.arguments(images=True)
    images = json.loads((home.folder / "images.json").read_text())
    del images[pushed.names[rendering.APP]]
    (home.folder / "images.json").write_text(json.dumps(images))
    assert main([*words, "-o", str(home.folder / "out")]) == 1
    assert "is not known" in capsys.readouterr().err
    words.remove("--offline")
    assert main([*words, "-o", str(home.folder / "out")]) == 0
    said = capsys.readouterr().err
    assert said.count(" from --images ") == 2
    assert said.count("linux/amd64, manifest") == 1


def test_a_missing_command_is_written_into_the_service(pushed: Pushed, home: Home) -> None:
    """A container that takes a reference as environment needs one; its author does not have to know it."""
    assert COMMAND in rendering.SERVICE
    without = rendering.SERVICE.replace(COMMAND, "")
    assert main([*pushed.arguments(service=without), "-o", str(home.folder / "out")]) == 0
    text = (home.folder / "out" / "service.yaml").read_text()
    assert "# from Vault" in text
    [container] = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["/app"]
    assert "args" not in container
    # The policy is that of the Service whose author wrote it.
    assert main([*pushed.arguments(), "-o", str(home.folder / "written")]) == 0
    assert (home.folder / "written" / "policy.rego").read_bytes() == (home.folder / "out" / "policy.rego").read_bytes()


def test_arguments_of_an_image_without_an_entrypoint_become_the_command(
    pushed: Pushed, home: Home, open_registry: Registry
) -> None:
    config = configuration({"Cmd": ["/default"], "User": "1:1"})
    pushed.names[rendering.APP] = open_registry.push("bare", "v1", manifest(config), config)
    service = rendering.SERVICE.replace(COMMAND, '          args: ["/chosen", "--fast"]\n')
    assert main([*pushed.arguments(service=service), "-o", str(home.folder / "out")]) == 0
    [container] = yaml.safe_load((home.folder / "out" / "service.yaml").read_text())["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["command"] == ["/chosen", "--fast"]
    assert "args" not in container


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_get_their_images_process_too(pushed: Pushed, home: Home, kind: str) -> None:
    words = pushed.arguments()
    rendered = {}
    for name, command in (("out", None), ("written", ["/app"])):
        item = kinds.workload(kind)
        spec = item["spec"] if kind == "Pod" else item["spec"]["template"]["spec"]
        for container in (*spec["initContainers"], *spec["containers"]):
            container["image"] = pushed.names[rendering.APP]
        spec["containers"][0].pop("command")
        if command:
            spec["containers"][0]["command"] = command
        (home.folder / "service.yaml").write_text(yaml.safe_dump(item))
        assert main([*words, "-o", str(home.folder / name)]) == 0
        rendered[name] = yaml.safe_load((home.folder / name / "workload.yaml").read_text())
    assert rendered["out"] == rendered["written"]
    # Who takes no reference as environment stays without.
    result = rendered["out"]["spec"] if kind == "Pod" else rendered["out"]["spec"]["template"]["spec"]
    assert "command" not in result["initContainers"][0]


def test_a_tag_is_refused_with_the_digest_to_write(pushed: Pushed, home: Home, capsys: Said) -> None:
    words = pushed.arguments()
    path = home.folder / "service.yaml"
    name, _, digest = pushed.names[rendering.APP].partition("@")
    path.write_text(path.read_text().replace(f"{name}@{digest}", f"{name}:v0"))
    assert main([*words, "-o", str(home.folder / "out")]) == 1
    said = capsys.readouterr().err
    assert (
        f"refused: spec.containers[0].image (user-container): has no digest; write {name}:v0@{digest}, for which"
        in said
    )
    assert not (home.folder / "out").exists()


@pytest.mark.parametrize(("port", "code", "expected"), [("1", 3, "cannot be reached"), (None, 2, "has no such image")])
def test_an_image_that_cannot_be_looked_up_leaves_no_rendering(
    pushed: Pushed, home: Home, port: str | None, code: int, expected: str, capsys: Said
) -> None:
    words = pushed.arguments()
    path = home.folder / "service.yaml"
    image = pushed.names[rendering.APP]
    host = image.partition("/")[0]
    other = image.replace(host, f"127.0.0.1:{port}") if port else image.replace("/app@", "/other@")
    path.write_text(path.read_text().replace(image, other))
    assert main([*words, "-o", str(home.folder / "out")]) == code
    said = capsys.readouterr().err
    assert "spec.containers[0].image (user-container): " in said
    assert expected in said
    assert not (home.folder / "out").exists()


def test_the_plain_pod_gets_its_images_process(pushed: Pushed, home: Home, capsys: Said) -> None:
    pushed.arguments(service=rendering.SERVICE.replace(COMMAND, ""))
    assert main(["render", "-f", str(home.folder / "service.yaml")]) == 0
    said = capsys.readouterr()
    [container] = yaml.safe_load(said.out)["spec"]["containers"]
    assert container["command"][-2:] == ["--", "/app"]
    assert "entrypoint of its image set in user-container" in said.err
    assert main(["render", "-f", str(home.folder / "service.yaml"), "--offline"]) == 1
    assert "has no command" in capsys.readouterr().err


def test_the_plain_pod_of_an_image_by_tag_is_refused_with_the_digest(pushed: Pushed, home: Home, capsys: Said) -> None:
    pushed.arguments(service=rendering.SERVICE.replace(COMMAND, ""))
    path = home.folder / "service.yaml"
    name, _, digest = pushed.names[rendering.APP].partition("@")
    path.write_text(path.read_text().replace(f"{name}@{digest}", f"{name}:v0"))
    assert main(["render", "-f", str(path)]) == 1
    said = capsys.readouterr()
    assert f"the image of user-container: has no digest; write {name}:v0@{digest}" in said.err
    assert said.out == ""
