"""Tools of the old hypervisor, and the commands that remove them at the first start."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.windows import scripts
from conversions.pipeline.windows.applications import Program
from conversions.pipeline.windows.firstboot import FirstBoot

_XEN_KEY = "Red Hat Paravirtualized Xen Drivers for Windows(R)"
_PARALLELS = ("Parallels Tools", "Virtuozzo Tools")
_PARALLELS_OPTIONS = "PREVENT_REBOOT=Yes LAUNCHED_BY_SETUP_EXE=Yes"
# With the count above zero the uninstaller leaves the driver in place.
_FORGET_USERS = (
    'reg delete "HKLM\\System\\CurrentControlSet\\Services\\prl_strg\\DriverInfo" /v RefCount /f'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignTool:
    """A program to remove: the script's name, the vendor's command and what to add to it."""

    script: str
    name: str
    command: str
    msi: bool = True
    extra: str = ""
    prepare: str = ""


def foreign_tools(programs: Iterable[Program]) -> tuple[list[ForeignTool], list[str]]:
    """Return what can be removed, and the names of what does not say how."""
    found, silent = [], []
    for program in programs:
        tool = _tool(program)
        if tool is None:
            continue
        if tool.command:
            found.append(tool)
        else:
            silent.append(tool.name)
    order = ["uninstall Xen PV", "uninstall Parallels tools", "uninstall VMware Tools"]
    return sorted(found, key=lambda t: order.index(t.script)), silent


def _tool(program: Program) -> ForeignTool | None:
    command = program.uninstall.strip()
    if program.key == _XEN_KEY:
        return ForeignTool(
            script="uninstall Xen PV", name=program.key, command=xen_command(command), msi=False
        )
    if any(name in program.name for name in _PARALLELS):
        return ForeignTool(
            script="uninstall Parallels tools",
            name=program.name,
            command=command,
            extra=_PARALLELS_OPTIONS,
            prepare=_FORGET_USERS,
        )
    if "VMware Tools" in program.name:
        return ForeignTool(
            script="uninstall VMware Tools", name=program.name, command=msi_command(command)
        )
    return None


def xen_command(command: str) -> str:
    r"""Return the uninstaller itself: uninst.exe only asks and then starts _uninst.exe."""
    bare = command.strip('"')
    if not bare:
        return ""
    return '"' + re.sub(r"(?i)(^|[\\/])uninst\.exe$", r"\g<1>_uninst.exe", bare) + '"'


def msi_command(command: str) -> str:
    """Return an msiexec command that uninstalls: VMware stores the one that installs."""
    if "msiexec" not in command.lower():
        return command
    return re.sub("/i", "/x", command, count=1, flags=re.IGNORECASE)


def uninstall_command(tool: ForeignTool, script: str) -> str:
    """Return the whole command; `script` is the script's Windows path without extension."""
    if not tool.msi:
        return tool.command
    options = f'/quiet /norestart /l*v+ "{script}.log" REBOOT=ReallySuppress REMOVE=ALL'
    return f"{tool.command} {options} {tool.extra}".rstrip()


def add_removals(firstboot: FirstBoot, programs: Iterable[Program], report: Reporter) -> None:
    """Queue one script for each program of the old hypervisor."""
    tools, silent = foreign_tools(programs)
    for tool in tools:
        command = uninstall_command(tool, firstboot.next_name(tool.script))
        report.log(Level.INFO, f"{tool.name} is removed at the first start: {command}")
        firstboot.add(
            tool.script, scripts.uninstall_program(tool.name, command, prepare=tool.prepare)
        )
    for name in silent:
        report.log(
            Level.WARNING,
            f"{name} is installed but does not say how it is removed; remove it by hand after "
            "the first start (ignored).",
        )
