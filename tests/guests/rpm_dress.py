"""Turn an unpacked Debian into a system that says CentOS Stream 9 and is organised like one.

Every file belongs to an RPM package, GRUB 2 lives in /boot/grub2, the initramfs is dracut's, for
VMware's and IDE/AHCI disks only.  Runs as a hook of mmdebstrap, on the folder it is given.
"""

# Lines of shell and of spec files are as long as they are.
# ruff: noqa: E501

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

# Debian package -> EL package.  Several may go into one; None means "not in the guest".
EL_NAME = {
    "apt": None,
    "dpkg": None,
    "debconf": None,
    "debian-archive-keyring": None,
    "libapt-pkg6.0": None,
    "libdebconfclient0": None,
    "linux-image-amd64": None,
    "lsb-release": None,
    "usrmerge": None,
    "base-files": "filesystem",
    "base-passwd": "setup",
    "libc6": "glibc",
    "libc-bin": "glibc-common",
    "udev": "systemd-udev",
    "libsystemd0": "systemd-libs",
    "libudev1": "systemd-libs",
    "network-manager": "NetworkManager",
    "libnm0": "NetworkManager-libnm",
    "iproute2": "iproute",
    "grub-pc": "grub2-pc",
    "grub-pc-bin": "grub2-pc",
    "grub-common": "grub2-tools",
    "grub2-common": "grub2-tools",
    "dracut": "dracut",
    "dracut-core": "dracut",
    "passwd": "shadow-utils",
    "login": "util-linux-core",
    "dmsetup": "device-mapper",
    "libdevmapper1.02.1": "device-mapper-libs",
    "procps": "procps-ng",
    "perl-base": "perl-interpreter",
    "librpm9": "rpm-libs",
    "librpmio9": "rpm-libs",
    "rpm-common": "rpm",
    "libdnf2": "libdnf",
    "libssl3": "openssl-libs",
    "zlib1g": "zlib",
    "python3.11-minimal": "python3-libs",
}
EPOCH = {"grub2-pc": 1, "grub2-tools": 1, "NetworkManager": 1, "NetworkManager-libnm": 1, "dbus": 1}

RELEASE = "CentOS Stream release 9"
TEXTS = Path(__file__).resolve().parent / "el9"

# Requires and scriptlets that make a difference to who installs or removes.
EXTRA = {
    "centos-stream-release": "Provides: centos-release = 9, redhat-release = 9, system-release = 9, system-release(releasever) = 9\n",
    "kernel": "Requires: kernel-core, kernel-modules\n",
    "kernel-core": "Provides: kernel-core-uname-r = {kv}, kernel-uname-r = {kv}, installonlypkg(kernel)\n",
    "kernel-modules": "Requires: kernel-core\nProvides: kernel-modules-uname-r = {kv}, installonlypkg(kernel-module)\n",
    "grub2-pc": "Requires: grub2-tools\n",
    "python3-dnf": "Requires: rpm\n",
}
SCRIPTLETS = {
    "open-vm-tools": """%preun -n open-vm-tools
if [ $1 -eq 0 ]; then
    systemctl --no-reload disable vmtoolsd.service vgauthd.service || :
fi
""",
}


Packages = dict[str, list[Any]]
"""EL package -> [version, release, files]."""


def text(name: str) -> str:
    """Return one of the files in el9/."""
    return (TEXTS / name).read_text()


def write(root: Path, path: str, content: str, mode: int = 0o644) -> None:
    """Write a file below the root."""
    p = root / path.lstrip("/")
    p.parent.mkdir(parents=True, exist_ok=True)
    if p.is_symlink():
        p.unlink()
    p.write_text(content)
    p.chmod(mode)


def edit(root: Path, path: str, *subs: tuple[str, str]) -> None:
    """Change a file by regular expressions, each of which must match."""
    p = root / path.lstrip("/")
    content = p.read_text()
    for pattern, new in subs:
        content, count = re.subn(pattern, new, content, flags=re.MULTILINE)
        assert count, f"{path}: nothing matches {pattern}"
    p.write_text(content)


def norm(path: str) -> str:
    """Where EL says a file is: everything in /usr but the kernel's modules."""
    if re.match(r"/(usr/)?lib/modules(/|$)", path):
        return path.removeprefix("/usr")
    return "/usr" + path if re.match(r"/(bin|sbin|lib|lib64)/", path) else path


