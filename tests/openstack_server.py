"""A cloud of one process: the parts of Keystone, Cinder, Nova and Glance that a conversion needs.

Speaks their documented wire interfaces (Identity v3, Block Storage v3, Compute v2.1, Image v2)
with discovery and microversions, and fails in the ways that `Mood` says.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.local_server import LocalHandler, LocalServer

PROJECT = "0123456789abcdef0123456789abcdef"
SERVER = "11111111-2222-3333-4444-555555555555"
GIB = 1 << 30


@dataclass(kw_only=True)
class Mood:
    """What it knows of its user, and how it misbehaves."""

    user: str = "mover"
    password: str = "s3cret-w{o}rd"
    project: str = PROJECT
    types: tuple[str, ...] = ("fast",)
    volume_status: str = "available"
    volume_bytes: int | None = None
    device_appears: bool = True
    attach_status: int = 200
    attach_fails_later: bool = False
    attach_looks: int = 1
    quota_gib: int = 1000
    create_status: int = 202
    describe_status: int = 200
    upload_status: int = 204
    upload_cut_after: int | None = None
    upload_loses: int = 0
    redirect: str = ""


@dataclass(kw_only=True)
class Cloud:
    """What there is in it; `calls` are the requests that change something, and the sign-ins.

    With `hold_at` the first of them that begins so, or "image receive", is done but not answered
    before `go_on`, which `holding` tells.

    `device_of` makes the device of a volume's bytes: the file itself, when nothing else is said.
    """

    folder: Path
    mood: Mood = field(default_factory=Mood)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    hold_at: str = ""
    holding: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    device_of: Callable[[Path], Path] = lambda data: data
    staging: Path | None = None
    staged: list[list[str]] = field(default_factory=list)

    def did(self, call: str) -> None:
        """Remember what was asked for."""
        self.calls.append(call)
        self.hold(call)

    def hold(self, call: str) -> None:
        """Hold the answer when that is wanted."""
        if self.hold_at and call.startswith(self.hold_at):
            self.hold_at = ""
            self.holding.set()
            self.go_on.wait(60)

    def data_of(self, volume_id: str) -> Path:
        """Return the file that holds a volume's bytes."""
        return self.folder / f"volume-{volume_id}"

    @property
    def by_id(self) -> Path:
        """The folder where attached volumes appear."""
        return self.folder / "by-id"

    def volume(self, name: str) -> dict[str, Any]:
        """Return the volume of that name."""
        [found] = [v for v in self.volumes.values() if v["name"] == name]
        return found

    def image(self, name: str) -> dict[str, Any]:
        """Return the image of that name."""
        [found] = [i for i in self.images.values() if i["name"] == name]
        return found


class OpenStackServer(LocalServer):
    """Serves a cloud on a port of localhost, over https with a certificate; a context manager."""

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        self.cloud = Cloud(folder=folder)
        self.cloud.by_id.mkdir(parents=True)
        self.certificate = certificate
        super().__init__(_Handler, certificate)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"

    @property
    def auth_url(self) -> str:
        """What -oc takes."""
        return f"{self.url}/identity/v3"


