"""Parse the XML of a descriptor a stranger wrote: no entities, no network, within limits."""

from __future__ import annotations

import re

from lxml import etree

from inventory.sources.errors import DescriptorError

MAX_BYTES = 16 << 20
# A descriptor has some hundred elements; each costs some hundred bytes of memory.
MAX_ELEMENTS = 200_000
OVF = "http://schemas.dmtf.org/ovf/envelope/1"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VMW = "http://www.vmware.com/schema/ovf"
NS = {"ovf": OVF, "rasd": RASD, "vmw": VMW}
# As UTF-8 and as UTF-16 of either order, before the parser sees it; comments that hold the word
# are refused with it.  Rarer encodings are caught by what the parser found.
_DOCTYPE = re.compile(rb"<\0?!\0?(?:D\0?O\0?C\0?T|E\0?N\0?T\0?I)")


def parse_xml(data: bytes) -> etree._Element:
    """Parse without entities, DTD or network, within limits.  Raises DescriptorError."""
    if len(data) > MAX_BYTES:
        raise DescriptorError(
            "E-OVF-SIZE", f"The descriptor has {len(data)} bytes; at most {MAX_BYTES} are accepted."
        )
    # Refused before parsing: an internal subset could already define entities by the thousand.
    if _DOCTYPE.search(data):
        raise _doctype()
    parser = etree.XMLPullParser(
        events=("start",), resolve_entities=False, load_dtd=False, no_network=True,
        huge_tree=False, remove_comments=True, remove_pis=True,
    )  # fmt: skip
    count = 0
    try:
        for start in range(0, len(data), 1 << 16):
            parser.feed(data[start : start + (1 << 16)])
            count += sum(1 for _event in parser.read_events())
            if count > MAX_ELEMENTS:
                raise DescriptorError(
                    "E-OVF-SIZE",
                    f"The descriptor has more than {MAX_ELEMENTS} elements; others have hundreds.",
                )
        root = parser.close()
        if root.getroottree().docinfo.internalDTD is not None:
            raise _doctype()
    except etree.XMLSyntaxError as error:
        # libxml2 itself stops at 256 levels, since huge_tree is off.
        raise DescriptorError(
            "E-XML-DEPTH" if "Excessive depth" in str(error) else "E-XML-PARSE",
            f"The descriptor is not well-formed XML: {_reason(error)}.",
            remedy="Export the machine again; the file is damaged or of another kind.",
        ) from error
    return root


def _reason(error: etree.XMLSyntaxError) -> str:
    """Return the parser's words on one line: it repeats a piece of the file as it is."""
    words = " ".join(str(error).split())
    return "".join(c if c.isprintable() else "?" for c in words)[:300]


def _doctype() -> DescriptorError:
    return DescriptorError(
        "E-XML-DTD",
        "The descriptor declares a document type, which an OVF never needs and attackers use.",
    )
