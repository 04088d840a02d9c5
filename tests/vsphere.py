"""A small ESXi host or vCenter for tests, which libvirt's own driver for VMware signs in to.

It knows one datacenter with one host and speaks as much of the vSphere Web Services API (SOAP,
urn:vim25) as connecting, listing and describing take; its web folder has VMX files and flat disks.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from lxml import etree

from inventory.sources.nbdkit import quoted
from tests.https_server import HttpsServer, Mood, make_certificate

USER, PASSWORD = "root", "pass:word<&>"
_V = "{urn:vim25}"
_ZERO = "0000:" * 7 + "0000"
_ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsd="http://www.w3.org/2001/XMLSchema" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    "<soapenv:Body>{}</soapenv:Body></soapenv:Envelope>"
)
_WRONG_PASSWORD = (
    "<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>Cannot complete login due "
    "to an incorrect user name or password.</faultstring><detail><InvalidLoginFault "
    'xmlns="urn:vim25" xsi:type="InvalidLogin"/></detail></soapenv:Fault>'
)
_SESSION = (
    "<key>52</key><userName>root</userName><fullName>root</fullName>"
    "<loginTime>2024-01-01T00:00:00Z</loginTime>"
    "<lastActiveTime>2024-01-01T00:00:00Z</lastActiveTime>"
    "<locale>en</locale><messageLocale>en</messageLocale>"
)
_CPU = (
    '<val xsi:type="ArrayOfHostCpuIdInfo"><HostCpuIdInfo xsi:type="HostCpuIdInfo">'
    f"<level>-2147483647</level><eax>{_ZERO}</eax><ebx>{_ZERO}</ebx><ecx>{_ZERO}</ecx>"
    "<edx>0010:1000:0000:0000:0000:0000:0000:0000</edx></HostCpuIdInfo></val>"
)
_VMX = """.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "{name}"
guestOS = "debian10-64"
memSize = "1024"
numvcpus = "2"
scsi0.present = "true"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "true"
scsi0:0.fileName = "{name}.vmdk"
scsi0:0.deviceType = "scsi-hardDisk"
ethernet0.present = "true"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "VM Network"
ethernet0.connectionType = "bridged"
ethernet0.addressType = "generated"
ethernet0.generatedAddress = "00:0c:29:00:00:{number:02x}"
"""


def _reference(kind: str, key: str, tag: str = "val") -> str:
    return f'<{tag} type="{kind}" xsi:type="ManagedObjectReference">{key}</{tag}>'


def _value(text: str, kind: str = "xsd:string") -> str:
    return f'<val xsi:type="{kind}">{escape(text)}</val>'


@dataclass(frozen=True, kw_only=True)
class Managed:
    """An object of the server: what it is, what it lies in, and its properties as XML."""

    kind: str
    parent: str = ""
    properties: dict[str, str] = field(default_factory=dict)


class VSphere:
    """The server with these machines; `running` are those that run.  A context manager.

    `disk` is what each machine has as its flat disk.  `logins` counts those that were let in,
    `refused` those that were not.
    """

    def __init__(
        self,
        folder: Path,
        *machines: str,
        vcenter: bool = False,
        running: tuple[str, ...] = (),
        disk: Path | None = None,
    ) -> None:
        self.datacenter = "DC 1" if vcenter else "ha-datacenter"
        self.logins = self.refused = 0
        self._vcenter = vcenter
        self._sessions: set[str] = set()
        self._objects = self._inventory(machines, running)
        self.certificate, self.thumbprint = make_certificate(folder)
        files = {}
        for number, name in enumerate(machines, 1):
            place = f"dcPath={quoted(self.datacenter)}&dsName=ds1"
            vmx = folder / f"{number}.vmx"
            vmx.write_text(_VMX.format(name=name, number=number))
            # As libvirt asks for it; the disk's place is quoted twice, see url_path().
            files[f"/folder/{quoted(name)}%2F{quoted(name)}.vmx?{place}"] = vmx
            if disk is not None:
                place = f"dcPath={quoted(quoted(self.datacenter))}&dsName=ds1"
                files[f"/folder/{quoted(name)}/{quoted(name)}-flat.vmdk?{place}"] = disk
        self.mood = Mood(user=USER, password=PASSWORD)
        self.server = HttpsServer(files, self.certificate, self.mood, self._answer)

    def __enter__(self) -> VSphere:
        self.server.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        self.server.__exit__(None, None, None)

    def uri(self, query: str = "", *, path: str | None = None) -> str:
        """Return its address for libvirt."""
        scheme, here = ("vpx", "DC%201/esx1") if self._vcenter else ("esx", "")
        where = here if path is None else path
        return f"{scheme}://{USER}@127.0.0.1:{self.server.port}/{where}{query}"

    def _inventory(self, machines: tuple[str, ...], running: tuple[str, ...]) -> dict[str, Managed]:
        host = _reference("HostSystem", "host-1", "ManagedObjectReference")
        found = {
            "sessions": Managed(
                kind="SessionManager",
                properties={"currentSession": f'<val xsi:type="UserSession">{_SESSION}</val>'},
            ),
            "root": Managed(kind="Folder", properties={"name": _value("Datacenters")}),
            "dc-1": Managed(
                kind="Datacenter",
                parent="root",
                properties={
                    "name": _value(self.datacenter),
                    "hostFolder": _reference("Folder", "hosts"),
                    "vmFolder": _reference("Folder", "vms"),
                },
            ),
            "hosts": Managed(kind="Folder", parent="dc-1", properties={"name": _value("host")}),
            "cr-1": Managed(
                kind="ComputeResource",
                parent="hosts",
                properties={
                    "name": _value("esx1"),
                    "host": f'<val xsi:type="ArrayOfManagedObjectReference">{host}</val>',
                    "resourcePool": _reference("ResourcePool", "pool-1"),
                },
            ),
            "host-1": Managed(
                kind="HostSystem",
                parent="cr-1",
                properties={
                    "name": _value("esx1"),
                    "runtime.inMaintenanceMode": _value("false", "xsd:boolean"),
                    "hardware.cpuFeature": _CPU,
                    "hardware.systemInfo.uuid": _value("564d0000-0000-0000-0000-00000000ffff"),
                    "config.network.dnsConfig.hostName": _value("esx1"),
                    "config.network.dnsConfig.domainName": _value("example.org"),
                },
            ),
        }
        for number, name in enumerate(machines, 1):
            power = "poweredOn" if name in running else "poweredOff"
            found[f"vm-{number}"] = Managed(
                kind="VirtualMachine",
                parent="host-1",
                properties={
                    "name": _value(name),
                    "configStatus": _value("green", "ManagedEntityStatus"),
                    "runtime.powerState": _value(power, "VirtualMachinePowerState"),
                    "config.uuid": _value(f"564d0000-0000-0000-0000-{number:012}"),
                    "config.files.vmPathName": _value(f"[ds1] {name}/{name}.vmx"),
                },
            )
        return found

    def _answer(self, body: bytes, cookies: str) -> tuple[int, bytes, str]:
        """Answer one call; only those of the start need no session, which a cookie tells."""
        call = etree.fromstring(body)[0][0]
        method = etree.QName(call).localname
        cookie = ""
        if method == "RetrieveServiceContent":
            text = self._content()
        elif method == "Login":
            given = (call.findtext(f"{_V}userName"), call.findtext(f"{_V}password"))
            if given != (USER, PASSWORD):
                self.refused += 1
                return 500, _ENVELOPE.format(_WRONG_PASSWORD).encode(), ""
            self.logins += 1
            cookie = f'vmware_soap_session="{secrets.token_hex(16)}"'
            self._sessions.add(cookie)
            self.mood.sessions[cookie.partition("=")[2]] = 0
            text = f"<returnval>{_SESSION}</returnval>"
        elif not any(known in cookies for known in self._sessions):
            return 401, b"", ""
        elif method == "RetrieveProperties":
            text = self._properties(call)
        elif method == "FindByUuid":
            text = self._by_uuid(call.findtext(f"{_V}uuid") or "")
        elif method == "Logout":
            text = ""
        else:
            return 500, b"", ""
        answer = f'<{method}Response xmlns="urn:vim25">{text}</{method}Response>'
        return 200, _ENVELOPE.format(answer).encode(), cookie

    def _content(self) -> str:
        line, api = ("vpx", "VirtualCenter") if self._vcenter else ("embeddedEsx", "HostAgent")
        return (
            f"<returnval>{_reference('Folder', 'root', 'rootFolder')}"
            f"{_reference('PropertyCollector', 'collector', 'propertyCollector')}"
            "<about><name>VMware</name><fullName>VMware 7.0.3</fullName><vendor>VMware</vendor>"
            "<version>7.0.3</version><build>1</build><osType>vmnix-x86</osType>"
            f"<productLineId>{line}</productLineId><apiType>{api}</apiType>"
            "<apiVersion>7.0.3.0</apiVersion></about>"
            f"{_reference('SessionManager', 'sessions', 'sessionManager')}"
            f"{_reference('SearchIndex', 'index', 'searchIndex')}</returnval>"
        )

    def _properties(self, call: etree._Element) -> str:
        """Give what was asked of an object, or of all of a kind below it."""
        result = []
        for spec in call.findall(f"{_V}specSet"):
            wanted = {
                asked.findtext(f"{_V}type"): [path.text for path in asked.findall(f"{_V}pathSet")]
                for asked in spec.findall(f"{_V}propSet")
            }
            for start in spec.findall(f"{_V}objectSet"):
                root = start.findtext(f"{_V}obj") or ""
                deep = start.find(f"{_V}selectSet") is not None
                for key, managed in self._objects.items():
                    reached = key == root or (deep and self._is_below(key, root))
                    if reached and managed.kind in wanted:
                        known = managed.properties
                        sets = "".join(
                            f"<propSet><name>{name}</name>{known[name]}</propSet>"
                            for name in wanted[managed.kind]
                            if name in known
                        )
                        obj = _reference(managed.kind, key, "obj")
                        result.append(f"<returnval>{obj}{sets}</returnval>")
        return "".join(result)

    def _is_below(self, key: str, root: str) -> bool:
        while key:
            key = self._objects[key].parent
            if key == root:
                return True
        return False

    def _by_uuid(self, uuid: str) -> str:
        return "".join(
            _reference("VirtualMachine", key, "returnval")
            for key, managed in self._objects.items()
            if managed.properties.get("config.uuid") == _value(uuid.lower())
        )
