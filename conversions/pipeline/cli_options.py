"""The options of the engine's command line: virt-v2v's spelling, and our own beside them."""

from __future__ import annotations

import argparse

from conversions.pipeline.target_options import Once, add_target_options
from inventory.sources.input_options import HTTPS_OPTIONS, SSH_OPTIONS, TRANSPORTS, VDDK_OPTIONS


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conversions.pipeline",
        description="Convert a virtual machine to run on KVM.  The source is only ever read.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", nargs="*", help="the OVA, VMX file, domain XML, disk images or the domain")
    add(
        "-i",
        action=Once,
        type=lambda kind: {"local": "disk"}.get(kind, kind),
        choices=["ova", "vmx", "disk", "libvirt", "libvirtxml"],
        default="libvirt",
        help="kind of source; libvirt when not given",
    )
    add("-ic", action=Once, metavar="URI", help="libvirt host of the domain; qemu:///system")
    add("-if", action=Once, metavar="FORMAT", help="format of the disks of -i disk; else detected")
    add(
        "-it",
        action=Once,
        choices=TRANSPORTS,
        help="ssh: a VMX file by its address ssh://user@host/path, or the disks of a host at "
        "qemu+ssh://; vddk: VMware's own library",
    )
    add("-ip", action=Once, metavar="FILE", help="holds the source's password")
    add(
        "-io",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help=f"{', '.join((*HTTPS_OPTIONS, *SSH_OPTIONS, *VDDK_OPTIONS))}; "
        "others see vddk-cookie among the processes, nbdkit's too",
    )
    add(
        "--allow-running",
        action="store_true",
        help="take a machine that is not shut off: for a copy of disks that nothing writes to",
    )
    add(
        "--disks-anywhere",
        action="store_true",
        help="trust what a VMX or an image names: disks in other folders, layers below",
    )
    add_target_options(parser)
    add("-n", "--network", metavar="IN:OUT", action="append", default=[], help="map a network")
    add("-b", "--bridge", metavar="IN:OUT", action="append", default=[], help="map a bridge")
    add(
        "--mac",
        metavar="MAC:network|bridge:NAME",
        action="append",
        default=[],
        help="map a NIC; MAC:ip:ADDRESS[,GATEWAY[,PREFIX[,DNS...]]] fixes a Windows address",
    )
    add("--virtio-win", metavar="PATH", help="ISO or folder with drivers for Windows guests")
    add("--virt-tools", metavar="FOLDER", help="rhsrvany.exe and other tools for Windows guests")
    add(
        "--block-driver",
        choices=["virtio-blk", "virtio-scsi"],
        action="append",
        default=[],
        help="what guests find their disks with",
    )
    add(
        "--emulated-devices",
        action="store_true",
        help="let a Windows guest without drivers run on IDE, slowly",
    )
    add(
        "--sibling-drivers",
        action="store_true",
        help="take drivers of an older Windows where there are none of its own",
    )
    add("--disable-vmware", action="store_true", help="turn off VMware's services in Windows")
    add(
        "--remove-boot-keys",
        action="store_true",
        help="let Windows delete the boot driver's temporary entries at its first start",
    )
    add(
        "--root",
        default="single",
        metavar="single|first|/dev/...|UUID=...|LABEL=...",
        help="which of several systems to take",
    )
    add("--no-fstrim", action="store_true", help="copy unused blocks too")
    add("-m", "--memsize", type=int, metavar="MIB", help="memory of the appliance")
    add("--smp", type=int, metavar="N", help="vCPUs of the appliance")
    add("--inspect", action="store_true", help="only look inside the guest")
    add("-O", metavar="FILE", help="write what was found as XML; - for standard output")
    add("--rehearse", action="store_true", help="convert, then throw the result away")
    # Whole options, so that neither takes the source that follows for its value.
    add("--in-place", action="store_true", help="convert the source's own disks")
    add(
        "--in-place=direct",
        dest="direct",
        action="store_true",
        help="the same without an overlay, where there is no room for one: nothing can undo it",
    )
    add("--define", action="store_true", help="with --in-place: define the domain anew as well")
    add(
        "--key",
        metavar="ID:key:TEXT|ID:file:PATH",
        action="append",
        default=[],
        help="opens an encrypted device; ID is all, /dev/sda2 or a UUID",
    )
    add(
        "--collect",
        metavar="GUESTPATH[:DIR]",
        action="append",
        default=[],
        help="pack a file or folder of the guest before it is changed; DIR: where in the archive",
    )
    add("--collect-output", action=Once, metavar="FILE", help="the .tar.xz they are packed into")
    add("--no-fsck", action="store_true", help="check no filesystem before and after")
    add("--no-guest-agent", action="store_true", help="arrange no QEMU guest agent")
    add("--no-selinux-relabel", action="store_true", help="give no SELinux labels to its files")
    add("--no-keep-nic-names", action="store_true", help="let names of network cards change")
    _add_wishes(parser)
    add(
        "--resume",
        action=Once,
        metavar="FOLDER",
        help="go on from the copy with what an earlier run converted and kept there",
    )
    add(
        "--clean-up",
        action=Once,
        metavar="FOLDER",
        help="remove what a killed run with this work folder has left, here and on its target; "
        "-op, -oo and -oc, or --job, say anew how to sign in there, for no password is kept",
    )
    for layout in ("current", "legacy", "json"):
        add(
            f"--print-source={layout}",
            *(["--print-source"] if layout == "current" else []),
            dest="print_source",
            action="store_const",
            const=layout,
            help="print what the source is and stop",
        )
    add("--job", metavar="FILE", help="read the job as JSON from a file, - for standard input")
    add("--events", action="store_true", help="write events as JSON lines")
    add(
        "--machine-readable",
        action="store_true",
        help="without a source print what this program can do; with one, progress as lines N/100",
    )
    add("-q", "--quiet", action="store_true", help="only warnings and errors")
    add("-v", "--verbose", action="store_true", help="also debug messages")
    add("-x", dest="trace", action="store_true", help="also libguestfs' calls and messages")
    return parser


def _add_wishes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("wishes for the guest").add_argument
    add("--hostname", help="its host name")
    add("--timezone", metavar="AREA/PLACE", help="its time zone")
    add("--root-password", metavar="password:TEXT|file:PATH|locked|disabled", help="of root")
    add("--update", action="store_true", help="update all packages at the first start")
    for option, metavar, text in (
        ("--ssh-inject", "root:file:PATH|root:string:KEY", "a key that lets root in"),
        ("--install", "PACKAGE,...", "install at the first start"),
        ("--uninstall", "PACKAGE,...", "remove at once"),
        ("--upload", "FILE:GUESTPATH", "write a file, with the permissions it has here"),
        ("--firstboot", "FILE", "a script of the first start"),
        ("--firstboot-command", "LINE", "a line of shell of the first start"),
    ):
        add(option, metavar=metavar, action="append", default=[], help=text)
