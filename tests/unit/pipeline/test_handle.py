"""The handle of libguestfs with what is not UTF-8; none of it needs a running appliance."""

from __future__ import annotations

from collections.abc import Callable

import guestfs
import pytest

from conversions.pipeline.appliance import Appliance
from conversions.pipeline.handle import Handle, without_contents
from conversions.pipeline.job import Input, Job, Mode
from conversions.pipeline.report import RecordingReporter

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
        pytest.param(lambda g: g.ls("/a\0b"), "null character", id="NUL for the library"),
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


@pytest.mark.parametrize(
    "call", [lambda g: g.ls("/"), lambda g: g.is_file("/"), lambda g: g.close()]
)
def test_a_closed_handle_is_not_used(
    handle: tuple[Handle, list[str]], call: Callable[[Handle], object]
) -> None:
    handle[0].close()
    with pytest.raises(guestfs.ClosedHandle):
        call(handle[0])


@pytest.mark.parametrize(
    ("trace", "logged"),
    [
        ('write "/etc/shadow" "root:$6$x"', 'write "/etc/shadow" (what is in the file)'),
        (
            'internal_write "/etc/shadow" "root:$6$x"<truncated, original size 900 bytes>',
            'internal_write "/etc/shadow" (what is in the file)',
        ),
        ('internal_write_append "/s" "x"', 'internal_write_append "/s" (what is in the file)'),
        ('read_file "/etc/shadow"', 'read_file "/etc/shadow"'),
        ('read_file = "root:$6$x\npsk=y"', "read_file = (what is in the file)"),
        ('pread = "psk"', "pread = (what is in the file)"),
        ('pread_device "/dev/sda" 512 0', 'pread_device "/dev/sda" 512 0'),
        ('is_file "/a" "followsymlinks:true"', 'is_file "/a" "followsymlinks:true"'),
        ("write = 0", "write = 0"),
    ],
)
def test_what_is_in_a_file_is_in_no_log(trace: str, logged: str) -> None:
    assert without_contents(trace) == logged


def test_the_appliance_logs_no_content() -> None:
    report = RecordingReporter()
    job = Job(mode=Mode.INSPECT, source=Input(kind="ova", location="/x.ova"))
    g = Appliance(job, (), report, read_only=True)._handle()
    with pytest.raises(RuntimeError, match="call launch"):
        g.write("/etc/shadow", b"root:$6$secret")
    log = "\n".join(e["text"] for e in report.of("log"))
    assert 'libguestfs: trace: v2v: write "/etc/shadow"' in log
    assert "secret" not in log
    g.close()
