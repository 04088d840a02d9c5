"""The handle of libguestfs with what is not UTF-8; none of it needs a running appliance."""

from __future__ import annotations

from collections.abc import Callable

import guestfs
import pytest

from conversions.pipeline.handle import Handle

LATIN_1 = "/caf\udce9"


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> tuple[Handle, list[str]]:
    """Return a handle whose path is Latin-1, and the texts of its traces so far."""
    monkeypatch.setenv("LIBGUESTFS_PATH", LATIN_1)
    traces: list[str] = []
    g = guestfs.GuestFS(python_return_dict=False, close_on_exit=False)
    handle = Handle(g, guestfs.EVENT_TRACE, lambda _event, text: traces.append(text))
    handle.set_trace(True)
    return handle, traces


def test_a_trace_that_is_not_utf8_is_an_event_like_others(
    handle: tuple[Handle, list[str]],
) -> None:
    g, traces = handle
    with pytest.raises(RuntimeError, match=r"get_path: the answer is not UTF-8: b'/caf\\xe9'"):
        g.get_path()
    g.set_identifier("next")
    g.close()
    assert traces == [
        "get_path", 'get_path = "/caf\ufffd"', 'set_identifier "next"', "set_identifier = 0",
        "close",
    ]  # fmt: skip


def test_an_error_that_is_not_utf8_keeps_its_words(handle: tuple[Handle, list[str]]) -> None:
    g, _ = handle
    g.set_backend("direct")
    g.add_drive("/dev/null")
    with pytest.raises(RuntimeError, match=r"search path: /caf\ufffd"):
        g.launch()


def test_an_answer_of_one_text_is_kept(
    handle: tuple[Handle, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    g, _ = handle
    monkeypatch.setattr(guestfs.GuestFS, "sh", lambda g, _command: g.get_path())
    assert g.sh("any") == "/caf\ufffd"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        pytest.param(lambda g: g.add_drive(LATIN_1), "surrogates not allowed", id="argument"),
        pytest.param(lambda g: g.ls(LATIN_1), "surrogates not allowed", id="of the library"),
        pytest.param(lambda g: g.realpath("/a\0b"), "null character", id="NUL"),
        pytest.param(lambda g: g.ls("/"), "call launch before", id="its own errors"),
        pytest.param(lambda g: g.inspect_get_mountpoints("/dev/sda"), "call launch", id="pairs"),
        pytest.param(lambda g: g.inspect_list_applications2("/dev/sda"), "launch", id="packages"),
    ],
)
def test_every_error_is_one_of_libguestfs(
    handle: tuple[Handle, list[str]], call: Callable[[Handle], object], words: str
) -> None:
    with pytest.raises(RuntimeError, match=words):
        call(handle[0])


def test_there_is_no_file_of_a_name_that_cannot_be_given(
    handle: tuple[Handle, list[str]],
) -> None:
    assert not handle[0].is_file(LATIN_1)
    assert not handle[0].exists("/a\0b")
