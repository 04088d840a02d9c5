"""Rows of spec 2's table on phony guests: what the converter does to files of a guest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conversions.pipeline.errors import GuestError
from conversions.pipeline.fsck import check_filesystems
from conversions.pipeline.guest_programs import run_in_guest
from conversions.pipeline.handle import Handle
from conversions.pipeline.job import Customize, Target
from conversions.pipeline.report import RecordingReporter
from tests.appliance.conftest import DISK_BYTES
from tests.appliance.phony import (
    BUILT,
    DEBIAN,
    DEVICE,
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

Make = Callable[..., PhonyGuest]
rows = pytest.mark.rows
MIB = 1 << 20
EL_INITRD = f"/boot/initramfs-{KV}.img"


@rows("2-T70", "2-T77", "2-T87", "2-T141")
def test_a_debian_guest_is_converted_and_again_without_a_second_rebuild(phony: Make) -> None:
    """T70, T77, T87; and T141: a file of resolvers that may not be changed is no obstacle."""
    tree = {**DEBIAN, "/etc/fstab": "/dev/sda1 / ext2 defaults 0 1\n", "/etc/resolv.conf": "#\n"}
    vm = phony(tree)
    vm.g.set_e2attrs("/etc/resolv.conf", "i")
    caps = vm.convert(guest_agent=False)
    assert (caps.block_bus, caps.net_bus) == ("virtio-blk", "virtio-net")
    assert vm.read("/etc/fstab") == "/dev/vda1 / ext2 defaults 0 1\n"
    assert "root=/dev/vda1" in vm.read("/boot/grub/grub.cfg")
    assert 'GRUB_CMDLINE_LINUX="quiet resume=/dev/vda3 x"' in vm.read("/etc/default/grub")
    assert vm.calls() == [f"update-initramfs -c -k {KV}"]
    modules = vm.read("/etc/initramfs-tools/modules")
    vm.convert(guest_agent=False)
    assert vm.calls() == [f"update-initramfs -c -k {KV}"]
    assert vm.read("/etc/initramfs-tools/modules") == modules
    assert modules.count("virtio_blk") == 1
    assert not vm.exists(f"/boot/initrd.img-{KV}.pre-v2v")
    assert "i" in vm.g.get_e2attrs("/etc/resolv.conf")
    assert vm.read("/etc/resolv.conf") == "#\n"


@rows("2-T78")
def test_names_that_do_not_change_leave_the_files_alone(phony: Make) -> None:
    """T78."""
    fstab = "UUID=1-2 / ext4 x 0 1\nLABEL=b /b xfs x 0 0\n/dev/vg/home /home ext4 x 0 0\n"
    vm = phony({**DEBIAN, "/etc/fstab": fstab, "/etc/default/grub": "GRUB_DEFAULT=0\n"})
    vm.convert(guest_agent=False)
    assert vm.read("/etc/fstab") == fstab
    assert vm.read("/etc/default/grub") == "GRUB_DEFAULT=0\n"
    assert not [w for w in vm.warnings() if "fstab" in w]


def test_an_initramfs_that_holds_the_drivers_is_not_rebuilt(phony: Make) -> None:
    held = kernel(held=("virtio_pci", "virtio_blk", "ext4"))
    vm = phony({**DEBIAN, **held})
    caps = vm.convert(guest_agent=False)
    assert vm.calls() == []
    assert "holds virtio_pci, virtio_blk" in caps.reasons["block_bus"]


@rows("2-T71")
def test_a_debian_guest_without_its_tool_is_refused(phony: Make) -> None:
    """T71."""
    tree = dict(DEBIAN)
    del tree["/usr/sbin/update-initramfs"]
    vm = phony(tree)
    with pytest.raises(GuestError) as caught:
        vm.convert()
    assert caught.value.code == "E-NO-INITRAMFS-TOOL"


@rows("2-T75")
@pytest.mark.parametrize(
    ("script", "code"),
    [("echo no space; exit 1", "E-INITRAMFS"),
     (f"cp /boot/initrd.img-{KV}.pre-v2v /boot/initrd.img-{KV}", "E-INITRAMFS-DRIVER")],
)  # fmt: skip
def test_a_failed_rebuild_puts_the_old_initramfs_back(phony: Make, script: str, code: str) -> None:
    """T75."""
    vm = phony({**DEBIAN, "/usr/sbin/update-initramfs": Program(script)})
    before = bytes(vm.g.read_file(f"/boot/initrd.img-{KV}"))
    with pytest.raises(GuestError) as caught:
        vm.convert()
    assert caught.value.code == code
    assert bytes(vm.g.read_file(f"/boot/initrd.img-{KV}")) == before


@rows("2-T69")
def test_dracut_where_it_lies(phony: Make) -> None:
    """T69, T58: an initramfs of dracut, asked for by /usr/bin/dracut alone."""
    vm = phony(RHEL)
    caps = vm.convert(guest_agent=False)
    [call] = vm.calls()
    assert call.startswith("dracut --add-drivers virtio virtio_ring virtio_blk")
    assert call.endswith(f"{EL_INITRD} {KV}")
    assert caps.arch_min_version == 2
    assert caps.machine == "q35"


@rows("2-T89", "2-T110")
def test_suse_with_mkinitrd_and_grub_legacy(phony: Make) -> None:
    """T89, T110, L-67: prefixes such as (hd0,0) in the menu are understood."""
    vm = phony(SUSE, applications=("bash", "kernel-default"))
    vm.convert()
    menu = vm.read("/boot/grub/menu.lst")
    assert "root=/dev/vda2 resume=/dev/vda3" in menu
    calls = vm.calls()
    assert calls[0].startswith("mkinitrd -m virtio virtio_ring")
    assert calls[0].endswith(f"-i /boot/initrd-{KV} -k /boot/vmlinuz-{KV} -d /dev/sda1")
    assert calls[1] == "rootdev=/dev/sda1"
    scripts = vm.g.ls("/usr/lib/v2vweb-firstboot/scripts")
    assert [name[10:] for name in scripts] == [
        "wait-online", "setenforce-0", "install-qga", "setenforce-restore",
    ]  # fmt: skip
    assert vm.exists("/etc/init.d/rc3.d/S99v2vweb-firstboot")


@pytest.mark.parametrize(
    ("tree", "config"),
    [
        pytest.param(
            {**RHEL, "/boot/grub/menu.lst": "default 0\n"},
            "/boot/grub2/grub.cfg",
            marks=rows("2-T53"),
        ),
        pytest.param(RHEL, "/boot/grub2/grub.cfg", marks=rows("2-T49")),
        (SUSE, "/boot/grub/menu.lst"),
    ],
)
def test_the_bootloader_is_found(phony: Make, tree: Tree, config: str) -> None:
    vm = phony(tree)
    vm.convert(change=False)
    assert vm.report.data("bootloader")["config"] == config


BLS = {
    "/boot/grub2/grub.cfg": "insmod blscfg\nblscfg\n",
    "/boot/loader/entries/m-5.conf": "title Old\nversion 5\nlinux /boot/vmlinuz-5.0.0-test\n"
    "initrd /boot/initramfs-5.0.0-test.img\noptions root=/dev/sda2 resume=/dev/sda3 ro\n",
    f"/boot/loader/entries/m-{KV}.conf": f"title New\nversion {KV}\nlinux /boot/vmlinuz-{KV}\n"
    f"initrd {EL_INITRD} $tuned_initrd\noptions $kernelopts resume=/dev/sda3 $tuned_params\n",
    "/boot/grub2/grubenv": (
        "# GRUB Environment Block\nsaved_entry=m-5\nkernelopts=root=/dev/sda2 ro\n"
    ).ljust(1024, "#"),
    "/etc/default/grub": "GRUB_DEFAULT=saved\nGRUB_ENABLE_BLSCFG=true\n",
    "/etc/kernel/cmdline": "root=/dev/sda2 ro\n",
}


@rows("2-T144")
def test_boot_loader_specification_entries(phony: Make) -> None:
    """T144: options of entries, kernelopts of the environment and /etc/kernel/cmdline."""
    old = kernel("5.0.0-test", initrd="initramfs-{}.img")
    vm = phony({**RHEL, **old, **BLS})
    vm.convert(guest_agent=False)
    assert [k["version"] for k in vm.report.data("kernels")] == ["5.0.0-test", KV]
    assert "root=/dev/vda2 resume=/dev/vda3" in vm.read("/boot/loader/entries/m-5.conf")
    assert "resume=/dev/vda3 $tuned" in vm.read(f"/boot/loader/entries/m-{KV}.conf")
    assert "kernelopts=root=/dev/vda2 ro\n#" in vm.read("/boot/grub2/grubenv")
    assert vm.g.filesize("/boot/grub2/grubenv") == 1024
    assert vm.read("/etc/kernel/cmdline") == "root=/dev/vda2 ro\n"


@rows("2-T61")
def test_another_default_is_saved_when_the_first_cannot_do_virtio(phony: Make) -> None:
    """T61 with entries of the boot loader specification."""
    old = kernel("5.0.0-test", modules=("ext4",), initrd="initramfs-{}.img")
    vm = phony({**RHEL, **old, **BLS})
    vm.convert(guest_agent=False)
    assert f"saved_entry=m-{KV}\n" in vm.read("/boot/grub2/grubenv")
    assert any("becomes the default" in w for w in vm.warnings())


@rows("2-T61")
def test_another_default_in_a_menu(phony: Make) -> None:
    """T61 on Debian, where virt-v2v gives up."""
    tree = {
        **DEBIAN,
        **kernel("5.0.0-test", modules=("ext4",)),
        "/boot/grub/grub.cfg": grub_cfg("5.0.0-test", KV),
    }
    vm = phony(tree)
    vm.convert(guest_agent=False)
    assert f'set default="id-{KV}"' in vm.read("/boot/grub/grub.cfg")
    assert f'GRUB_DEFAULT="id-{KV}"' in vm.read("/etc/default/grub")


@rows("2-T57", "2-T68")
def test_an_entry_of_a_kernel_that_is_gone_is_left_out(phony: Make) -> None:
    """T57, T68: a missing file, and a folder of modules with nothing in it."""
    tree = {
        **DEBIAN,
        "/boot/vmlinuz-4.4-empty": "kernel",
        "/lib/modules/4.4-empty": None,
        "/boot/grub/grub.cfg": grub_cfg("9.9-gone", "4.4-empty", KV),
    }
    vm = phony(tree)
    vm.convert(change=False)
    assert [k["version"] for k in vm.report.data("kernels")] == [KV]
    assert [w for w in vm.warnings() if "9.9-gone" in w]
    assert [w for w in vm.warnings() if "4.4-empty" in w]


def test_no_kernel_at_all_is_an_error(phony: Make) -> None:
    vm = phony({**DEBIAN, "/boot/grub/grub.cfg": grub_cfg("9.9-gone")})
    with pytest.raises(GuestError) as caught:
        vm.convert()
    assert caught.value.code == "E-NO-KERNEL"


@rows("2-T62")
def test_a_kernel_for_xen_alone_is_refused(phony: Make) -> None:
    """T62."""
    vm = phony({**DEBIAN, f"/boot/config-{KV}": "CONFIG_X86_64_XEN=y\n"})
    with pytest.raises(GuestError) as caught:
        vm.convert()
    assert caught.value.code == "E-XEN-ONLY"


@rows("2-T63", "2-T64")
def test_of_twins_the_shorter_initramfs_is_taken_and_kdump_never(phony: Make) -> None:
    """T63, T64."""
    menu = f"menuentry 'x' {{\n\tlinux /boot/vmlinuz-{KV}\n}}\n"
    vm = phony(
        {
            **RHEL,
            "/boot/grub2/grub.cfg": menu,
            f"/boot/initramfs-{KV}xen.img": initramfs("ext4"),
            f"/boot/initramfs-{KV}kdump.img": initramfs("ext4"),
        }
    )
    vm.convert(change=False)
    assert vm.report.data("kernels")[0]["initrd"] == EL_INITRD


@rows("2-T65")
def test_a_kernel_without_an_initramfs(phony: Make) -> None:
    """T65: an error, unless it has all that it needs built in."""
    tree = {k: v for k, v in RHEL.items() if k != EL_INITRD}
    vm = phony(tree)
    with pytest.raises(GuestError) as caught:
        vm.convert()
    assert caught.value.code == "E-NO-INITRAMFS"
    builtin = {f"/lib/modules/{KV}/modules.builtin": "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\n"}
    caps = phony({**tree, **builtin}).convert(guest_agent=False)
    assert caps.block_bus == "virtio-blk"


@rows("2-T67")
@pytest.mark.parametrize("suffix", ["", ".xz", ".zst", ".gz"])
def test_modules_are_found_without_an_index(phony: Make, suffix: str) -> None:
    """T67: modules.dep is missing and modules are compressed."""
    modules = {f"/lib/modules/{KV}/kernel/{m}.ko{suffix}": "" for m in ("virtio_blk", "virtio_net")}
    tree = {**DEBIAN, **modules}
    del tree[f"/lib/modules/{KV}/modules.dep"]
    vm = phony(tree)
    vm.convert(change=False)
    [found] = vm.report.data("kernels")
    assert found["supports_virtio_blk"]
    assert found["supports_virtio_net"]
    assert not found["supports_virtio_rng"]


@rows("2-T93")
def test_a_kernel_without_virtio_gets_ide(phony: Make) -> None:
    """T93."""
    tree = {
        **DEBIAN,
        **kernel(modules=("ext4",)),
        "/etc/modprobe.d/a.conf": "alias scsi_hostadapter mptspi\nalias eth0 pcnet32\n",
    }
    vm = phony(tree)
    caps = vm.convert(guest_agent=False)
    assert (caps.block_bus, caps.net_bus) == ("ide", "e1000")
    assert vm.report.data("block_device_map")["sda"] == "sda"
    assert [e for e in vm.report.of("log") if "has no virtio drivers" in e["text"]]
    assert vm.read("/etc/modprobe.d/a.conf") == "alias eth0 e1000\n"
    assert vm.calls() == []


def test_an_inspection_changes_nothing(phony: Make) -> None:
    """With `change` false the guest is only looked at, whatever there would be to do."""
    tree = {**DEBIAN, "/etc/fstab": "/dev/sda1 / ext2 x 0 1\n", "/etc/machine-id": ""}
    vm = phony(tree, applications=("bash", "open-vm-tools"))
    vm.g.umount_all()
    before = vm.g.checksum_device("sha256", DEVICE)
    vm.g.mount_ro(DEVICE, "/")
    vm.convert(change=False)
    vm.g.umount_all()
    assert vm.g.checksum_device("sha256", DEVICE) == before
    whats = {change["what"] for change in vm.report.data("changes")}
    assert {"disk names changed", "package removed", "empty machine-id filled"} <= whats


@pytest.mark.parametrize(
    ("tree", "packages", "expected"),
    [
        pytest.param(RHEL, ("open-vm-tools",), ["rpm -e open-vm-tools"], marks=rows("2-T98")),
        pytest.param(DEBIAN, ("open-vm-tools", "ubuntu-server", "open-vm-tools-desktop"),
                     ["dpkg --purge open-vm-tools-desktop"], marks=rows("2-T99")),
        (DEBIAN, ("bash",), []),
    ],
)  # fmt: skip
def test_packages_of_the_old_hypervisor(
    phony: Make, tree: Tree, packages: tuple[str, ...], expected: list[str]
) -> None:
    vm = phony(tree, applications=packages, package_management="unknown")
    vm.convert(guest_agent=False)
    assert [call for call in vm.calls() if call.startswith(("rpm", "dpkg"))] == expected


@rows("2-T98", "2-T101")
def test_removal_that_fails_is_a_warning(phony: Make) -> None:
    """T98, T101: also with a manager nobody knows."""
    tree = {**RHEL, "/bin/rpm": Program("exit 1"), "/usr/bin/dnf": Program("exit 1")}
    vm = phony(tree, applications=("VMwareTools",), package_management="up2date")
    vm.convert(guest_agent=False)
    assert [w for w in vm.warnings() if w.startswith("VMwareTools could not be removed")]


def test_the_manager_steps_in_when_the_package_is_needed(phony: Make) -> None:
    vm = phony({**RHEL, "/bin/rpm": Program("exit 1")}, applications=("open-vm-tools",))
    vm.convert(guest_agent=False)
    assert vm.calls()[:2] == [
        "rpm -e open-vm-tools",
        "dnf -y --disableplugin=subscription-manager "
        "--setopt=clean_requirements_on_remove=False remove open-vm-tools",
    ]
    assert not [w for w in vm.warnings() if "removed" in w]


@rows("2-T100", "2-T102", "2-T104", "2-T105")
def test_uninstallers_of_archives(phony: Make) -> None:
    """T100, T102, T104, T105."""
    locations = "/etc/vmware-tools/locations"
    vm = phony(
        {
            **RHEL,
            "/usr/bin/vmware-uninstall-tools.pl": Program(f"cat {locations} >> /v2v-calls.log"),
            locations: "answer A b\n",
            "/var/lib/VBoxGuestAdditions/config": "INSTALL_DIR='/opt/VBox Additions'\n",
            "/opt/VBox Additions/uninstall.sh": Program(),
            "/usr/lib/parallels-tools/install": Program("exit 1"),
            "/etc/init.d/kudzu": Program(),
            "/sbin/chkconfig": Program(),
        }
    )
    vm.convert(guest_agent=False)
    calls = vm.calls()
    assert calls[:8] == [
        "uninstall.sh ",
        "vmware-uninstall-tools.pl ",
        "answer A b",
        "remove_answer RESTORE_RAMDISK_CMD",
        "remove_answer RESTORE_RAMDISK_KERNELS",
        "remove_answer RESTORE_RAMDISK_ONECALL",
        "install -r",
        "chkconfig kudzu off",
    ]
    assert [w for w in vm.warnings() if "parallels" in w]


@rows("2-T44", "2-T92")
def test_stale_locks_and_device_caches_go(phony: Make) -> None:
    """T44, T92."""
    gone = ("/var/lib/rpm/__db.001", "/var/lib/rpm/__db.002", "/etc/lvm/devices/system.devices",
            "/etc/blkid.tab")  # fmt: skip
    vm = phony({**RHEL, **dict.fromkeys(gone, "x"), "/var/lib/rpm/Packages": "x"})
    vm.convert(guest_agent=False)
    assert [path for path in gone if vm.exists(path)] == []
    assert vm.exists("/var/lib/rpm/Packages")


@rows("2-T143")
def test_links_to_settings_are_followed_and_stay(phony: Make) -> None:
    """T143."""
    tree = {
        **DEBIAN,
        "/etc/sysconfig/grub": Link("/etc/default/grub"),
        "/etc/default/grub": "GRUB_CMDLINE_LINUX='resume=/dev/sda3'\n",
    }
    vm = phony(tree)
    vm.convert(guest_agent=False)
    assert vm.g.readlink("/etc/sysconfig/grub") == "/etc/default/grub"
    assert vm.read("/etc/default/grub") == "GRUB_CMDLINE_LINUX='resume=/dev/vda3'\n"


@rows("2-T108")
def test_the_guest_agent_is_installed_at_the_first_start(phony: Make) -> None:
    """T108, L-73, L-74."""
    vm = phony(RHEL)
    vm.convert()
    folder = "/usr/lib/v2vweb-firstboot/scripts"
    assert vm.g.ls(folder) == [
        "5000-0001-wait-online", "5000-0002-setenforce-0", "5000-0003-install-qga",
        "5000-0004-setenforce-restore", "5000-0005-start-qga",
    ]  # fmt: skip
    assert vm.mode(f"{folder}/5000-0003-install-qga") == 0o755
    assert "dnf -y install qemu-guest-agent" in vm.read(f"{folder}/5000-0003-install-qga")
    wants = "/etc/systemd/system/multi-user.target.wants/v2vweb-firstboot.service"
    assert vm.g.readlink(wants) == "/usr/lib/systemd/system/v2vweb-firstboot.service"
    for name in vm.g.ls(folder):
        vm.g.sh(f"sh -n {folder}/{name}")


@pytest.mark.parametrize(
    ("applications", "management", "warned"),
    [
        pytest.param(("qemu-guest-agent",), "dnf", False, marks=rows("2-T107")),
        pytest.param(("bash",), "unknown", True, marks=rows("2-T112")),
    ],
)
def test_no_guest_agent(
    phony: Make, applications: tuple[str, ...], management: str, warned: bool
) -> None:
    """T107, T112."""
    vm = phony(RHEL, applications=applications, package_management=management)
    vm.convert()
    assert not vm.exists("/usr/lib/v2vweb-firstboot")
    assert bool([w for w in vm.warnings() if "guest agent" in w]) == warned


def test_scripts_of_the_first_start_run_once_in_order(phony: Make) -> None:
    """L-72: run in the guest itself."""
    vm = phony({**DEBIAN, "/bin/mkdir": Link("busybox"), "/bin/basename": Link("busybox")})
    scripts = ("echo one >> /order", "#!/bin/sh\necho two >> /order\nexit 3\n")
    vm.convert(guest_agent=False, customize=Customize(firstboot=scripts))
    vm.g.sh("/usr/lib/v2vweb-firstboot/firstboot.sh start")
    vm.g.sh("/usr/lib/v2vweb-firstboot/firstboot.sh start")
    assert vm.read("/order") == "one\ntwo\n"
    assert "ended with status 3" in vm.read("/root/v2vweb-firstboot.log")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("", 33, marks=rows("2-T121")),
        pytest.param("0123456789abcdef0123456789abcdef\n", 33, marks=rows("2-T122")),
        pytest.param(None, None, marks=rows("2-T122")),
    ],
)
def test_the_machine_id(phony: Make, before: str | None, after: int | None) -> None:
    """T121, T122."""
    tree = dict(DEBIAN) if before is None else {**DEBIAN, "/etc/machine-id": before}
    vm = phony(tree)
    vm.convert(guest_agent=False)
    assert vm.exists("/etc/machine-id") == (after is not None)
    if before:
        assert vm.read("/etc/machine-id") == before
    elif after:
        int(vm.read("/etc/machine-id"), 16)
        assert vm.g.filesize("/etc/machine-id") == after


@rows("2-T123")
def test_the_random_seed(phony: Make) -> None:
    """T123."""
    vm = phony({**DEBIAN, "/var/lib/systemd/random-seed": "12345678"})
    vm.g.chmod(0o600, "/var/lib/systemd/random-seed")
    vm.convert(guest_agent=False)
    assert vm.g.filesize("/var/lib/systemd/random-seed") == 512
    assert vm.mode("/var/lib/systemd/random-seed") == 0o600


SELINUX = {"/usr/sbin/load_policy": Program(), "/etc/selinux/targeted/x": ""}


@pytest.mark.parametrize(
    ("files", "relabels"),
    [
        pytest.param(
            {**SELINUX, "/etc/selinux/config": "SELINUX=enforcing\n"}, True, marks=rows("2-T124")
        ),
        pytest.param(
            {**SELINUX, "/etc/selinux/config": "SELINUX=disabled\n"}, False, marks=rows("2-T126")
        ),
        pytest.param({"/etc/selinux/config": "SELINUX=enforcing\n"}, False, marks=rows("2-T127")),
    ],
)
def test_selinux(phony: Make, files: Tree, relabels: bool) -> None:
    vm = phony({**RHEL, **files})
    vm.convert(guest_agent=False)
    assert vm.exists("/.autorelabel") == relabels


@rows("2-T76", "2-T94")
def test_old_guests_find_their_controller_by_an_alias(phony: Make) -> None:
    """T94, T95, T96 and RHEL 4's mkinitrd (T76)."""
    old = "2.6.9-89.EL"
    tree = {
        **{k: v for k, v in RHEL.items() if "dracut" not in k and KV not in k},
        **kernel(old, initrd="initrd-{}.img"),
        BUILT: initramfs("virtio_pci", "virtio_blk", "ext4", version=old),
        "/etc/redhat-release": "Red Hat Enterprise Linux AS release 4 (Nahant)\n",
        "/boot/grub2/grub.cfg": grub_cfg(old, initrd="initrd-{}.img"),
        "/sbin/mkinitrd": Program('echo "root_lvm=$root_lvm" >> /v2v-calls.log\n'
                                  f"for a; do case $a in /boot/*) cp {BUILT} $a;; esac; done"),
        "/etc/modprobe.conf": "alias eth0 pcnet32\nalias scsi_hostadapter mptbase\n"
        "alias scsi_hostadapter1 mptspi\nalias peth1 xen-vnif\n",
    }  # fmt: skip
    del tree["/etc/os-release"]
    vm = phony(tree)
    vm.convert(guest_agent=False)
    assert vm.read("/etc/modprobe.conf") == (
        "alias eth0 virtio_net\nalias scsi_hostadapter virtio_blk\nalias peth1 xen-vnif\n"
    )
    assert [w for w in vm.warnings() if "xen-vnif" in w]
    calls = vm.calls()
    assert calls[0].startswith("mkinitrd --with=virtio --with=virtio_ring")
    assert calls[1] == "root_lvm=1"


