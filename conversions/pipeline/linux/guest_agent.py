"""The QEMU guest agent: installed when the guest starts for the first time on KVM."""

from __future__ import annotations

from conversions.pipeline.context import Context
from conversions.pipeline.linux.families import Family
from conversions.pipeline.linux.firstboot import FirstBoot
from conversions.pipeline.linux.packages import install_command
from conversions.pipeline.report import Level

PACKAGE = "qemu-guest-agent"
_FLAG = "/root/.v2vweb-selinux-was-enforcing"
_WAIT_ONLINE = """if nmcli networking connectivity >/dev/null 2>&1; then
    tries=0
    until [ "$(nmcli networking connectivity)" = full ] || [ $tries -ge 30 ]; do
        tries=$((tries + 1))
        sleep 1
    done
elif systemctl -q is-active systemd-networkd 2>/dev/null; then
    /usr/lib/systemd/systemd-networkd-wait-online -q --timeout=30 ||
        /lib/systemd/systemd-networkd-wait-online -q --timeout=30
fi
"""
_PERMISSIVE = f"""rm -f {_FLAG}
if command -v getenforce >/dev/null 2>&1 && [ "$(getenforce)" = Enforcing ]; then
    touch {_FLAG}
    setenforce 0
fi
"""
_ENFORCING = f"""if [ -f {_FLAG} ]; then
    setenforce 1
    rm -f {_FLAG}
fi
"""
_INSTALL_SECONDS = 900


def start_command(family: Family, major: int, distro: str) -> str | None:
    """Return how the agent is started after its installation; None where that happens by itself."""
    if family is Family.RHEL:
        old = major == 6 and distro != "fedora"
        return "service qemu-ga start" if old else "systemctl start qemu-guest-agent"
    if family is Family.DEBIAN:
        return "service qemu-guest-agent start"
    return None if family is Family.SUSE else "systemctl start qemu-guest-agent"


def arrange_guest_agent(c: Context, firstboot: FirstBoot, family: Family) -> None:
    """Arrange that the agent is installed at the first start; nothing when it is there already."""
    if any(app.name == PACKAGE for app in c.guest.applications):
        return
    command = install_command(c.guest, [PACKAGE])
    if command is None:
        c.report.log(
            Level.WARNING,
            f"The package manager {c.guest.package_management} is not known; the QEMU guest agent "
            "is not installed (ignored).",
        )
        return
    c.report.log(Level.INFO, "The QEMU guest agent will be installed at the first start.")
    firstboot.add("wait online", _WAIT_ONLINE)
    firstboot.add("setenforce 0", _PERMISSIVE)
    # timeout takes one program: the shell carries the whole line.
    quoted = command.replace("'", "'\\''")
    limit = f"timeout {_INSTALL_SECONDS}"
    firstboot.add(
        "install qga",
        f"if command -v timeout >/dev/null 2>&1; then {limit} sh -c '{quoted}'; else {command}; fi",
    )
    firstboot.add("setenforce restore", _ENFORCING)
    if start := start_command(family, c.guest.major_version, c.guest.distro):
        firstboot.add("start qga", start)
