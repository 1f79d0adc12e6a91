"""The road from a Keras model to a measured .tflite."""

from tfq.pipeline.explain import explain as explain
from tfq.pipeline.road import diagnose as diagnose
from tfq.pipeline.road import explore as explore
from tfq.pipeline.road import quantize as quantize
from tfq.pipeline.stages import plan_of as plan_of
from tfq.pipeline.stages import plan_of_frontier as plan_of_frontier
