"""Validation of a kernel's arguments."""


def kernel_assert(condition: bool, error_text: str) -> None:
    """Refuse the kernel's arguments with `error_text` unless `condition` holds."""
    assert condition, f"[NCC_INKI016] Kernel validation exception: {error_text}"


def assert_shape(tensor, expected_shape, tensor_name: str, error_text: str = "") -> None:
    """Refuse `tensor` unless its shape is `expected_shape`."""
    kernel_assert(
        tuple(tensor.shape) == tuple(expected_shape),
        f"{tensor_name} has shape {tuple(tensor.shape)}, expected {tuple(expected_shape)}. {error_text}",
    )
