"""Fixed addresses of a guest's network cards, by MAC, set again at the first start.

The card on the target is new hardware to Windows: it comes up with DHCP, and the address stays
with the old card, which is not there any more but still configured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from conversions.pipeline.errors import JobError
from conversions.pipeline.job import StaticIp

_WAIT_SECONDS, _WAIT_ROUNDS = 5, 60
_CARDS = "SYSTEM\\CurrentControlSet\\Services\\Tcpip\\Parameters\\Interfaces"
_ALL = {4: "0.0.0.0/0", 6: "::/0"}
"""Every destination, by version of IP."""


def parse_static_ip(value: str) -> StaticIp:
    """Read MAC:ip:ADDRESS[,GATEWAY[,PREFIX[,NAMESERVER...]]].  Raises JobError."""
    mac, text = value[:17].lower().replace("-", ":"), value[21:]
    parts = text.split(",")
    address, gateway, prefix, *servers = [*parts, *[""] * (3 - len(parts))]
    if not re.fullmatch(r"[0-9]{0,3}", prefix):
        raise JobError(
            f"--mac {value[:80]!r}: prefix length {prefix[:80]!r} is no number up to 128.",
            remedy="Write --mac MAC:ip:ADDRESS,GATEWAY,PREFIX,NAMESERVER with a prefix such as 24.",
        )
    return StaticIp(
        mac=mac,
        address=address,
        gateway=gateway,
        prefix=int(prefix) if prefix else None,
        name_servers=tuple(s for s in servers if s),
    )


def powershell(entries: Sequence[StaticIp], *, wait_for_netkvm: bool) -> str:
    """Return the script for Windows 8 and later."""
    wait = f"""\
foreach ($round in 1..{_WAIT_ROUNDS}) {{
    $ready = Get-NetAdapter -Physical | Where-Object {{ $_.DriverFileName -eq 'netkvm.sys' }}
    if ($ready) {{ break }}
    Start-Sleep -Seconds {_WAIT_SECONDS}
}}
"""
    cards = f"$folder = 'HKLM:\\{_CARDS}'\n"
    parts = [cards, _POWERSHELL_HEAD, wait if wait_for_netkvm else ""]
    for mac in dict.fromkeys(e.mac for e in entries):
        parts.append(_adapter_block(mac.replace(":", "-").upper(), list(_of_card(mac, entries))))
    return "".join(parts) + "exit 0\n"


def _of_card(mac: str, entries: Sequence[StaticIp]) -> Iterator[StaticIp]:
    """Yield the entries of one card, each gateway once: Windows refuses an address with another."""
    gateways = set()
    for e in (e for e in entries if e.mac == mac):
        gateway = ip_address(e.gateway) if e.gateway else None
        yield replace(e, gateway="") if gateway in gateways else e
        gateways.add(gateway)


# Old cards keep their address in the registry, and Windows then finds it taken.
_POWERSHELL_HEAD = """\
function Clear-OldAddress($address) {
    $present = @(Get-NetAdapter | ForEach-Object { $_.InterfaceGuid })
    foreach ($key in Get-ChildItem -Path $folder) {
        if ($present -contains $key.PSChildName) { continue }
        $values = Get-ItemProperty -Path $key.PSPath
        if (@($values.IPAddress) -notcontains $address) { continue }
        Write-Output "$address is taken from the absent card $($key.PSChildName)"
        foreach ($name in 'IPAddress', 'SubnetMask', 'DefaultGateway', 'NameServer') {
            Remove-ItemProperty -Path $key.PSPath -Name $name -ErrorAction SilentlyContinue
        }
        Set-ItemProperty -Path $key.PSPath -Name EnableDHCP -Value 1
    }
}
"""


def _adapter_block(mac: str, entries: Sequence[StaticIp]) -> str:
    lines = [
        f"$card = Get-NetAdapter -Physical | Where-Object {{ $_.MacAddress -eq '{mac}' }} | "
        "Select-Object -First 1",
        "if ($card) {",
    ]
    routed = set()
    for e in entries:
        version = ip_address(e.address).version
        # A card takes one default gateway of a kind; those after it are routes of their own.
        first = e.gateway and version not in routed
        gateway = f" -DefaultGateway '{e.gateway}'" if first else ""
        prefix = f" -PrefixLength {e.prefix}" if e.prefix is not None else ""
        lines += [
            f"    Write-Output 'Setting {e.address} on {mac}'",
            f"    Clear-OldAddress '{e.address}'",
            "    New-NetIPAddress -InterfaceIndex $card.ifIndex "
            f"-IPAddress '{e.address}'{gateway}{prefix}",
        ]
        if e.gateway and not first:
            lines.append(
                "    New-NetRoute -InterfaceIndex $card.ifIndex "
                f"-DestinationPrefix '{_ALL[version]}' -NextHop '{e.gateway}'"
            )
        if e.gateway:
            routed.add(version)
    if servers := list(dict.fromkeys(s for e in entries for s in e.name_servers)):
        listing = ", ".join(f"'{s}'" for s in servers)
        lines.append(
            "    Set-DnsClientServerAddress -InterfaceIndex $card.ifIndex "
            f"-ServerAddresses @({listing})"
        )
    return "\n".join([*lines, "}", ""])


def netsh(entries: Sequence[StaticIp]) -> str:
    """Return the batch script for Windows before 8, which lacks the cmdlets.

    Waits for each card in turn; its connection's name is found by the MAC.  An absent card has no
    MAC.  The registry's lists of addresses are shown with a backslash and a zero between two.
    """
    macs = list(dict.fromkeys(e.mac for e in entries))
    calls = "\n".join(f"call :card {mac.upper()} :set{n}" for n, mac in enumerate(macs))
    blocks = []
    for n, mac in enumerate(macs):
        lines = _netsh_lines(list(_of_card(mac, entries)))
        blocks.append("\n".join([f":set{n}", *lines, "exit /b 0"]))
    return f"""\
