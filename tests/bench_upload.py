"""Upload a large OVA to a real console over tus, and kill its web process in the middle.

    script/bench-upload [--gib N]

First run: MiB/s, and the web process's memory at its start and at its highest.  Second run: kill -9
in the middle, the console starts the part again, the upload is resumed, the digest compared.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import http.cookiejar
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.browser.console import Console
from tests.kill_drill import digest_of, victims_of
from tests.unit.sources.ova_builder import make_ovf, manifest

PIECE = 1 << 20
READY_SECONDS = 300


def make_large_ova(folder: Path, gib: int) -> Path:
    """Write a valid OVA with a raw disk of that size, whose digests are in the manifest."""
    disk = folder / "d1.img"
    block = os.urandom(16 << 20)
    hasher = hashlib.sha256()
    with disk.open("wb") as file:
        for number in range(gib * 64):
            piece = number.to_bytes(8, "big") + block[8:]
            file.write(piece)
            hasher.update(piece)
    ovf = make_ovf(href="d1.img")
    lines = manifest({"vm.ovf": ovf}) + f"SHA256(d1.img)= {hasher.hexdigest()}\n".encode()
    for name, data in (("vm.ovf", ovf), ("vm.mf", lines)):
        (folder / name).write_bytes(data)
    ova = folder / "large.ova"
    with tarfile.open(ova, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("vm.ovf", "vm.mf", "d1.img"):
            archive.add(folder / name, name)
    disk.unlink()
    return ova


class Uploader:
    """A signed-in tus client."""

    def __init__(self, console: Console, user: str) -> None:
        self.console = console
        self.jar = http.cookiejar.CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        opener.open(f"{console.url}/accounts/login/").read()
        form = {"username": user, "password": console.password}
        form["csrfmiddlewaretoken"] = self.cookie("csrftoken")
        opener.open(f"{console.url}/accounts/login/", urllib.parse.urlencode(form).encode())
        self.headers = {
            "Tus-Resumable": "1.0.0",
            "X-CSRFToken": self.cookie("csrftoken"),
            "Cookie": "; ".join(f"{c.name}={c.value}" for c in self.jar),
        }

    def cookie(self, name: str) -> str:
        """Return a cookie's value."""
        return next(c.value or "" for c in self.jar if c.name == name)

    def request(
        self, method: str, path: str, body: Iterator[bytes] | None = None, **headers: str
    ) -> http.client.HTTPResponse:
        """Send a request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.console.port, timeout=120)
        named = self.headers | {k.replace("_", "-"): v for k, v in headers.items()}
        connection.request(method, path, body=body, headers=named)
        answer = connection.getresponse()
        answer.read()
        return answer

    def create(self, ova: Path) -> str:
        """Announce the file; return the upload's address."""
        name = base64.b64encode(ova.name.encode()).decode()
        answer = self.request(
            "POST",
            "/sources/tus/",
            Upload_Length=str(ova.stat().st_size),
            Upload_Metadata=f"filename {name}",
        )
        assert answer.status == 201, answer.status
        return str(answer.getheader("Location"))

    def patch(self, path: str, ova: Path, offset: int) -> int:
        """Send the rest of the file; return the status."""

        def pieces() -> Iterator[bytes]:
            with ova.open("rb") as file:
                file.seek(offset)
                while piece := file.read(PIECE):
                    yield piece

        return self.request(
            "PATCH",
            path,
            pieces(),
            Upload_Offset=str(offset),
            Content_Type="application/offset+octet-stream",
            Content_Length=str(ova.stat().st_size - offset),
        ).status

    def offset(self, path: str) -> int:
        """Ask how much is stored."""
        return int(self.request("HEAD", path).getheader("Upload-Offset") or 0)


def web_memory(console: Console) -> int:
    """Return the resident bytes of the web process that are its own, not files it reads."""
    total = 0
    for pid in victims_of(console, "web"):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total += int(line.split()[1]) * 1024
    return total


def watch_memory(console: Console, until: threading.Event) -> list[int]:
    """Sample the web process's memory until told to end."""
    samples = []
    while not until.wait(0.2):
        samples.append(web_memory(console))
    return samples


def wait_ready(console: Console, size: int, digest: str) -> bool:
    """Wait until the newest upload is ready; tell whether its bytes are right."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        found = [
            p
            for p in (console.var / "uploads").rglob("*.ova")
            if p.stat().st_size == size and not p.name.endswith(".part")
        ]
        if found:
            return digest_of(max(found, key=lambda p: p.stat().st_mtime)) == digest
        time.sleep(0.5)
    return False


def main() -> None:
    """Run both uploads and print the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gib", type=int, default=3)
    options = parser.parse_args()
    var = Path(tempfile.mkdtemp(prefix="v2vweb-", dir="/var/tmp"))
    console = Console(var=var, log=var / "server.log")
    failures = 0
    try:
        ova = make_large_ova(var, options.gib)
        size, digest = ova.stat().st_size, digest_of(ova)
        console.start()
        console.add_user("operators")
        client = Uploader(console, "operators")
        client.request("GET", "/sources/")
        before = web_memory(console)
        until, samples = threading.Event(), []
        watcher = threading.Thread(
            target=lambda: samples.extend(watch_memory(console, until)), daemon=True
        )
        watcher.start()
        begun = time.monotonic()
        status = client.patch(client.create(ova), ova, 0)
        took = time.monotonic() - begun
        until.set()
        watcher.join()
        right = wait_ready(console, size, digest)
        grown = (max(samples) - before) / (1 << 20)
        print(
            f"upload: {size / (1 << 20) / took:.0f} MiB/s, status {status}, digest right: {right}"
        )
        print(f"memory of the web process: {before >> 20} MiB, grown by at most {grown:.0f} MiB")
        failures += not right or grown > 64
        shutil.rmtree(var / "uploads")
        (var / "uploads").mkdir()
        failures += not killed_in_the_middle(console, client, ova, digest)
    finally:
        console.stop()
        shutil.rmtree(var, ignore_errors=True)
    sys.exit(bool(failures))


def killed_in_the_middle(console: Console, client: Uploader, ova: Path, digest: str) -> bool:
    """Kill -9 the web process when half has arrived, resume, compare."""
    size = ova.stat().st_size
    path = client.create(ova)

    def kill() -> None:
        part = next((console.var / "uploads").rglob("*.part"))
        while part.stat().st_size < size // 2:
            time.sleep(0.02)
        for pid in victims_of(console, "web"):
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        client.patch(path, ova, 0)
        print("the upload ended before the kill")
    except OSError:
        pass
    killer.join()
    while not console.answers():
        time.sleep(0.2)
    offset = client.offset(path)
    status = client.patch(path, ova, offset)
    right = wait_ready(console, size, digest)
    print(
        f"killed at half, resumed at {100 * offset / size:.0f} %: status {status}, right: {right}"
    )
    return right


if __name__ == "__main__":
    main()
