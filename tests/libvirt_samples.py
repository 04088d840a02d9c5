"""Domains of libvirt's own test driver, as files that it reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
    "<source file='{path}'/><target dev='vd{letter}' bus='virtio'/></disk>"
)
CARD = (
    "<interface type='network'><mac address='52:54:00:00:{a:02x}:{b:02x}'/>"
    "<source network='lan'/><model type='virtio'/></interface>"
)
POOL = """<pool type='dir'><name>images</name><target><path>/images</path></target>
<volume type='file'><name>vm0.qcow2</name><capacity unit='GiB'>20</capacity>
<target><path>/images/vm0.qcow2</path><format type='qcow2'/></target></volume></pool>"""


def domain(
    number: int, *, name: str = "", memory_mib: int = 1024, disks: int = 1, shut_off: bool = True
) -> str:
    """Return one domain; its UUID and its card follow from the number."""
    paths = [f"/images/vm{number}{f'-{n}' if n else ''}.qcow2" for n in range(disks)]
    disk_xml = "".join(
        DISK.format(path=path, letter=letter) for path, letter in zip(paths, "abcdef", strict=False)
    )
    state = 5 if shut_off else 1
    return f"""<domain type='test'
      xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
      <name>{name or f"vm{number}"}</name><uuid>00000000-0000-0000-0000-{number:012}</uuid>
      <memory unit='MiB'>{memory_mib}</memory><vcpu>2</vcpu><os><type>hvm</type></os>
      <devices>{disk_xml}
      {CARD.format(a=number // 256, b=number % 256)}</devices>
      <test:runstate>{state}</test:runstate></domain>"""


def host_file(path: Path, domains: Iterable[str]) -> str:
    """Write a host with these domains and return its address.

    It is one that the console itself refuses, as it names a file.
    """
    path.write_text(f"<node>{''.join(domains)}{POOL}</node>")
    return f"test://{path}"
