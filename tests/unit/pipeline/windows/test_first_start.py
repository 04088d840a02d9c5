"""The scripts of the first start and their names: rows T52 to T55, T65 to T70."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conversions.pipeline.cli import main
from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Input, Job, Mode, StaticIp, WindowsOptions
from conversions.pipeline.windows import scripts, static_ip
from conversions.pipeline.windows.firstboot import (
    GO_ON,
    MAX_ATTEMPTS,
    RETRY,
    Layout,
    batch,
    controller_script,
    crlf,
    script_file_name,
)

LAYOUT = Layout("C", "rhsrvany.exe")
MAC = "00:11:22:33:44:55"
FULL = f"{MAC}:ip:192.168.0.10,192.168.0.1,24,8.8.8.8,8.8.4.4"
ALL_SCRIPTS = {
    "controller": controller_script(LAYOUT),
    "pnputil": scripts.install_drivers(),
    "wait": scripts.wait_for_pnp(LAYOUT.folder, 'reg delete "HKLM\\x" /v y /f'),
    "vmdp": scripts.setup_vmdp("C", first=True),
    "vmdp again": scripts.setup_vmdp("C", first=False),
    "agent": scripts.install_guest_agent(LAYOUT.folder),
    "balloon": scripts.install_balloon_service("blnsvr.exe"),
    "disks": scripts.online_disks(),
    "uninstall": scripts.uninstall_program("VMware Tools", "MsiExec.exe /x{1}"),
    "keys": scripts.remove_boot_keys(LAYOUT.folder, ("DriverDatabase\\x",)),
    "addresses": static_ip.powershell([static_ip.parse_static_ip(FULL)], wait_for_netkvm=True),
    "netsh": static_ip.netsh([static_ip.parse_static_ip(FULL)]),
}
BATCH = [name for name, text in ALL_SCRIPTS.items() if "@echo off" in text or "-i\n" in text]


@pytest.mark.rows("3-T52")
@pytest.mark.parametrize("name", ALL_SCRIPTS)
def test_t52_scripts_have_windows_line_ends(name: str) -> None:
    data = crlf(ALL_SCRIPTS[name])
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r") > 1
    assert b"\0" not in data
    assert not data.startswith(b"\xef\xbb\xbf")


@pytest.mark.rows("3-T52")
def test_t52_line_ends_nul_and_mark_of_a_persons_script_are_mended() -> None:
    assert crlf("\ufeffa\r\nb\0\nc\rd\n\n") == b"a\r\nb\r\nc\r\nd\r\n"


@pytest.mark.parametrize(
    ("text", "pages", "expected"),
    [
        ("echo a", ("850", "65001"), b"echo a\r\n"),
        ("\ufeffecho a", ("850", "65001"), b"echo a\r\n"),
        ("echo \xfc", ("850", "65001"), b"@chcp 850 >nul\r\necho \x81\r\n"),
        ("\ufeffecho \u5de5", ("850", "65001"), b"@chcp 65001 >nul\r\necho \xe5\xb7\xa5\r\n"),
        ("echo \u5de5", ("936", "65001"), b"@chcp 936 >nul\r\necho \xb9\xa4\r\n"),
        ("echo \u5de5\xfc", ("850",), b"@chcp 850 >nul\r\necho ?\x81\r\n"),
        ("echo \ud800", ("850", "65001"), b"@chcp 65001 >nul\r\necho ?\r\n"),
    ],
)
def test_d20_a_script_beyond_ascii_tells_its_code_page(
    text: str, pages: tuple[str, ...], expected: bytes
) -> None:
    assert batch(text, pages) == expected


@pytest.mark.parametrize(
    ("content", "said"), [("echo \xfc".encode("latin-1"), "UTF-8"), (None, "No such file")]
)
def test_a_script_that_cannot_be_read_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, said: str
) -> None:
    script = tmp_path / "a.bat"
    if content is not None:
        script.write_bytes(content)
    assert main(["x.ova", "--inspect", "--firstboot", str(script)]) == 1
    message = capsys.readouterr().err
    assert said in message and str(script) in message


@pytest.mark.rows("3-T53")
def test_t53_script_names() -> None:
    assert script_file_name(5000, 7, "uninstall Xen PV") == "5000-0007-uninstall-Xen-PV.bat"
    assert script_file_name(0, 1, "n" * 100) == f"0000-0001-{'n' * 60}.bat"
    assert script_file_name(9999, 1, "/root/a.bat") == "9999-0001--root-a-bat.bat"
    for priority in (-1, 10000):
        with pytest.raises(ValueError, match="priority"):
            script_file_name(priority, 1, "x")


def section(text: str, label: str) -> str:
    """Return the lines of a batch script from a label to the next one."""
    return re.split(r"(?m)^:", text.split(f"\n:{label}\n", 1)[1])[0]


@pytest.mark.rows("3-T54")
def test_t54_the_controller_keeps_bounds_and_moves() -> None:
    text = ALL_SCRIPTS["controller"]
    run, retry, main = (section(text, label) for label in ("run", "retry", "main"))
    assert f'if "%CODE%"=="{RETRY}" goto :retry' in run
    moved, leave, restart = (run.index(t) for t in (
        'call :file "%~1" "%DONE%"', f'if "%CODE%"=="{GO_ON}" exit /b 0', 'set "RESTART=yes"',
    ))  # fmt: skip
    assert moved < leave < restart
    assert "RESTART=yes" in retry
    kept = retry.index(f"if %ATTEMPT% LSS {MAX_ATTEMPTS} exit /b 0")
    assert kept < retry.index('call :file "%~1" "%FAILED%"')
    assert main.index("complete") < main.index("-s firstboot uninstall")
    assert "shutdown /r /t 0" in section(text, "restart")


@pytest.mark.rows("3-T54")
def test_t54_a_script_knows_its_attempt_and_a_done_one_leaves_no_count() -> None:
    run = section(ALL_SCRIPTS["controller"], "run")
    counted, last, read, started = (run.index(t) for t in (
        'echo attempt>> "%COUNTS%\\%~1"', f'set "ATTEMPT={MAX_ATTEMPTS}"', 'set "ATTEMPT=%%n"',
        "cmd /c call",
    ))  # fmt: skip
    assert counted < last < read < started
    assert 'del /f /q "%COUNTS%\\%~1"' in section(ALL_SCRIPTS["controller"], "file")


@pytest.mark.parametrize("name", BATCH)
def test_every_label_that_is_gone_to_exists_and_quotes_are_paired(name: str) -> None:
    text = ALL_SCRIPTS[name]
    wanted = set(re.findall(r"(?:goto|call) :(\w+)", text)) | set(re.findall(r" :(set\d)", text))
    assert wanted <= set(re.findall(r"(?m)^:(\w+)$", text))
    assert all(line.count('"') % 2 == 0 for line in text.splitlines())
    assert text.count("(") == text.count(")")


@pytest.mark.rows("3-T55")
def test_t55_pnputil_waits_for_pending_restarts_and_needs_only_what_matters() -> None:
    text = ALL_SCRIPTS["pnputil"]
    assert text.count("goto :pending") == 3
    assert text.index("Sysnative") < text.index("System32")
    install = section(text, "install")
    assert "for %%c in (0 259 3010)" in install
    assert re.search(r"for %%n in \(viostor vioscsi netkvm\) do .*AGAIN=yes", install)
    assert install.rstrip().endswith("exit /b 0")
    pending = section(text, "pending")
    assert f"if %ATTEMPT% LSS {MAX_ATTEMPTS} exit /b {RETRY}" in pending
    assert pending.rstrip().endswith("goto :drivers")


def test_the_guest_agent_takes_restart_codes_for_success() -> None:
    text = ALL_SCRIPTS["agent"]
    assert "@(0, 1641, 3010) -contains" in text
    assert "1..10" in text and "Start-Sleep -Seconds 60" in text
    assert text.rstrip().endswith("exit 0")


def test_boot_keys_stay_when_the_drivers_were_given_up() -> None:
    """D22."""
    text = ALL_SCRIPTS["keys"]
    done = f"{LAYOUT.folder}\\scripts-done\\2000-0001-pnputil-install-drivers.bat"
    assert text.index(f'if not exist "{done}" goto :keep') < text.index('reg.exe" delete')
    assert f"exit /b {GO_ON}" in section(text, "keep")


@pytest.mark.rows("3-T70")
@pytest.mark.parametrize("name", ["agent", "disks", "addresses"])
def test_t70_powershell_calls_no_dotnet(name: str) -> None:
    assert not re.search(r"\[[A-Za-z.]+\]::|\)\.\w+\(", ALL_SCRIPTS[name])
    assert ALL_SCRIPTS[name].count("{") == ALL_SCRIPTS[name].count("}")


@pytest.mark.rows("3-T70")
def test_t70_only_virtio_disks_are_brought_back() -> None:
    text = ALL_SCRIPTS["disks"]
    assert "-like '*VirtIO*'" in text
    assert text.index("-IsOffline $false") < text.index("-IsReadOnly $false")


def test_an_uninstaller_that_wants_a_restart_has_succeeded() -> None:
    text = scripts.uninstall_program('Evil & "del" %PATH%', "x.exe", prepare="reg delete y")
    assert text.index("reg delete y") < text.index("x.exe")
    assert "echo Uninstalling Evil  del PATH\n" in text
    assert "if errorlevel 3010 exit /b 0" in text


@pytest.mark.rows("3-T65")
def test_t65_a_whole_address_entry() -> None:
    assert static_ip.parse_static_ip(FULL) == StaticIp(
        mac=MAC, address="192.168.0.10", gateway="192.168.0.1", prefix=24,
        name_servers=("8.8.8.8", "8.8.4.4"),
    )  # fmt: skip


@pytest.mark.rows("3-T66")
@pytest.mark.parametrize(
    ("text", "prefix"), [("10.0.0.5", None), ("10.0.0.5,,", None), ("10.0.0.5,,16", 16)]
)
def test_t66_parts_may_be_missing(text: str, prefix: int | None) -> None:
    entry = static_ip.parse_static_ip(f"{MAC}:ip:{text}")
    assert (entry.address, entry.gateway, entry.prefix) == ("10.0.0.5", "", prefix)


@pytest.mark.rows("3-T66")
@pytest.mark.parametrize(
    "text", ["10.0.0.5,,129", "10.0.0.5,,33", "10.0.0.5,,x", "foo", "", "10.0.0.5,bar",
             "10.0.0.5,,24,dns'; evil", "1.2.3", "fe80::1%';calc;'", "fe80::5,fe80::1%3,64",
             "fd00::5,,64,fe80::1%x", f"10.0.0.5,,{'1' * 5000}"],
)  # fmt: skip
def test_t66_wrong_parts_are_refused(text: str) -> None:
    with pytest.raises(JobError):
        static_ip.parse_static_ip(f"{MAC}:ip:{text}")


@pytest.mark.rows("3-T67")
def test_t67_the_address_script_waits_for_the_driver_and_sets_all() -> None:
    text = ALL_SCRIPTS["addresses"]
    assert "'00-11-22-33-44-55'" in text
    assert "1..60" in text and "Start-Sleep -Seconds 5" in text and "netkvm.sys" in text
    assert "-IPAddress '192.168.0.10' -DefaultGateway '192.168.0.1' -PrefixLength 24" in text
    assert "-ServerAddresses @('8.8.8.8', '8.8.4.4')" in text
    assert text.index("Clear-OldAddress '192.168.0.10'") < text.index("New-NetIPAddress")


@pytest.mark.rows("3-T68")
def test_t68_the_least_address_script() -> None:
    entry = static_ip.parse_static_ip(f"{MAC}:ip:10.0.0.5")
    text = static_ip.powershell([entry], wait_for_netkvm=False)
    assert "-IPAddress '10.0.0.5'\n" in text
    for absent in ("netkvm.sys", "-DefaultGateway", "-PrefixLength", "Set-DnsClientServerAddress"):
        assert absent not in text


def test_several_addresses_of_one_card_share_one_block() -> None:
    entries = [
        static_ip.parse_static_ip(f"{MAC}:ip:{text}")
        for text in ("10.0.0.5,10.0.0.1,24,10.0.0.2", "fd00::5,fd00::1,64,fd00::2", "10.0.0.6,,24")
    ]
    text = static_ip.powershell(entries, wait_for_netkvm=True)
    assert text.count("Get-NetAdapter -Physical | Where-Object { $_.MacAddress") == 1
    assert text.count("New-NetIPAddress") == 3
    assert "@('10.0.0.2', 'fd00::2')" in text
    old = static_ip.netsh(entries)
    assert (
        "call :forget 10.0.0.5\n"
        'netsh interface ip set address "%CARD%" static 10.0.0.5 255.255.255.0 10.0.0.1 1\n' in old
    )
    assert 'ip add address "%CARD%" 10.0.0.6 255.255.255.0' in old
    assert 'ipv6 add address "%CARD%" fd00::5/64' in old
    assert 'ip set dns "%CARD%" static 10.0.0.2' in old
    assert 'ipv6 set dns "%CARD%" static fd00::2' in old


def test_addresses_of_a_card_name_each_gateway_once() -> None:
    entries = [
        static_ip.parse_static_ip(f"{MAC}:ip:{text}")
        for text in ("10.0.0.5,10.0.0.1,24", "10.0.0.6,10.0.0.1,24", "10.0.0.7,10.0.0.2,24",
                     "fd00::5,fd00::1,64", "fd00::6,FD00:0::1,64")
    ]  # fmt: skip
    text = static_ip.powershell(entries, wait_for_netkvm=True)
    assert re.findall(r"-DefaultGateway '(.*?)'", text) == ["10.0.0.1", "fd00::1"]
    assert "-IPAddress '10.0.0.6' -PrefixLength 24\n" in text
    routes = re.findall(r"New-NetRoute .* -DestinationPrefix '(.*)' -NextHop '(.*)'", text)
    assert routes == [("0.0.0.0/0", "10.0.0.2")]
    old = static_ip.netsh(entries)
    assert 'ip add address "%CARD%" 10.0.0.6 255.255.255.0\n' in old
    assert 'ip add address "%CARD%" 10.0.0.7 255.255.255.0 10.0.0.2 1\n' in old
    assert old.count("add route ::/0") == 1
    other = static_ip.parse_static_ip(f"{MAC[:-1]}6:ip:10.0.0.8,10.0.0.1,24")
    assert static_ip.powershell([*entries, other], wait_for_netkvm=True).count("'10.0.0.1'") == 2


def test_absent_cards_lose_the_address_before_windows_8_too() -> None:
    clear = section(ALL_SCRIPTS["netsh"], "clear")
    owned, present, deleted = (clear.index(t) for t in (
        'if "%%a"=="%~2" set "TAKEN=yes"', "MACAddress is not null", "reg delete",
    ))  # fmt: skip
    assert owned < present < deleted
    assert "for %%a in (%ADDRESSES:\\0= %) do" in clear
    assert "(IPAddress SubnetMask DefaultGateway NameServer)" in clear
    assert 'reg add "%CARDS%\\{%~1}" /v EnableDHCP /t REG_DWORD /d 1 /f' in clear


@pytest.mark.parametrize(
    ("address", "mask"),
    [("10.0.0.5", "255.0.0.0"), ("172.16.0.5", "255.255.0.0"), ("192.168.0.5", "255.255.255.0")],
)
def test_without_a_prefix_netsh_gets_the_mask_of_the_class(address: str, mask: str) -> None:
    gateway = address[:-1] + "1"
    text = static_ip.netsh([static_ip.parse_static_ip(f"{MAC}:ip:{address},{gateway}")])
    assert f'set address "%CARD%" static {address} {mask} {gateway} 1\n' in text


def test_wishes_for_windows_survive_the_way_through_json() -> None:
    wishes = WindowsOptions(
        virtio_win="/x.iso", block_driver="virtio-scsi", emulated_devices=True,
        static_ips=(static_ip.parse_static_ip(FULL),),
    )  # fmt: skip
    job = Job(mode=Mode.INSPECT, source=Input(kind="ova", location="/a"), windows=wishes)
    assert Job.from_json(job.to_json()) == job


@pytest.mark.rows("3-T39")
@pytest.mark.parametrize(
    "windows",
    [
        {"block_driver": "ide"}, {"virtio_win": 5}, {"unknown": 1}, {"static_ips": "x"},
        {"static_ips": [{"mac": MAC}]}, {"static_ips": [{"mac": "x", "address": "10.0.0.1"}]},
        {"static_ips": [{"mac": MAC, "address": "10.0.0.1", "prefix": 64}]},
    ],
)  # fmt: skip
def test_t39_wrong_wishes_are_refused(windows: object) -> None:
    data = {"mode": "inspect", "source": {"kind": "ova", "location": "/a"}, "windows": windows}
    with pytest.raises(JobError):
        Job.from_dict(data)