@rows("2-T113", "2-T115")
def test_a_login_on_the_console_of_xen_moves(phony: Make) -> None:
    """T113, T115."""
    vm = phony(
        {
            **DEBIAN,
            "/etc/inittab": "co:2345:respawn:/sbin/agetty hvc0 9600\n# hvc0 here\n",
            "/etc/securetty": "tty1\nhvc0\nttyS0\n",
            "/etc/default/grub": 'GRUB_CMDLINE_LINUX="console=hvc0 quiet"\n',
        }
    )
    vm.convert(guest_agent=False)
    assert vm.read("/etc/inittab") == "co:2345:respawn:/sbin/agetty ttyS0 9600\n# hvc0 here\n"
    assert vm.read("/etc/securetty") == "tty1\nttyS0\n"
    assert vm.read("/etc/default/grub") == 'GRUB_CMDLINE_LINUX="console=ttyS0 quiet"\n'


@rows("2-T114")
def test_a_login_on_the_console_of_xen_goes_where_there_is_none(phony: Make) -> None:
    """T114: an export domain's machines have no serial console."""
    vm = phony(
        {
            **DEBIAN,
            "/etc/inittab": "co:2345:respawn:/sbin/agetty hvc0 9600\n"
            "s0:2345:respawn:/sbin/agetty ttyS0\n1:2345:respawn:/sbin/agetty tty1\n",
            "/etc/securetty": "tty1\nhvc0\nttyS0\n",
            "/etc/default/grub": 'GRUB_CMDLINE_LINUX="console=hvc0 quiet"\n',
        }
    )
    vm.convert(guest_agent=False, target=Target(kind="ovirt", directory="/t"))
    assert vm.read("/etc/inittab") == "1:2345:respawn:/sbin/agetty tty1\n"
    assert vm.read("/etc/securetty") == "tty1\nttyS0\n"
    assert vm.read("/etc/default/grub") == 'GRUB_CMDLINE_LINUX="quiet"\n'


