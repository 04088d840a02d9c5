"""Scripts that run once when the guest starts for the first time on KVM."""

from __future__ import annotations

import re

from conversions.pipeline.linux.files import GuestFiles

FOLDER = "/usr/lib/v2vweb-firstboot"
SCRIPTS = f"{FOLDER}/scripts"
RUNNER = f"{FOLDER}/firstboot.sh"
UNIT = "/usr/lib/systemd/system/v2vweb-firstboot.service"
_NAME = "v2vweb-firstboot"

_RUNNER_TEXT = f"""#!/bin/sh
### BEGIN INIT INFO
# Provides:          {_NAME}
# Required-Start:    $null
# Should-Start:      $all
# Required-Stop:     $null
# Default-Start:     2 3 5
# Default-Stop:      0 1 6
# Short-Description: Run the scripts of the first start after a conversion
### END INIT INFO
# Each script is moved away before it runs, so that none ever runs twice.
[ "$1" = start ] || exit 0
scripts={SCRIPTS} finished={FOLDER}/scripts-done
log=/root/{_NAME}.log
mkdir -p $finished
for script in $scripts/*; do
    [ -x "$script" ] || continue
    moved=$finished/$(basename "$script")
    mv "$script" "$moved" || continue
    echo "=== $moved"
    "$moved"
    echo "=== $moved ended with status $?"
    rm -f "$moved"
done >>$log 2>&1
"""
# After multi-user.target, so that a slow script, such as one without a network, delays no login.
_UNIT_TEXT = f"""[Unit]
Description=Scripts of the first start after the conversion to KVM
After=network-online.target multi-user.target
Wants=network-online.target
ConditionDirectoryNotEmpty={SCRIPTS}

[Service]
Type=oneshot
ExecStart={RUNNER} start
TimeoutStartSec=1800
StandardOutput=journal+console

[Install]
WantedBy=multi-user.target
"""


def script_name(number: int, title: str, priority: int = 5000) -> str:
    """Return the file name of a script: they run in the order of their names."""
    plain = re.sub(r"[^A-Za-z0-9_]", "-", title)[:60]
    return f"{priority:04}-{number:04}-{plain}"


class FirstBoot:
    """Collects the scripts of the first start, and installs what runs them with the first one."""

    def __init__(self, files: GuestFiles) -> None:
        self._files = files
        self._count = 0

    def add(self, title: str, script: str) -> None:
        """Add a script; one without a first line that names its shell gets /bin/sh."""
        if self._count == 0:
            self._install()
        self._count += 1
        text = script if script.startswith("#!") else f"#!/bin/sh\n{script.rstrip()}\n"
        path = f"{SCRIPTS}/{script_name(self._count, title)}"
        self._files.write(path, text, "script of the first start added", mode=0o755)

    def _install(self) -> None:
        files = self._files
        files.make_folder(SCRIPTS)
        files.write(RUNNER, _RUNNER_TEXT, "runner of the first start added", mode=0o755)
        what = "first start arranged"
        if files.is_folder("/etc/systemd/system"):
            files.make_folder(UNIT.rsplit("/", 1)[0])
            files.write(UNIT, _UNIT_TEXT, what)
            wants = "/etc/systemd/system/multi-user.target.wants"
            files.make_folder(wants)
            files.link(UNIT, f"{wants}/{_NAME}.service", what)
        # As well: the folder may be there on a guest that starts with upstart or sysvinit.  Where
        # both would run it, systemd prefers its own unit.
        self._install_sysv(what)

    def _install_sysv(self, what: str) -> None:
        """Link the runner into the run levels, wherever the distribution keeps them."""
        files = self._files
        top = "/etc/rc.d" if files.is_folder("/etc/rc.d/rc3.d") else "/etc"
        if not files.is_folder(f"{top}/rc3.d"):
            top = "/etc/init.d"  # SUSE
        if files.is_folder("/etc/init.d"):
            files.link(RUNNER, f"/etc/init.d/{_NAME}", what)
        for level in "235":
            if files.is_folder(f"{top}/rc{level}.d"):
                files.link(RUNNER, f"{top}/rc{level}.d/S99{_NAME}", what)
