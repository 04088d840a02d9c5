"""Measure the pages of a large inventory, and the reading of one large host.

    script/bench-inventory [--machines 10000] [--hosts 50] [--domains 1000] [--rounds 15]

Fills a database of its own (SQLite, or beside the one that DATABASE_URL names on PostgreSQL), asks
for each page as somebody signed in, and prints the median time inside the server and the number of
queries, with that of a small inventory for comparison.  Then reads a host of libvirt's test driver
twice: all domains new, nothing changed.  Ends with 1 when a page takes 100 ms or more, its queries
grow with the inventory, or a reading takes 10 s or more.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from django.test import Client

MAX_PAGE_MS = 100
MAX_READING_SECONDS = 10
SMALL = 60
# A host in a file: the console itself refuses such addresses, so the check is left out here.
_PROGRAM = """
import inventory.sources.libvirt_host as host
host.checked_uri = str
from inventory.sources.libvirt_listing import main
main()
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    sizes = (("machines", 10_000), ("hosts", 50), ("domains", 1000), ("rounds", 15))
    for name, value in sizes:
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
        os.environ["V2VWEB_VAR"] = folder
        for name in ("uploads", "work", "import", "results", "static"):
            (Path(folder) / name).mkdir()
        os.environ["DJANGO_SETTINGS_MODULE"] = "v2vweb.settings"
        import django

        django.setup()
        from django.db import connection

        if connection.vendor == "sqlite":
            connection.settings_dict["TEST"]["NAME"] = f"{folder}/bench.sqlite3"
        old = connection.settings_dict["NAME"]
        connection.creation.create_test_db(verbosity=0)
        try:
            return measure(Path(folder), options)
        finally:
            connection.creation.destroy_test_db(old, verbosity=0)


def measure(folder: Path, options: argparse.Namespace) -> int:
    """Fill, measure, print; return the exit status."""
    from django.db import connection

    fill(hosts=2, machines=SMALL)
    few = {name: queries_of(address) for name, address in addresses().items()}
    fill(hosts=options.hosts - 2, machines=options.machines - SMALL)
    if connection.vendor == "postgresql":  # which does so by itself a little later
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    print(f"{options.machines} machines on {options.hosts} hosts, {connection.vendor}")
    print(f"{'page':<28}{'median ms':>10}{'worst ms':>10}{'queries':>9}{'with ' + str(SMALL):>9}")
    is_good = True
    for name, address in addresses().items():
        queries = queries_of(address)
        times = [time_of(address) for _round in range(options.rounds)]
        median = statistics.median(times)
        is_good &= median < MAX_PAGE_MS and queries == few[name]
        print(f"{name:<28}{median:>10.0f}{max(times):>10.0f}{queries:>9}{few[name]:>9}")
    for name, seconds in reading_times(folder, options.domains).items():
        is_good &= seconds < MAX_READING_SECONDS
        print(f"{name:<28}{seconds:>9.1f}s")
    return int(not is_good)


def fill(*, hosts: int, machines: int) -> None:
    """Add hosts that share so many machines; one machine in ten was inspected and converted."""
    from django.utils import timezone

    from conversions.models import Conversion, Inspection
    from inventory.host_store import store_domains
    from inventory.models import LibvirtHost, SourceVM
    from inventory.sources.domain_xml import parse_domain
    from inventory.sources.host_listing import ListedDomain
    from inventory.sources.power import Power
    from tests.libvirt_samples import domain

    first = LibvirtHost.objects.count()
    number = SourceVM.objects.count()
    for index in range(hosts):
        host = LibvirtHost.objects.create(
            name=f"kvm{first + index:02}", uri=f"qemu+ssh://kvm{first + index}/system",
            state="fresh", tried_at=timezone.now(),
        )  # fmt: skip
        share = machines // hosts + (index < machines % hosts)
        domains = []
        for _machine in range(share):
            number += 1
            xml = domain(number, name=f"app{number:05}", disks=2).encode()
            source = parse_domain(xml, lambda _text: None, lambda _pool, _volume: None)
            power = Power.RUNNING if number % 3 else Power.SHUT_OFF
            domains.append(
                ListedDomain(
                    uuid=f"00000000-0000-0000-0000-{number:012}", name=source.name, power=power,
                    memory_bytes=source.memory_bytes, vcpus=source.vcpus, source=source,
                )
            )  # fmt: skip
        now = timezone.now()
        store_domains(host, domains, since=now, now=now)
        used = host.vms.all()[::10]
        runs = Conversion.objects.bulk_create(
            Conversion(vm=vm, vm_name=vm.name, name=vm.name, mode="copy", status="done", job={})
            for vm in used
        )
        Inspection.objects.bulk_create(
            Inspection(vm=run.vm, conversion=run, product_name="Debian GNU/Linux 12 (bookworm)")
            for run in runs
        )


