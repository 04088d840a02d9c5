"""What the guest side decides, as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conversions.pipeline.errors import GuestError, InspectionError
from conversions.pipeline.guestcaps import arch_min_version, has_virtio_1_0, machine_for
from conversions.pipeline.inspection import choose_root
from conversions.pipeline.linux import block_devices as bd
from conversions.pipeline.linux.families import family_of
from conversions.pipeline.linux.files import with_line
from conversions.pipeline.linux.grub2 import find_entry, parse_menu
from conversions.pipeline.linux.hypervisors import foreign_packages
from conversions.pipeline.linux.initramfs import (
    REQUIRED,
    added_modules,
    missing_drivers,
    required_drivers,
)
from conversions.pipeline.linux.initramfs_tools import MARKER, with_modules
from conversions.pipeline.linux.kernels import best_kernel, parse_modules
from conversions.pipeline.linux.versions import version_key
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.space import (
    check_guest_space,
    estimate_target_sizes,
    estimate_targets,
    estimate_text,
    shortages,
)
from conversions.pipeline.types import Application, BlockBus, MountpointStats
from inventory.sources.types import Controller
from tests.unit.pipeline.samples import GUEST, KERNEL, source_disk, target_disk

MIB = 1 << 20
rows = pytest.mark.rows


def stats(mountpoint: str, **values: object) -> MountpointStats:
    """Return plenty of room, but for what is named."""
    base = MountpointStats(
        device=f"/dev/{mountpoint}",
        mountpoint=mountpoint,
        vfs="ext4",
        bsize=4096,
        blocks=1 << 20,
        bfree=1 << 19,
        bavail=1 << 19,
        files=1000,
        ffree=900,
    )
    return replace(base, **values)  # type: ignore[arg-type]


@rows("2-T35")
def test_the_estimate_gives_the_specified_numbers() -> None:
    mounted = [
        stats("/boot", vfs="xfs", blocks=259584, bfree=224126),
        stats("/", vfs="xfs", blocks=4452864, bfree=4185952),
    ]
    estimate = estimate_target_sizes(mounted, {"sda": 21474836480})
    assert estimate_text(estimate).split("\n") == [
        "estimate_target_size: fs_total_size = 19302187008 [18.0G]",
        "estimate_target_size: source_total_size = 21474836480 [20.0G]",
        "estimate_target_size: ratio = 0.899",
        "estimate_target_size: fs_free = 18063679488 [16.8G]",
        "estimate_target_size: scaled_saving = 16236143164 [15.1G]",
        "estimate_target_size: sda: 5238693316 [4.9G]",
    ]


@pytest.mark.parametrize(
    ("vfs", "measured", "trimming", "expected"),
    [
        ("ntfs", {"sda": 30, "sdb": 0}, True, {"sda": 30, "sdb": 0}),
        ("ext4", {"sda": 30, "sdb": 0}, False, {"sda": 30, "sdb": 0}),
        ("ext4", {"sda": 500, "sdb": 500}, True, {"sda": 375, "sdb": 375}),
        ("ext4", {"sda": 500, "sdb": 500}, False, {"sda": 500, "sdb": 500}),
        # What is free already cannot be given up once more, at the cost of the other disk.
        ("ext4", {"sda": 12, "sdb": 500}, True, {"sda": 12, "sdb": 500}),
        ("ext4", {"sda": 500}, True, {"sda": 375, "sdb": 375}),  # sdb is on another host
        ("ntfs", {"sda": 30}, True, {"sda": 30, "sdb": 500}),
        ("ntfs", {"sda": 501, "sdb": 0}, True, {"sda": 500, "sdb": 0}),
    ],
)
def test_a_disk_needs_no_more_than_it_holds(
    vfs: str, measured: dict[str, int], trimming: bool, expected: dict[str, int]
) -> None:
    gib = 1 << 30
    overlays = [
        replace(target_disk(number).overlay, virtual_size_bytes=500 * gib) for number in (0, 1)
    ]
    mounted = [stats("/", vfs=vfs, bsize=gib, blocks=500, bfree=500)]
    report = RecordingReporter()
    held = {sd: count * gib for sd, count in measured.items()}
    found = estimate_targets(mounted, overlays, held, report, trimming=trimming)
    assert {sd: size // gib for sd, size in found.items()} == expected
    assert (report.data("estimate")["measured"], report.data("estimate")["disks"]) == (held, found)


@rows("2-T36", "2-T37", "2-T38")
def test_the_estimate_shares_savings_by_size_and_counts_a_device_once() -> None:
    gib = 1 << 30
    mounted = [
        stats("/", bsize=gib, blocks=1, bfree=0),
        stats("/home", bsize=gib, blocks=5, bfree=3),
        replace(stats("/home", bsize=gib, blocks=5, bfree=3), mountpoint="/var"),
    ]
    estimate = estimate_target_sizes(mounted, {"sda": 2 * gib, "sdb": 6 * gib})
    assert estimate["disks"] == {"sda": int(1.4375 * gib), "sdb": int(4.3125 * gib)}
    ntfs = estimate_target_sizes([stats("/", vfs="ntfs")], {"sda": 8 * gib})
    assert ntfs["disks"] == {"sda": 8 * gib}
    assert ntfs["fs_free"] == 0


@pytest.mark.parametrize(
    ("mountpoint", "free_mib", "ffree", "enough"),
    [
        pytest.param("/", 99, 900, False, marks=rows("2-T28", "2-T31")),
        pytest.param("/", 100, 900, True, marks=rows("2-T29")),
        pytest.param("/", 100, 99, False, marks=rows("2-T33")),
        pytest.param("/boot", 30, 900, False, marks=rows("2-T30")),
        ("/boot", 50, 900, True),
        ("/var", 9, 900, False),
        ("/home", 5, 900, True),
    ],
)
def test_free_space_in_the_guest(mountpoint: str, free_mib: int, ffree: int, enough: bool) -> None:
    found = shortages([stats(mountpoint, bsize=MIB, bfree=free_mib, ffree=ffree)], uefi=True)
    assert (found == []) == enough


@pytest.mark.parametrize("uefi", [True, False])
def test_a_full_esp_is_refused_only_where_the_guest_starts_from_it(uefi: bool) -> None:
    assert bool(shortages([stats("/boot/efi", bsize=MIB, bfree=5)], uefi=uefi)) == uefi


@rows("2-T28", "2-T30", "2-T33")
def test_all_shortages_are_named_with_both_numbers() -> None:
    room = [stats("/", bsize=MIB, bfree=99), stats("/boot", bsize=MIB, bfree=40, ffree=99)]
    assert shortages(room, uefi=False) == [
        "/: 99.0 MiB free, 100 MiB needed",
        "/boot: 40.0 MiB free, 50 MiB needed",
        "/boot: 99 free inodes, 100 needed",
    ]


@rows("2-T32")
def test_a_full_filesystem_of_data_is_a_warning() -> None:
    report = RecordingReporter()
    check_guest_space([stats("/"), stats("/home", bsize=MIB, bfree=5)], report, uefi=True)
    [line] = report.of("log")
    assert line["level"] == "warning"
    assert line["text"].startswith("/home of the guest is almost full (5.0 MiB free)")


@rows("2-T34")
def test_vfat_without_inode_counts_is_no_shortage() -> None:
    assert shortages([stats("/boot/efi", vfs="vfat", files=0, ffree=0)], uefi=True) == []


@pytest.mark.parametrize(
    ("controllers", "bus", "expected"),
    [
        pytest.param(
            [Controller.SCSI],
            BlockBus.VIRTIO_BLK,
            {"sda": "vda", "xvda": "vda"},
            marks=rows("2-T90"),
        ),
        ([Controller.NVME], BlockBus.VIRTIO_BLK, {"nvme0n1": "vda", "xvda": "vda"}),
        ([Controller.VIRTIO_BLK], BlockBus.VIRTIO_BLK, {"vda": "vda", "xvda": "vda"}),
        ([Controller.SCSI], BlockBus.IDE, {"sda": "sda", "xvda": "sda"}),
        (
            [None],
            BlockBus.VIRTIO_BLK,
            {"cciss/c0d0": "vda", "hda": "vda", "sda": "vda", "vda": "vda", "xvda": "vda"},
        ),
        (
            [Controller.VIRTIO_BLK, Controller.SCSI],
            BlockBus.VIRTIO_BLK,
            {"sda": "vdb", "vda": "vda", "xvda": "vda", "xvdb": "vdb"},
        ),
    ],
)
def test_the_block_device_map(
    controllers: list[Controller | None], bus: BlockBus, expected: dict[str, str]
) -> None:
    disks = [source_disk(n, c) for n, c in enumerate(controllers)]
    assert bd.block_device_map(disks, bus) == expected
    assert list(bd.block_device_map(disks, bus)) == sorted(expected)


@pytest.mark.parametrize(
    ("old", "new", "is_unknown"),
    [
        ("/dev/sda1", "/dev/vda1", False),
        ("/dev/sda", "/dev/vda", False),
        ("/dev/nvme0n1p2", "/dev/vdb2", False),
        ("/dev/sdq9", "/dev/sdq9", True),
        pytest.param("/dev/cciss/c0d0p1", "/dev/cciss/c0d0p1", True, marks=rows("2-T83")),
        pytest.param("/dev/md0", "/dev/md0", False, marks=rows("2-T85")),
        pytest.param("/dev/sr0", "/dev/sr0", False, marks=rows("2-T85")),
        pytest.param("/dev/fd0", "/dev/fd0", False, marks=rows("2-T85")),
        pytest.param("/dev/cdrom", "/dev/cdrom", False, marks=rows("2-T85")),
        ("/dev/mapper/vg-root", "/dev/mapper/vg-root", False),
        ("/dev/vg0/root", "/dev/vg0/root", False),
        ("UUID=1234-ab", "UUID=1234-ab", False),
        ("/dev/disk/by-path/pci-0000", "/dev/disk/by-path/pci-0000", False),
    ],
)
def test_values_are_renamed(old: str, new: str, is_unknown: bool) -> None:
    rename = bd.Renamer({"sda": "vda", "nvme0n1": "vdb"})
    assert rename(old) == new
    assert rename.unknown == ([old] if is_unknown else [])


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        (
            bd.rename_fstab,
            "# /dev/sda1 here\n/dev/sda1  /boot\text4 x=/dev/sda1 0 2\nLABEL=a / ext4\n\n",
            "# /dev/sda1 here\n/dev/vda1  /boot\text4 x=/dev/sda1 0 2\nLABEL=a / ext4\n\n",
        ),
        (
            bd.rename_crypttab,
            "root /dev/sda2 none luks\n#x /dev/sda2\n",
            "root /dev/vda2 none luks\n#x /dev/sda2\n",
        ),
        pytest.param(
            bd.rename_device_map,
            "# c\n(hd0)\t/dev/sda\n",
            "# c\n(hd0)\t/dev/vda\n",
            marks=rows("2-T88"),
        ),
        (
            bd.rename_arguments,
            "linux /vmlinuz root=/dev/sda2 ro resume=/dev/sda3 x=/dev/sda4 rd.luks.key=/dev/sda",
            "linux /vmlinuz root=/dev/vda2 ro resume=/dev/vda3 x=/dev/sda4 rd.luks.key=/dev/vda",
        ),
        (
            bd.rename_arguments,
            "root=/dev/sda-vg/root resume=/dev/vg_host/sda1 swap=/dev/sda.1 quiet",
            "root=/dev/sda-vg/root resume=/dev/vg_host/sda1 swap=/dev/sda.1 quiet",
        ),
        (
            bd.rename_arguments,
            'GRUB_CMDLINE_LINUX="cryptdevice=/dev/sda2:root:discard root=/dev/sda3"',
            'GRUB_CMDLINE_LINUX="cryptdevice=/dev/vda2:root:discard root=/dev/vda3"',
        ),
        (bd.rename_resume, "RESUME=/dev/sda5\n", "RESUME=/dev/vda5\n"),
        (bd.rename_resume, "RESUME=/dev/sda-vg/swap\n", "RESUME=/dev/sda-vg/swap\n"),
    ],
)
def test_files_are_rewritten(change: object, old: str, new: str) -> None:
    assert callable(change)
    rename = bd.Renamer({"sda": "vda"})
    assert change(old, rename) == new
    assert change(new, rename) == new
    assert rename.unknown == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("# /dev/disk/by-id/ata-a\n/dev/disk/by-id/scsi-3600-part2 / ext3\n",
         ["/dev/disk/by-id/scsi-3600-part2"]),
        ('X="resume=/dev/disk/by-path/pci-0000:00:10.0-scsi-0:0:0:0-part1"\n',
         ["/dev/disk/by-path/pci-0000:00:10.0-scsi-0:0:0:0-part1"]),
        ("/dev/disk/by-id/dm-uuid-LVM-a /dev/disk/by-id/dm-name-vg-root\n", []),
        ("/dev/disk/by-id/md-uuid-1:2 /dev/disk/by-id/lvm-pv-uuid-a /dev/disk/by-uuid/1\n", []),
        ("/dev/disk/by-id/dm-uuid-part1-mpath-3600\n",
         ["/dev/disk/by-id/dm-uuid-part1-mpath-3600"]),
    ],
)  # fmt: skip
def test_names_that_will_not_exist(text: str, names: list[str]) -> None:
    """What LVM, LUKS and md write onto the disk itself moves with it."""
    assert bd.unstable_names(text) == names


def test_only_what_lvm_accepts_has_to_exist() -> None:
    text = (
        '# filter = [ "a|/dev/disk/by-id/x|" ]\n'
        'filter = [ "a|^/dev/disk/by-id/scsi-3600|", "r|/dev/disk/by-path/.*|", "a/.*/" ]\n'
    )
    assert bd.accepted_by_lvm(text) == "^/dev/disk/by-id/scsi-3600\n.*"


@pytest.mark.parametrize(
    ("old", "new"),
    [("", "x\n"), ("a", "a\nx\n"), ("a\n", "a\nx\n"), ("x\na", "x\na"), ("xx\n", "xx\nx\n")],
)
def test_a_line_is_added_once_and_on_its_own(old: str, new: str) -> None:
    assert with_line(old, "x") == new


MENU = """
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
\tlinux\t/vmlinuz-6.1.0-2-amd64 root=UUID=1 ro
\tinitrd\t/initrd.img-6.1.0-2-amd64
}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced-1' {
\tmenuentry 'Debian, with Linux 6.1.0-1-amd64' $menuentry_id_option 'gnulinux-6.1.0-1-adv' {
\t\tlinux\t/vmlinuz-6.1.0-1-amd64 root=UUID=1 ro
\t}
}
menuentry "$bls_title" "$bls_linux" {
\tlinux $2 $4
}
menuentry 'Windows' {
\tchainloader +1
}
"""


def test_a_grub_menu_gives_its_kernels_in_order() -> None:
    entries = parse_menu(MENU, "/boot")
    assert [e.vmlinuz for e in entries] == [
        "/boot/vmlinuz-6.1.0-2-amd64",
        "/boot/vmlinuz-6.1.0-1-amd64",
    ]
    assert entries[0].initrd == "/boot/initrd.img-6.1.0-2-amd64"
    assert entries[1].initrd is None


@pytest.mark.parametrize(
    ("value", "index"),
    [
        ("0", 0),
        ("gnulinux-advanced-1>gnulinux-6.1.0-1-adv", 1),
        ("Debian, with Linux 6.1.0-1-amd64", 1),
        ("saved", None),
        ("1>0", 1),
        ("gnulinux-advanced-1>0", 1),
        ("Advanced options>Debian, with Linux 6.1.0-1-amd64", 1),
        ("1>1", None),
        ("1", None),  # the submenu itself
        ("3", None),  # Windows
    ],
)
def test_the_default_entry(value: str, index: int | None) -> None:
    assert find_entry(parse_menu(MENU, ""), value) == index


def test_an_entry_of_a_submenu_is_known_by_its_path() -> None:
    assert parse_menu(MENU, "")[1].id == "gnulinux-advanced-1>gnulinux-6.1.0-1-adv"


def test_a_number_counts_what_starts_no_linux() -> None:
    menu = "menuentry 'Windows' {\n\tchainloader +1\n}\n" + MENU
    assert find_entry(parse_menu(menu, ""), "1") == 0
    assert find_entry(parse_menu(menu, ""), "0") is None
    assert find_entry(parse_menu(menu, ""), "2>0") == 1


def test_modules_are_read_with_and_without_compression() -> None:
    text = "kernel/a/virtio-blk.ko.zst: x.ko\nkernel/b/ext4.ko:\nmodules.order\n"
    assert parse_modules(text) == ("virtio_blk", "ext4")


@rows("2-T60", "2-T61")
def test_the_default_kernel_stays_unless_it_cannot_do_virtio() -> None:
    newer = replace(KERNEL, version="6.2.0-1-amd64")
    plain = replace(KERNEL, version="5.0.0-1", supports_virtio_net=False)
    debug = replace(KERNEL, version="6.2.0-1-dbg", is_debug=True)
    assert best_kernel([KERNEL, newer]) is KERNEL
    assert best_kernel([plain, KERNEL, debug, newer]) is newer
    xen = replace(KERNEL, is_xen_pv_only=True)
    assert best_kernel([xen, KERNEL]) is KERNEL
    newer_plain = replace(plain, version="6.2.0-1")
    assert best_kernel([plain, newer_plain]) is plain
    bare = replace(newer_plain, supports_virtio_blk=False)
    assert best_kernel([bare, plain]) is plain
    with pytest.raises(GuestError):
        best_kernel([xen])


def test_versions_compare_by_number() -> None:
    assert version_key("5.10.0") > version_key("5.9.0")
    assert version_key("6.1.0-10") > version_key("6.1.0-9")


def test_drivers_built_in_are_not_missed() -> None:
    required = REQUIRED[BlockBus.VIRTIO_BLK]
    assert missing_drivers(["virtio_blk"], KERNEL, required) == []
    assert missing_drivers([], KERNEL, required) == ["virtio_blk"]
    bare = replace(KERNEL, builtin=())
    assert missing_drivers([], bare, required) == ["virtio_pci", "virtio_blk"]


def test_modules_are_added_to_initramfs_tools_once() -> None:
    once = with_modules("mptspi\n# virtio_blk\n", added_modules(KERNEL, ()))
    assert once.count(MARKER) == 1
    assert once.split("\n")[-5:] == [
        "virtio_ring", "virtio_blk", "virtio_scsi", "virtio_net", "",
    ]  # fmt: skip
    assert with_modules(once, added_modules(KERNEL, ())) == once


@pytest.mark.parametrize(
    ("distro", "major", "modules", "required"),
    [
        ("rhel", 5, ("piix", "ide_disk", "ata_piix"), ("piix", "ide_disk")),
        ("rhel", 5, ("ata_piix", "sd_mod"), ()),  # piix is built in
        ("scientificlinux", 5, ("piix", "ahci", "sd_mod"), ("ahci", "sd_mod")),  # on q35
        ("sles", 10, ("piix",), ("piix",)),
        ("sles", 11, ("ata_piix", "ahci"), ("ata_piix",)),
        ("debian", 12, ("ata_piix", "ahci", "sd_mod"), ("ahci", "sd_mod")),
    ],
)
def test_drivers_of_an_ide_disk(
    distro: str, major: int, modules: tuple[str, ...], required: tuple[str, ...]
) -> None:
    management = {"debian": ("deb", "apt"), "sles": ("rpm", "zypper")}.get(distro, ("rpm", "yum"))
    guest = replace(
        GUEST, distro=distro, major_version=major,
        package_format=management[0], package_management=management[1],
    )  # fmt: skip
    family = family_of(guest)
    assert family is not None
    kernel = replace(KERNEL, modules=modules)
    assert required_drivers(guest, family, kernel, BlockBus.IDE) == required
    assert added_modules(kernel, required) == list(required)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["bash", "open-vm-tools"], ["open-vm-tools"], marks=rows("2-T98")),
        (["open-vm-tools", "open-vm-tools-desktop"], ["open-vm-tools-desktop", "open-vm-tools"]),
        pytest.param(
            ["open-vm-tools", "open-vm-tools-desktop", "ubuntu-server"],
            ["open-vm-tools-desktop"],
            marks=rows("2-T99"),
        ),
        (["bash"], []),
    ],
)
def test_software_of_the_old_hypervisor(names: list[str], expected: list[str]) -> None:
    applications = tuple(Application(name=n, version="1") for n in names)
    assert foreign_packages(replace(GUEST, applications=applications)) == expected


ROOTS = [("/dev/sda1", "Debian"), ("/dev/sdb1", "Fedora")]


@pytest.mark.parametrize(
    ("roots", "choice", "expected"),
    [
        pytest.param(ROOTS[:1], "single", "/dev/sda1", marks=rows("2-T1")),
        (ROOTS[:1], "/dev/sdz9", "/dev/sda1"),
        (ROOTS, "first", "/dev/sda1"),
        (ROOTS, "/dev/sdb1", "/dev/sdb1"),
    ],
)
def test_a_root_is_chosen(roots: list[tuple[str, str]], choice: str, expected: str) -> None:
    assert choose_root(roots, choice) == expected


@rows("2-T2", "2-T5", "4-T110")
@pytest.mark.parametrize("choice", ["single", "/dev/sdz9"])
def test_a_choice_that_is_missing_lists_the_roots(choice: str) -> None:
    with pytest.raises(InspectionError, match=r"/dev/sda1 \(Debian\), /dev/sdb1 \(Fedora\)"):
        choose_root(ROOTS, choice)


@pytest.mark.parametrize(
    ("distro", "major", "machine", "virtio_1_0"),
    [
        ("debian", 7, "i440fx", False),
        pytest.param("rhel", 6, "q35", False, marks=rows("2-T134")),
        ("debian", 12, "q35", True),
        ("ubuntu", 16, "i440fx", False),
        ("ubuntu", 22, "q35", True),
        ("unknown", 0, "q35", True),
    ],
)
def test_machine_and_virtio_by_age(distro: str, major: int, machine: str, virtio_1_0: bool) -> None:
    assert machine_for(distro, major, "x86_64") == machine
    assert has_virtio_1_0(distro, major) == virtio_1_0
    assert machine_for(distro, major, "aarch64") == "virt"


@rows("2-T133")
@pytest.mark.parametrize(
    ("distro", "major", "level"),
    [("rhel", 8, 0), ("rhel", 9, 2), ("rhel", 10, 3), ("fedora", 40, 0)],
)
def test_processor_levels(distro: str, major: int, level: int) -> None:
    assert arch_min_version(distro, major, "x86_64") == level
