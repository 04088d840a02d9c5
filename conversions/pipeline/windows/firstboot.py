r"""What runs in the guest at its first starts: a queue of scripts behind a service.

The service starts firstboot.bat, which runs the scripts in the order of their names, one a start,
because an installer's locks would break the next one.  A script's exit code tells what then:

    249            run it again after a restart, at most MAX_ATTEMPTS times
    250            done, go on with the next one at once
    anything else  done, restart

The bound on attempts keeps a script that can never succeed from restarting the guest for ever.  A
script finds in ATTEMPT which one this is, from 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conversions.pipeline.windows.code_pages import page_for
from conversions.pipeline.windows.collection import read_file, service_program
from conversions.pipeline.windows.files import WindowsFiles
from conversions.pipeline.windows.registry import SYSTEM, Registry, dword, sz

FOLDER = "/Program Files/Guestfs/Firstboot"
MAX_ATTEMPTS = 3
RETRY, GO_ON = 249, 250
DEFAULT_PRIORITY = 5000
SERVICE = "firstboot"
_DISPLAY_NAME = "First start after conversion"
_SCRIPT = re.compile(r"\d{4}-\d{4}-[A-Za-z0-9_-]*\.bat")
# What a conversion and the first starts after it leave in each folder.
_LEFT = {
    "scripts": _SCRIPT,
    "scripts-done": _SCRIPT,
    "scripts-failed": _SCRIPT,
    "scripts-attempts": _SCRIPT,
    "Temp": re.compile(r"(?i).*\.(msi|ps1)"),
}


def windows_path(path: str, drive: str) -> str:
    """Return a path of the guest's system drive as Windows writes it."""
    return f"{drive}:" + path.replace("/", "\\")


def crlf(text: str, encoding: str = "utf-8") -> bytes:
    """Return a script as Windows stores it: CRLF line ends, no NUL, no byte order mark.

    "?" stands for characters that the encoding lacks.
    """
    lines = text.replace("\0", "").lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return lines.rstrip("\n").replace("\n", "\r\n").encode(encoding, "replace") + b"\r\n"


def batch(text: str, pages: Sequence[str]) -> bytes:
    """Return a batch script; one beyond ASCII begins by telling its code page, one of `pages`."""
    script = text.lstrip("\ufeff")
    if script.isascii():
        return crlf(script)
    page = page_for(script, pages)
    return crlf(f"@chcp {page} >nul\n{script}", f"cp{page}")


def script_file_name(priority: int, number: int, name: str) -> str:
    """Return the name of a script in the queue; the order of names is that of running.

    Raises ValueError for a priority outside 0 to 9999.
    """
    if not 0 <= priority <= 9999:
        raise ValueError(f"priority {priority} of {name!r} is not within 0 and 9999")
    plain = re.sub(r"[^A-Za-z0-9_]", "-", name)[:60]
    return f"{priority:04d}-{number:04d}-{plain}.bat"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the first start lives, as Windows sees it."""

    drive: str
    program: str

    @property
    def folder(self) -> str:
        """Return the folder."""
        return windows_path(FOLDER, self.drive)

    def service_command(self) -> str:
        """Return the service's program, quoted: a path with a space invites another program."""
        return f'"{self.folder}\\{self.program}" -s {SERVICE}'


