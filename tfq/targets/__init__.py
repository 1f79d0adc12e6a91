"""What a runtime runs, and what it runs fast: one file for each target."""

from tfq.targets.cpu import CPU
from tfq.targets.micro import MICRO
from tfq.targets.npu import NPU

TARGETS = {target.name: target for target in (CPU, MICRO, NPU)}
"""By the values of the option `target`."""