class Refused(Exception):  # noqa: N818  it is what the server answers
    """Answer with a status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Handler(LocalHandler):
    server_side: OpenStackServer

    def _serve(self) -> None:
        self.cloud = self.server_side.cloud
        self.mood = self.cloud.mood
        if self.mood.redirect:
            return self._answer(302, None, Location=self.mood.redirect)
        parts = urlsplit(self.path)
        try:
            self.query = parse_qs(parts.query)
            self._dispatch(parts.path.rstrip("/"))
        except Refused as refused:
            self._drain()
            body = {"error": {"code": refused.status, "message": str(refused)}}
            self._answer(refused.status, body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _dispatch(self, path: str) -> None:
        for method, pattern, name in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                if not name.startswith("_public"):
                    self._check_token()
                getattr(self, name)(*match.groups())
                return
        raise Refused(404, f"There is no {self.command} {path}?{self.query}.")

    def _check_token(self) -> None:
        if self.headers.get("X-Auth-Token") not in self.cloud.tokens:
            raise Refused(401, "The request you have made requires authentication.")

    def _json(self) -> Any:
        return json.loads(self._drain() or b"{}")

    def _drain(self) -> bytes:
        left, self.headers["Content-Length"] = int(self.headers.get("Content-Length") or 0), None
        del self.headers["Content-Length"]
        return self.rfile.read(left)

    def _answer(self, status: int, body: Any = None, **headers: str) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if body is not None:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    # --- discovery and sign-in -------------------------------------------------------------

    def _version(self, id_: str, path: str, **more: str) -> dict[str, Any]:
        href = f"{self.server_side.url}{path}/"
        return {"id": id_, "status": "CURRENT", "links": [{"rel": "self", "href": href}], **more}

    def _public_identity(self) -> None:
        self._answer(
            200, {"version": self._version("v3.14", "/identity/v3") | {"status": "stable"}}
        )

    def _public_volume(self) -> None:
        version = self._version("v3.0", "/volume/v3", version="3.70", min_version="3.0")
        self._answer(200, {"versions": [version]})

    def _public_compute(self) -> None:
        version = self._version("v2.1", "/compute/v2.1", version="2.95", min_version="2.1")
        self._answer(200, {"version": version})

    def _public_image(self) -> None:
        self._answer(300, {"versions": [self._version("v2.15", "/image/v2")]})

    def _public_sign_in(self) -> None:
        identity = self._json()["auth"]["identity"]
        user = identity.get("password", {}).get("user", {})
        if (user.get("name"), user.get("password")) != (self.mood.user, self.mood.password):
            raise Refused(401, "The request you have made requires authentication.")
        token = uuid.uuid4().hex
        self.cloud.tokens.add(token)
        self.cloud.did("token issue")
        url = self.server_side.url
        catalog = [
            {
                "type": kind,
                "name": name,
                "id": uuid.uuid4().hex,
                "endpoints": [
                    {"id": uuid.uuid4().hex, "interface": "public", "region": "here",
                     "region_id": "here", "url": url + path}
                ],
            }
            for kind, name, path in (
                ("identity", "keystone", "/identity"),
                ("block-storage", "cinder", f"/volume/v3/{PROJECT}"),
                ("compute", "nova", "/compute/v2.1"),
                ("image", "glance", "/image"),
            )
        ]  # fmt: skip
        body = {
            "methods": ["password"],
            "user": {"id": "u1", "name": user["name"], "domain": {"id": "default", "name": "D"}},
            "project": {
                "id": self.mood.project,
                "name": "moves",
                "domain": {"id": "default", "name": "D"},
            },
            "roles": [{"id": "r1", "name": "member"}],
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "audit_ids": ["a"],
            "catalog": catalog,
        }
        self._answer(201, {"token": body}, X_Subject_Token=token)

    # --- Cinder ----------------------------------------------------------------------------

    def _limits(self) -> None:
        used = sum(v["size"] for v in self.cloud.volumes.values())
        absolute = {
            "maxTotalVolumes": -1,
            "totalVolumesUsed": len(self.cloud.volumes),
            "maxTotalVolumeGigabytes": self.mood.quota_gib,
            "totalGigabytesUsed": used,
        }
        self._answer(200, {"limits": {"rate": [], "absolute": absolute}})

    def _types(self) -> None:
        found = [{"id": f"id-{name}", "name": name} for name in self.mood.types]
        self._answer(200, {"volume_types": found})

    def _type(self, name: str) -> None:
        if not name.startswith("id-"):
            raise Refused(404, f"Volume type {name} could not be found.")
        self._answer(200, {"volume_type": {"id": name, "name": name.removeprefix("id-")}})

    def _volume_create(self) -> None:
        wanted = self._json()["volume"]
        if self.mood.create_status != 202:
            raise Refused(self.mood.create_status, "VolumeSizeExceedsAvailableQuota: no more.")
        id_ = str(uuid.uuid4())
        volume = {"id": id_, "status": "creating", "bootable": "false", "metadata": {}, **wanted}
        size = wanted["size"] * GIB if self.mood.volume_bytes is None else self.mood.volume_bytes
        with self.cloud.data_of(id_).open("wb") as data:
            data.truncate(size)
        volume["descriptions"] = [wanted.get("description")]
        self.cloud.volumes[id_] = volume
        self.cloud.did(f"volume create {wanted['name']}")
        self._answer(202, {"volume": volume})

    def _listed(self, objects: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the objects of the name that is asked for, or all, no more than wanted."""
        [name], [limit] = self.query.get("name", [None]), self.query.get("limit", [None])
        found = [entry for entry in objects.values() if name in (None, entry["name"])]
        return found[: int(limit)] if limit else found

    def _volume_list(self) -> None:
        self._answer(200, {"volumes": self._listed(self.cloud.volumes)})

    def _found(self, id_: str) -> dict[str, Any]:
        if id_ not in self.cloud.volumes:
            raise Refused(404, f"Volume {id_} could not be found.")
        return self.cloud.volumes[id_]

    def _volume_show(self, id_: str) -> None:
        volume = self._found(id_)
        self._answer(200, {"volume": volume})
        # What takes a moment in a cloud takes one look here, or some.
        volume["looks"] = volume.get("looks", 0) - 1
        if volume["status"] == "attaching" and volume["looks"] > 0:
            return
        after = {
            "creating": self.mood.volume_status,
            "attaching": "available" if self.mood.attach_fails_later else "in-use",
            "detaching": "available",
        }
        volume["status"] = after.get(volume["status"], volume["status"])

    def _volume_set(self, id_: str) -> None:
        volume = self._found(id_)
        wanted = self._json()["volume"]
        if self.mood.describe_status != 200:
            raise Refused(self.mood.describe_status, "Not today.")
        volume |= wanted
        volume["descriptions"].append(wanted["description"])
        self.cloud.did(f"volume set {volume['name']}")
        self._answer(200, {"volume": volume})

    def _volume_delete(self, id_: str) -> None:
        volume = self._found(id_)
        if volume["status"] not in ("available", "error"):
            raise Refused(400, f"Volume status must be available or error, is {volume['status']}.")
        del self.cloud.volumes[id_]
        self.cloud.data_of(id_).unlink()
        self.cloud.did(f"volume delete {volume['name']}")
        self._answer(202)

    def _volume_action(self, id_: str) -> None:
        volume = self._found(id_)
        [(verb, values)] = self._json().items()
        if verb == "os-set_bootable":
            volume["bootable"] = str(values["bootable"]).lower()
            self.cloud.did(f"volume set bootable {volume['name']}")
            self._answer(200)
        elif verb == "os-set_image_metadata":
            volume["volume_image_metadata"] = values["metadata"]
            self.cloud.did(f"volume set properties {volume['name']}")
            self._answer(200, {"metadata": values["metadata"]})
        else:
            raise Refused(400, f"There is no action {verb}.")

    # --- Nova ------------------------------------------------------------------------------

    def _server_show(self, id_: str) -> None:
        if id_ != SERVER:
            raise Refused(404, f"Instance {id_} could not be found.")
        self._answer(200, {"server": {"id": id_, "name": "converter", "status": "ACTIVE"}})

    def _link(self, volume_id: str) -> Path:
        return self.cloud.by_id / f"virtio-{volume_id[:20]}"

    def _attach(self, server: str) -> None:
        volume = self._found(self._json()["volumeAttachment"]["volumeId"])
        if self.mood.attach_status != 200:
            raise Refused(self.mood.attach_status, "The server has no room for another disk.")
        if server != SERVER or volume["status"] != "available":
            raise Refused(400, f"Volume is {volume['status']}.")
        volume["status"] = "attaching"
        volume["looks"] = self.mood.attach_looks
        if self.mood.device_appears and not self.mood.attach_fails_later:
            device = self.cloud.device_of(self.cloud.data_of(volume["id"]))
            self._link(volume["id"]).symlink_to(device)
            self._link(volume["id"]).with_name("virtio-other").touch()
        self.cloud.did(f"server add volume {volume['name']}")
        attachment = {"serverId": server, "volumeId": volume["id"], "device": "/dev/vdb",
                      "attachment_id": str(uuid.uuid4()), "bdm_uuid": str(uuid.uuid4()),
                      "tag": None, "delete_on_termination": False}  # fmt: skip
        self._answer(200, {"volumeAttachment": attachment})

    def _detach(self, _server: str, volume_id: str) -> None:
        volume = self._found(volume_id)
        if volume["status"] == "attaching":
            raise Refused(409, "Invalid volume: it is being attached.")
        if volume["status"] != "in-use":
            raise Refused(404, "Instance is not attached to that volume.")
        volume["status"] = "detaching"
        self._link(volume_id).unlink(missing_ok=True)
        self.cloud.did(f"server remove volume {volume['name']}")
        self._answer(202)

    # --- Glance ----------------------------------------------------------------------------

    def _image_list(self) -> None:
        self._answer(200, {"images": self._listed(self.cloud.images)})

    def _image_create(self) -> None:
        wanted = self._json()
        id_ = str(uuid.uuid4())
        self.cloud.images[id_] = {"id": id_, "status": "queued", "size": None, **wanted}
        self.cloud.did(f"image create {wanted['name']}")
        self._answer(201, self.cloud.images[id_])

    def _image_found(self, id_: str) -> dict[str, Any]:
        if id_ not in self.cloud.images:
            raise Refused(404, f"Failed to find image {id_}")
        return self.cloud.images[id_]

    def _image_upload(self, id_: str) -> None:
        image = self._image_found(id_)
        self.cloud.hold(f"image receive {image['name']}")
        if self.cloud.staging:
            # What lies on the sending host at this moment.
            self.cloud.staged.append([p.name for p in self.cloud.staging.glob("upload-*")])
        if self.mood.upload_cut_after is not None:
            self.rfile.read(self.mood.upload_cut_after)
            self.close_connection = True
            self.connection.close()
            return
        if self.mood.upload_status != 204:
            raise Refused(self.mood.upload_status, "The size of the data exceeds the quota.")
        left = int(self.headers["Content-Length"])
        file = self.cloud.folder / f"image-{id_}"
        digest = hashlib.sha512()
        with file.open("wb") as out:
            while left and (piece := self.rfile.read(min(left, 1 << 20))):
                left -= len(piece)
                out.write(piece)
                digest.update(piece)
        if left:  # the client broke off
            self.close_connection = True
            return
        os.truncate(file, file.stat().st_size - self.mood.upload_loses)
        image |= {"status": "active", "size": file.stat().st_size, "os_hash_algo": "sha512",
                  "os_hash_value": digest.hexdigest()}  # fmt: skip
        self.cloud.did(f"image upload {image['name']}")
        self._answer(204)

    def _image_show(self, id_: str) -> None:
        self._answer(200, self._image_found(id_))

    def _image_patch(self, id_: str) -> None:
        image = self._image_found(id_)
        if self.headers["Content-Type"] != "application/openstack-images-v2.1-json-patch":
            raise Refused(415, "This is no patch.")
        for change in self._json():
            if change["op"] not in ("add", "replace"):
                raise Refused(400, f"Unexpected {change['op']}.")
            image[change["path"].removeprefix("/")] = change["value"]
        self.cloud.did(f"image set {image['name']}")
        self._answer(200, image)

    def _image_delete(self, id_: str) -> None:
        image = self._image_found(id_)
        del self.cloud.images[id_]
        self.cloud.did(f"image delete {image['name']}")
        self._answer(204)


