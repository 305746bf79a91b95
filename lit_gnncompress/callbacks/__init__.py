"""Lightning callbacks: all that knows Lightning's hooks."""

from lit_gnncompress.callbacks.finetune import QuantizationFinetuning
from lit_gnncompress.callbacks.quantize import Quantize

__all__ = ["QuantizationFinetuning", "Quantize"]
