"""Where network cards lead: the options -n, -b and --mac by the words of the command line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conversions.pipeline.cli_job import job_from
from conversions.pipeline.cli_options import options_parser
from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Job
from conversions.pipeline.networks import map_nics, warn_of_unused
from conversions.pipeline.report import RecordingReporter
from inventory.sources.types import Nic, VnetType
from tests.unit.pipeline.samples import GUEST

MAC = "00:16:3e:00:00:0a"
CARD = Nic(vnet="br3", vnet_type=VnetType.BRIDGE, mac=MAC)
LAB = Nic(vnet="lab", vnet_type=VnetType.NETWORK, mac=MAC)
OTHER = Nic(vnet="other", vnet_type=VnetType.NETWORK)


def job(*words: str) -> Job:
    """Return the job that the command line asks for."""
    return job_from(options_parser().parse_args(["-i", "ova", "x.ova", "--rehearse", *words]))


def rows(*names: str) -> pytest.MarkDecorator:
    """Mark the rows of the document that a case shows."""
    return pytest.mark.rows(*(f"4-{name}" for name in names))


@pytest.mark.parametrize(
    ("words", "nic", "kind", "name"),
    [
        pytest.param(["-b", "x", "-n", "y"], CARD, "Bridge", "x", marks=rows("T80")),
        pytest.param(["-n", "default_net"], CARD, "Bridge", "br3", marks=rows("T81")),
        pytest.param(["-n", "lab:n2", "-n", "n4"], LAB, "Network", "n2", marks=rows("T82")),
        pytest.param(["-n", "lab:n2", "-n", "n4"], OTHER, "Network", "n4", marks=rows("T82")),
        pytest.param(["--mac", f"{MAC}:network:dmz"], CARD, "Network", "dmz", marks=rows("T83")),
        pytest.param(
            ["--mac", f"{MAC.upper()}:network:dmz"], CARD, "Network", "dmz", marks=rows("T84")
        ),
        pytest.param(
            ["--mac", f"{MAC.replace(':', '-')}:bridge:br7"], LAB, "Bridge", "br7",
        ),
        pytest.param(
            ["--mac", f"{MAC}:network:dmz", "-n", "n4"], OTHER, "Network", "n4", marks=rows("T84")
        ),
        pytest.param(["-b", "br3:prod:vlan7"], CARD, "Bridge", "prod:vlan7"),
    ],
)  # fmt: skip
def test_where_a_card_leads(words: list[str], nic: Nic, kind: str, name: str) -> None:
    [mapped] = map_nics([nic], job(*words).network_map)
    assert (mapped.vnet_type, mapped.vnet, mapped.mac) == (kind, name, nic.mac)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["-n", "a:b", "-n", "a:b"], "maps 'a' twice", marks=rows("T79")),
        pytest.param(["-n", "a", "-n", "b"], "two defaults", marks=rows("T80")),
        pytest.param(
            ["--mac", "00:11:22:33:44:ip:1.2.3.4"], "00:11:22:33:44:ip", marks=rows("T85")
        ),
        pytest.param(["--mac", f"{MAC}:ip:1.2.3.4,,129"], "129", marks=rows("T86")),
        pytest.param(["--mac", f"{MAC}:ip:fd00::5,,129"], "129", marks=rows("T86")),
        pytest.param(["--mac", f"{MAC}:ip:1.2.3.4,,-1"], "-1", marks=rows("T86")),
        pytest.param(["--mac", f"{MAC}:ip:1.2.3.4,,abc"], "abc", marks=rows("T86")),
        pytest.param(["--mac", f"{MAC}:ip:host.example"], "host.example", marks=rows("T87")),
        (["--mac", f"{MAC}:ip:1.2.3.4,fd00::1,24"], "not of one kind"),
        (["--mac", f"{MAC}:NETWORK:dmz"], "NETWORK"),
    ],
)
def test_wishes_that_cannot_be(words: list[str], said: str) -> None:
    with pytest.raises(JobError, match=said):
        job(*words)


@pytest.mark.rows("4-T87")
def test_an_address_without_a_gateway() -> None:
    [entry] = job("--mac", f"{MAC}:ip:1.2.3.4,,24").windows.static_ips
    assert (entry.address, entry.gateway, entry.prefix) == ("1.2.3.4", "", 24)


@pytest.mark.parametrize(
    ("words", "kind", "warned"),
    [
        pytest.param([f"{MAC}:ip:1.2.3.4"], "linux", ["Windows guests only"], marks=rows("T88")),
        ([f"{MAC}:ip:1.2.3.4"], "windows", []),
        ([f"{MAC}:bridge:br7"], "linux", []),
        (["52:54:00:00:00:01:bridge:br7"], "linux", ["no network card 52:54:00:00:00:01"]),
    ],
)
def test_wishes_that_change_nothing(words: list[str], kind: str, warned: list[str]) -> None:
    report = RecordingReporter()
    wishes = [word for value in words for word in ("--mac", value)]
    warn_of_unused(job(*wishes), [CARD], replace(GUEST, type=kind), report)
    said = [event["text"] for event in report.of("log")]
    assert len(said) == len(warned)
    assert all(part in line for part, line in zip(warned, said, strict=True))
