"""The judge of every step that can make things worse: by the outputs of the simulation on samples it has not seen.

What is compared is rolled back when its mean divergence (`tfq.simulate.divergence`) exceeds that without it by more
than `tolerance` standard errors of the paired difference. With 1, where the samples do not tell the two apart, the
candidate stays; with 0 it must not lose. What has to prove itself must lower the mean, and that of most samples: with
r_i the rank of |d_i| among the n differences d_i that are not 0,

    z = sum sign(d_i) r_i / sqrt(n (n + 1) (2 n + 1) / 6)  <  -2        equal |d_i| share the mean of their ranks

A few samples hold most of a mean divergence. By its standard error a ninth of the divergence was no gain, where nearly
all samples had gained, and twice as much as chance explains was one, where as many had lost.

Source: Wilcoxon, "Individual Comparisons by Ranking Methods", 1945.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from tfq.execution.resources import DEFAULT, Resources
from tfq.execution.views import Arrays
from tfq.models.graph import Graph
from tfq.quantized_model import QuantizedModel
from tfq.simulate.divergence import Measured, Yardstick, ends
from tfq.simulate.eager import BATCH, tensor_parts
from tfq.simulate.tensor_store import TensorStore

_PROVED = -2.0  # standard deviations of the sum of signed ranks


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Outcome of a comparison.

    Attributes:
      kept: name of the model that was kept.
      divergences: mean divergence from the float model by name.
      standard_error: of the paired difference.
      samples: number of held-back samples.
      reason: why the candidate was rolled back; empty where it was kept.
    """

    kept: str
    divergences: Mapping[str, float]
    standard_error: float
    samples: int
    reason: str = ""

    @property
    def rolled_back(self) -> bool:
        """The candidate lost."""
        return self.kept != next(iter(self.divergences))

    def note(self, what: str) -> str:
        """One line for the user if `what` was rolled back, else nothing."""
        candidate, fallback = self.divergences
        if not self.rolled_back:
            return ""
        judges = f"{self.samples} held-back sample{'s' * (self.samples != 1)}"
        return (
            f"{what} made the outputs of {judges} worse than {fallback}"
            f" ({self.divergences[candidate]:.3g} against {self.divergences[fallback]:.3g}, standard error"
            f" {self.standard_error:.2g}) and was rolled back for the whole model"
        )


Named = tuple[str, QuantizedModel]
"""A model under the name that a verdict calls it."""


class Judge:
    """Compares models on samples that nothing in them was fitted to.

    It runs the float model once, and every model that it is shown once as long as that was the last it kept. So one
    judge serves a float model for the whole run.
    """

    def __init__(self, reference: Graph, samples: Arrays, *, resources: Resources = DEFAULT):
        """
        Args:
          reference: the prepared float graph.
          samples: arrays [n, ...] by input name.
          resources: the float model's outputs beyond the memory limit lie on disk.
        """
        self.reference, self._samples, self._resources = reference, samples, resources
        self._ends = ends(reference)
        self._kept: tuple[QuantizedModel, np.ndarray] | None = None

    @functools.cached_property
    def _floats(self) -> tuple[TensorStore, Sequence[Yardstick]]:
        """What the float model is compared by, and how others are measured against each."""
        store = TensorStore(self._resources.memory_limit)
        rods = [Measured(logits=end.logits) for end in self._ends]
        count = len(self._samples[self.reference.inputs[0]])
        for part, outputs in self._run(self.reference):
            for number, (values, rod) in enumerate(zip(outputs, rods, strict=True)):
                if not part.start:
                    store.create(str(number), (count, *values.shape[1:]), str(values.dtype))
                store.write(str(number), part.start, values)
                rod.add(values)
        return store, [rod.yardstick for rod in rods]

    def _run(self, graph: Graph) -> Iterator[tuple[slice, list[np.ndarray]]]:
        names = [end.tensor for end in self._ends]
        return tensor_parts(graph, self._samples, names, size=BATCH, resources=self._resources)

    def divergence(self, model: QuantizedModel) -> np.ndarray:
        """Of every sample, [n]."""
        if self._kept is not None and self._kept[0] is model:
            return self._kept[1]
        store, rods = self._floats
        found = []
        for part, outputs in self._run(model):
            floats = [store.read(str(number), part.start, part.stop) for number in range(len(rods))]
            found.append(sum(rod(y, q) for rod, y, q in zip(rods, floats, outputs, strict=True)))
        return np.concatenate(found)

    def keep_better(
        self, candidate: Named, fallback: Named, *, tolerance: float = 1.0
    ) -> tuple[QuantizedModel, Verdict]:
        """The candidate, unless it loses to the fallback.

        Args:
          candidate, fallback: what is compared, under different names.
          tolerance: standard errors by which the candidate may be worse.
        """
        kept, (verdict,) = self.keep_best(fallback, [candidate], tolerance=tolerance)
        return kept, verdict

    def keep_best(
        self, fallback: Named, candidates: Iterable[Named], *, tolerance: float = 1.0, must_gain: bool = False
    ) -> tuple[QuantizedModel, tuple[Verdict, ...]]:
        """The last candidate that did not lose to the one kept before it, and one comparison for every candidate.

        Arguments as in `keep_better`; a candidate is asked for when the one before it has been judged. must_gain: it
        has to prove itself; fewer than five samples cannot.
        """
        name, best = fallback
        lowest, verdicts = None, []
        for label, candidate in candidates:
            lowest = self.divergence(best) if lowest is None else lowest
            found = self.divergence(candidate)
            difference = found - lowest
            error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else 0.0
            means = {label: float(found.mean()), name: float(lowest.mean())}
            reason = ""
            if difference.mean() > (0.0 if must_gain else tolerance * error):
                reason = "worse"
            elif must_gain and not is_proved(difference):
                reason = f"chance, z = {signed_ranks(difference):.1f}"
            else:
                name, best, lowest = label, candidate, found
            self._kept = best, lowest
            verdicts.append(Verdict(name, means, error, len(difference), reason))
        return best, tuple(verdicts)


def is_proved(differences: np.ndarray) -> bool:
    """Whether paired differences [n] are a gain: on average, and on most samples beyond chance."""
    return bool(differences.mean() < 0 and signed_ranks(differences) < _PROVED)


def signed_ranks(differences: np.ndarray) -> float:
    """Wilcoxon's z of paired differences [n]: negative where most are, the large ones above all; 0 if all are 0."""
    from scipy.stats import wilcoxon  # takes a second to import, and most runs prove nothing

    if not differences.any():
        return 0.0
    return float(wilcoxon(differences, alternative="less", method="asymptotic").zstatistic)