UEFI = {"uefi_esps": ("/dev/sda",), "mountpoints": (("/", "/dev/sda"), ("/boot/efi", "/dev/x"))}
STUB = "search.fs_uuid 1 root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"


@rows("2-T51", "2-T117", "2-T118")
@pytest.mark.parametrize("vendor", ["debian", "rocky"])
def test_the_loader_for_firmware_without_entries(phony: Make, vendor: str) -> None:
    """T51, T117, T118: made for every distribution; the stub stays as it is."""
    esp = f"/boot/efi/EFI/{vendor}"
    files = {f"{esp}/shimx64.efi": "shim", f"{esp}/grubx64.efi": "grub", f"{esp}/grub.cfg": STUB}
    vm = phony({**DEBIAN, **files}, **UEFI)
    vm.convert(guest_agent=False)
    assert vm.read("/boot/efi/EFI/BOOT/BOOTX64.EFI") == "shim"
    assert vm.read("/boot/efi/EFI/BOOT/grubx64.efi") == "grub"
    assert vm.read("/boot/efi/EFI/BOOT/grub.cfg") == STUB
    assert vm.read(f"{esp}/grub.cfg") == STUB
    assert vm.report.data("bootloader") == {
        "type": "GRUB 2", "config": "/boot/grub/grub.cfg", "uefi": True,
    }  # fmt: skip


