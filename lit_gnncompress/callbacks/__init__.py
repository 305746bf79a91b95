"""Lightning callbacks: all that knows Lightning's hooks."""

from lit_gnncompress.callbacks.bit_search import BitSearch
from lit_gnncompress.callbacks.compress_activations import CompressActivations
from lit_gnncompress.callbacks.finetune import QuantizationFinetuning
from lit_gnncompress.callbacks.quantize import Quantize
from lit_gnncompress.callbacks.tensorize import Tensorize

__all__ = ["BitSearch", "CompressActivations", "QuantizationFinetuning", "Quantize", "Tensorize"]
