"""Fake quantization of node features and attention in any ``nn.Module``."""

from lit_gnncompress.quantization.attention import QuantizedAttention, register_attention
from lit_gnncompress.quantization.degrees import DegreeBuckets, in_degrees
from lit_gnncompress.quantization.quantize import Quantization, quantize_, remove_quantization
from lit_gnncompress.quantization.quantizer import Quantizer
from lit_gnncompress.quantization.sites import find_sites

__all__ = [
    "DegreeBuckets",
    "Quantization",
    "QuantizedAttention",
    "Quantizer",
    "find_sites",
    "in_degrees",
    "quantize_",
    "register_attention",
    "remove_quantization",
]