class FirstBoot:
    """The queue of one guest; installed with the first script that is added."""

    def __init__(
        self,
        files: WindowsFiles,
        registry: Registry,
        tools: Mapping[str, Path],
        *,
        control_set: str,
        drive: str,
        code_pages: Sequence[str],
    ) -> None:
        program = service_program(tools)
        if program is None:
            raise AssertionError("a program that runs the scripts was not checked for")
        self._files = files
        self._registry = registry
        self._tools = tools
        self._control_set = control_set
        self._code_pages = code_pages
        self._count = 0
        self._folder = FOLDER
        self.layout = Layout(drive, program)

    def add(self, name: str, text: str, *, priority: int = DEFAULT_PRIORITY) -> str:
        """Queue a batch script and return its path in the guest.

        Opens the SYSTEM hive for the first script, so no hive may be open.
        """
        if not self._count:
            self._install()
        self._count += 1
        path = f"{self._folder}/scripts/{script_file_name(priority, self._count, name)}"
        data = batch(text, self._code_pages)
        self._files.write(path, data, "script of the first start")
        return path

    def next_name(self, name: str, *, priority: int = DEFAULT_PRIORITY) -> str:
        """Return the Windows path the next script would have, without its extension."""
        file = script_file_name(priority, self._count + 1, name)
        return f"{self.layout.folder}\\scripts\\{file.removesuffix('.bat')}"

    def add_powershell(self, name: str, text: str, *, priority: int = DEFAULT_PRIORITY) -> str:
        """Queue a PowerShell script, run whatever the machine's execution policy says."""
        if not self._count:
            self._install()
        self._files.write(
            f"{self._folder}/Temp/{name}.ps1", crlf(text), "script of the first start"
        )
        return self.add(
            name,
            "powershell.exe -ExecutionPolicy ByPass -NoProfile -NonInteractive -File "
            f'"{self.layout.folder}\\Temp\\{name}.ps1"',
            priority=priority,
        )

    def put(self, name: str, data: bytes, *, folder: str = "", what: str) -> None:
        """Write a file below the folder of the first start."""
        if not self._count:
            self._install()
        self._files.write(f"{self._folder}{folder}/{name}", data, what)

    def _install(self) -> None:
        """Write the service and its program, after an earlier conversion is forgotten."""
        self._folder = self._files.make_folder(FOLDER)
        for name in ("scripts", "Temp"):
            self._files.make_folder(f"{self._folder}/{name}")
        self._forget_earlier()
        program = self.layout.program
        self._files.write(
            f"{self._folder}/{program}",
            read_file(self._tools[program]),
            "service of the first start",
        )
        self._files.write(
            f"{self._folder}/firstboot.bat",
            crlf(controller_script(self.layout)),
            "script of the first start",
        )
        with self._registry.editing(SYSTEM) as system:
            key = system.make(f"{self._control_set}\\Services\\{SERVICE}")
            for name, value in {
                "Type": dword(0x10),  # a process of its own
                "Start": dword(2),  # by itself, after the drivers
                "ErrorControl": dword(1),
                "ImagePath": sz(self.layout.service_command()),
                "DisplayName": sz(_DISPLAY_NAME),
                "ObjectName": sz("LocalSystem"),
            }.items():
                key.set(name, value)
            parameters = key.make("Parameters")
            parameters.set("CommandLine", sz(f'cmd /c "{self.layout.folder}\\firstboot.bat"'))
            parameters.set("PWD", sz(self.layout.folder))

    def _forget_earlier(self) -> None:
        """Delete what would run once more, or count, for a guest that was converted before."""
        self._files.remove(f"{self._folder}/complete", "mark of an earlier conversion deleted")
        for folder, pattern in _LEFT.items():
            for name in self._files.names(f"{self._folder}/{folder}"):
                if pattern.fullmatch(name):
                    self._files.remove(
                        f"{self._folder}/{folder}/{name}", "file of an earlier conversion deleted"
                    )


def controller_script(layout: Layout) -> str:
    r"""Return firstboot.bat, which runs the queue.

    Attempts are counted in scripts-attempts\NAME, one line each, until the script leaves the queue;
    one that asked for a retry MAX_ATTEMPTS times moves to scripts-failed.  An attempt that cannot
    be counted is the last.  Each script has a shell of its own, so that "exit" ends that one only.
    A block is expanded once, hence the subroutine: its variables are read when they are needed.
    """
    return f"""\
@echo off
setlocal EnableExtensions
set "FOLDER={layout.folder}"
set "QUEUE=%FOLDER%\\scripts"
set "DONE=%FOLDER%\\scripts-done"
set "FAILED=%FOLDER%\\scripts-failed"
set "COUNTS=%FOLDER%\\scripts-attempts"
call :main >> "%FOLDER%\\log.txt" 2>&1
exit /b 0

:main
echo %DATE% %TIME% first start: begin
echo running as %USERDOMAIN%\\%USERNAME%
if not exist "%DONE%" mkdir "%DONE%"
if not exist "%FAILED%" mkdir "%FAILED%"
if not exist "%COUNTS%" mkdir "%COUNTS%"
set "RESTART="
for %%f in ("%QUEUE%\\*.bat") do (
    call :run "%%~nxf"
    if defined RESTART goto :restart
)
echo %DATE% %TIME% first start: all scripts have run
type nul > "%FOLDER%\\complete"
"%FOLDER%\\{layout.program}" -s {SERVICE} uninstall
exit /b 0

:restart
echo %DATE% %TIME% first start: restarting
shutdown /r /t 0
exit /b 0

:run
echo attempt>> "%COUNTS%\\%~1"
set "ATTEMPT={MAX_ATTEMPTS}"
for /f %%n in ('find /c /v "" ^< "%COUNTS%\\%~1"') do set "ATTEMPT=%%n"
echo %DATE% %TIME% running %~1, attempt %ATTEMPT%
cd /d "%QUEUE%"
cmd /c call "%QUEUE%\\%~1"
set "CODE=%ERRORLEVEL%"
echo %DATE% %TIME% %~1 ended with exit code %CODE%
if "%CODE%"=="{RETRY}" goto :retry
call :file "%~1" "%DONE%"
if "%CODE%"=="{GO_ON}" exit /b 0
set "RESTART=yes"
exit /b 0

:retry
set "RESTART=yes"
echo %~1 asks for another attempt after %ATTEMPT% of {MAX_ATTEMPTS}
if %ATTEMPT% LSS {MAX_ATTEMPTS} exit /b 0
echo %~1 is given up
call :file "%~1" "%FAILED%"
exit /b 0

:file
if exist "%COUNTS%\\%~1" del /f /q "%COUNTS%\\%~1"
move /y "%QUEUE%\\%~1" "%~2\\%~1"
if not exist "%QUEUE%\\%~1" exit /b 0
rem A script that cannot be moved would run at every start.
del /f /q "%QUEUE%\\%~1"
exit /b 0
"""