def dress_grub(root: Path) -> dict[str, str]:
    """/usr/sbin/grub2-*, working on /boot/grub2 and without dpkg."""
    moved = {}
    for d in ("usr/sbin", "usr/bin"):
        for old in sorted((root / d).glob("grub-*")):
            new = old.with_name("grub2-" + old.name.removeprefix("grub-"))
            old.rename(new)
            # The scripts call each other by their Debian names.
            old.symlink_to(new.name)
            moved[f"/{d}/{old.name}"] = f"/{d}/{new.name}"
    (root / "usr/sbin/grub-mkconfig").unlink()
    (root / "usr/sbin/grub-install").unlink()
    write(root, "/usr/sbin/grub2-install", text("grub2-install"), 0o755)
    write(root, "/usr/sbin/grubby", text("grubby"), 0o755)
    for s in ("grub2-set-default", "grub2-reboot"):
        edit(
            root,
            f"/usr/sbin/{s}",
            ("/boot/grub\\b", "/boot/grub2"),
            (r"\$\{bootdir\}/grub\b", "${bootdir}/grub2"),
        )
    edit(
        root,
        "/usr/sbin/grub2-mkconfig",
        (r'"\$\{grub_editenv\}" - list', '"${grub_editenv}" /boot/grub2/grubenv list'),
        ("^export GRUB_DEFAULT ", "export GRUB_ENABLE_BLSCFG GRUB_DEFAULT "),
    )
    edit(
        root,
        "/usr/share/grub/grub-mkconfig_lib",
        (
            r"^  dpkg --compare-versions .*$",
            '  if [ "x$version_test_gt_a" = "x$version_test_gt_b" ]; then [ $version_test_gt_cmp = ge ]\n'
            '  else [ "x$(printf \'%s\\\\n\' "$version_test_gt_a" "$version_test_gt_b" | sort -V | tail -n 1)" = "x$version_test_gt_a" ]; fi',
        ),
    )
    edit(root, "/etc/grub.d/00_header", ("/boot/grub\\b", "/boot/grub2"))
    edit(
        root,
        "/etc/grub.d/10_linux",
        ("^set -e$", 'set -e\n[ "x$GRUB_ENABLE_BLSCFG" != xtrue ] || exit 0'),
    )
    write(root, "/etc/grub.d/01_linux_command", text("01_linux_command"), 0o755)
    write(root, "/etc/grub.d/10_blscfg", text("10_blscfg"), 0o755)
    (root / "etc/grub.d/05_debian_theme").unlink()
    return moved


def dress_services(root: Path) -> dict[str, str]:
    """open-vm-tools' units under EL's names."""
    moved = {}
    sysd = root / "usr/lib/systemd/system"
    etc = root / "etc/systemd/system"
    for p in [
        *etc.glob("**/open-vm-tools*"),
        *etc.glob("**/vgauth*"),
        *etc.glob("**/vmtoolsd*"),
        *etc.glob("**/apt-*"),
        *etc.glob("**/dpkg-*"),
    ]:
        shutil.rmtree(p) if p.is_dir() and not p.is_symlink() else p.unlink(missing_ok=True)
    for old, new in (("open-vm-tools", "vmtoolsd"), ("vgauth", "vgauthd")):
        (sysd / f"{old}.service").rename(sysd / f"{new}.service")
        moved[f"/usr/lib/systemd/system/{old}.service"] = f"/usr/lib/systemd/system/{new}.service"
    edit(
        root,
        "/usr/lib/systemd/system/vmtoolsd.service",
        (r"vgauth\.service", "vgauthd.service"),
        (r"^Alias=.*\n", ""),
    )
    edit(
        root,
        "/usr/lib/systemd/system/vgauthd.service",
        (r"open-vm-tools\.service", "vmtoolsd.service"),
    )
    return moved


