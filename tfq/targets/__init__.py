"""What a runtime runs, and what it runs fast: one file for each target."""

from tfq.targets.cpu import CPU
from tfq.targets.micro import MICRO

TARGETS = {target.name: target for target in (CPU, MICRO)}
"""By the values of the option `target`."""
