"""Cases for the fuzzer: real packages and descriptors, broken by chance but repeatably."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import zstandard

from tests.unit.sources import ova_builder as builder

DISK = b"v2v raw disk ".ljust(1536, b"\0")
_DOMAIN = b"""<domain type='kvm'><name> web </name><genid>g-1</genid><memory unit='MiB'>64</memory>
<vcpu>2</vcpu><os firmware='efi'><firmware><feature enabled='yes' name='secure-boot'/></firmware>
</os><features><acpi/><apic/></features><cpu><vendor>Intel</vendor><model>qemu64</model>
<topology sockets='1' cores='2' threads='1'/></cpu><devices>
<disk type='file' device='disk'><driver type='qcow2'/><source file='/d.qcow2'/>
<target dev='sda' bus='scsi'/></disk>
<disk type='volume' device='disk'><source pool='default' volume='v'/><target dev='vdb'/></disk>
<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/></disk>
<controller type='scsi' model='virtio-scsi'/>
<interface type='bridge'><mac address='52:54:00:AA:BB:CC'/><source bridge='br0'/>
<model type='virtio'/></interface><interface type='network'><source network='n'/></interface>
<graphics type='vnc' keymap='de' passwd='secret'><listen type='address' address='0.0.0.0'/>
</graphics><sound model='ich9'/></devices></domain>"""
_NETWORK_DOMAIN = b"""<domain type='kvm'><name>web</name><devices>
<disk type='network'><driver type='qcow2'/><source protocol='nbd' name='e'>
<host name='::1' port='10809'/></source></disk>
<disk type='network'><source protocol='https' name='/a/b'><host name='h'/></source></disk>
<disk type='network'><source protocol='ssh' name='/a/b'><host name='h' port='22'/>
<identity username='root'/></source></disk>
<disk type='network'><source protocol='rbd' name='p/ns/i'><host name='m1' port='3300'/>
<host name='m2'/><snapshot name='s'/><auth username='libvirt'/></source></disk>
<disk type='network'><source protocol='iscsi' name='iqn.2013-07.com.example:a/2'>
<host name='h' port='3260'/><initiator><iqn name='iqn.2013-07.com.example:b'/></initiator>
</source></disk></devices></domain>"""
# Version 3, a name at 136, an extension that states the format of what is below.
_QCOW2 = (
    b"QFI\xfb\0\0\0\3" + (136).to_bytes(8, "big") + (9).to_bytes(4, "big") + bytes(80)
    + (104).to_bytes(4, "big") + bytes.fromhex("e2792aca00000005") + b"qcow2\0\0\0" + bytes(16)
    + b"base.img\n" + bytes(400)
)  # fmt: skip
_PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": lambda data: zstandard.ZstdCompressor().compress(data),
    "bz2": bz2.compress,
}
# What readers of numbers, names and sizes stumble over.
_TOKENS = [
    b"", b"\0", b"-1", b"0", b"1", b"999999999999999999999", b"1e9", b"0x10", "\u0663".encode(),
    b"\xff", b"\xed\xb2\x80", b"\x1b[2J", b"\n", b"\r\n", b"../", b"/etc/passwd", b"%2e%2e%2f",
    b"%00", b"--help", b"|touch x", b"'", b'"', b"<", b">", b"&#0;", b"&#27;", b"&amp;", b"&x;",
    b"<!DOCTYPE x>", b"<![CDATA[", b"]]>", b"<!--", b"-->", b"<x/>", b"ovf:", b"/disk/", b"/file/",
    b"http://h/", b"byte * 2^30", b"byte * 2^60", b"SHA512(", b")= ", b"gzip", b"\\", b" ",
    "é".encode(), b"\x1f\x8b", b"QFI\xfb", b"KDMV", b"# Disk DescriptorFile",
]  # fmt: skip
_TAR_FIELDS = [(0, 100), (100, 8), (124, 12), (148, 8), (156, 1), (157, 100), (257, 8), (345, 155)]
KINDS = ("ovf", "mf", "domain", "network", "qcow2", "tar", "tar-rebuilt", "tar-packed", "zip",
         "zip-rebuilt", "folder")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input: `data` of a single file, or the `files` of a folder; `disks` of text are links."""

    kind: str
    data: bytes = b""
    files: tuple[tuple[str, bytes], ...] = ()
    links: tuple[tuple[str, str], ...] = ()


