"""Reading as Kubernetes reads, writing so that everybody reads the same."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from server.files import UnusableInputError
from server.yaml.kubernetes import (
    BOUNDS,
    decoded,
    each_object,
    encoded_like,
    parse_documents,
    read_documents,
    resolve,
    write_documents,
)

HEAD = "apiVersion: v1\nkind: ConfigMap\n"

# What sigs.k8s.io/yaml v1.4.0 answers for the unquoted scalar, recorded from it.
AS_KUBERNETES: dict[str, Any] = {
    "y": True, "Y": True, "yes": True, "on": True, "ON": True, "n": False, "No": False, "off": False, "tRUE": "tRUE",
    "~": None, "null": None, "nULL": "nULL",
    "0400": 256, "0o400": 256, "0O17": 15, "0o8": "0o8", "08": 8, "09": 9, "0x1F": 31, "0xg": "0xg", "-0b11": -3,
    "1_000": 1000, "_1": "_1", "._5": "._5", ".5_5": 0.55, "5_": 5,
    "1e3": 1000, "1.0": 1, "1.5": 1.5, ".5": 0.5, "1.": 1, "1e400": "1e400", "1.1.1": "1.1.1", "+": "+", ".": ".",
    "1:30": "1:30", "2001-12-14": "2001-12-14", "2001-12-14t21:59:43.10-05:00": "2001-12-14t21:59:43.10-05:00",
    "18446744073709551615": 2**64 - 1, "=": "=", "3.21": 3.21,
}  # fmt: skip


def read(text: str) -> Any:
    (document,) = parse_documents((HEAD + text).encode(), "file.yaml")
    return document.object


@pytest.mark.parametrize("text", AS_KUBERNETES)
def test_an_unquoted_scalar_is_what_kubernetes_reads(text: str) -> None:
    value = read(f"key: {text}\n")["key"]
    assert (type(value), value) == (type(AS_KUBERNETES[text]), AS_KUBERNETES[text])


@pytest.mark.parametrize("text", AS_KUBERNETES)
@pytest.mark.parametrize("quoted", ["'{}'", '"{}"', "!!str {}", "|-\n  {}"])
def test_a_quoted_scalar_is_text(text: str, quoted: str) -> None:
    assert read(f"key: {quoted.format(text)}\n")["key"] == text


@pytest.mark.parametrize("text", [*AS_KUBERNETES, "true", "1e5", "0o17", "-.inf", ".NaN", "<<", "!x", "a: b", " a", ""])
def test_text_is_written_so_that_every_reader_takes_it_for_text(text: str) -> None:
    written = write_documents([{"apiVersion": "v1", "kind": "X", "value": text, "key " + text: 1, text: text}])
    (document,) = parse_documents(written.encode(), "out")
    assert document.object["value"] == text
    assert document.object[text] == text
    assert yaml.safe_load(written)["value"] == text


def test_keys_become_text_as_in_kubernetes() -> None:
    assert list(read("8080: a\non: b\n0x10: c\n")) == ["apiVersion", "kind", "8080", "true", "16"]


def test_order_multi_line_text_and_documents_survive() -> None:
    text = HEAD + 'z: 1\na:\n- b: "true"\n  a: |\n    one\n      two\n- []\n- {}\n'
    documents = parse_documents(f"# a comment\n---\n{text}---\n---\n{text}...\n".encode(), "file.yaml")
    assert [document.place for document in documents] == ["file.yaml:3", "file.yaml:15"]
    assert write_documents(document.object for document in documents) == f"{text}---\n{text}"


def test_anchors_are_written_out_and_shared_with_nobody() -> None:
    document = read("a: &a {x: [1]}\nb: *a\nc:\n  <<: *a\n  z: 2\n  x: 3\n")
    document["a"]["x"].append(2)
    assert document["b"] == {"x": [1]}
    assert document["c"] == {"x": 3, "z": 2}
    written = write_documents([document, document])
    assert "&" not in written
    assert "*" not in written


# What kubectl's own decoder answers (k8s.io/apimachinery v0.36.3 with sigs.k8s.io/yaml v1.6.0), recorded from it.
MERGES: dict[str, Any] = {
    "{b: 1, <<: {b: 2, c: 3}}": {"b": 2, "c": 3},
    "{<<: {b: 2, c: 3}, b: 1}": {"b": 1, "c": 3},
    "{<<: [{b: 5}, {b: 6, c: 7}], c: 8}": {"b": 5, "c": 8},
    "{<<: {b: 5}, <<: {b: 6, c: 7}}": {"b": 6, "c": 7},
    '{"<<": {b: 1}}': {"<<": {"b": 1}},
}


@pytest.mark.parametrize("text", MERGES)
def test_merge_keys_count_in_the_order_of_the_text_as_in_kubernetes(text: str) -> None:
    assert read(f"a: {text}\n")["a"] == MERGES[text]


UNUSABLE = {
    "a: 1\nb: 2\na: 3\n": "file.yaml:5: key a given twice, first on line 3",
    "8080: 1\n'8080': 2\n": "file.yaml:4: key 8080 given twice, first on line 3",
    "a: [b\n": "file.yaml:4:1: not valid YAML: did not find expected ',' or ']'",
    "password: *hunter2\n": "file.yaml:3:11: not valid YAML: found undefined alias",
    "a: !!python/name:os.system x\n": "file.yaml:3: this YAML tag is not supported; leave it out, or quote the value",
    "a: !vault [x]\n": "file.yaml:3: this YAML tag is not supported; leave it out",
    "a: .nan\n": "file.yaml:3: infinity and NaN are not values of a Kubernetes object; quote it if it is text",
    "1.5: x\n": "file.yaml:3: a key is not text; quote it",
    "[a]: x\n": "file.yaml:3: a key is not text; quote it",
    "a:\n  <<: [{b: 1}, 2]\n": (
        "file.yaml:4: a merge key (<<) takes a mapping or a list of mappings, such as <<: *defaults"
    ),
    "a: &a [*a]\n": "file.yaml:3: too many values, or aliases that expand to too much",
    "a: " + "[" * 5000 + "\n": "file.yaml:3:103: nested deeper than 100",
    "---\njust text\n": "file.yaml:4: not a Kubernetes object; it needs apiVersion and kind",
    "---\nkind: Pod\n": "file.yaml:4: not a Kubernetes object; it needs apiVersion and kind",
}


@pytest.mark.parametrize("text", UNUSABLE)
def test_what_cannot_be_used_says_where_and_why_and_repeats_no_value(text: str) -> None:
    with pytest.raises(UnusableInputError) as error:
        read(text)
    # libyaml and the pure Python parser word syntax errors differently.
    expected = UNUSABLE[text]
    assert str(error.value).startswith(expected.partition(" YAML:")[0])
    assert "hunter2" not in str(error.value)


def test_many_aliases_do_not_become_a_large_value() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(UnusableInputError, match="expand to too much"):
        read("\n".join(lines))


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"---\n---\n"])
def test_a_file_without_an_object_is_unusable(content: bytes) -> None:
    with pytest.raises(UnusableInputError, match="holds no Kubernetes object"):
        parse_documents(content, "file.yaml")


def test_files_and_standard_input_are_read_within_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert read_documents(str(path))[0].object["kind"] == "ConfigMap"
    with pytest.raises(UnusableInputError, match="larger than 10 bytes"):
        read_documents(str(path), max_bytes=10)
    with pytest.raises(UnusableInputError, match="cannot be read: Is a directory"):
        read_documents(str(tmp_path))
    path.write_bytes(b"\xff")
    with pytest.raises(UnusableInputError, match="not UTF-8"):
        read_documents(str(path))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(HEAD.encode())))
    assert read_documents("-")[0].place == "standard input:1"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_file_is_read_and_written_in_the_encoding_that_its_mark_says(encoding: str, newline: str) -> None:
    text = f"{HEAD}data: {{name: Zoë 🔑}}\n".replace("\n", newline)
    # Python writes a mark for `utf-16` and `utf-8-sig` alone; Windows' tools write one for each.
    content = (text if encoding in ("utf-8", "utf-8-sig", "utf-16") else f"\ufeff{text}").encode(encoding)
    (document,) = parse_documents(content, "file.yaml")
    assert document.object["data"] == {"name": "Zoë 🔑"}
    assert decoded(content, "file.yaml") == text
    assert encoded_like(text, content) == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "file.yaml: not UTF-16"),
        (b"\xfe\xff\xd8\x3d", "file.yaml: not UTF-16"),
        (b"\xef\xbb\xbf\xff", "file.yaml: not UTF-8"),
        (HEAD.encode("cp1252") + b"data: {a: \xeb}", "file.yaml: not UTF-8"),
    ],
)
def test_text_in_another_encoding_is_unusable(content: bytes, message: str) -> None:
    with pytest.raises(UnusableInputError) as error:
        parse_documents(content, "file.yaml")
    assert str(error.value) == message


_POD = {"apiVersion": "v1", "kind": "Pod"}


@pytest.mark.parametrize(
    ("version", "kind", "item", "expected"),
    [
        ("v1", "PodList", {"spec": {}}, _POD),
        ("v1", "PodList", {"kind": "", "apiVersion": None}, _POD),
        ("apps/v1", "DeploymentList", {"spec": {}}, {"apiVersion": "apps/v1", "kind": "Deployment"}),
        (
            "serving.knative.dev/v1",
            "ServiceList",
            {"spec": {}},
            {"apiVersion": "serving.knative.dev/v1", "kind": "Service"},
        ),
        ("v1", "PodList", {"apiVersion": "v1", "kind": "Other"}, {"apiVersion": "v1", "kind": "Other"}),
        ("v1", "List", dict(_POD), _POD),
    ],
)
def test_items_of_a_typed_list_have_the_kind_that_the_api_server_leaves_out(
    version: str, kind: str, item: dict[str, Any], expected: dict[str, str]
) -> None:
    text = write_documents([{"apiVersion": version, "kind": kind, "items": [item]}])
    (document,) = parse_documents(text.encode(), "file.yaml")
    assert document.object["items"] == [item | expected]


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        ("List", {"spec": {}}),
        ("List", "text"),
        ("List", None),
        ("PodList", ["Pod"]),
        ("PodList", {"kind": "Pod"}),
        ("PodList", {"apiVersion": "v1"}),
        ("List", {"apiVersion": "v1", "kind": "List", "items": [{"spec": {}}]}),
    ],
)
def test_no_item_of_a_list_is_left_out_in_silence(kind: str, item: Any) -> None:
    text = HEAD + "---\n" + write_documents([{"apiVersion": "v1", "kind": kind, "items": [item]}])
    with pytest.raises(UnusableInputError) as error:
        parse_documents(text.encode(), "file.yaml")
    assert str(error.value) == "file.yaml:4: an item of the List is not an object with apiVersion and kind"


def test_a_list_is_its_items() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod"}
    nested = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [pod, {"apiVersion": "v1", "kind": "PodList", "items": [pod]}, 1],
    }
    assert list(each_object(nested)) == [pod, pod]
    assert list(each_object(pod)) == [pod]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    "0123456789_.eoxynYN~:-+ \n#'\"", max_size=8
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | FINITE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_is_written_reads_the_same(value: dict[str, Any]) -> None:
    object_ = {"apiVersion": "v1", "kind": "X", "spec": value}
    (document,) = parse_documents(write_documents([object_]).encode(), "out")
    assert document.object == object_


@given(TEXT)
def test_text_that_pyyaml_reads_as_text_after_writing(text: str) -> None:
    assert yaml.safe_load(write_documents([{"kind": "X", "apiVersion": "v1", "t": text}]))["t"] == text


def test_deep_but_sound_objects_are_written() -> None:
    value = read("a: " + "[" * (BOUNDS.depth - 2) + "]" * (BOUNDS.depth - 2))
    assert parse_documents(write_documents([value]).encode(), "out")[0].object == value


@pytest.mark.parametrize("text", ["1" * 5000, "0" * 5000, "9" * 300])
def test_long_digits_do_not_stop_the_reader(text: str) -> None:
    assert resolve(text) is not None
