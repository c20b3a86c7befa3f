"""Precision of encoders; known to configurations, which need no tensors."""

from enum import StrEnum


class EncoderDtype(StrEnum):
    """Precision of weights and passes; vectors are compared in float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
