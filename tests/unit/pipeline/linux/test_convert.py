"""Whole conversions of phony guests that lie in folders."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conversions.pipeline.concerns import collect_concerns
from conversions.pipeline.context import Context
from conversions.pipeline.errors import GuestError
from conversions.pipeline.guest_programs import run_in_guest
from conversions.pipeline.job import Customize, GuestFile, WindowsOptions
from conversions.pipeline.types import Application
from inventory.sources.types import Controller, Removable, RemovableType
from tests.appliance.phony import (
    BUILT,
    DEBIAN,
    KV,
    RHEL,
    SUSE,
    Link,
    PhonyGuest,
    Program,
    Tree,
    grub_cfg,
    initramfs,
    kernel,
)
from tests.unit.pipeline.samples import GUEST, make_source, source_disk

Make = Callable[..., PhonyGuest]
rows = pytest.mark.rows

OLD_KERNEL = "2.6.18-398.el5"
RHEL5: Tree = {
    **{k: v for k, v in RHEL.items() if KV not in k and "dracut" not in k},
    **kernel(OLD_KERNEL, initrd="initrd-{}.img", held=("virtio_pci", "virtio_blk", "ext4")),
    "/etc/redhat-release": "Red Hat Enterprise Linux Server release 5.11 (Tikanga)\n",
    "/etc/os-release": "ID=rhel\n",
    "/boot/grub2/grub.cfg": "",
    "/boot/grub/grub.conf": "default=0\ntitle Old\n\troot (hd0,0)\n"
    f"\tkernel /boot/vmlinuz-{OLD_KERNEL} ro root=LABEL=/\n"
    f"\tinitrd /boot/initrd-{OLD_KERNEL}.img\n",
}
EL5 = {"major_version": 5, "minor_version": 11, "package_management": "yum"}
IDE_CDROM = Removable(type=RemovableType.CDROM, controller=Controller.IDE, slot=2)


def named(*names: str, version: str = "1", release: str = "1") -> tuple[Application, ...]:
    return tuple(Application(name=n, version=version, release=release) for n in names)


@rows("2-T48")
def test_an_old_fedora(phony: Make) -> None:
    """Its kernel has one driver for virtio.  The old initramfs waits under .pre-v2v meanwhile."""
    version = "2.6.35.6-45.fc14.x86_64"
    initrd = f"/boot/initramfs-{version}.img"
    vm = phony(
        {
            **{k: v for k, v in RHEL.items() if KV not in k},
            **kernel(version, initrd="initramfs-{}.img", modules=("virtio_blk", "ext4")),
            f"/lib/modules/{version}/modules.builtin": "kernel/drivers/virtio/virtio_pci.ko\n",
            BUILT: initramfs("virtio_blk", "ext4", version=version),
            "/usr/bin/dracut": Program(f'ls /boot >> /v2v-calls.log; cp {BUILT} "$3"'),
            "/bin/ls": RHEL["/bin/cat"],
            "/boot/grub2/grub.cfg": "",
            "/boot/grub/grub.conf": "default=0\ntitle Fedora\n"
            f"\tkernel /boot/vmlinuz-{version} ro\n\tinitrd {initrd}\n",
            "/etc/modprobe.conf": "alias scsi_hostadapter mptspi\n",
        },
        distro="fedora", major_version=14, minor_version=0, package_management="yum",
    )  # fmt: skip
    caps = vm.convert(guest_agent=False)
    assert vm.report.data("bootloader") == {
        "type": "GRUB legacy", "config": "/boot/grub/grub.conf", "uefi": False,
    }  # fmt: skip
    assert (caps.block_bus, caps.net_bus, caps.machine) == ("virtio-blk", "e1000", "i440fx")
    assert not caps.virtio_1_0
    assert not any((caps.virtio_rng, caps.virtio_balloon, caps.isa_pvpanic, caps.virtio_socket))
    calls = vm.calls()
    assert calls[0] == f"dracut --add-drivers virtio_blk {initrd} {version}"
    assert f"initramfs-{version}.img.pre-v2v" in calls
    assert not vm.exists(f"{initrd}.pre-v2v")
    assert vm.read("/etc/modprobe.conf") == "alias scsi_hostadapter virtio_blk\n"


WRAPPER = "search --no-floppy --fs-uuid --set=dev 1-2\nset prefix=($dev)/grub2\n" \
    "export $prefix\nconfigfile $prefix/grub.cfg\n"  # fmt: skip
UEFI = {"uefi_esps": ("/dev/sda1",), "mountpoints": (("/", "/dev/sda2"), ("/boot/efi", "/dev/x"))}


@rows("2-T50")
def test_a_menu_on_the_esp_that_leads_to_another_stays(phony: Make) -> None:
    config = "/boot/efi/EFI/centos/grub.cfg"
    vm = phony({**RHEL, config: WRAPPER, "/boot/efi/EFI/BOOT/BOOTX64.EFI": "x"}, **UEFI)
    vm.convert(guest_agent=False)
    assert vm.report.data("bootloader")["config"] == "/boot/grub2/grub.cfg"
    assert vm.read(config) == WRAPPER
    assert "root=/dev/vda1" in vm.read("/boot/grub2/grub.cfg")


@rows("2-T52")
def test_an_esp_without_loaders_is_a_warning(phony: Make) -> None:
    vm = phony(DEBIAN, **UEFI)
    vm.convert(guest_agent=False)
    assert vm.report.data("bootloader")["config"] == "/boot/grub/grub.cfg"
    assert [w for w in vm.warnings() if "/boot/efi/EFI/BOOT/BOOTX64.EFI" in w]


@pytest.mark.parametrize(
    ("default", "order"),
    [
        pytest.param("1", ["2.6.32-2", "2.6.32-1"], marks=rows("2-T55")),
        pytest.param("saved", ["2.6.32-1", "2.6.32-2"], marks=rows("2-T56")),
    ],
)
def test_the_default_of_grub_legacy(phony: Make, default: str, order: list[str]) -> None:
    titles = "".join(f"title {v}\n\tkernel (hd0,0)/boot/vmlinuz-{v} ro\n" for v in sorted(order))
    vm = phony(
        {
            **RHEL, **kernel("2.6.32-1"), **kernel("2.6.32-2"),
            "/boot/grub2/grub.cfg": "",
            "/boot/grub/grub.conf": f"default={default}\n{titles}",
        }
    )  # fmt: skip
    vm.convert(change=False)
    assert [k["version"] for k in vm.report.data("kernels")] == order


def test_a_default_of_grub_legacy_that_cannot_be_told_becomes_known(phony: Make) -> None:
    vm = phony({**RHEL5, "/boot/grub/grub.conf": str(RHEL5["/boot/grub/grub.conf"]).replace(
        "default=0", "default=saved")}, **EL5)  # fmt: skip
    vm.convert(guest_agent=False)
    assert vm.read("/boot/grub/grub.conf").startswith("default=0\ntitle Old\n")
    assert [w for w in vm.warnings() if "cannot be told" in w]


EL9_KERNEL = "5.14.0-70.13.1.el9_0.x86_64"
EL9 = {
    **{k: v for k, v in RHEL.items() if KV not in k},
    **kernel(EL9_KERNEL, initrd="initramfs-{}.img", held=("virtio_pci", "virtio_blk")),
    "/boot/grub2/grub.cfg": grub_cfg(EL9_KERNEL, initrd="initramfs-{}.img"),
    "/bin/rpm": Program("exit 1"),
}


@rows("2-T58", "2-T59", "2-T66")
def test_a_kernel_in_several_packages(phony: Make) -> None:
    """By its files, so that nobody asks rpm what a package holds, however much that is."""
    vm = phony({**EL9, "/etc/sysconfig/kernel": "UPDATEDEFAULT=yes\nDEFAULTKERNEL=kernel\n"})
    parts = named(
        "kernel", "kernel-modules-core", "kernel-core", "kernel-modules", "kernel-source",
        version="5.14.0", release="70.13.1.el9_0",
    )  # fmt: skip
    vm.guest = replace(vm.guest, applications=parts)
    vm.convert(guest_agent=False)
    [found] = vm.report.data("kernels")
    assert (found["name"], found["version"]) == ("kernel-core", EL9_KERNEL)
    assert found["supports_virtio_blk"]
    assert vm.read("/etc/sysconfig/kernel") == "UPDATEDEFAULT=yes\nDEFAULTKERNEL=kernel-core\n"
    assert vm.calls() == []


@rows("2-T60")
@pytest.mark.parametrize(
    ("version", "release", "kernel_version", "package", "is_debug"),
    [
        ("2.6.18", "8.el5", "2.6.18-8.el5PAE", "kernel-PAE", False),
        ("2.6.18", "8.el5", "2.6.18-8.el5", "kernel", False),
        ("3.10.0", "1.el7", "3.10.0-1.el7.x86_64.debug", "kernel-debug", True),
        ("5.14.0", "1.el9", "5.14.0-1.el9.x86_64+rt", "kernel-rt-core", False),
        ("5.14.0", "1.el9", "5.14.0-1.el9.x86_64", "kernel-core", False),
        ("3.0.101", "63.1", "3.0.101-63-pae", "kernel-pae", False),
    ],
)
def test_the_package_of_a_flavour(
    phony: Make, version: str, release: str, kernel_version: str, package: str, is_debug: bool
) -> None:
    vm = phony(
        {
            **EL9, **kernel(kernel_version, initrd="initramfs-{}.img"),
            "/boot/grub2/grub.cfg": grub_cfg(kernel_version, initrd="initramfs-{}.img"),
            "/etc/sysconfig/kernel": "DEFAULTKERNEL=x\n",
        }
    )  # fmt: skip
    parts = named(
        "kernel", "kernel-PAE", "kernel-debug", "kernel-modules", "kernel-pae", "kernel-default",
        *(("kernel-core", "kernel-rt-core") if "el9" in release else ()),
        version=version, release=release,
    )  # fmt: skip
    vm.guest = replace(vm.guest, applications=parts)
    vm.convert(change=False)
    [found] = vm.report.data("kernels")
    assert (found["name"], found["is_debug"]) == (package, is_debug)


def test_a_kernel_of_no_package_does_not_become_that_of_updates(phony: Make) -> None:
    vm = phony({**EL9, "/etc/sysconfig/kernel": "DEFAULTKERNEL=kernel\n"})
    vm.convert(guest_agent=False)
    assert vm.read("/etc/sysconfig/kernel") == "DEFAULTKERNEL=kernel\n"


@pytest.mark.parametrize(
    ("settings", "menu", "words"),
    [
        ("GRUB_DEFAULT=0\n", grub_cfg("9.9-hand", KV), "/boot/vmlinuz-9.9-hand"),
        ("GRUB_DEFAULT=7\n", grub_cfg(KV), "cannot be told"),
    ],
)
def test_the_kernel_that_was_looked_at_is_the_one_that_starts(
    phony: Make, settings: str, menu: str, words: str
) -> None:
    """Where the default was left out, and where it cannot be told."""
    vm = phony(
        {
            **DEBIAN, "/boot/vmlinuz-9.9-hand": "kernel", "/etc/default/grub": settings,
            "/boot/grub/grub.cfg": menu,
        }
    )  # fmt: skip
    vm.convert(guest_agent=False)
    assert vm.read("/etc/default/grub") == f'GRUB_DEFAULT="id-{KV}"\n'
    assert f'set default="id-{KV}"' in vm.read("/boot/grub/grub.cfg")
    [warning] = [w for w in vm.warnings() if "becomes the default" in w]
    assert words in warning


@pytest.mark.parametrize("blk", ["y", "m"])
def test_a_kernel_with_all_built_in(phony: Make, blk: str) -> None:
    """By its configuration, where it has no modules at all."""
    config = f"CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_BLK={blk}\nCONFIG_VIRTIO_NET={blk}\n"
    menu = "menuentry 'x' {\n\tlinux /boot/vmlinuz-9.9-hand\n}\n"
    vm = phony(
        {
            **DEBIAN, "/boot/vmlinuz-9.9-hand": "kernel", "/boot/config-9.9-hand": config,
            "/boot/grub/grub.cfg": menu,
        }
    )  # fmt: skip
    if blk == "m":
        with pytest.raises(GuestError) as caught:
            vm.convert(guest_agent=False)
        assert caught.value.code == "E-NO-KERNEL"
        return
    caps = vm.convert(guest_agent=False)
    assert (caps.block_bus, caps.net_bus) == ("virtio-blk", "virtio-net")
    assert [w for w in vm.warnings() if "has no modules" in w]


@pytest.mark.parametrize("has_driver", [True, False])
def test_disks_are_put_on_scsi_where_that_is_wished(phony: Make, has_driver: bool) -> None:
    modules = ("virtio_pci", "virtio_blk", *(("virtio_scsi", "sd_mod") if has_driver else ()))
    vm = phony({**DEBIAN, **kernel(modules=modules, held=modules)})
    caps = vm.convert(guest_agent=False, windows=WindowsOptions(block_driver="virtio-scsi"))
    assert caps.block_bus == ("virtio-scsi" if has_driver else "virtio-blk")
    assert vm.report.data("block_device_map")["sda"] == ("sda" if has_driver else "vda")
    assert bool([w for w in vm.warnings() if "has no virtio_scsi" in w]) != has_driver
    assert vm.calls() == []


def test_other_kernels_that_will_not_find_their_disk_are_named(phony: Make) -> None:
    ready = ("virtio_pci", "virtio_blk")
    vm = phony(
        {
            **DEBIAN, **kernel("1-old"), **kernel("2-ready", held=ready),
            **kernel("3-broken"), "/boot/initrd.img-3-broken": b"\x28\xb5\x2f\xfdx",
            "/boot/grub/grub.cfg": grub_cfg(KV, "1-old", "2-ready", "3-broken"),
        }
    )  # fmt: skip
    vm.convert(guest_agent=False)
    [warning] = [w for w in vm.warnings() if "will not find their disk" in w]
    assert "1-old (lacks virtio_pci, virtio_blk), 3-broken" in warning
    assert "2-ready" not in warning
    assert KV not in warning


@rows("2-T45")
def test_archives_of_lvm_are_not_read(phony: Make) -> None:
    vm = phony(DEBIAN)
    vm.g.mkdir_p("/etc/lvm/archive")
    for number in range(10_000):
        vm.g.touch(f"/etc/lvm/archive/vg_{number:05}-1.vg")
    vm.convert(guest_agent=False)
    assert "/etc/fstab" in vm.g.reads
    assert not [path for path in vm.g.reads if path.startswith("/etc/lvm")]


@pytest.mark.parametrize(
    ("device", "uuid", "expected", "words"),
    [
        pytest.param("/dev/sda2", "l-u-k-s", "UUID=l-u-k-s", [], marks=rows("2-T73")),
        pytest.param(
            "/dev/sdq9", "", "/dev/sdq9", ["has no UUID", "not one of its 1 disks"],
            marks=rows("2-T74"),
        ),
        ("UUID=1-2", "", "UUID=1-2", []),
    ],
)  # fmt: skip
def test_encrypted_devices_are_named_by_their_uuid(
    phony: Make, device: str, uuid: str, expected: str, words: list[str]
) -> None:
    vm = phony({**SUSE, "/etc/crypttab": f"cr_home {device} none luks\n"}, major_version=12)
    vm.g.uuids = {device: uuid} if uuid else {}
    vm.convert(guest_agent=False)
    assert vm.read("/etc/crypttab") == f"cr_home {expected} none luks\n"
    found = [w for w in vm.warnings() if device in w]
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("old", "new", "controller", "warned"),
    [
        pytest.param("/dev/hda3", "/dev/vda3", Controller.IDE, False, marks=rows("2-T79")),
        pytest.param("/dev/hdc", "/dev/cdrom", Controller.IDE, False, marks=rows("2-T80")),
        pytest.param("/dev/xvda2", "/dev/vda2", Controller.SCSI, False, marks=rows("2-T81")),
        pytest.param("/dev/nvme0n1p2", "/dev/vda2", Controller.NVME, False, marks=rows("2-T82")),
        pytest.param("/dev/cciss/c0d0p1", "/dev/cciss/c0d0p1", Controller.SCSI, True,
                     marks=rows("2-T83")),
        pytest.param("/dev/sdb1", "/dev/sdb1", Controller.SCSI, True, marks=rows("2-T84")),
        pytest.param("/dev/md0", "/dev/md0", Controller.SCSI, False, marks=rows("2-T85")),
        pytest.param("/dev/sr0", "/dev/sr0", Controller.SCSI, False, marks=rows("2-T85")),
        pytest.param("/dev/fd0", "/dev/fd0", Controller.SCSI, False, marks=rows("2-T85")),
        pytest.param("/dev/cdrom", "/dev/cdrom", Controller.SCSI, False, marks=rows("2-T85")),
        pytest.param("/dev/disk/by-path/pci-0000:00:10.0-scsi-0:0:0:0-part1", "", Controller.SCSI,
                     False),
    ],
)  # fmt: skip
def test_devices_in_fstab(
    phony: Make, old: str, new: str, controller: Controller, warned: bool
) -> None:
    source = make_source(disks=(source_disk(0, controller),), removables=(IDE_CDROM,))
    vm = phony({**RHEL5, "/etc/fstab": f"{old}  /data ext3 defaults 0 2\n"}, source=source, **EL5)
    caps = vm.convert(guest_agent=False)
    assert caps.block_bus == "virtio-blk"
    assert vm.read("/etc/fstab") == f"{new or old}  /data ext3 defaults 0 2\n"
    assert bool([w for w in vm.warnings() if w.startswith(f"{old} is named in")]) == warned


BARE_EL5 = kernel(
    OLD_KERNEL, initrd="initrd-{}.img", modules=("mptspi", "piix", "ide-disk", "ext3"),
    held=("mptspi", "ext3"),
)  # fmt: skip


@rows("2-T93")
def test_an_old_guest_without_virtio_finds_its_disk_on_ide(phony: Make) -> None:
    """Its kernel calls it hda; the initramfs knows only the controller of the source."""
    source = make_source(disks=(source_disk(0, Controller.IDE),))
    vm = phony(
        {
            **RHEL5, **BARE_EL5,
            BUILT: initramfs("piix", "ide-disk", "ext3", version=OLD_KERNEL),
            "/sbin/mkinitrd": Program(f'echo {OLD_KERNEL}; cp {BUILT} "$3"'),
            "/etc/fstab": "/dev/hda3 / ext3 defaults 0 1\n",
        },
        source=source, **EL5,
    )  # fmt: skip
    caps = vm.convert(guest_agent=False)
    assert (caps.block_bus, caps.machine) == ("ide", "i440fx")
    assert vm.report.data("block_device_map")["hda"] == "hda"
    assert vm.read("/etc/fstab") == "/dev/hda3 / ext3 defaults 0 1\n"
    assert vm.calls() == [
        f"mkinitrd --with=piix --with=ide_disk /boot/initrd-{OLD_KERNEL}.img {OLD_KERNEL}"
    ]
    assert caps.reasons["block_bus"].startswith(f"kernel {OLD_KERNEL} has no virtio_blk; ")


@rows("2-T86")
def test_names_by_path_are_left_and_told(phony: Make) -> None:
    fstab = "/dev/disk/by-path/pci-0000:00:10.0-scsi-0:0:0:0-part1 /data ext4 x 0 0\n"
    vm = phony({**DEBIAN, "/etc/fstab": fstab})
    context = Context(
        g=vm.g, guest=vm.guest, source=vm.source, job=vm.job, report=vm.report, work=vm.work,
        change=True,
    )  # fmt: skip
    collect_concerns(context, [])
    vm.convert(guest_agent=False)
    assert vm.read("/etc/fstab") == fstab
    [concern] = [c for c in vm.report.data("concerns") if c["code"] == "C-UNSTABLE-DISK-NAMES"]
    assert concern["level"] == "warning"
    assert "/dev/disk/by-path/pci-0000:00:10.0-scsi-0:0:0:0-part1" in concern["found"]


def concerns_of(vm: PhonyGuest) -> dict[str, Any]:
    """Return the concerns by their code."""
    context = Context(
        g=vm.g, guest=vm.guest, source=vm.source, job=vm.job, report=vm.report, work=vm.work,
        change=False,
    )  # fmt: skip
    collect_concerns(context, [])
    return {concern["code"]: concern for concern in vm.report.data("concerns")}


@pytest.mark.parametrize("options", ["luks,tpm2-device=auto", "luks", ""])
def test_keys_sealed_by_the_old_machine_are_a_concern(phony: Make, options: str) -> None:
    vm = phony({**DEBIAN, "/etc/crypttab": f"#a b c tpm2-device=\ncr UUID=1 none {options}\n"})
    found = concerns_of(vm).get("C-TPM-KEYS")
    assert bool(found) == ("tpm2" in options)
    assert found is None or found["found"] == "cr in /etc/crypttab."


@rows("2-T86")
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/boot/grub/grub.cfg", grub_cfg(KV, arguments="resume={}")),
        ("/etc/systemd/system/swap.swap", "[Swap]\nWhat={}\n"),
        ("/etc/lvm/lvm.conf", 'filter = [ "a|{}|", "r|.*|" ]\n'),
    ],
)
def test_names_by_id_are_found_wherever_they_are(phony: Make, path: str, text: str) -> None:
    name = "/dev/disk/by-id/scsi-3600-part1"
    vm = phony({**DEBIAN, path: text.replace("{}", name)})
    assert concerns_of(vm)["C-UNSTABLE-DISK-NAMES"]["found"] == f"{name}."


def test_settings_with_two_names_are_changed_once(phony: Make) -> None:
    """A second pass would move a disk again that has got the name of another one."""
    disks = (source_disk(0), source_disk(1, Controller.VIRTIO_BLK))
    vm = phony(
        {
            **RHEL, "/etc/default/grub": 'GRUB_CMDLINE_LINUX="resume=/dev/sda2"\n',
            "/etc/sysconfig/grub": Link("../default/grub"),
        },
        source=make_source(disks=disks),
    )  # fmt: skip
    assert vm.convert(guest_agent=False).block_bus == "virtio-blk"
    assert vm.report.data("block_device_map")["vda"] == "vdb"
    assert vm.read("/etc/default/grub") == 'GRUB_CMDLINE_LINUX="resume=/dev/vda2"\n'


@rows("2-T91")
@pytest.mark.parametrize("tree", [DEBIAN, RHEL5])
def test_names_of_two_drives_may_change(phony: Make, tree: Tree) -> None:
    source = make_source(removables=(IDE_CDROM, replace(IDE_CDROM, slot=3)))
    vm = phony(tree, source=source, **(EL5 if tree is RHEL5 else {}))
    vm.convert(guest_agent=False)
    assert [w for w in vm.warnings() if "CD-ROM" in w]


@rows("2-T95")
def test_an_alias_is_added_where_mkinitrd_looks_for_one(phony: Make) -> None:
    vm = phony({**RHEL5, "/etc/modprobe.d": None}, **EL5)
    vm.convert(guest_agent=False)
    assert vm.g.ls("/etc/modprobe.d") == ["v2vweb.conf"]
    assert vm.read("/etc/modprobe.d/v2vweb.conf") == "alias scsi_hostadapter virtio_blk\n"


@rows("2-T96")
def test_aliases_of_xen(phony: Make) -> None:
    modules = kernel(OLD_KERNEL, initrd="initrd-{}.img", modules=("virtio_blk", "ext4"),
                     held=("virtio_pci", "virtio_blk"))  # fmt: skip
    aliases = "alias eth0 xen-vnif\nalias peth0 xennet\nalias block xenblk\n"
    vm = phony({**RHEL5, **modules, "/etc/modprobe.conf": aliases}, **EL5)
    assert vm.convert(guest_agent=False).net_bus == "e1000"
    assert vm.read("/etc/modprobe.conf").startswith(
        "alias eth0 e1000\nalias peth0 xennet\nalias block xenblk\n"
    )
    found = [w for w in vm.warnings() if "only Xen has" in w]
    assert ["peth0" in found[0], "block" in found[1], len(found)] == [True, True, 2]


@rows("2-T109")
@pytest.mark.parametrize("has_folder", [False, True])
def test_the_first_start_of_a_guest_without_systemd(phony: Make, has_folder: bool) -> None:
    """Its folder of units may be there all the same."""
    tree = {k: v for k, v in RHEL.items() if has_folder or k != "/etc/systemd/system"}
    levels = {f"/etc/rc.d/rc{n}.d": None for n in "0123456"}
    vm = phony({**tree, **levels, "/etc/init.d": None}, major_version=6,
               package_management="yum")  # fmt: skip
    vm.convert()
    scripts = "/usr/lib/v2vweb-firstboot/scripts"
    assert vm.read(f"{scripts}/5000-0005-start-qga").split("\n")[1] == "service qemu-ga start"
    found = [n for n in "0123456" if vm.g.ls(f"/etc/rc.d/rc{n}.d") == ["S99v2vweb-firstboot"]]
    assert found == ["2", "3", "5"]
    assert vm.g.readlink("/etc/rc.d/rc3.d/S99v2vweb-firstboot").endswith("/firstboot.sh")


def test_a_script_that_another_runner_has_taken_is_not_run_again(phony: Make) -> None:
    tools = {f"/bin/{name}": Link("busybox") for name in ("mkdir", "basename")}
    vm = phony({**DEBIAN, **tools})
    wishes = Customize(firstboot=("echo one >> /order",))
    vm.convert(guest_agent=False, customize=wishes)
    # The other one moves it between the look at it and our own mv.
    vm.g.rm_f("/bin/mv")
    vm.g.write("/bin/mv", b'#!/bin/sh\n/bin/busybox mv "$1" "$2"\nexit 1\n')
    vm.g.chmod(0o755, "/bin/mv")
    vm.g.sh("/usr/lib/v2vweb-firstboot/firstboot.sh start")
    assert not vm.exists("/order")


@rows("2-T116")
def test_a_driver_of_x_without_x(phony: Make) -> None:
    config = (
        'Section "Device"\n  Identifier "Card"\n  Driver "vmware"\n  VendorName "VMware"\n'
        '  BoardName "SVGA"\nEndSection\n'
    )
    vm = phony({**DEBIAN, "/etc/X11/xorg.conf": config})
    vm.convert(guest_agent=False)
    assert vm.read("/etc/X11/xorg.conf") == (
        'Section "Device"\n  Identifier "Card"\n  Driver "modesetting"\nEndSection\n'
    )
    assert [w for w in vm.warnings() if "no X server" in w]


EL6: Tree = {
    **{k: v for k, v in RHEL.items() if k != "/etc/hostname"},
    "/etc/hosts": "127.0.0.1 localhost old old.example\n10.0.0.1 older\n",
    "/etc/sysconfig/network": 'NETWORKING=yes\nHOSTNAME="old.example"\n',
    "/etc/sysconfig/clock": 'ZONE="America/New_York"\nUTC=true\n',
    "/usr/share/zoneinfo/Europe/Berlin": "TZif",
}


def test_the_names_of_a_guest_of_before_systemd(phony: Make) -> None:
    vm = phony(EL6, major_version=6, package_management="yum")
    vm.convert(
        guest_agent=False, customize=Customize(hostname="new.example", timezone="Europe/Berlin")
    )
    assert vm.read("/etc/sysconfig/network") == "NETWORKING=yes\nHOSTNAME=new.example\n"
    assert vm.read("/etc/hosts") == "127.0.0.1 localhost old new.example\n10.0.0.1 older\n"
    assert vm.read("/etc/sysconfig/clock") == 'ZONE="Europe/Berlin"\nUTC=true\n'


@pytest.mark.parametrize("also", [{}, {"/etc/hostname": "old\n"}])
def test_a_line_for_the_host_name_is_added_where_it_is_read(phony: Make, also: Tree) -> None:
    vm = phony({**EL6, "/etc/sysconfig/network": "NETWORKING=yes", **also})
    vm.convert(guest_agent=False, customize=Customize(hostname="new"))
    assert ("HOSTNAME=new\n" in vm.read("/etc/sysconfig/network")) == (not also)


def test_a_password_can_be_set_again(phony: Make) -> None:
    wishes = Customize(root_password_hash="$6$salt$hash")
    vm = phony({**DEBIAN, "/etc/shadow": "root:*:1:0:99999:7:::\n"})
    vm.convert(guest_agent=False, customize=wishes)
    before = vm.read("/etc/shadow")
    assert before.startswith("root:$6$salt$hash:")
    vm.convert(guest_agent=False, customize=wishes)
    assert vm.read("/etc/shadow") == before
    vm.g.write("/etc/shadow", b"toor:*:1:0:99999:7:::\n")
    with pytest.raises(GuestError, match="no line for root"):
        vm.convert(guest_agent=False, customize=wishes)


def test_a_file_is_written_with_the_folders_above_it(phony: Make) -> None:
    vm = phony(DEBIAN)
    content = b"\xff\x00\n".decode("utf-8", "surrogateescape")
    one = GuestFile(path="/opt/tool/run", content=content, mode=0o750)
    vm.convert(guest_agent=False, customize=Customize(files=(one,)))
    assert vm.g.read_file("/opt/tool/run") == b"\xff\x00\n"
    assert vm.mode("/opt/tool/run") == 0o750
    folder = replace(one, path="/opt/tool")
    with pytest.raises(GuestError, match="has a folder of that name"):
        vm.convert(guest_agent=False, customize=Customize(files=(folder,)))


def test_files_keep_their_labels_where_that_is_wished(phony: Make) -> None:
    config = {"/etc/selinux/config": "SELINUX=enforcing\n", "/usr/sbin/load_policy": Program()}
    vm = phony({**RHEL, **config})
    vm.convert(guest_agent=False, selinux_relabel=False)
    assert not vm.exists("/.autorelabel")
    vm.convert(guest_agent=False)
    assert vm.exists("/.autorelabel")


@rows("2-T123")
@pytest.mark.parametrize(
    ("tree", "folder", "seed"),
    [
        (DEBIAN, "/var/lib/systemd", "/var/lib/systemd/random-seed"),
        (DEBIAN, "/var/lib/urandom", "/var/lib/urandom/random-seed"),
        (SUSE, "/var/lib/misc", "/var/lib/misc/random-seed"),
        (DEBIAN, "/var/lib/misc", None),
    ],
)
def test_a_guest_without_a_random_seed_gets_one(
    phony: Make, tree: Tree, folder: str, seed: str | None
) -> None:
    vm = phony({**tree, folder: None})
    vm.convert(guest_agent=False)
    assert vm.g.ls(folder) == (["random-seed"] if seed else [])
    if seed:
        assert (vm.g.filesize(seed), vm.mode(seed)) == (512, 0o600)


@rows("2-T125")
def test_selinux_is_relabelled_at_once_where_that_can_be_done(phony: Make) -> None:
    specification = "/etc/selinux/targeted/contexts/files/file_contexts"
    points = (("/", "/dev/sda1"), ("/boot", "/dev/sda2"))
    vm = phony(
        {
            **RHEL, "/usr/sbin/load_policy": Program(), "/.autorelabel": "",
            "/etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=targeted\n", specification: "",
        },
        mountpoints=points,
    )  # fmt: skip
    vm.g.features = {"selinuxrelabel"}
    vm.convert(guest_agent=False)
    assert vm.g.relabelled == ["/", "/boot"]
    assert not vm.exists("/.autorelabel")


@rows("2-T136")
def test_a_guest_of_another_architecture(phony: Make) -> None:
    other = "aarch64" if GUEST.arch == "x86_64" else "x86_64"
    fstab = "/dev/sda1 / ext4 defaults 0 1\n"
    vm = phony({**DEBIAN, "/etc/fstab": fstab}, arch=other)
    with pytest.raises(GuestError, match=rf"are for {other}, and this host runs") as caught:
        vm.convert()
    assert caught.value.code == "E-GUEST-ARCH"
    assert vm.read("/etc/fstab") == fstab
    vm.convert(change=False)
    assert [w for w in vm.warnings() if f"are for {other}" in w]


@rows("2-T142")
def test_settings_that_are_no_proper_shell_are_changed_all_the_same(phony: Make) -> None:
    """No grammar of the whole file is needed to change one value in it."""
    text = 'GRUB_DEFAULT=0\nif [ broken\n=x \'y\nGRUB_CMDLINE_LINUX="resume=/dev/sda3"\n'
    vm = phony({**DEBIAN, "/etc/default/grub": text})
    vm.convert(guest_agent=False)
    assert vm.read("/etc/default/grub") == text.replace("sda3", "vda3")


def test_an_initramfs_of_any_size_does_not_fill_the_folder_for_work(phony: Make) -> None:
    vm = phony(DEBIAN)
    with vm.g._at(f"/boot/initrd.img-{KV}").open("r+b") as stream:
        stream.truncate((1 << 30) + 1)
    with pytest.raises(GuestError, match="far more than an initramfs") as caught:
        vm.convert()
    assert caught.value.code == "E-INITRAMFS-DAMAGED"


def test_the_old_initramfs_comes_back_when_the_new_one_cannot_be_read(phony: Make) -> None:
    nonsense = {"/usr/sbin/update-initramfs": Program("echo nonsense > /boot/initrd.img-$3")}
    vm = phony({**DEBIAN, **nonsense})
    with pytest.raises(GuestError) as caught:
        vm.convert(guest_agent=False)
    assert caught.value.code == "E-INITRAMFS-DAMAGED"
    assert bytes(vm.g.read_file(f"/boot/initrd.img-{KV}")) == initramfs("ext4")


@pytest.mark.parametrize(
    ("tree", "immutable", "words"),
    [
        ({"/etc/fstab": "/dev/sda1 / ext2 x 0 1\n"}, "/etc/fstab", "written: write: "),
        ({"/etc/systemd/system/multi-user.target.wants": "a file"}, "", "made: mkdir_p: "),
    ],
)
def test_a_file_that_cannot_be_changed_is_named(
    phony: Make, tree: Tree, immutable: str, words: str
) -> None:
    vm = phony({**DEBIAN, **tree})
    vm.g.immutable.add(immutable)
    with pytest.raises(GuestError, match=f"of the guest could not be {words}") as caught:
        vm.convert()
    assert caught.value.code == "E-GUEST-FILE"
    assert str(caught.value).startswith(immutable or next(iter(tree)))


def test_only_a_file_can_be_the_initramfs(phony: Make) -> None:
    """Not a device, which has no end."""
    menu = {"/boot/grub/grub.cfg": grub_cfg(KV, initrd="none")}
    vm = phony({**DEBIAN, **menu, f"/boot/initrd-{KV}": None})
    vm.convert(guest_agent=False)
    assert vm.calls() == [f"update-initramfs -c -k {KV}"]


def test_a_program_of_the_guest_is_ended_when_its_time_is_up(phony: Make) -> None:
    vm = phony({**DEBIAN, "/bin/sleep": Link("busybox")})
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match=r"ended after 0\.01 minutes"):
        run_in_guest(vm.g, "trap '' TERM; echo a; sleep 600", vm.report, minutes=0.01)
    assert time.monotonic() - begun < 300
    assert run_in_guest(vm.g, "echo b", vm.report) == "b\n"


def test_what_a_program_of_the_guest_leaves_running_is_ended(phony: Make) -> None:
    """A service with its output closed, and one that holds it open."""
    vm = phony({**DEBIAN, "/bin/sleep": Link("busybox")})
    run_in_guest(vm.g, "sleep 600 >/dev/null 2>&1 & echo $! > /pid", vm.report)
    program, deadline = Path(f"/proc/{int(vm.read('/pid'))}/exe"), time.monotonic() + 60
    while program.exists():  # without it only its parent is still to ask for its status
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lines = [e["text"] for e in vm.report.of("log")]
    assert "Left running in the guest, and ended: sleep." in lines
    assert run_in_guest(vm.g, "sleep 600 & echo on", vm.report, minutes=0.01) == "on\n"
