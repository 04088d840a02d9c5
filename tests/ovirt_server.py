"""An https server that is oVirt's engine and an image server of it at once, for tests.

It keeps disks in memory and holds to what the APIs document; `Trouble` says how it misbehaves.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.https_server import make_certificate
from tests.local_server import LocalHandler, LocalServer

API = "/ovirt-engine/api"
CENTER, STORAGE, CLUSTER = (str(uuid.UUID(int=n)) for n in (1, 2, 3))


@dataclass(kw_only=True)
class Trouble:
    """What goes wrong; nothing by default.

    The image server refuses the write number `fail_write` from 1, and drops the connection of
    every `drop_every`th request.  The session is forgotten after `expire_after` requests.
    """

    expire_after: int = 0
    fail_write: int = 0
    drop_every: int = 0
    corrupt: bool = False
    final_phase: str = "finished_success"
    transfer_phase: str = "transferring"
    forgets_transfers: bool = False
    job: str = "finished"
    locked_deletes: int = 0
    redirect: str = ""
    arch: str = "x86_64"
    free_bytes: int = 100 << 30
    features: tuple[str, ...] | None = ("extents", "zero", "flush")
    max_writers: int = 8
    echo_password: bool = False


@dataclass
class Disk:
    """A disk as the engine has it, and its bytes."""

    fields: dict[str, Any]
    data: bytearray
    looks: int = 0
    dirty: bool = False


@dataclass
class State:
    """Everything the engine knows; `requests` are method and path, in order.

    With `hold_at` the first that matches is done but not answered before `go_on`, which `holding`
    tells.
    """

    password: str = "s3cret word"
    disks: dict[str, Disk] = field(default_factory=dict)
    transfers: dict[str, dict[str, Any]] = field(default_factory=dict)
    vms: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    logins: int = 0
    writes: int = 0
    image_requests: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    hold_at: str = ""
    writing: threading.Event = field(default_factory=threading.Event)
    holding: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


class OvirtServer(LocalServer):
    """Runs within a `with` block; `url` is the engine's API, `certificate` what to trust."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.trouble = Trouble()
        self.state = State()
        self.state.go_on.set()
        self.certificate, _thumbprint = make_certificate(folder, *names)
        super().__init__(_Handler, self.certificate)
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"https://{self.host}{API}"

    def __exit__(self, *what: Any) -> None:
        self.state.go_on.set()
        super().__exit__(*what)
        self.state.disks.clear()  # tests of other modules go on in this process

    def asked(self, pattern: str) -> list[str]:
        """Return the requests that match, in order."""
        return [line for line in self.state.requests if re.search(pattern, line)]


class _Refusal(Exception):  # noqa: N818  an answer like others
    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail


