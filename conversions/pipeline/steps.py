"""The fifteen steps, in order, with the sentence each is announced with."""

from enum import StrEnum


class Step(StrEnum):
    """Names as they appear in events, rows and URLs; order of definition is order of work."""

    REQUEST = "request"
    SOURCE = "source"
    OVERLAYS = "overlays"
    TARGETS = "targets"
    HANDLE = "handle"
    LAUNCH = "launch"
    INSPECTION = "inspection"
    SPACE = "space"
    CONVERSION = "conversion"
    TRIM = "trim"
    CLOSE = "close"
    TARGET_BUSES = "target_buses"
    COPY = "copy"
    METADATA = "metadata"
    FINISH = "finish"


TITLES: dict[Step, str] = {
    Step.REQUEST: "Reading the request",
    Step.SOURCE: "Opening the source",
    Step.OVERLAYS: "Creating an overlay over every source disk",
    Step.TARGETS: "Preparing the target",
    Step.HANDLE: "Setting up the appliance",
    Step.LAUNCH: "Starting the appliance",
    Step.INSPECTION: "Inspecting the guest",
    Step.SPACE: "Checking free space in the guest and on the target",
    Step.CONVERSION: "Converting the guest to run on KVM",
    Step.TRIM: "Trimming the filesystems",
    Step.CLOSE: "Closing the appliance",
    Step.TARGET_BUSES: "Assigning disks to target buses",
    Step.COPY: "Copying the disks",
    Step.METADATA: "Writing the target's metadata",
    Step.FINISH: "Finishing",
}
"""What the log says when the step starts; the console translates by step name."""