def addresses() -> dict[str, str]:
    """Return the pages that are measured; some name rows that exist by now."""
    from inventory.models import LibvirtHost, SourceVM

    host = LibvirtHost.objects.get(name="kvm01")
    vm = SourceVM.objects.get(name="app00001")
    last = -(-SourceVM.objects.count() // 50)
    return {
        "list": "/machines/",
        "list, page in the middle": f"/machines/?page={last // 2 or 1}",
        "list, last page": f"/machines/?page={last}",
        "sorted by name": "/machines/?sort=name",
        "sorted by memory, last page": f"/machines/?sort=-memory&page={last}",
        "sorted by disks": "/machines/?sort=-disks",
        "search a name": "/machines/?q=app00042",
        "search many": "/machines/?q=app",
        "search three words": "/machines/?q=app+kvm01+lan",
        "search a MAC address": "/machines/?q=52:54:00:00:00:05",
        "search nothing found": "/machines/?q=nowhere",
        "search a system": "/machines/?q=bookworm",
        "filter: not inspected": "/machines/?state=new",
        "filter: converted": "/machines/?state=converted",
        "filter: running": "/machines/?state=running",
        "filter: one host": f"/machines/?host={host.pk}&state=off",
        "host page": host.get_absolute_url(),
        "machine page": vm.get_absolute_url(),
        "sources": "/sources/",
        "overview": "/",
    }


def time_of(address: str) -> float:
    """Return how many milliseconds the server takes for a page."""
    client = signed_in()
    begun = time.perf_counter()
    response = client.get(address)
    elapsed = 1000 * (time.perf_counter() - begun)
    if response.status_code != 200:
        raise SystemExit(f"bench-inventory: {address} answers {response.status_code}")
    return elapsed


def queries_of(address: str) -> int:
    """Return how many queries a page needs, the second time that it is asked for."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    client = signed_in()
    client.get(address)
    with CaptureQueriesContext(connection) as queries:
        client.get(address)
    return len(queries)


@functools.cache
def signed_in() -> Client:
    """Return a client that may read."""
    from tests.demo import make_user

    client = Client()
    client.force_login(make_user("reader", "Viewers"))
    return client


def reading_times(folder: Path, domains: int) -> dict[str, float]:
    """Read a host of the test driver when all is new and when nothing is; return the seconds."""
    from inventory import hosts
    from inventory.models import LibvirtHost
    from inventory.sources import libvirt_child
    from tests.libvirt_samples import domain, host_file

    uri = host_file(folder / "host.xml", [domain(20_000 + number) for number in range(domains)])
    libvirt_child._PROGRAM = [sys.executable, "-c", _PROGRAM]
    libvirt_child.__dict__["checked_address"] = str
    host = LibvirtHost.objects.create(name="big", uri=uri)
    times = {}
    for name in (f"{domains} domains, all new", f"{domains} domains, unchanged"):
        LibvirtHost.objects.filter(pk=host.pk).update(tried_at=None)
        begun = time.perf_counter()
        if not hosts.refresh(host):
            raise SystemExit("bench-inventory: the host was not due")
        times[name] = time.perf_counter() - begun
        host.refresh_from_db()
        if host.state != "fresh" or host.vms.count() != domains:
            raise SystemExit(f"bench-inventory: the host was not read: {host.message}")
    return times


if __name__ == "__main__":
    sys.exit(main())
