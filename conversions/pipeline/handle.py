"""A libguestfs handle for guests in which not everything is UTF-8.

The Python binding (1.48) decodes each string strictly.  A name in Latin-1 ends a call with
UnicodeDecodeError, one inside a list takes the whole list with it, and one in the text of an event
ends the process: its callback is called with no string at all (SIGSEGV).  So the calls whose
strings are the guest's go to the C library itself, and so do events.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from ctypes import POINTER, Structure, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64
from ctypes import c_void_p as pointer
from typing import Any

_library = ctypes.CDLL("libguestfs.so.0")  # the one that the binding has loaded
_free = ctypes.CDLL(None).free
_free.argtypes = (pointer,)
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = pointer, (ctypes.py_object, c_char_p)
_last_error = _library.guestfs_last_error
_last_error.restype, _last_error.argtypes = c_char_p, (pointer,)
# guestfs_event_callback: handle, opaque, event, its number, flags, text and length, array and its.
_EventCallback = ctypes.CFUNCTYPE(
    None, pointer, pointer, c_uint64, c_int, c_int, pointer, c_size_t, pointer, c_size_t
)
_set_event_callback = _library.guestfs_set_event_callback
_set_event_callback.argtypes = (pointer, _EventCallback, c_uint64, c_int, pointer)


class _Application(Structure):
    """struct guestfs_application2, which is part of the library's ABI."""

    _fields_ = (
        *((f"app2_{name}", c_char_p) for name in ("name", "display_name")),
        ("app2_epoch", c_int32),
        *((f"app2_{name}", c_char_p) for name in (
            "version", "release", "arch", "install_path", "trans_path", "publisher", "url",
            "source_package", "summary", "description", "spare1", "spare2", "spare3", "spare4",
        )),
    )  # fmt: skip


class _Applications(Structure):
    """struct guestfs_application2_list."""

    _fields_ = (("len", c_uint32), ("val", POINTER(_Application)))


# Calls that return one string; the error of its decoding holds all of it.
_ONE_TEXT = re.compile(
    "sh|debug|realpath|readlink|case_sensitive_path|vfs_label|vfs_type|"
    "inspect_get_(type|distro|arch|product_name|product_variant|osinfo|hostname|package_\\w+)"
)
# Calls whose traces hold what is in a file: passwords, keys, scripts.
_CONTENTS = re.compile(
    r'(?s)((?:internal_)?(?:(?:write|write_append|pwrite) "[^"]*"|(?:read_file|pread) =)) .*'
)
# They answer no for a name that nothing can have.
_LOOKS = ("exists", "is_dir", "is_file", "is_symlink")


class Handle:
    """Has the calls of guestfs.GuestFS, with no other errors than RuntimeError.

    What is not UTF-8 in the text of an answer becomes \\ufffd.  Names that are not are left out of
    lists, as no call could be given them.
    """

    def __init__(self, g: Any, events: int, on_event: Callable[[int, str], None]) -> None:
        self._g = g
        self._pointer = _capsule_pointer(g._o, b"guestfs_h")

        def callback(
            _g: int, _opaque: int, event: int, _handle: int, _flags: int, text: int, length: int,
            *_array: int,
        ) -> None:  # fmt: skip
            on_event(event, _text(ctypes.string_at(text, length)))

        # The library calls it as long as the handle lives, and closing is an event too.
        g.v2v_callback = _EventCallback(callback)
        _set_event_callback(self._pointer, g.v2v_callback, events, 0, None)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._g, name)

        def checked(*arguments: Any, **options: Any) -> Any:
            self._g._check_not_closed()  # no ValueError of an argument
            try:
                return call(*arguments, **options)
            except RuntimeError as error:
                if str(error):
                    raise
                raise RuntimeError(self._last_words()) from error  # they are not UTF-8
            except UnicodeDecodeError as error:
                if _ONE_TEXT.fullmatch(name):
                    return _text(error.object)
                raise RuntimeError(f"{name}: the answer is not UTF-8: {error.object!r}") from error
            except ValueError as error:  # an argument is not UTF-8, or has a NUL inside
                if name in _LOOKS:
                    return False
                raise RuntimeError(f"{name}: {arguments[:1]}: {error}") from error

        return checked

    def ls(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        return _names(self._strings("ls", folder))

    def find(self, folder: str) -> list[str]:
        """Return the paths of everything below a folder, as from there."""
        return _names(self._strings("find", folder))

    def inspect_get_mountpoints(self, root: str) -> list[tuple[str, str]]:
        """Return where the guest mounts its filesystems: (path, device)."""
        words = self._strings("inspect_get_mountpoints", root)
        pairs = (_names(pair) for pair in zip(words[::2], words[1::2], strict=True))
        return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]

    def inspect_list_applications2(self, root: str) -> list[dict[str, Any]]:
        """Return the packages, each with the binding's names of its fields."""
        found = self._raw("inspect_list_applications2", POINTER(_Applications), root)
        try:
            rows = (found.contents.val[number] for number in range(found.contents.len))
            values = ({name: getattr(row, name) for name, _type in row._fields_} for row in rows)
            return [
                {n: _text(v) if isinstance(v, bytes) else v for n, v in row.items()}
                for row in values
            ]
        finally:
            free = _library.guestfs_free_application2_list
            free.argtypes = (POINTER(_Applications),)
            free(found)

    def _strings(self, name: str, argument: str) -> list[bytes]:
        found = self._raw(name, POINTER(pointer), argument)
        texts = []
        for at in found:
            if not at:
                break
            texts.append(ctypes.string_at(at))
            _free(at)
        _free(found)
        return texts

    def _raw(self, name: str, returns: Any, argument: str) -> Any:
        """Make a call that takes a string and returns a pointer.  Raises RuntimeError."""
        self._g._check_not_closed()  # there is nothing any more where the pointer leads
        function = ctypes.CFUNCTYPE(returns, pointer, c_char_p)((f"guestfs_{name}", _library))
        try:
            given = argument.encode()
        except UnicodeEncodeError as error:
            raise RuntimeError(f"{name}: {argument!r}: {error}") from error
        if b"\0" in given:  # the library would take what comes before it
            raise RuntimeError(f"{name}: {argument!r}: there is a null character in it")
        found = function(self._pointer, given)
        if not found:
            raise RuntimeError(self._last_words())
        return found

    def _last_words(self) -> str:
        return _text(_last_error(self._pointer) or b"no reason given")


def without_contents(trace: str) -> str:
    """Return the trace of a call without what it reads from a file or writes to one."""
    match = _CONTENTS.fullmatch(trace)
    return f"{match[1]} (what is in the file)" if match else trace


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _names(raw: Any) -> list[str]:
    """Return those that are UTF-8."""
    names = []
    for name in raw:
        try:
            names.append(bytes(name).decode())
        except UnicodeDecodeError:
            continue
    return names