@rows("2-T119", "2-T120")
def test_a_loader_for_firmware_that_is_there_stays(phony: Make) -> None:
    """T119, T120: and the words of a menu for UEFI stay as they are."""
    menu = grub_cfg(KV).replace("\tlinux", "\tlinuxefi").replace("\tinitrd", "\tinitrdefi")
    esp = {"/boot/efi/EFI/Boot/bootx64.efi": "mine", "/boot/efi/EFI/x/shimx64.efi": "shim"}
    vm = phony({**DEBIAN, **esp, "/boot/grub/grub.cfg": menu}, **UEFI)
    vm.convert(guest_agent=False)
    assert vm.g.ls("/boot/efi/EFI/Boot") == ["bootx64.efi"]
    assert vm.read("/boot/grub/grub.cfg") == menu.replace("/dev/sda1", "/dev/vda1")


def test_extlinux(phony: Make) -> None:
    config = (
        "DEFAULT linux\nLABEL linux\n  MENU LABEL The system\n"
        f"  KERNEL /boot/vmlinuz-{KV}\n  APPEND root=/dev/sda1 ro\n  INITRD /boot/initrd.img-{KV}\n"
    )
    tree = {k: v for k, v in DEBIAN.items() if "grub" not in k}
    vm = phony({**tree, "/boot/extlinux/extlinux.conf": config})
    vm.convert(guest_agent=False)
    assert "APPEND root=/dev/vda1 ro" in vm.read("/boot/extlinux/extlinux.conf")


