"""Which environment the application gets."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.sidecar.exec.container import TOO_LARGE, Pod, refused


def test_a_secret_replaces_in_place_and_the_rest_keeps_value_and_order(pod: Pod) -> None:
    pod.publish_pairs({"NEW": "n", "PASSWORD": "secret", "LAST": "l"})
    inherited = {"HOME": "/", "PASSWORD": "placeholder", "EMPTY": "", "TERM": "xterm"}
    assert pod.report(env=inherited).environment == [
        b"HOME=/",
        b"PASSWORD=secret",
        b"EMPTY=",
        b"TERM=xterm",
        b"NEW=n",
        b"LAST=l",
    ]


def test_a_name_is_replaced_whole_and_only_it(pod: Pod) -> None:
    pod.publish_pairs({"KEY": "1"})
    inherited = {"KE": "a", "KEYS": "b", "key": "c"}
    assert pod.report(env=inherited).environment == [b"KE=a", b"KEYS=b", b"key=c", b"KEY=1"]


def test_values_are_passed_as_bytes(pod: Pod) -> None:
    value = b" =a=b\n\t\x01\x7f\x80\xff$(HOME)${HOME}\\\"' "
    pod.publish(b"VALUE=" + value + b"\0EMPTY=\0a name.of-any /kind=x\0")
    assert pod.report().environment == [b"VALUE=" + value, b"EMPTY=", b"a name.of-any /kind=x"]


def test_kubernetes_expressions_take_the_inherited_variables(pod: Pod) -> None:
    """Not those of the file: what was fetched is no part of another variable."""
    pod.publish(b"A=new\0DSN=$(USER):$$(A)@$(A)/$(NONE)$$$x$\0SAME=$(SAME)!\0PLAIN=p\0")
    assert pod.report(env={"USER": "$(HOME)$$", "A": "old", "SAME": "same", "HOME": "/"}).environment == [
        b"USER=$(HOME)$$",
        b"A=new",
        b"SAME=same!",
        b"HOME=/",
        b"DSN=$(HOME)$$:$(A)@old/$(NONE)$$x$",
        b"PLAIN=p",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"A=" + b"$(B)" * 10_000 + b"\0", "variable A takes more than 131072 bytes"),
        (b"".join(b"A%d=" % n + b"$(B)" * 2_600 + b"\0" for n in range(80)), "larger than 8388608 bytes"),
        (b"A=" + b"$(" * 1_000_000 + b"\0", "variable A takes more than 131072 bytes"),
    ],
    ids=["pair", "all", "unclosed"],
)
def test_what_grows_beyond_a_bound_is_refused_at_once(pod: Pod, content: bytes, words: str) -> None:
    pod.publish(content)
    refused(pod.start(env={"B": "x" * 50}), TOO_LARGE, words)


def test_no_pairs_change_nothing(pod: Pod) -> None:
    pod.publish(b"")
    assert pod.report(env={"A": "1"}).environment == [b"A=1"]


def test_each_container_gets_its_own(pod: Pod) -> None:
    pod.publish(b"MINE=1\0")
    (pod.run_folder / "env" / "other").write_bytes(b"THEIRS=1\0")
    assert pod.report().environment == [b"MINE=1"]


def test_a_switched_folder_is_seen_by_the_next_start(pod: Pod) -> None:
    pod.publish(b"VERSION=1\0")
    assert pod.report().environment == [b"VERSION=1"]
    pod.publish(b"VERSION=2\0", version="..v2")
    assert pod.report().environment == [b"VERSION=2"]


def test_an_inherited_name_that_is_there_twice_yields_to_the_secret_altogether(
    pod: Pod, tmp_path: Path, compiler: str
) -> None:
    """Some programs read the last value of a name, which must not be the old one."""
    source = tmp_path / "twice.c"
    source.write_text(
        "#include <unistd.h>\nint main(int c, char **v) { (void)c;"
        ' char *e[] = {"A=old", "B=1", "A=older", "NOT A VARIABLE", 0}; return execve(v[1], v + 1, e); }\n'
    )
    subprocess.run([compiler, "-o", tmp_path / "twice", source], check=True)
    pod.publish_pairs({"A": "new"})
    done = subprocess.run([tmp_path / "twice", *pod.words()], cwd=pod.root, capture_output=True, check=True)
    assert done.stdout.split(b"\0")[-4:-1] == [b"A=new", b"B=1", b"NOT A VARIABLE"]


def test_the_largest_of_everything_is_taken(pod: Pod) -> None:
    """4096 pairs in 1 MiB, one of them as long as Linux takes a string; most is `$`, which the file has twice."""
    longest = b"LONG=".ljust(128 * 1024 - 1, b"x")
    pairs = [longest] + [b"V%04d=" % number for number in range(4095)]
    room = 1024 * 1024 - sum(len(pair) + 1 for pair in pairs)
    for number in range(1, 33):
        pairs[number] += b"$" * (room // 32 + (room % 32 if number == 32 else 0))
    assert sum(len(pair) + 1 for pair in pairs) == 1024 * 1024
    content = b"".join(pair.replace(b"$", b"$$") + b"\0" for pair in pairs)
    assert len(content) > 1.8 * 1024 * 1024
    pod.publish(content)
    assert pod.report().environment == pairs