def make_case(seed: int, number: int) -> Case:
    """Return case `number` of a run; the same numbers give the same case everywhere."""
    # A str, not a tuple: its hash is no part of it, so that it is the same in every process.
    chance = random.Random(f"{seed}/{number}")
    kind = KINDS[number % len(KINDS)]
    match kind:
        case "ovf":
            return Case(kind=kind, data=_mutated(chance, chance.choice(_ovfs())))
        case "mf":
            files = {"vm.ovf": b"x", "d1.vmdk": b"y", "a)b": b"z"}
            algorithm = chance.choice(["SHA1", "SHA256", "SHA512"])
            return Case(kind=kind, data=_mutated(chance, builder.manifest(files, algorithm)))
        case "domain":
            return Case(kind=kind, data=_mutated(chance, _DOMAIN))
        case "network":
            return Case(kind=kind, data=_mutated(chance, _NETWORK_DOMAIN))
        case "qcow2":
            return Case(kind=kind, data=_mutated(chance, _QCOW2))
        case "tar":
            return Case(kind=kind, data=_tar_mutated(chance, _tar(chance, _parts(chance))))
        case "tar-rebuilt":
            return Case(kind=kind, data=_tar(chance, _parts_mutated(chance)))
        case "tar-packed":
            tar = _tar(chance, _parts_mutated(chance))
            inside = _tar_mutated(chance, tar) if chance.random() < 0.5 else tar
            packed = _PACK[chance.choice(list(_PACK))](inside)
            return Case(
                kind=kind, data=_mutated(chance, packed) if chance.random() < 0.5 else packed
            )
        case "zip":
            return Case(kind=kind, data=_mutated(chance, _zip(chance, _parts(chance))))
        case "zip-rebuilt":
            return Case(kind=kind, data=_zip(chance, _parts_mutated(chance)))
        case _:
            links = [
                (
                    f"l{n}.{chance.choice(['ovf', 'mf', 'vmdk'])}",
                    chance.choice(["/etc/passwd", "..", ".", "d1.vmdk", "nowhere", "../../in"]),
                )
                for n in range(2)
            ]
            return Case(
                kind="folder",
                files=tuple(_parts_mutated(chance).items()),
                links=tuple(links) if chance.random() < 0.5 else (),
            )  # fmt: skip


@cache
def _ovfs() -> list[bytes]:
    piece = ' ovf:chunkSize="512" ovf:size="1536"'
    drive = "<Item><r:InstanceID>70</r:InstanceID><r:ResourceType>15</r:ResourceType></Item>"
    return [
        builder.make_ovf(),
        builder.make_ovf(more=builder.NIC * 2 + drive),
        builder.make_ovf(hrefs=["d1.vmdk", "sub/d2.vmdk"]),
        builder.make_ovf(file_attributes=' ovf:compression="gzip"'),
        builder.make_ovf(href="p.vmdk", file_attributes=piece),
        builder.make_ovf(
            disk_section='<Disk ovf:diskId="k1" ovf:capacity="8"/>',
            firmware=builder.FIRMWARE.format("bios"),
        ),
    ]


def _parts(chance: random.Random) -> dict[str, bytes]:
    """Return the files of a package, mostly good."""
    ovf = chance.choice(_ovfs())
    disk = gzip.compress(DISK, mtime=0) if b'"gzip"' in ovf else DISK
    files = {"vm.ovf": ovf, "d1.vmdk": disk}
    if b"sub/d2" in ovf:
        files["sub/d2.vmdk"] = builder.vmdk()
    if b"chunkSize" in ovf:
        files |= {f"p.vmdk.{n:09d}": DISK[n * 512 : n * 512 + 512] for n in range(3)}
    if chance.random() < 0.3:
        files["d" * 120 + ".vmdk"] = b"x"
    return files | {"vm.mf": builder.manifest(files)}