def test_a_guest_without_any_loader_is_converted_with_a_warning(phony: Make) -> None:
    """T52 and 3.5 (d)."""
    tree = {k: v for k, v in DEBIAN.items() if "grub" not in k}
    vm = phony(tree)
    caps = vm.convert(guest_agent=False)
    assert caps.block_bus == "virtio-blk"
    assert [w for w in vm.warnings() if "No bootloader was found" in w]


def test_a_unified_kernel_image_is_refused(phony: Make) -> None:
    tree = {k: v for k, v in DEBIAN.items() if "grub" not in k and "/boot/vmlinuz" not in k}
    vm = phony({**tree, "/boot/efi/EFI/Linux/arch.efi": "x"}, **UEFI)
    with pytest.raises(GuestError) as caught:
        vm.convert()
    assert caught.value.code == "E-UKI"


def test_arch_with_mkinitcpio(phony: Make) -> None:
    tree = {
        **{k: v for k, v in DEBIAN.items() if "debian" not in k and "dpkg" not in k},
        "/etc/os-release": "ID=arch\n",
        "/etc/arch-release": "",
        "/boot/vmlinuz-linux": "kernel",
        "/boot/initramfs-linux.img": initramfs("ext4"),
        f"/lib/modules/{KV}/pkgbase": "linux\n",
        "/boot/grub/grub.cfg": "menuentry 'Arch' {\n\tlinux /boot/vmlinuz-linux root=/dev/sda1\n"
        "\tinitrd /boot/intel-ucode.img /boot/initramfs-linux.img\n}\n",
        "/etc/mkinitcpio.conf": "MODULES=()\n",
        "/usr/bin/mkinitcpio": Program(f'cp {BUILT} "$4"'),
    }
    tree.pop("/usr/sbin/update-initramfs")
    vm = phony(tree)
    vm.convert(guest_agent=False)
    assert vm.calls() == [f"mkinitcpio -k {KV} -g /boot/initramfs-linux.img"]
    assert "MODULES+=(virtio" in vm.read("/etc/mkinitcpio.conf")