class _Handler(LocalHandler):
    server_side: OvirtServer

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        state, trouble = self.server_side.state, self.server_side.trouble
        with state.lock:
            state.requests.append(f"{self.command} {parts.path.removeprefix(API)}")
        if trouble.redirect:
            return self._answer(302, None, {"Location": trouble.redirect})
        try:
            if parts.path.startswith("/images/"):
                return self._image(parts.path.removeprefix("/images/"), query, body)
            if parts.path.startswith("/ovirt-engine/s"):
                return self._sso(parts.path, body)
            self._authorize()
            path = parts.path.removeprefix(f"{API}/").split("/")
            data = json.loads(body) if body else {}
            with state.lock:
                name = f"_{self.command.lower()}_{path[0]}"
                answer = getattr(self, name, self._unknown)(path[1:], query, data)
            self._hold(f"{self.command} {parts.path.removeprefix(API)}")
            self._answer(200, answer)
        except _Refusal as refusal:
            fault = {"reason": "Operation Failed", "detail": refusal.detail}
            self._answer(refusal.status, fault)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = do_OPTIONS = _serve  # noqa: N815

    def _hold(self, request: str) -> None:
        state = self.server_side.state
        if state.hold_at and re.search(state.hold_at, request):
            state.hold_at = ""
            state.go_on.clear()
            state.holding.set()
            state.go_on.wait(60)

    def _answer(self, status: int, answer: Any, headers: Mapping[str, str] | None = None) -> None:
        text = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _unknown(self, *_args: object) -> None:
        raise _Refusal(404, "no such resource")

    # --- Signing in ---------------------------------------------------------------------------
    def _sso(self, path: str, body: bytes) -> None:
        state, trouble = self.server_side.state, self.server_side.trouble
        form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        if path.endswith("sso-logout"):
            state.tokens.pop(form["token"], None)
            return self._answer(200, {})
        good = {
            "grant_type": "password", "scope": "ovirt-app-api",
            "username": "admin@internal", "password": state.password,
        }  # fmt: skip
        if form != good or trouble.echo_password:
            words = "Cannot authenticate user"
            if trouble.echo_password:
                words += f" with {form.get('password')}"
            return self._answer(400, {"error_code": "access_denied", "error": words})
        token = uuid.uuid4().hex
        state.tokens[token] = 0
        state.logins += 1
        return self._answer(200, {"access_token": token, "token_type": "bearer"})

    def _authorize(self) -> None:
        state, limit = self.server_side.state, self.server_side.trouble.expire_after
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with state.lock:
            used = state.tokens.get(token)
            if used is None or (limit and used >= limit):
                raise _Refusal(401, "the session is not known")
            state.tokens[token] = used + 1
        if self.headers.get("Accept") != "application/json" or self.headers["Version"] != "4":
            raise _Refusal(415, "what language is this?")

    # --- The engine ---------------------------------------------------------------------------
    def _get_datacenters(self, path: list[str], query: dict[str, str], _data: Any) -> Any:
        trouble = self.server_side.trouble
        if path[1:] == ["storagedomains"]:
            domain = {"id": STORAGE, "name": "data", "available": str(trouble.free_bytes)}
            return {"storage_domain": [{"id": CENTER, "name": "iso"}, domain]}
        if path[1:] == ["clusters"]:
            cpu = {"architecture": trouble.arch}
            other = {"id": CENTER, "name": "Other", "cpu": cpu}
            return {"cluster": [other, {"id": CLUSTER, "name": "Default", "cpu": cpu}]}
        known = query["search"] == "storage.name=data"
        return {"data_center": [{"id": CENTER, "name": "Main"}]} if known else {}

    def _get_storagedomains(self, _path: list[str], _query: dict[str, str], _data: Any) -> Any:
        kinds = {"data": "data", "iso": "iso"}
        domains = [{"id": STORAGE, "name": n, "type": k} for n, k in kinds.items()]
        return {"storage_domain": domains}

    def _get_clusters(self, path: list[str], _query: dict[str, str], _data: Any) -> Any:
        assert path == [CLUSTER, "networks"]
        return {"network": [{"id": CENTER, "name": n} for n in ("ovirtmgmt", "lab")]}

    def _get_vms(self, path: list[str], query: dict[str, str], _data: Any) -> Any:
        if path[1:] == ["diskattachments"]:
            attached = self.server_side.state.vms[path[0]]["disks"]
            # An attachment has the identity of its disk.
            return {"disk_attachment": [{"id": disk, "disk": {"id": disk}} for disk in attached]}
        name = query["search"].removeprefix("name=")
        return {"vm": [vm for vm in self.server_side.state.vms.values() if vm["name"] == name]}

    def _post_vms(self, _path: list[str], query: dict[str, str], data: Any) -> Any:
        configuration = data["initialization"]["configuration"]
        assert configuration["type"] == "ova"
        name = re.search(r"<Name>(.*)</Name>", configuration["data"])
        assert name
        vm = {"id": str(uuid.uuid4()), "name": name[1], "cluster": data["cluster"]["id"],
              "ovf": configuration["data"], "job": query["correlation_id"],
              "disks": re.findall(r'ovf:diskId="([^"]+)"', configuration["data"])}  # fmt: skip
        self.server_side.state.vms[vm["id"]] = vm
        return vm

    def _delete_vms(self, path: list[str], query: dict[str, str], _data: Any) -> Any:
        assert query == {"detach_only": "true"}
        if self.server_side.state.vms.pop(path[0], None) is None:
            raise _Refusal(404, "no such machine")
        return {}

    def _get_jobs(self, _path: list[str], query: dict[str, str], _data: Any) -> Any:
        job = query["search"].removeprefix("correlation_id=")
        if job not in {vm["job"] for vm in self.server_side.state.vms.values()}:
            return {}
        return {"job": [{"id": job, "status": self.server_side.trouble.job}]}

    def _post_disks(self, _path: list[str], _query: dict[str, str], data: Any) -> Any:
        assert data["initial_size"] == data["provisioned_size"]
        assert data["storage_domains"] == {"storage_domain": [{"id": STORAGE}]}
        fields = {"id": str(uuid.uuid4()), "status": "locked"} | data
        # Old bytes of other disks: what is not written shows.
        size = int(data["provisioned_size"])
        disk = Disk(fields, bytearray(b"\xee" * size))
        self.server_side.state.disks[fields["id"]] = disk
        return dict(fields)

    def _disk(self, identity: str) -> Disk:
        disk = self.server_side.state.disks.get(identity)
        if disk is None:
            raise _Refusal(404, "no such disk")
        return disk

    def _get_disks(self, path: list[str], _query: dict[str, str], _data: Any) -> Any:
        disk = self._disk(path[0])
        disk.looks += 1
        if disk.looks == 2 and disk.fields["status"] == "locked":
            disk.fields["status"] = "ok"
        return disk.fields

    def _delete_disks(self, path: list[str], _query: dict[str, str], _data: Any) -> Any:
        state, trouble = self.server_side.state, self.server_side.trouble
        self._disk(path[0])
        if any(t["disk"]["id"] == path[0] for t in state.transfers.values()):
            raise _Refusal(409, "the disk is being transferred")
        if trouble.locked_deletes:
            trouble.locked_deletes -= 1
            raise _Refusal(409, "the disk is locked")
        del state.disks[path[0]]
        return {}

    def _post_imagetransfers(self, path: list[str], _query: dict[str, str], data: Any) -> Any:
        state, trouble = self.server_side.state, self.server_side.trouble
        if not path:
            assert data["format"] == "raw" and data["direction"] == "upload"
            assert data["inactivity_timeout"] == "3600"
            disk = self._disk(data["disk"]["id"])
            assert disk.fields["status"] == "ok"
            disk.fields["status"] = "locked"
            identity, ticket = str(uuid.uuid4()), str(uuid.uuid4())
            transfer = data | {"id": identity, "phase": "initializing", "ticket": ticket}
            state.transfers[identity] = transfer
            return dict(transfer)
        transfer = self._transfer(path[0])
        disk = self._disk(transfer["disk"]["id"])
        if path[1] == "cancel":
            del state.transfers[path[0]]
            return {}
        assert path[1] == "finalize" and not disk.dirty
        good = trouble.final_phase == "finished_success"
        transfer["phase"] = trouble.final_phase
        disk.fields["status"] = "ok" if good else "illegal"
        if trouble.forgets_transfers:
            del state.transfers[path[0]]
        return {}

    def _transfer(self, identity: str) -> dict[str, Any]:
        found = self.server_side.state.transfers.get(identity)
        if found is None:
            raise _Refusal(404, "no such transfer")
        return found

    def _get_imagetransfers(self, path: list[str], _query: dict[str, str], _data: Any) -> Any:
        if not path:
            return {"image_transfer": list(self.server_side.state.transfers.values())}
        transfer = self._transfer(path[0])
        answer = dict(transfer)
        if transfer["phase"] == "initializing":
            transfer["phase"] = self.server_side.trouble.transfer_phase
        elif transfer["phase"] == "transferring":
            where = f"https://{self.server_side.host}/images/{transfer['ticket']}"
            answer |= {"transfer_url": where, "proxy_url": where + "-proxy"}
        elif transfer["phase"].startswith("finished"):
            del self.server_side.state.transfers[path[0]]
        return answer

    # --- The image server ---------------------------------------------------------------------
    def _image(self, ticket: str, query: dict[str, str], body: bytes) -> None:
        state, trouble = self.server_side.state, self.server_side.trouble
        with state.lock:
            state.image_requests += 1
            if trouble.drop_every and state.image_requests % trouble.drop_every == 0:
                self.close_connection = True
                return None
            found = [t for t in state.transfers.values()
                     if t["ticket"] == ticket.removesuffix("-proxy")]  # fmt: skip
            if not found or found[0]["phase"] != "transferring":
                raise _Refusal(403, "no such ticket")
            disk = state.disks[found[0]["disk"]["id"]]
        match self.command:
            case "OPTIONS" if trouble.features is None:
                return self._answer(405, None)
            case "OPTIONS":
                options = {"features": trouble.features, "max_readers": 8}
                return self._answer(200, options | {"max_writers": trouble.max_writers})
            case "PUT":
                self._write(disk, query, body)
            case "PATCH":
                self._patch(disk, json.loads(body))
            case "GET":
                return self._read(disk.data)
        return self._answer(200, None)

    def _write(self, disk: Disk, query: dict[str, str], body: bytes) -> None:
        state, trouble, data = self.server_side.state, self.server_side.trouble, disk.data
        assert len(body) <= 4 << 20
        with state.lock:
            state.writes += 1
            number = state.writes
        state.writing.set()
        state.go_on.wait(60)
        if trouble.fail_write == number:
            raise _Refusal(500, "No space left on device")
        given = re.fullmatch(r"bytes (\d+)-(\d+)/\*", self.headers["Content-Range"])
        assert given
        first, last = int(given[1]), int(given[2])
        assert last - first + 1 == len(body)
        if last >= len(data):
            raise _Refusal(416, "beyond the end")
        with state.lock:
            disk.dirty |= query.get("flush", "y") == "n"
            data[first : last + 1] = body
            if trouble.corrupt:
                data[first] ^= 1

    def _patch(self, disk: Disk, order: dict[str, Any]) -> None:
        state, features = self.server_side.state, self.server_side.trouble.features
        if order["op"] not in (features or ()):
            raise _Refusal(405, "what is PATCH?")
        with state.lock:
            if order["op"] == "flush":
                disk.dirty = False
                return
            first, size, data = order["offset"], order["size"], disk.data
            if first + size > len(data):
                raise _Refusal(416, "beyond the end")
            data[first : first + size] = bytes(size)
            disk.dirty |= "flush" in (features or ()) and not order["flush"]

    def _read(self, data: bytearray) -> None:
        given = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert given
        part = bytes(data[int(given[1]) : int(given[2]) + 1])
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