def packages_of(root: Path, moved: dict[str, str]) -> tuple[Packages, set[str]]:
    """EL package -> [version, release, files]; a set of files to delete."""
    versions = {}
    for para in (root / "var/lib/dpkg/status").read_text().split("\n\n"):
        f = dict(re.findall(r"^(Package|Version): (.*)$", para, flags=re.M))
        if f:
            versions[f["Package"]] = f["Version"]
    out: Packages = {}
    unwanted: set[str] = set()
    owners: dict[str, set[str | None]] = {}
    listed: dict[str, set[str]] = {}
    for deb in versions:
        info = root / "var/lib/dpkg/info"
        lst = next(p for p in (info / f"{deb}.list", info / f"{deb}:amd64.list") if p.exists())
        paths = {
            moved.get(norm(p), norm(p)) for p in lst.read_text().split("\n") if p not in ("", "/.")
        }
        listed[deb] = paths
        for p in paths:
            owners.setdefault(p, set()).add(EL_NAME.get(deb, deb))
    for deb, ver in versions.items():
        if deb in EL_NAME and EL_NAME[deb] is None:
            unwanted |= {p for p in listed[deb] if len(owners[p]) == 1}
            continue
        ver = ver.partition(":")[2] or ver
        version, _, release = ver.rpartition("-") if "-" in ver else (ver, "", "1")
        name = EL_NAME.get(deb, deb)
        pkg = out.setdefault(
            name, [version.replace("-", "."), release.replace("-", ".") + ".el9", set()]
        )
        for p in listed[deb]:
            real = root / p.lstrip("/")
            if not os.path.lexists(real) or not p.startswith(
                ("/usr/", "/etc/", "/boot/", "/lib/modules/")
            ):
                continue
            if real.is_symlink() or not real.is_dir() or len(owners[p]) == 1:
                pkg[2].add(p)
    return out, unwanted


def split_kernel(pkgs: Packages, kv: str) -> None:
    """EL's three packages: an empty one, the kernel itself, its modules."""
    [name] = [n for n in pkgs if n.startswith("linux-image-")]
    files = pkgs.pop(name)[2]
    m = re.match(r"(\d+\.\d+\.\d+)-(\d+)", kv)
    nvr = [m[1], m[2] + ".el9"]
    modules = {p for p in files if p.startswith(f"/lib/modules/{kv}/kernel/")}
    index = {
        f"/lib/modules/{kv}/{f}"
        for f in (
            "modules.dep",
            "modules.dep.bin",
            "modules.alias",
            "modules.alias.bin",
            "modules.symbols",
            "modules.symbols.bin",
            "modules.devname",
            "modules.softdep",
        )
    }
    pkgs["kernel"] = [*nvr, set()]
    pkgs["kernel-core"] = [
        *nvr,
        (files - modules)
        | {f"/lib/modules/{kv}"}
        | {"%ghost " + f for f in index}
        | {f"%ghost /boot/initramfs-{kv}.img"},
    ]
    pkgs["kernel-modules"] = [*nvr, modules]


def spec(root: Path, pkgs: Packages, kv: str, lists: Path) -> str:
    """Return the spec file of all packages, and write their lists of files."""
    lines_of_spec = text("guest.spec")
    for name, (version, release, files) in sorted(pkgs.items()):
        lines = []
        for p in sorted(files):
            tag, path = re.match(r"(%\w+ )?(.*)", p).groups()
            real = root / path.lstrip("/")
            if not os.path.lexists(real) or re.search(r"[\[\]{}*?\\\" ]", path):
                continue
            if not tag and real.is_dir() and not real.is_symlink():
                tag = "%dir "
            elif not tag and path.startswith("/etc/") and real.is_file() and not real.is_symlink():
                tag = "%config(noreplace) "
            lines.append((tag or "") + path.replace("%", "%%") + "\n")
        (lists / name).write_text("".join(lines))
        lines_of_spec += f"\n%package -n {name}\nSummary: {name}\nVersion: {version}\nRelease: {release}\nAutoReqProv: no\n"
        if name in EPOCH:
            lines_of_spec += f"Epoch: {EPOCH[name]}\n"
        lines_of_spec += (
            EXTRA.get(name, "").format(kv=kv.replace("-amd64", ".x86_64"))
            + f"%description -n {name}\n{name}\n"
            + SCRIPTLETS.get(name, "")
        )
        lines_of_spec += f"%files -n {name}" + (
            f" -f /var/rpmbuild/lists/{name}\n" if lines else "\n"
        )
    return lines_of_spec