def test_a_name_of_a_network_card_is_kept(phony: Make) -> None:
    """L-E1."""
    interfaces = "auto ens192\niface ens192 inet static\n  address 10.0.0.5/24\n"
    vm = phony({**DEBIAN, "/etc/network/interfaces": interfaces})
    vm.convert(guest_agent=False)
    link = vm.read("/etc/systemd/network/10-v2vweb-ens192.link")
    assert "MACAddress=52:54:00:aa:bb:01" in link
    assert "Name=ens192" in link
    vm = phony({**DEBIAN, "/etc/network/interfaces": interfaces})
    vm.convert(guest_agent=False, keep_nic_names=False)
    assert not vm.exists("/etc/systemd/network")


def test_a_damaged_initramfs_is_an_error(phony: Make) -> None:
    vm = phony({**DEBIAN, f"/boot/initrd.img-{KV}": b"\x28\xb5\x2f\xfdnonsense"})
    with pytest.raises(GuestError) as caught:
        vm.convert()
    assert caught.value.code == "E-INITRAMFS-DAMAGED"


@rows("2-T111")
def test_a_mint_guest_gets_the_agent_like_its_family(phony: Make) -> None:
    """T111."""
    release = 'ID=linuxmint\nVERSION_ID="21.1"\nPRETTY_NAME="Linux Mint 21.1"\nID_LIKE=ubuntu\n'
    vm = phony({**DEBIAN, "/etc/os-release": release, "/etc/init.d": None})
    vm.convert()
    assert len(vm.g.ls("/usr/lib/v2vweb-firstboot/scripts")) == 5