def _parts_mutated(chance: random.Random) -> dict[str, bytes]:
    """Return the files of a package of which some, and some names, are broken."""
    files = _parts(chance)
    for name in chance.sample(list(files), chance.randint(1, 2)):
        if chance.random() < 0.3:
            data = files.pop(name)
            files[_mutated(chance, name.encode()).decode("utf-8", "surrogateescape")] = data
        else:
            files[name] = _mutated(chance, files[name])
    if chance.random() < 0.5:  # the digests fit again: what is behind them is reached
        files.pop("vm.mf", None)
        files["vm.mf"] = builder.manifest({n: d for n, d in files.items() if _is_plain(n)})
    return files


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isprintable()


def _mutated(chance: random.Random, original: bytes) -> bytes:
    """Return bytes with one to six changes."""
    data = bytearray(original)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(data))
        end = min(len(data), at + chance.choice([1, 1, 2, 8, 40, 400]))
        match chance.randrange(8):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at:at] = chance.choice(_TOKENS)
            case 2:
                data[at:end] = chance.choice(_TOKENS)
            case 3:
                del data[at:end]
            case 4:
                data[at:at] = data[at:end] * chance.choice([1, 1, 2, 50])
            case 5 if chance.random() < 0.2:
                del data[at:]
            case 6:
                _replace_value(chance, data)
            case _:
                data[at:end] = chance.randbytes(end - at)
    return bytes(data)


def _replace_value(chance: random.Random, data: bytearray) -> None:
    """Put a token where a text, an attribute or a bracket has its value."""
    begin = data.find(
        chance.choice([b'="', b"='", b">", b"(", b"= "]), chance.randint(0, len(data))
    )
    ends = [n for c in (b'"', b"'", b"<", b")", b"\n") if (n := data.find(c, begin + 2)) >= 0]
    if begin >= 0 and ends:
        first = begin + (1 if data[begin : begin + 1] in (b">", b"(") else 2)
        data[first : max(first, min(ends))] = chance.choice(_TOKENS)


def _tar(chance: random.Random, files: dict[str, bytes]) -> bytes:
    """Return an archive; some entries are links, folders or devices."""
    formats = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=chance.choice(formats), errors="surrogateescape"
    ) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if chance.random() < 0.05:
                info.type = chance.choice([b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"x", b"L"])
                info.linkname = chance.choice(["/etc/passwd", "d1.vmdk", ".."])
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # this format has no way to write such a name
                info.name = "d1.vmdk"
                archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _tar_mutated(chance: random.Random, original: bytes) -> bytes:
    """Break headers of an archive, mostly with their checksums put right again."""
    if chance.random() < 0.3:
        return _mutated(chance, original)
    data = bytearray(original)
    heads = [n for n in range(0, len(data), 512) if data[n + 257 : n + 262] == b"ustar"]
    for head in chance.sample(heads, min(len(heads), chance.randint(1, 3))):
        start, length = chance.choice(_TAR_FIELDS)
        values = [*_TOKENS, b"\x80" + chance.randbytes(11), b"\xff" * 12, b"77777777777"]
        value = chance.choice([chance.choice(values), chance.randbytes(length)])
        data[head + start : head + start + length] = value[:length].ljust(length, b"\0")
        if chance.random() < 0.9:
            data[head + 148 : head + 156] = b" " * 8
            data[head + 148 : head + 156] = b"%06o\0 " % sum(data[head : head + 512])
    if chance.random() < 0.2:
        del data[chance.randint(0, len(data)) :]
    return bytes(data)


def _zip(chance: random.Random, files: dict[str, bytes]) -> bytes:
    method = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression=method) as archive:
        warnings.simplefilter("ignore")  # the same name twice is on purpose
        for name, data in files.items():
            info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode() or "x")
            info.compress_type = method
            if chance.random() < 0.05:
                info.external_attr = chance.choice([0o120777, 0o010644, 0o104755]) << 16
            archive.writestr(info, data)
    return stream.getvalue()