@echo off
setlocal EnableExtensions
set "CARDS=HKLM\\{_CARDS}"
{calls}
exit /b 0

:card
set "ROUND=0"
:look
set "CARD="
for /f "tokens=2 delims==" %%n in ('wmic nic where "MACAddress='%~1' and NetConnectionID is not null" get NetConnectionID /value ^<nul') do for /f "delims=" %%m in ("%%n") do set "CARD=%%m"
if defined CARD goto :found
set /a ROUND+=1
if %ROUND% GEQ {_WAIT_ROUNDS} exit /b 0
ping -n {_WAIT_SECONDS + 1} 127.0.0.1 >nul
goto :look
:found
echo Setting the addresses of %CARD% (%~1)
call %~2
exit /b 0

:forget
for /f "tokens=2 delims={{}}" %%g in ('reg query "%CARDS%"') do call :clear %%g %~1
exit /b 0

:clear
set "ADDRESSES="
for /f "tokens=2*" %%t in ('reg query "%CARDS%\\{{%~1}}" /v IPAddress 2^>nul') do if "%%t"=="REG_MULTI_SZ" set "ADDRESSES=%%u"
if not defined ADDRESSES exit /b 0
set "TAKEN="
for %%a in (%ADDRESSES:\\0= %) do if "%%a"=="%~2" set "TAKEN=yes"
if not defined TAKEN exit /b 0
wmic nicconfig where "SettingID='{{%~1}}' and MACAddress is not null" get Index /value <nul | find "=" >nul && exit /b 0
echo %~2 is taken from the absent card {{%~1}}
for %%v in (IPAddress SubnetMask DefaultGateway NameServer) do reg delete "%CARDS%\\{{%~1}}" /v %%v /f
reg add "%CARDS%\\{{%~1}}" /v EnableDHCP /t REG_DWORD /d 1 /f
exit /b 0

{chr(10).join(blocks)}
"""  # noqa: E501  some commands of the script are this long


def _netsh_lines(entries: Sequence[StaticIp]) -> list[str]:
    """Return netsh's commands for one card: the first IPv4 address replaces DHCP."""
    lines, seen_v4 = [], False
    servers: dict[type, int] = {}
    for e in entries:
        address = ip_address(e.address)
        if isinstance(address, IPv6Address):
            length = f"/{e.prefix}" if e.prefix is not None else ""
            lines.append(f'netsh interface ipv6 add address "%CARD%" {address}{length}')
            if e.gateway:
                lines.append(f'netsh interface ipv6 add route ::/0 "%CARD%" {e.gateway}')
        else:
            verb = "add address" if seen_v4 else "set address"
            source = "" if seen_v4 else "static "
            gateway = f" {e.gateway} 1" if e.gateway else ""
            mask = ip_network(f"0.0.0.0/{_prefix(e, address)}").netmask
            lines += [
                f"call :forget {address}",
                f'netsh interface ip {verb} "%CARD%" {source}{address} {mask}{gateway}',
            ]
            seen_v4 = True
        for server in e.name_servers:
            family = type(ip_address(server))
            place = servers[family] = servers.get(family, 0) + 1
            kind = "ip" if family is IPv4Address else "ipv6"
            verb = "set dns" if place == 1 else "add dns"
            source = "static " if place == 1 else ""
            lines.append(f'netsh interface {kind} {verb} "%CARD%" {source}{server}')
    return lines


def _prefix(entry: StaticIp, address: IPv4Address) -> int:
    """Return the prefix length, without one that of the address' class: netsh wants a mask."""
    if entry.prefix is not None:
        return entry.prefix
    first = address.packed[0]
    return 8 if first < 128 else 16 if first < 192 else 24