def test_what_is_not_utf8_in_a_guest_ends_nothing(phony: Make) -> None:
    """Latin-1 in names, mountpoints, descriptions of packages and the words of programs."""
    packages = str(DEBIAN["/var/lib/dpkg/status"]).rstrip() + "\nDescription: caf\u00e9\n\n"
    vm = phony(
        {
            **DEBIAN,
            "/etc/fstab": "LABEL=root / ext2 x 0 1\n/dev/sda1 /caf\u00e9 ext2 x 0 0\n".encode(
                "latin-1"
            ),
            "/var/lib/dpkg/status": packages.encode("latin-1"),
            "/srv": None,
        }
    )
    name = r"$(printf 'caf\351')"
    assert vm.g.sh(f"echo x > /srv/{name}; echo x > /srv/plain; echo {name}") == "caf\ufffd\n"
    assert vm.g.ls("/srv") == ["plain"]
    assert vm.g.find("/srv") == ["/plain"]
    with pytest.raises(RuntimeError, match="sh: caf\ufffd"):
        vm.g.sh(f"echo {name} >&2; exit 1")
    vm.g.umount_all()
    [root] = vm.g.inspect_os()
    assert vm.g.inspect_get_mountpoints(root) == [("/", DEVICE)]
    vm.g.mount(DEVICE, "/")
    [bash] = vm.g.inspect_list_applications2(root)
    assert (bash["app2_name"], bash["app2_version"]) == ("bash", "5.2")
    assert bash["app2_release"] == "1"
    assert bash["app2_summary"] == "caf\ufffd"


