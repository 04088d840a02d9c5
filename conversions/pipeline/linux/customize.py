"""What a person wants changed in the guest while it is being converted."""

from __future__ import annotations

import re
import time

from conversions.pipeline.context import Context
from conversions.pipeline.errors import GuestError
from conversions.pipeline.guest_errors import naming
from conversions.pipeline.job import GuestFile
from conversions.pipeline.linux.files import GuestFiles, with_line
from conversions.pipeline.linux.firstboot import FirstBoot
from conversions.pipeline.linux.packages import install_command, remove_packages, update_command
from conversions.pipeline.report import Level

_DAY = 86400
_SSH = "/root/.ssh"
_HOSTNAME = re.compile(r"(?m)^(\s*HOSTNAME=)(.*)$")
_ZONE = re.compile(r"(?m)^(\s*(?:ZONE|TIMEZONE)=).*$")
_ROOT = re.compile(r"(?m)^root:[^:\n]*:[^:\n]*:")


def customize(c: Context, files: GuestFiles, firstboot: FirstBoot) -> None:
    """Carry out the wishes of the job.  Raises GuestError for one that the guest cannot have."""
    wishes = c.job.customize
    if wishes.hostname:
        set_hostname(files, wishes.hostname)
    if wishes.timezone:
        set_timezone(files, wishes.timezone)
    if wishes.root_password_hash:
        _set_root_password(files, wishes.root_password_hash)
    if wishes.ssh_keys:
        files.make_folder(_SSH)
        _add_keys(c, files, wishes.ssh_keys)
    if wishes.uninstall:
        installed = {app.name for app in c.guest.applications}
        absent = sorted(set(wishes.uninstall) - installed)
        if absent:
            c.report.log(Level.WARNING, f"Not installed, so not removed: {', '.join(absent)}.")
        remove_packages(c, files, [name for name in wishes.uninstall if name in installed])
    if wishes.update:
        firstboot.add("update packages", _known(c, update_command(c.guest), "updated"))
        c.report.log(
            Level.INFO, "All packages are updated at the first start, which needs a network."
        )
    if wishes.install:
        command = _known(c, install_command(c.guest, wishes.install), "installed")
        c.report.log(
            Level.INFO,
            f"To be installed at the first start, which needs a network: "
            f"{', '.join(wishes.install)}",
        )
        firstboot.add("install packages", command)
    for one in wishes.files:
        _write_file(files, one)
    for number, script in enumerate(wishes.firstboot, 1):
        firstboot.add(f"script {number}", script)


def _known(c: Context, command: str | None, what: str) -> str:
    """Return the command.  Raises GuestError when there is none."""
    if command is None:
        raise GuestError(
            f"Packages cannot be {what}: the manager {c.guest.package_management} is not known.",
            remedy="Convert without that wish and do it in the guest afterwards.",
            code="E-CUSTOMIZE",
        )
    return command


def set_hostname(files: GuestFiles, name: str) -> None:
    """Write the host name where each family keeps it, and into the line of it in /etc/hosts."""
    what = f"host name is now {name}"
    line = _HOSTNAME.search(files.read("/etc/sysconfig/network") or "")
    old = (
        files.read("/etc/hostname")
        or files.read("/etc/HOSTNAME")
        or (line[2].strip("\"'") if line else "")
    ).strip()
    is_kept_elsewhere = files.is_file("/etc/hostname")
    files.edit(
        "/etc/sysconfig/network",
        lambda t: (
            _HOSTNAME.sub(lambda m: m[1] + name, t)
            if line or is_kept_elsewhere
            else with_line(t, f"HOSTNAME={name}")
        ),
        what,
    )
    if files.is_file("/etc/HOSTNAME"):
        files.write("/etc/HOSTNAME", f"{name}\n", what)
    files.write("/etc/hostname", f"{name}\n", what)
    if old and old != name:
        word = re.compile(rf"(?<![\w.-]){re.escape(old)}(?![\w.-])")
        files.edit(
            "/etc/hosts",
            lambda t: re.sub(r"(?m)^(127\.0\.[01]\.1|::1)\s.*$", lambda m: word.sub(name, m[0]), t),
            what,
        )


def set_timezone(files: GuestFiles, zone: str) -> None:
    """Link /etc/localtime to a zone.  Raises GuestError when the guest has no such zone."""
    path = f"/usr/share/zoneinfo/{zone}"
    if not files.is_file(path):
        raise GuestError(
            f"The guest has no time zone {zone}: there is no {path}.",
            remedy="Check the spelling, such as Europe/Berlin, or install tzdata in the guest.",
            code="E-CUSTOMIZE",
        )
    what = f"time zone is now {zone}"
    files.link(f"../usr/share/zoneinfo/{zone}", "/etc/localtime", what)
    if files.is_file("/etc/timezone"):
        files.write("/etc/timezone", f"{zone}\n", what)
    # Guests of before systemd make the link anew from it.
    files.edit("/etc/sysconfig/clock", lambda t: _ZONE.sub(lambda m: f'{m[1]}"{zone}"', t), what)


def _set_root_password(files: GuestFiles, crypted: str) -> None:
    today = int(time.time() // _DAY)

    def change(text: str) -> str:
        return _ROOT.sub(lambda _m: f"root:{crypted}:{today}:", text, count=1)

    if not _ROOT.search(files.read("/etc/shadow") or ""):
        raise GuestError(
            "The password of root cannot be set: /etc/shadow has no line for root.",
            remedy="Convert without a new password.",
            code="E-CUSTOMIZE",
        )
    files.edit_secret("/etc/shadow", change, "password of root set")


def _write_file(files: GuestFiles, one: GuestFile) -> None:
    if files.is_folder(one.path):
        raise GuestError(
            f"The file {one.path} cannot be written: the guest has a folder of that name.",
            remedy="Name the file in it, or convert without that wish.",
            code="E-CUSTOMIZE",
        )
    files.make_folder(one.path.rpartition("/")[0] or "/")
    files.write(one.path, one.content, "file written as wished", mode=one.mode)


def _add_keys(c: Context, files: GuestFiles, keys: tuple[str, ...]) -> None:
    path = f"{_SSH}/authorized_keys"

    def change(text: str) -> str:
        new = [key for key in keys if key not in text.split("\n")]
        head = text if not text or text.endswith("\n") else text + "\n"
        return head + "".join(f"{key}\n" for key in new)

    files.edit(path, change, "SSH key of root added", create=True)
    if c.change:
        with naming(path, "protected"):
            c.g.chmod(0o700, _SSH)
            c.g.chmod(0o600, path)
