import json
import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from server.yaml.strict import ConfigurationError, load, parse, schema


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Vault(Strict):
    kind: Literal["vault"] = "vault"
    url: str = ""


class File(Strict):
    kind: Literal["file"]
    path: str


class Profile(Strict):
    runtimeClasses: tuple[str, ...] = ()  # noqa: N815
    vmpl: int = 0

    @field_validator("vmpl")
    @classmethod
    def small(cls, value: int) -> int:
        if value == 98:
            raise ValueError(f"{value} is hunter2")
        if value == 99:
            raise PydanticCustomError("vmpl", "only levels 0 to 3 exist")
        return value


class Settings(Strict):
    profiles: dict[str, Profile] = {}
    mode: Literal["audit", "enforce"] = "audit"
    password: int = 0
    ordered: list[Profile] | None = None
    source: Annotated[Vault | File, Field(discriminator="kind")] = Vault()


def problems(text: str | bytes, **options) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text if isinstance(text, bytes) else text.encode(), Settings, name="c.yaml", **options)
    assert "hunter2" not in str(caught.value)
    return caught.value.problems


def test_loads_and_digests_the_content_not_the_layout(tmp_path: Path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("mode: enforce\nprofiles:\n  a: {vmpl: 1}\n")
    second.write_text("# why\nprofiles: {a: {vmpl: 1}}\nmode: 'enforce'\n")
    assert load(first, Settings).value.profiles["a"].vmpl == 1
    assert load(first, Settings) == load(second, Settings)
    second.write_text("mode: audit\nprofiles:\n  a: {vmpl: 1}\n")
    assert load(first, Settings).digest != load(second, Settings).digest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("profles: {}", "c.yaml:1: profles: unknown key profles, did you mean profiles?"),
        (
            "profiles:\n  kata:\n    runtimeClases: []",
            "c.yaml:3: profiles.kata.runtimeClases: unknown key runtimeClases, did you mean runtimeClasses?",
        ),
        ("ordered:\n- vmpll: 1", "c.yaml:2: ordered[0].vmpll: unknown key vmpll, did you mean vmpl?"),
        ("source:\n  kind: file\n  path: x\n  pth: y", "c.yaml:4: source.pth: unknown key pth, did you mean path?"),
        ("zzz: 1", "c.yaml:1: zzz: unknown key zzz"),
        ("mode: audit\nmode: enforce", "c.yaml:2: mode: key given twice, first on line 1"),
        ("profiles: {a: {vmpl: 1, vmpl: 2}}", "c.yaml:1: profiles.a.vmpl: key given twice, first on line 1"),
        ("\npassword: hunter2", "c.yaml:2: password: input should be a valid integer"),
        ("mode: hunter2", "c.yaml:1: mode: input should be 'audit' or 'enforce'"),
        ("source: {kind: hunter2}", "c.yaml:1: source: 'kind' must be one of 'vault', 'file'"),
        ("source: {kind: file}", "c.yaml:1: source.path: field required"),
        ("profiles: {a: {vmpl: 98}}", "c.yaml:1: profiles.a.vmpl: the value is not valid"),
        ("profiles: {a: {vmpl: 99}}", "c.yaml:1: profiles.a.vmpl: only levels 0 to 3 exist"),
        ("password: *hunter2", "c.yaml:1:11: not valid YAML: found undefined alias"),
        ("password: !hunter2 x", "c.yaml:1: password: this YAML tag is not supported, quote the value"),
        ("password: !!int hunter2", "c.yaml:1: password: the value does not fit its YAML tag"),
        ("on: 1", "c.yaml:1: document: a key is not text, quote it"),
        ("a: &x {}\nprofiles: {<<: *x}", "c.yaml:2: profiles: merge keys (<<) are not supported, write the keys out"),
        ("- 1", "c.yaml: document: input should be a valid dictionary or instance of Settings"),
        (b"mode: \xff", "c.yaml: not UTF-8"),
        ("a: " + "[" * 5000, "c.yaml:1:35: nested deeper than 32"),
    ],
)
def test_a_problem_names_file_line_and_key_but_no_value(text, expected):
    assert expected in " | ".join(problems(text))


def test_all_problems_are_told_at_once():
    assert len(problems("profles: {}\nmode: x\npassword: hunter2")) == 3


def test_an_alias_bomb_is_refused_quickly():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert problems("\n".join(lines)) == ("c.yaml:1: too many values, or aliases that expand to too much",)


def test_an_alias_of_itself_is_refused():
    assert problems("profiles: &x {a: *x}") == ("c.yaml:1: too many values, or aliases that expand to too much",)


def test_size_is_bounded_and_a_missing_file_named(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("mode: audit #" + "x" * 100)
    with pytest.raises(ConfigurationError, match="larger than 50 bytes"):
        load(path, Settings, max_bytes=50)
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load(tmp_path / "none", Settings)


def test_an_empty_file_is_all_defaults(tmp_path: Path):
    assert load(Path(os.devnull), Settings).value == Settings()


def test_the_schema_is_the_same_each_time():
    assert schema(Settings) == schema(Settings)
    assert json.loads(schema(Settings))["additionalProperties"] is False
