"""Keep the New Hardware wizard of NT 5 quiet while drivers settle, then let it speak again."""

from __future__ import annotations

from conversions.pipeline.types import Inspection
from conversions.pipeline.windows.registry import SOFTWARE, SYSTEM, Registry, dword

_XP = ("Policies\\Microsoft\\Windows\\DeviceInstall\\Settings", "SuppressNewHWUI")
_SERVER_2003 = ("Services\\PlugPlay\\Parameters", "SuppressUI")


def quiet_new_hardware(guest: Inspection, registry: Registry) -> str:
    """Set the value that quiets the wizard; return the command that restores what was there.

    "" for later versions, which have no such wizard.
    """
    if guest.major_version != 5 or guest.minor_version not in (1, 2):
        return ""
    if guest.minor_version == 1:
        hive, (path, name), shown = SOFTWARE, _XP, f"HKLM\\Software\\{_XP[0]}"
    else:
        hive, (path, name) = SYSTEM, _SERVER_2003
        shown = f"HKLM\\SYSTEM\\CurrentControlSet\\{path}"
        path = f"{guest.windows_current_control_set}\\{path}"
    with registry.editing(hive) as opened:
        key = opened.make(path)
        old = key.number(name)
        key.set(name, dword(1))
    if old is None:
        return f'reg delete "{shown}" /v {name} /f'
    return f'reg add "{shown}" /v {name} /t REG_DWORD /d {old} /f'
