"""One loaded recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class AudioClip:
    """A recording of one channel.

    Attributes:
        samples: float32, `(num_samples,)`, about -1..1.
        sampling_rate: Samples in a second.
    """

    samples: NDArray[np.float32]
    sampling_rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.sampling_rate

    def resampled(self, sampling_rate: int) -> AudioClip:
        """The same sound at another rate; at least one sample."""
        if sampling_rate == self.sampling_rate:
            return self
        import soxr

        samples: Any = soxr.resample(self.samples, self.sampling_rate, sampling_rate)
        if not len(samples):
            samples = self.samples[:1]
        return AudioClip(np.ascontiguousarray(samples, dtype=np.float32), sampling_rate)
