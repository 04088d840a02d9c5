r"""The texts of the scripts that run at the first starts.

PowerShell scripts call cmdlets only, no .NET methods: they must run in Constrained Language Mode,
and, but for disks and addresses, on the PowerShell 2 of Windows 7.
"""

from __future__ import annotations

from conversions.pipeline.windows.firstboot import (
    GO_ON,
    MAX_ATTEMPTS,
    RETRY,
    script_file_name,
)

DRIVERS = "%SystemRoot%\\Drivers\\VirtIO"
INSTALL_DRIVERS, DRIVERS_PRIORITY = "pnputil install drivers", 2000
"""Name and priority of the script that installs drivers: it is the first one of all."""
# What Windows needs to start or to be reached; another driver's failure is only logged.
_NEEDED = ("viostor", "vioscsi", "netkvm")
_CURRENT = "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion"
_PENDING = (
    f"{_CURRENT}\\WindowsUpdate\\Auto Update\\RebootRequired",
    f"{_CURRENT}\\Component Based Servicing\\RebootPending",
)
_SESSION = "HKLM\\SYSTEM\\CurrentControlSet\\Control\\Session Manager"


def install_drivers() -> str:
    r"""Return the script that hands every driver to pnputil.

    A service of 32 bits on a 64-bit Windows reaches the real System32 as Sysnative, others have no
    such folder.  0, 259 (there is nothing to update) and 3010 (restart needed) are success.
    Windows may have a restart to finish at every start, so the last attempt does not wait for it.
    """
    query = '"%BIN%\\reg.exe" query'
    pending = "\n".join(f'{query} "{key}" >nul 2>&1 && goto :pending' for key in _PENDING)
    return f"""\
@echo off
setlocal EnableExtensions
set "BIN=%SystemRoot%\\Sysnative"
if not exist "%BIN%\\pnputil.exe" set "BIN=%SystemRoot%\\System32"
if not defined ATTEMPT set "ATTEMPT={MAX_ATTEMPTS}"
echo Drivers in {DRIVERS}:
dir /b "{DRIVERS}"
{pending}
{query} "{_SESSION}" /v PendingFileRenameOperations >nul 2>&1 && goto :pending
:drivers
set "AGAIN="
for %%i in ("{DRIVERS}\\*.inf") do call :install "%%~fi" "%%~ni"
if defined AGAIN exit /b {RETRY}
exit /b 0

:pending
echo Windows has a restart to finish first; this is attempt %ATTEMPT% of {MAX_ATTEMPTS}.
if %ATTEMPT% LSS {MAX_ATTEMPTS} exit /b {RETRY}
echo Drivers are installed without it.
goto :drivers

:install
"%BIN%\\pnputil.exe" -i -a "%~1"
set "CODE=%ERRORLEVEL%"
echo %~nx1: pnputil ended with exit code %CODE%
for %%c in (0 259 3010) do if "%CODE%"=="%%c" exit /b 0
for %%n in ({" ".join(_NEEDED)}) do if /i "%~2"=="%%n" set "AGAIN=yes"
exit /b 0
"""


def wait_for_pnp(folder: str, restore: str) -> str:
    """Return the script that waits until Plug and Play is quiet, then puts a setting back."""
    return f"""\
@echo off
echo Waiting for Plug and Play to settle
"{folder}\\pnp_wait.exe"
{restore}
exit /b 0
"""


def setup_vmdp(drive: str, *, first: bool) -> str:
    """Return the script that unpacks the driver pack of SUSE and runs its setup.

    The second pass, after a restart, unpacks only when the first one left nothing.
    """
    unpack = f"{drive}:\\vmdp.exe"
    if not first:
        unpack = f"if not exist {drive}:\\VMDP-* {unpack}"
    return f"""\
@echo off
cd /d {drive}:\\
{unpack}
for /d %%d in (VMDP-*) do (
    cd /d "{drive}:\\%%d"
    setup.exe /eula_accepted /no_reboot
    exit /b
)
echo vmdp.exe has unpacked nothing
exit /b 1
"""


def install_guest_agent(folder: str) -> str:
    """Return the PowerShell script that installs the QEMU guest agent.

    3010 and 1641 are success that wants a restart, which comes anyway.
    """
    return f"""\
$folder = '{folder}\\Temp'
foreach ($msi in Get-ChildItem -Path $folder -Filter '*.msi') {{
    $log = "$($msi.FullName).log"
    foreach ($attempt in 1..10) {{
        Write-Output "Installing $($msi.Name), attempt $attempt"
        $arguments = "/i `"$($msi.FullName)`" /norestart /qn /l+*vx `"$log`""
        $process = Start-Process -FilePath msiexec.exe -ArgumentList $arguments -Wait -PassThru
        Write-Output "Exit code $($process.ExitCode)"
        if (@(0, 1641, 3010) -contains $process.ExitCode) {{ break }}
        Start-Sleep -Seconds 60
    }}
}}
exit 0
"""


def install_balloon_service(name: str) -> str:
    """Return the script that installs the balloon service, from Windows' own folder.

    Virus scanners dislike services that live below Program Files.
    """
    return f"""\
@echo off
echo Installing the balloon service
"{DRIVERS}\\{name}" -i
"""


def online_disks() -> str:
    """Return the PowerShell script that brings data disks back.

    Servers set disks offline that come back on another bus.  Only virtio disks are touched.
    """
    return """\
foreach ($disk in Get-Disk | Where-Object { $_.FriendlyName -like '*VirtIO*' }) {
    $size = '{0:N1}' -f ($disk.Size / 1GB)
    Write-Output "Disk $($disk.Number) $($disk.FriendlyName) $size GB: online and writable"
    Set-Disk -Number $disk.Number -IsOffline $false
    Set-Disk -Number $disk.Number -IsReadOnly $false
}
exit 0
"""


def uninstall_program(name: str, command: str, *, prepare: str = "") -> str:
    """Return the script that runs an uninstaller; 3010 and above only ask for a restart."""
    return f"""\
@echo off
echo Uninstalling {batch_text(name)}
{prepare}
{command}
if errorlevel 3010 exit /b 0
"""


def remove_boot_keys(folder: str, paths: tuple[str, ...]) -> str:
    r"""Return the script that deletes the temporary entries of the boot driver.

    They stay when the script of the drivers was given up: Windows would start no more without
    them.  `paths` are below HKLM\SYSTEM.
    """
    installed = script_file_name(DRIVERS_PRIORITY, 1, INSTALL_DRIVERS)
    lines = "\n".join(f'"%BIN%\\reg.exe" delete "HKLM\\SYSTEM\\{path}" /f' for path in paths)
    return f"""\
@echo off
set "BIN=%SystemRoot%\\Sysnative"
if not exist "%BIN%\\reg.exe" set "BIN=%SystemRoot%\\System32"
if not exist "{folder}\\scripts-done\\{installed}" goto :keep
{lines}
exit /b 0

:keep
echo The drivers are not installed; the entries of the boot driver stay.
exit /b {GO_ON}
"""


def batch_text(text: str) -> str:
    """Return a text as an echo prints it: without the characters that mean something there."""
    return "".join(c for c in text if c.isprintable() and c not in '&|<>^%!"()')[:100]