_VOLUME = f"/volume/v3/{PROJECT}"
_SERVERS = "/compute/v2.1/servers/([^/]+)"
_ROUTES = (
    ("GET", "/identity(?:/v3)?", "_public_identity"),
    ("POST", "/identity/v3/auth/tokens", "_public_sign_in"),
    ("GET", "/volume/v3", "_public_volume"),
    ("GET", "/compute/v2.1", "_public_compute"),
    ("GET", "/image", "_public_image"),
    ("GET", f"{_VOLUME}/limits", "_limits"),
    ("GET", f"{_VOLUME}/types", "_types"),
    ("GET", f"{_VOLUME}/types/([^/]+)", "_type"),
    ("POST", f"{_VOLUME}/volumes", "_volume_create"),
    ("GET", f"{_VOLUME}/volumes/detail", "_volume_list"),
    ("GET", f"{_VOLUME}/volumes/([^/]+)", "_volume_show"),
    ("PUT", f"{_VOLUME}/volumes/([^/]+)", "_volume_set"),
    ("DELETE", f"{_VOLUME}/volumes/([^/]+)", "_volume_delete"),
    ("POST", f"{_VOLUME}/volumes/([^/]+)/action", "_volume_action"),
    ("GET", _SERVERS, "_server_show"),
    ("POST", f"{_SERVERS}/os-volume_attachments", "_attach"),
    ("DELETE", f"{_SERVERS}/os-volume_attachments/([^/]+)", "_detach"),
    ("GET", "/image/v2/images", "_image_list"),
    ("POST", "/image/v2/images", "_image_create"),
    ("PUT", "/image/v2/images/([^/]+)/file", "_image_upload"),
    ("GET", "/image/v2/images/([^/]+)", "_image_show"),
    ("PATCH", "/image/v2/images/([^/]+)", "_image_patch"),
    ("DELETE", "/image/v2/images/([^/]+)", "_image_delete"),
)
