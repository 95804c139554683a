"""Views of a tensor: slices, permutations, broadcasts and other shapes of it, without a copy.

A view is a shape, a stride for each dimension and an offset, in elements of the tensor's storage;
:meth:`TensorView.get_view` makes the access pattern of them that instructions take. It needs ``NkiTensor.ap``
alone and so works at every API level. (From level 0.5 on tensors have most of these methods themselves.)
"""

import nki.language as nl

from .kernel_assert import kernel_assert
from .kernel_helpers import is_hbm_buffer


class TensorView(nl.NKIObject):
    """A view of a tensor; its methods return new views.

    The partitions of a tensor in SBUF or PSUM stay dimension 0: it can be sliced, and nothing else.

    Args:
        base_tensor: the tensor, or another view of it.

    Attributes:
        base_tensor: the tensor.
        shape: size of each dimension.
        strides: elements from one index to the next, of each dimension; 0 for a broadcast one.
        offset: elements from the start of the storage.
        dtype: of the tensor.
        scalar_offset: the runtime index of :meth:`select`, or None.
        indirect_dim: the dimension of ``base_tensor`` it counts in; None if its stride is of no dimension.
    """

    def __init__(self, base_tensor):
        if isinstance(base_tensor, TensorView):
            self.base_tensor = base_tensor.base_tensor
            self.scalar_offset = base_tensor.scalar_offset
            self.indirect_dim = base_tensor.indirect_dim
            self.indirect_stride = base_tensor.indirect_stride
        else:
            self.base_tensor = base_tensor
            self.scalar_offset = None
            self.indirect_dim = None
            self.indirect_stride = 0
        self.shape = tuple(base_tensor.shape)
        self.strides = tuple(base_tensor.strides)
        self.offset = base_tensor.offset
        self.dtype = base_tensor.dtype

    def get_dim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def is_sbuf(self) -> bool:
        """True for a view of a tensor in SBUF."""
        return self.base_tensor.buffer == nl.sbuf

    def has_dynamic_access(self) -> bool:
        """True if an index of :meth:`select` is known at run time only."""
        return self.scalar_offset is not None

    @staticmethod
    def get_trivial_strides(shape, base_stride: int = 1):
        """The strides of a tensor of `shape` without gaps, its last dimension having `base_stride`."""
        reverse = []
        stride = base_stride
        for i in range(len(shape)):
            reverse.append(stride)
            stride = stride * shape[len(shape) - 1 - i]
        return tuple(reverse[::-1])

    @staticmethod
    def key_in_dict(key, d) -> bool:
        """Whether the dictionary `d` has `key`."""
        return key in d

    @staticmethod
    def validate_permutation(permutation, dim: int, is_sbuf: bool) -> None:
        """Refuse what is not an order of `dim` dimensions, or moves the partitions of an on-chip tensor."""
        kernel_assert(
            len(permutation) == dim, f"permute of {dim} dimensions takes {dim} numbers, got {permutation}"
        )
        for i in range(dim):
            kernel_assert(
                i in permutation, f"permute takes each dimension from 0 to {dim - 1} once, got {permutation}"
            )
        if is_sbuf:
            kernel_assert(
                permutation[0] == 0, f"permute keeps the partitions of SBUF dimension 0, got {permutation}"
            )

    def get_view(self):
        """The tensor that instructions take: ``base_tensor.ap`` with this view's pattern and offset.

        A view of SBUF or PSUM that has lost all free dimensions gets one of size 1.
        """
        pattern = []
        for i in range(len(self.shape)):
            pattern.append([self.strides[i], self.shape[i]])
        least = 2 if self._has_partitions() else 1
        while len(pattern) < least:
            pattern.append([1, 1])
        base = self.base_tensor
        if self.scalar_offset is None:
            return base.ap(pattern=pattern, offset=self.offset)
        dim = self.indirect_dim
        if dim is None:
            base, dim = self._with_dimension_of(self.indirect_stride)
        return base.ap(
            pattern=pattern, offset=self.offset, scalar_offset=self.scalar_offset, indirect_dim=dim
        )

    def slice(self, dim: int, start: int, end: int, step: int = 1):
        """Elements `start`, `start` + `step`, ... before `end` of a dimension; `end` may be past its size."""
        self._check_dim(dim, "slice")
        size = self.shape[dim]
        kernel_assert(step > 0, f"slice takes a step of at least 1, got {step}")
        kernel_assert(
            0 <= start < min(end, size),
            f"slice of dimension {dim} of size {size} takes 0 <= start < end, and start < size; "
            f"got start {start}, end {end}",
        )
        count = (min(end, size) - start + step - 1) // step
        return self._replaced(
            dim, dim + 1, [count], [self.strides[dim] * step], self.offset + start * self.strides[dim]
        )

    def permute(self, dims):
        """The dimensions in another order: dimension ``i`` of the result is dimension ``dims[i]``."""
        TensorView.validate_permutation(dims, self.get_dim(), self._has_partitions())
        shape = []
        strides = []
        for dim in dims:
            shape.append(self.shape[dim])
            strides.append(self.strides[dim])
        return self._as(shape, strides, self.offset)

    def broadcast(self, dim: int, size: int):
        """`size` times the one element of a dimension of size 1."""
        self._check_dim(dim, "broadcast")
        self._check_free(dim, "broadcast")
        kernel_assert(
            self.shape[dim] == 1,
            f"broadcast takes a dimension of size 1; dimension {dim} has {self.shape[dim]}",
        )
        return self._replaced(dim, dim + 1, [size], [0], self.offset)

    def reshape_dim(self, dim: int, shape):
        """A dimension as several; one of the sizes in `shape` may be -1 for what is left."""
        self._check_dim(dim, "reshape_dim")
        if len(shape) != 1:
            self._check_free(dim, "reshape_dim")
        known = 1
        unknown = 0
        for size in shape:
            if size == -1:
                unknown += 1
            else:
                kernel_assert(size > 0, f"reshape_dim takes positive sizes and one -1, got {shape}")
                known = known * size
        kernel_assert(unknown <= 1, f"reshape_dim takes at most one -1, got {shape}")
        total = self.shape[dim]
        kernel_assert(
            total % known == 0 if unknown == 1 else total == known,
            f"reshape_dim: {shape} does not make up the {total} elements of dimension {dim}",
        )
        sizes = []
        for size in shape:
            sizes.append(total // known if size == -1 else size)
        strides = TensorView.get_trivial_strides(sizes, self.strides[dim])
        return self._replaced(dim, dim + 1, sizes, strides, self.offset)

    def flatten_dims(self, start_dim: int, end_dim: int):
        """Dimensions `start_dim` to `end_dim`, both included, as one; there must be no gap between them."""
        self._check_dim(start_dim, "flatten_dims")
        self._check_dim(end_dim, "flatten_dims")
        kernel_assert(
            start_dim <= end_dim, f"flatten_dims takes start_dim <= end_dim, got {start_dim} and {end_dim}"
        )
        if start_dim < end_dim:
            self._check_free(start_dim, "flatten_dims")
        size = 1
        stride = self.strides[end_dim]
        for i in range(end_dim - start_dim + 1):
            dim = end_dim - i
            if self.shape[dim] > 1:
                if size == 1:
                    stride = self.strides[dim]
                kernel_assert(
                    self.strides[dim] == stride * size,
                    f"flatten_dims takes dimensions without gaps; dimension {dim} has stride "
                    f"{self.strides[dim]}, not {stride * size}",
                )
                size = size * self.shape[dim]
        return self._replaced(start_dim, end_dim + 1, [size], [stride], self.offset)

    def expand_dim(self, dim: int):
        """A new dimension of size 1 at position `dim`."""
        kernel_assert(
            0 <= dim <= self.get_dim(),
            f"expand_dim takes a position from 0 to {self.get_dim()}, got {dim}",
        )
        self._check_free(dim, "expand_dim")
        stride = self.shape[dim] * self.strides[dim] if dim < self.get_dim() else 1
        return self._replaced(dim, dim, [1], [stride], self.offset)

    def squeeze_dim(self, dim: int):
        """Without dimension `dim`, which has size 1."""
        self._check_dim(dim, "squeeze_dim")
        self._check_free(dim, "squeeze_dim")
        kernel_assert(
            self.shape[dim] == 1,
            f"squeeze_dim takes a dimension of size 1; dimension {dim} has {self.shape[dim]}",
        )
        return self._replaced(dim, dim + 1, [], [], self.offset)

    def select(self, dim: int, index):
        """Without dimension `dim`, at one index of it.

        Args:
            dim: the dimension.
            index: an int, or an index known at run time: an SBUF tensor of one integer or a register. A
                view has at most one of those.
        """
        self._check_dim(dim, "select")
        self._check_free(dim, "select")
        if isinstance(index, int):
            kernel_assert(
                0 <= index < self.shape[dim],
                f"select from dimension {dim} of size {self.shape[dim]} takes an index below it, got {index}",
            )
            return self._replaced(dim, dim + 1, [], [], self.offset + index * self.strides[dim])
        kernel_assert(not self.has_dynamic_access(), "a view has one run-time index, this one has it already")
        kernel_assert(self.strides[dim] > 0, f"select: dimension {dim} is broadcast, every index is the same")
        selected = self._replaced(dim, dim + 1, [], [], self.offset)
        selected.scalar_offset = index
        selected.indirect_stride = self.strides[dim]
        selected.indirect_dim = self._dimension_of(self.strides[dim])
        if selected.indirect_dim is None:
            self._with_dimension_of(self.strides[dim])  # it can be made one
        return selected

    def rearrange(self, src_pattern, dst_pattern, fixed_sizes=None):
        """Dimensions split, reordered and merged by name.

        ``view.rearrange(("p", ("h", "w"), "c"), ("p", "c", "h", "w"), {"h": 32})``

        Args:
            src_pattern: a name for each dimension, or a tuple of names it is split into.
            dst_pattern: the same names in the order of the result; a tuple of names is merged.
            fixed_sizes: sizes of names; all of a split dimension but one must be known.
        """
        sizes = {} if fixed_sizes is None else fixed_sizes
        kernel_assert(
            len(src_pattern) == self.get_dim(),
            f"rearrange: {src_pattern} names {len(src_pattern)} dimensions of {self.get_dim()}",
        )
        view = self
        names = []
        for item in src_pattern:
            if isinstance(item, str):
                if item in sizes:
                    kernel_assert(
                        view.shape[len(names)] == sizes[item],
                        f"rearrange: {item} has size {view.shape[len(names)]}, not {sizes[item]}",
                    )
                names.append(item)
            else:
                shape = []
                for name in item:
                    shape.append(sizes.get(name, -1))
                view = view.reshape_dim(len(names), tuple(shape))
                for name in item:
                    names.append(name)
        order = []
        for item in dst_pattern:
            for name in (item,) if isinstance(item, str) else item:
                kernel_assert(name in names, f"rearrange: {name} is not in {src_pattern}")
                order.append(names.index(name))
        view = view.permute(tuple(order))
        for i in range(len(dst_pattern)):
            if not isinstance(dst_pattern[i], str):
                view = view.flatten_dims(i, i + len(dst_pattern[i]) - 1)
        return view

    def reshape(self, new_shape):
        """Refused: a view in general cannot have any other shape; split and merge single dimensions."""
        kernel_assert(
            False, f"TensorView.reshape to {new_shape} is not supported; write reshape_dim or flatten_dims"
        )

    def _as(self, shape, strides, offset: int):
        """A view of the same tensor, with the same runtime index."""
        view = TensorView(self)
        view.shape = tuple(shape)
        view.strides = tuple(strides)
        view.offset = offset
        return view

    def _replaced(self, start: int, end: int, sizes, steps, offset: int):
        """A view with dimensions of these sizes and strides in place of `start` to before `end`."""
        return self._as(
            self.shape[:start] + tuple(sizes) + self.shape[end:],
            self.strides[:start] + tuple(steps) + self.strides[end:],
            offset,
        )

    def _has_partitions(self) -> bool:
        return not is_hbm_buffer(self.base_tensor)

    def _check_dim(self, dim: int, method: str) -> None:
        kernel_assert(
            0 <= dim < self.get_dim(),
            f"{method} takes a dimension from 0 to {self.get_dim() - 1}, got {dim}",
        )

    def _check_free(self, dim: int, method: str) -> None:
        kernel_assert(
            dim != 0 or not self._has_partitions(),
            f"{method} takes no dimension 0 of an on-chip tensor: it is the partitions",
        )

    def _dimension_of(self, stride: int):
        """The dimension of the tensor that has this stride in its shape, or None."""
        counted = TensorView.get_trivial_strides(self.base_tensor.shape)
        for dim in range(1 if self._has_partitions() else 0, len(counted)):
            if counted[dim] == stride:
                return dim
        return None

    def _with_dimension_of(self, stride: int):
        """The tensor in a shape that has a dimension of this stride, and that dimension."""
        first = 1 if self._has_partitions() else 0
        total = 1
        for size in self.base_tensor.shape[first:]:
            total = total * size
        kernel_assert(
            total % stride == 0,
            f"select with a runtime index takes a dimension whose stride divides the {total} elements of the "
            f"tensor, got stride {stride}",
        )
        shape = tuple(self.base_tensor.shape[:first]) + (total // stride, stride)
        return self.base_tensor.reshape(shape), first