def dress(root: Path) -> None:
    """Turn a directory with an installed Debian into the guest's root."""

    def sh(command: str) -> None:
        subprocess.run(
            ["chroot", str(root), "/bin/sh", "-ec", command],
            check=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"},
        )

    [kv] = [p.name for p in (root / "usr/lib/modules").iterdir()]
    moved = dress_grub(root) | dress_services(root)
    # Who it says it is.
    for p in (
        "etc/debian_version",
        "etc/lsb-release",
        "vmlinuz",
        "vmlinuz.old",
        "initrd.img",
        "initrd.img.old",
    ):
        (root / p).unlink(missing_ok=True)
    write(root, "/usr/lib/os-release", text("os-release"))
    write(root, "/etc/centos-release", RELEASE + "\n")
    write(root, "/etc/issue", "\\S\nKernel \\r on an \\m\n\n")
    for link in ("redhat-release", "system-release"):
        (root / "etc" / link).symlink_to("centos-release")
    write(root, "/etc/resolv.conf", "# Generated by NetworkManager\n")
    write(root, "/etc/system-release-cpe", "cpe:/o:centos:centos:9\n")
    # rpm's database where EL has it.
    edit(root, "/usr/lib/rpm/macros", (r"^%_dbpath\s.*$", "%_dbpath\t\t%{_var}/lib/rpm"))
    write(
        root,
        "/etc/yum.repos.d/README",
        "No repository: this guest has no network to install from.\n",
    )
    # dracut as on EL: host-only.  The first initramfs is what it would be on VMware.
    write(
        root,
        "/usr/lib/dracut/dracut.conf.d/01-dist.conf",
        'hostonly="yes"\nhostonly_cmdline="no"\ni18n_install_all="no"\nearly_microcode="no"\n',
    )
    edit(root, "/etc/lvm/lvm.conf", (r"^\t# use_devicesfile = .*$", "\tuse_devicesfile = 1"))
    sh(
        f"depmod -a {kv}; rm -f /boot/initrd.img-*; rm -rf /boot/grub; mkdir -p /boot/grub2 /boot/loader/entries; "
        f"dracut --no-hostonly --no-early-microcode --omit 'qemu virtfs virtiofs btrfs crypt mdraid multipath nvmf nvdimm' "
        f"--drivers 'mptspi mptsas vmw_pvscsi ata_piix ata_generic ahci sd_mod sr_mod ext4 xfs dm_mod dm_mirror dm_snapshot' "
        f"--gzip --force /boot/initramfs-{kv}.img {kv}; "
        f"lsinitrd /boot/initramfs-{kv}.img > /tmp/list; grep -q mptspi.ko /tmp/list; if grep 'virtio.*[.]ko' /tmp/list; then exit 1; fi; rm /tmp/list; "
        "systemctl enable vmtoolsd.service vgauthd.service"
    )
    # Every file into an RPM package, then dpkg and what is only its own goes.
    pkgs, unwanted = packages_of(root, moved)
    split_kernel(pkgs, kv)
    pkgs["grub2-tools"][2] |= {
        "/usr/sbin/grub2-install",
        "/etc/grub.d/01_linux_command",
        "/etc/grub.d/10_blscfg",
    }
    pkgs["grubby"] = ["8.40", "1.el9", {"/usr/sbin/grubby"}]
    pkgs["dracut"][2].add("/usr/lib/dracut/dracut.conf.d/01-dist.conf")
    pkgs["centos-stream-release"] = [
        "9.0",
        "1.el9",
        {
            "/usr/lib/os-release",
            "/etc/os-release",
            "/etc/centos-release",
            "/etc/redhat-release",
            "/etc/system-release",
            "/etc/system-release-cpe",
        },
    ]
    pkgs["filesystem"][2] -= pkgs["centos-stream-release"][2]
    pkgs.pop("init-system-helpers")
    lists = root / "var/rpmbuild/lists"
    lists.mkdir(parents=True)
    (lists.parent / "guest.spec").write_text(spec(root, pkgs, kv, lists))
    sh(
        "cd /var/rpmbuild; rpmbuild --quiet --define '_topdir /var/rpmbuild' -bb guest.spec; "
        "rpm -U --justdb --nodeps --noscripts --replacefiles RPMS/*/*.rpm; cd /; rm -rf /var/rpmbuild; "
        f"rpm -V --nomtime kernel-core grubby; rpm -ql kernel-core | grep -qx /boot/vmlinuz-{kv}"
    )
    for p in unwanted:
        real = root / p.lstrip("/")
        # mmdebstrap takes its stand-in for this one away at its end.
        if (
            "start-stop-daemon" not in p
            and os.path.lexists(real)
            and not (real.is_dir() and not real.is_symlink())
        ):
            real.unlink()
    for d in (
        "var/lib/dpkg",
        "var/lib/apt",
        "var/cache/apt",
        "var/cache/debconf",
        "var/log/apt",
        "etc/apt",
        "etc/dpkg",
        "usr/lib/apt",
    ):
        shutil.rmtree(root / d, ignore_errors=True)


if __name__ == "__main__":
    dress(Path(sys.argv[1]))
