"""A phony guest moved into a cloud by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.appliance.phony import DEBIAN
from tests.appliance.test_in_place import FSTAB, build_disk
from tests.openstack_server import SERVER, OpenStackServer


@pytest.mark.rows("4-T73", "4-T116")
def test_a_guest_is_moved_into_a_cloud(repository: Path, tmp_path: Path) -> None:
    disk = tmp_path / "phony.raw"
    build_disk(disk, {**DEBIAN, "/etc/fstab": FSTAB})
    with OpenStackServer(tmp_path / "cloud") as server:
        cloud = server.cloud
        password = tmp_path / "password"
        password.write_text(cloud.mood.password)
        pairs = {
            "server-id": SERVER, "dev-disk-by-id": cloud.by_id, "os-username": cloud.mood.user,
            "os-user-domain-name": "Default", "os-project-name": "moves",
            "os-project-domain-name": "Default",
        }  # fmt: skip
        done = subprocess.run(
            [
                sys.executable, "-m", "conversions.pipeline", "--events", "--no-fsck",
                "-i", "disk", "-if", "raw", disk, "-on", "web01",
                "-o", "openstack", "-oc", server.auth_url, "-op", password,
                *(f"-oo={key}={value}" for key, value in pairs.items()),
            ],
            cwd=repository,
            env={"VIRT_V2V_TMPDIR": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
        )  # fmt: skip
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["type"], last["status"]) == (0, "result", "ok"), last
    assert cloud.mood.password not in done.stdout + done.stderr
    volume = cloud.volume("web01-sda")
    assert volume["bootable"] == "true"
    properties = volume["volume_image_metadata"]
    assert properties["os_distro"] == "debian"
    assert properties["hw_disk_bus"] == "virtio"
    # The overlay is gone; what was changed in the guest is on the volume.
    data = cloud.data_of(volume["id"])
    found = subprocess.run(["grep", "-c", "Added by v2vweb", data], capture_output=True)
    assert found.returncode == 0
