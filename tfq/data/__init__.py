"""The representative dataset: sources, preprocessing, selection, checks, batches."""

from tfq.data.checks import compare_ranges as compare_ranges
from tfq.data.loading import load_samples as load_samples
from tfq.data.samples import InputSignature as InputSignature
from tfq.data.samples import Samples as Samples
