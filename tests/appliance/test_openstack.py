"""A phony guest moved into a cloud by the command line, and a move that is ended in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.appliance.phony import DEBIAN
from tests.appliance.test_in_place import FSTAB, build_disk
from tests.openstack_server import SERVER, OpenStackServer

Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disk of a guest."""
    path = tmp_path_factory.mktemp("openstack") / "phony.raw"
    build_disk(path, {**DEBIAN, "/etc/fstab": FSTAB})
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpenStackServer]:
    """A cloud."""
    with OpenStackServer(tmp_path / "cloud") as cloud:
        yield cloud


@pytest.fixture
def start(repository: Path, tmp_path: Path, disk: Path, server: OpenStackServer) -> Start:
    """Start the engine; the password is in a file."""
    password = tmp_path / "password"
    password.write_text(server.cloud.mood.password)
    pairs = {
        "server-id": SERVER, "dev-disk-by-id": server.cloud.by_id, "os-username": "mover",
        "os-user-domain-name": "Default", "os-project-name": "moves",
        "os-project-domain-name": "Default",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "conversions.pipeline", "--events", "-i", "disk", "-if", "raw", disk,
        "-o", "openstack", "-oc", server.auth_url, "-op", password, "-on", "web01",
        *(f"-oo={key}={value}" for key, value in pairs.items()),
    ]  # fmt: skip
    environment = {"VIRT_V2V_TMPDIR": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return lambda: subprocess.Popen(
        command, cwd=repository, env=environment, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.rows("4-T73", "4-T116")
def test_a_guest_is_moved_into_a_cloud(server: OpenStackServer, start: Start) -> None:
    process = start()
    output, _nothing = process.communicate()
    events = [json.loads(line) for line in output.splitlines()]
    assert process.returncode == 0, events[-1]
    assert server.cloud.mood.password not in output
    volume = server.cloud.volume("web01-sda")
    assert volume["bootable"] == "true"
    properties = volume["volume_image_metadata"]
    assert properties.items() >= {"os_type": "linux", "os_distro": "debian"}.items()
    assert properties["hw_disk_bus"] == "virtio"
    # The overlay is gone; what was changed in the guest is on the volume.
    data = server.cloud.data_of(volume["id"])
    found = subprocess.run(["grep", "-c", "Added by v2vweb", data], capture_output=True)
    assert found.returncode == 0


@pytest.mark.rows("4-T75")
def test_a_stop_leaves_no_volume(server: OpenStackServer, start: Start) -> None:
    server.cloud.mood.device_appears = False
    process = start()
    while not any(call.startswith("server add volume") for call in server.cloud.calls):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _nothing = process.communicate()
    assert process.returncode == 143
    assert json.loads(output.splitlines()[-1])["status"] == "stopped"
    assert server.cloud.volumes == {}
    assert server.cloud.calls[-2:] == [
        "server remove volume web01-sda",
        "volume delete web01-sda",
    ]