def test_no_program_of_the_guest_outlives_its_call(phony: Make) -> None:
    vm = phony({**DEBIAN, "/bin/sleep": Link("busybox")})
    with pytest.raises(RuntimeError, match=r"ended after 0\.0\d minutes"):
        run_in_guest(vm.g, "trap '' TERM; sleep 600", vm.report, minutes=0.02)
    run_in_guest(vm.g, "sleep 600 < /etc/fstab >/dev/null 2>&1 &", vm.report)
    assert "Left running in the guest, and ended: sleep." in [
        e["text"] for e in vm.report.of("log")
    ]
    vm.g.umount_all()  # nothing keeps it
    vm.g.mount(DEVICE, "/")


def test_a_btrfs_is_scrubbed(appliance: Handle) -> None:
    content = bytes(range(256)) * 256
    appliance.umount_all()
    appliance.mkfs("btrfs", DEVICE)
    appliance.mount(DEVICE, "/")
    appliance.write("/file", content)
    appliance.umount_all()

    def check() -> RecordingReporter:
        report = RecordingReporter()
        check_filesystems(appliance, [(DEVICE, "btrfs")], when="after", strict=False, report=report)
        return report

    found = check()
    assert found.data("fsck")[0]["clean"] is True, found.of("log")
    at = next(
        offset
        for offset in range(0, DISK_BYTES, MIB)
        if content[:4096] in appliance.pread_device(DEVICE, MIB, offset)
    )
    at += bytes(appliance.pread_device(DEVICE, MIB, at)).index(content[:4096])
    appliance.pwrite_device(DEVICE, b"rotten", at)
    report = check()
    assert report.data("fsck")[0]["clean"] is False, report.of("log")
    assert "(btrfs) is damaged" in report.of("log")[-1]["text"]
