"""RMSNorm with quantization to fp8."""
