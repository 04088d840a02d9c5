"""What can go wrong while a source is read, as one small tree."""

MAY_READ = (
    "Check that it is there and that the user this program runs as may read it; "
    "setfacl -m u:USER:r FILE lets one in."
)


class SourceError(Exception):
    """A source cannot be read or must not be trusted; the message is for the person at the page.

    `code` is a stable id of the finding such as E-MF-MISMATCH; `remedy` is the next move, or "".
    """

    def __init__(self, code: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy


class PackageError(SourceError):
    """The OVA as a container is damaged, incomplete or hostile."""


class ManifestError(SourceError):
    """A digest of the manifest differs from the file, or the manifest is out of bounds."""


class DescriptorError(SourceError):
    """An OVF, VMX file or domain XML is malformed, unsupported or contradicts itself."""


class ImageError(SourceError):
    """A disk image is of an unsupported format or names files outside its package."""
