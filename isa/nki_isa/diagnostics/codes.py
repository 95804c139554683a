"""The table of diagnostic codes: one row each, never reused, never renumbered.

The letter is the category: L language, V validation, C compiler, M memory, H hazard,
N numeric, U unsupported, I internal.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Category(enum.Enum):
    """Whose fault a diagnostic is, as a closed list."""

    language = "language"
    validation = "validation"
    compiler = "compiler"
    memory = "memory"
    hazard = "hazard"
    numeric = "numeric"
    unsupported = "unsupported"
    internal = "internal"


_LETTERS = {
    "L": Category.language,
    "V": Category.validation,
    "C": Category.compiler,
    "M": Category.memory,
    "H": Category.hazard,
    "N": Category.numeric,
    "U": Category.unsupported,
    "I": Category.internal,
}


@dataclass(frozen=True, slots=True)
class Code:
    """A row: the code, a short title, and the rule in one sentence."""

    code: str
    title: str
    rule: str

    @property
    def category(self) -> Category:
        """The category its letter stands for."""
        return _LETTERS[self.code.split("-")[1][0]]


_ROWS = (
    # --- language: lexing and parsing
    Code("NKI-L001", "unreadable character", "Source text must consist of the tokens of the NKI language."),
    Code("NKI-L002", "bad indentation", "A block must be indented by one consistent step and dedent to an open level."),
    Code("NKI-L003", "unmatched bracket", "Every opening bracket must be closed by its own kind."),
    Code("NKI-L004", "syntax error", "Source text must follow the grammar of the NKI language."),
    Code("NKI-L005", "not taken by the parser front end", "For the parser front end (levels 0.2 to 0.6) a kernel must keep to a constrained Python; what is outside of it is right Python still."),
    Code("NKI-L006", "bad assignment target", "Only names, attributes, subscripts and tuples of them may be assigned to."),
    Code("NKI-L007", "string without an end", "A string must be closed by the quotes that opened it."),
    Code("NKI-L008", "malformed literal", "A number, or an escape in a string, must be written as Python writes it."),
    # --- language: names and calls
    Code("NKI-L010", "unknown name", "A name must be a parameter, a local, a module global or a supported built-in."),
    Code("NKI-L011", "unknown attribute of an nki module", "Only names that the nki API has may be used."),
    Code("NKI-L012", "wrong arguments of a call", "A call must give each parameter once, and no argument the callee lacks."),
    Code("NKI-L013", "no source for a function", "What a kernel reaches by name must have source text to be compiled from."),
    Code("NKI-L014", "statement outside its place", "break and continue may stand in loops only, return in functions only."),
    Code("NKI-L015", "API of the Beta 1 language", "Names of Beta 1, which were removed, must be replaced by those of Beta 2."),
    Code("NKI-L016", "local read before assignment", "A local name must be assigned before it is read."),
    # --- language: specialization
    Code("NKI-L020", "assertion failed", "An assert in a kernel must hold for the shapes and scalars given."),
    Code("NKI-L021", "error while specializing", "Meta-code must evaluate without an error."),
    Code("NKI-L022", "device value used at compile time", "Meta-code must not depend on tensor contents or registers, which are unknown at specialization."),
    Code("NKI-L023", "not a kernel", "Only functions decorated with @nki.jit may be launched."),
    Code("NKI-L024", "unsupported kernel argument", "A kernel may take arrays, scalars, strings, None and containers of them."),
    Code("NKI-L025", "bad return value", "A kernel may return HBM tensors, and tuples and lists of them."),
    Code("NKI-L026", "file not found", "FILE must exist and be Python source."),
    Code("NKI-L027", "kernel not called", "A file given to run, profile, ir or sbuf must call a kernel; check names those it does not call."),
    Code("NKI-L028", "malformed IR text", "IR text must follow the grammar that `nki-sim ir` prints."),
    Code("NKI-L029", "called outside a kernel", "Device operations must be written inside a function that nki.jit compiles."),
    # --- language: scheduling
    Code("NKI-L040", "unknown name in a schedule", "A schedule must name instructions by the name= they were given."),
    Code("NKI-L041", "ambiguous name in a schedule", "Each name in a schedule must match exactly one instruction."),
    Code("NKI-L042", "dependency cycle", "No instruction may run after itself, through others or through data."),
    Code("NKI-L043", "dependency across a device loop", "The consumer must be in every device loop that encloses its producer."),
    Code("NKI-L044", "device loop in a no_reorder block", "A no_reorder block may hold straight-line instructions only."),
    Code("NKI-L045", "malformed schedule", "A schedule must be a list of pairs (consumer, producers) of instruction names."),
    # --- language: levels of the API, annotations, kept programs
    Code("NKI-L050", "name of another API level", "A kernel may use only the names and parameters of the API level in force."),
    Code("NKI-L051", "no such API level", "The API levels are 0.2 to 0.7."),
    Code("NKI-L052", "bad shape annotation", "nt.tensor[...] must be given sizes of at least 1."),
    Code("NKI-L053", "shape differs from its annotation", "An argument must have the shape its parameter is annotated with."),
    Code("NKI-L054", "global changed after a call", "Kernels must be pure: what a kernel read from its module must stay as it was."),
    Code("NKI-L055", "read-only argument written", "An argument that a kernel writes must be an array that can change in place."),
    Code("NKI-L056", "deprecated name", "A name that a later level will lack should give way to the one that replaces it."),
    Code("NKI-L058", "worker lost", "A process that ranks or points of a sweep run on must live until they are done."),
    Code("NKI-L057", "traced kernel", "A kernel that needs more than the constrained language must be traced: Python runs it, each NKI call is recorded."),
    # --- language: the command
    Code("NKI-L030", "script stopped by placeholder outputs", "Where arithmetic is left out, kernels return zeros."),
    Code("NKI-L031", "Python error in the script", "A script given to nki-sim must run without an error of its own."),
    Code("NKI-L032", "unknown name", "The name must be one that nki-sim lists."),
    Code("NKI-L033", "cannot write a file", "A report must go to a place that can be written."),
    Code("NKI-L034", "missing package", "What a command needs beyond the base must be installed with an extra."),
    Code("NKI-L035", "kernel without end", "The loops, calls and instructions of a kernel must end within a limit of steps."),
    # --- validation: making tensors
    Code("NKI-V120", "bad shape", "A tensor must have sizes of at least 1, and on chip a partition and a free dimension."),
    Code("NKI-V121", "not a dtype", "A tensor must have one of the NeuronCore's data types."),
    Code("NKI-V122", "not a memory region", "A tensor must be in SBUF, PSUM, private HBM or shared HBM."),
    Code("NKI-V124", "bad loop bound", "A device loop must have int or register bounds and a positive constant step."),
    Code("NKI-V123", "bad address", "An explicit address must be (partition, byte) on chip, and from 0.7 on (byte,) in HBM."),
    # --- validation: tensors and views
    Code("NKI-V010", "index out of range", "An index must name a position that the dimension has."),
    Code("NKI-V011", "wrong number of indices", "A key may have at most one index per dimension and one Ellipsis."),
    Code("NKI-V012", "unsupported index", "A key may consist of integers, slices, Ellipsis and nl.ds."),
    Code("NKI-V013", "empty or backward slice", "A slice must take at least one element, with a step of at least 1."),
    Code("NKI-V014", "no such dimension", "A dimension must be numbered from 0 to ndim - 1."),
    Code("NKI-V015", "partition dimension changed", "Dimension 0 of an SBUF or PSUM tensor must stay the partitions."),
    Code("NKI-V016", "dimension is not of size 1", "Only a dimension of size 1 may be broadcast or squeezed."),
    Code("NKI-V017", "not a permutation", "permute must name each dimension of the tensor once."),
    Code("NKI-V018", "element count changed", "A reshape must keep the number of elements."),
    Code("NKI-V019", "layout needs a copy", "Dimensions may merge only where they are contiguous in memory."),
    Code("NKI-V020", "bytes do not divide", "Reinterpreted bytes must divide into whole elements of the new data type."),
    Code("NKI-V021", "malformed access pattern", "A pattern must be a list of [stride >= 0, count >= 1] pairs."),
    Code("NKI-V022", "wrong partition stride", "On chip, the first stride of a pattern must be the elements of one partition."),
    Code("NKI-V023", "pattern outside the storage", "Every element of a pattern must lie in the storage it addresses."),
    Code("NKI-V024", "already indirect", "A view may carry one run-time offset."),
    Code("NKI-V025", "indirect dimension changed", "A dimension that a run-time index addresses must stay as it is."),
    Code("NKI-V026", "bad run-time index", "A run-time index must be a register or an SBUF tensor of integers."),
    Code("NKI-V027", "run-time index not possible here", "Each form of run-time addressing may be used only on the memories it works on."),
    Code("NKI-V028", "bad rearrange pattern", "Both patterns must name the same dimensions, each once."),
    Code("NKI-V029", "assignment to a tensor", "Tensors must be written by instructions."),
    Code("NKI-V030", "operator on a tensor", "Tensors must be computed with by instructions."),
    Code("NKI-V031", "tensor contents at compile time", "Meta-code may use a tensor's shape, not its elements."),
    Code("NKI-V032", "not a data type", "A data type must be one of the NKI data types."),
    Code("NKI-V033", "too few dimensions", "SBUF and PSUM tensors must have at least 2 dimensions, HBM tensors 1."),
    # --- validation: instructions
    Code("NKI-V100", "wrong kind of operand", "Each operand of an instruction must be a tensor, a scalar or a value as documented."),
    Code("NKI-V101", "wrong memory", "Each operand must be in a memory its engine can reach."),
    Code("NKI-V102", "too many partitions", "A tile may span at most the 128 partitions of SBUF and PSUM."),
    Code("NKI-V103", "operand sizes differ", "Operands of one instruction must agree in partitions and free sizes as documented."),
    Code("NKI-V104", "free size over the limit", "The free size of an operand must stay within the instruction's limit."),
    Code("NKI-V105", "unsupported data type", "An operand must have one of the data types its instruction supports."),
    Code("NKI-V106", "unsupported engine", "An instruction must run on an engine that implements it."),
    Code("NKI-V107", "unsupported operator", "An instruction may take only the operators its engine implements."),
    Code("NKI-V108", "not on this generation", "An instruction or mode may be used only on the generations that have its hardware."),
    Code("NKI-V109", "bad scalar operand", "A scalar operand must be an immediate or one fp32 value per partition."),
    Code("NKI-V110", "bad start partition", "An access must start at partition 0, 32, 64 or 96, by its partition count."),
    Code("NKI-V111", "bad attribute value", "A compile-time attribute must have one of its documented values."),
    Code("NKI-V112", "too many dimensions", "An access pattern may have at most the dimensions the instruction encodes."),
    Code("NKI-V113", "attributes that exclude each other", "Options of one instruction must combine as documented."),
    Code("NKI-V114", "misaligned access", "An access must start at the alignment its memory requires."),
    Code("NKI-V115", "strided partitions", "An access on chip must span consecutive partitions, each once."),
    Code("NKI-V116", "unknown target", "A target must be one of the generations that `nki-sim targets` lists."),
    # --- compiler: what compilers and devices were seen to refuse (nki_isa/rules has the evidence)
    Code("NKI-C001", "reshaped slice of one partition", "A part of a one-partition tile must be used in the shape it was sliced in."),
    Code("NKI-C002", "small tile of the array", "On trn1 a matmul should have more than 32 rows or 32 stationary columns."),
    Code("NKI-C003", "bias tile of a copying activation", "On trn1 the bias of an activation with the function copy must be a number."),
    Code("NKI-C004", "tfloat32 in the tensor engine", "The operands of a matmul must have a data type that the newest compiler takes."),
    Code("NKI-C005", "integers in tensor_scalar_reduce", "The data and the sums of tensor_scalar_reduce must be floats."),
    Code("NKI-C006", "bitvec result of another data type", "The result of a bitvec operator must have the data type of its data."),
    Code("NKI-C007", "tensor_tensor on gpsimd of trn1", "On trn1 tensor_tensor of floats should run on the vector engine."),
    Code("NKI-C008", "DMA transpose off its alignment", "The rows that a DMA transpose writes must start at multiples of 32 bytes."),
    Code("NKI-C009", "run-time offset of a compute operand", "Only DMA may access SBUF at addresses that are known at run time."),
    Code("NKI-C010", "skipping DMA in a device loop", "A DMA that may skip must stand outside of loops that run on the device."),
    Code("NKI-C011", "PSUM result off its alignment", "What the tensor engine writes to PSUM must start at a multiple of 4 bytes."),
    Code("NKI-C012", "addresses beside automatic placement", "All tensors in SBUF should have addresses, or none."),
    Code("NKI-C013", "pair stride of a double row", "The two halves of a moving double row should be a multiple of 16 bytes apart."),
    Code("NKI-C014", "nested device loops", "A loop that runs on the device should hold no other such loop."),
    Code("NKI-C015", "data type of numpy", "Kernels should name data types of nki.language."),
    Code("NKI-C016", "four dimensions in affine_select", "The tiles of affine_select should have at most three dimensions."),
    Code("NKI-C017", "name given twice", "Each name= of an instruction or a tensor should be given once in a kernel."),
    Code("NKI-C018", "barrier on a single core", "core_barrier must stand in kernels that run on two cores."),
    Code("NKI-C019", "argument of a data type hardware lacks", "Arguments must have data types that the generation has."),
    Code("NKI-C020", "more instructions than a program may have", "A compiled program may have at most five million instructions."),
    Code("NKI-C021", "many activation tables", "A kernel should use functions of at most eight activation tables."),
    Code("NKI-C022", "mutable argument never written", "A kernel must store to each argument that it declares as mutable."),
    Code("NKI-C023", "collective on an argument or a result", "A collective must read and write tensors of the kernel's own, not its arguments or results."),
    Code("NKI-C024", "collective on a tensor without a name", "Tensors in HBM that collectives use should be allocated with name=."),
    Code("NKI-C025", "collective on one of two cores", "A kernel with collectives should be launched on all cores of a logical core."),
    Code("NKI-C026", "collective in a device loop", "A collective should stand outside of loops that run on the device."),
    Code("NKI-C027", "group that all_to_all was refused for", "A group of an all_to_all should be one that was seen to run: on trn1 2, 4 or 8 ranks of four chips or all 32, elsewhere one without gaps."),
    Code("NKI-C028", "slots of an all_to_all_v", "Without displacements the destination of an all_to_all_v should have the elements of its source times the ranks."),
    Code("NKI-C029", "all_to_all_v in a server", "Up to NKI 0.6, and without switches, each rank of an all_to_all_v must be of another server."),
    Code("NKI-C030", "sizes known at run time on one of two cores", "A collective of sizes known at run time must be launched on all cores of a logical core."),
    # --- unsupported
    Code("NKI-U001", "too many cores", "A launch must fit the cores of one logical core: one, or two from trn2 on."),
    Code("NKI-V130", "accumulation without a start", "A matmul may accumulate only onto PSUM that a matmul has overwritten before."),
    # --- validation: functions of nki.language
    Code("NKI-V140", "no instruction for a function", "A function of nki.language must compile to instructions the hardware has."),
    Code("NKI-V142", "bad replica group", "A ReplicaGroup must be a list of lists of ranks, each rank in one of them."),
    Code("NKI-V141", "dimensions not reducible", "Reductions may take the last dimensions only, without the partitions."),
    Code("NKI-V131", "part of an accumulation", "What a matmul overwrites must be known when it is compiled."),
    Code("NKI-V132", "overwritten on every turn", "A matmul in a device loop must overwrite, or accumulate, on every turn alike."),
    Code("NKI-V133", "tensor of a loop used outside", "A tensor allocated in the body function of a device loop may be used in that body only."),
    # --- validation: tile grids, scalars, configuration
    Code("NKI-V150", "bad tile shape", "A tile shape must be a tuple of positive ints, two or more, for the last dimensions."),
    Code("NKI-V151", "bad index of a grid", "A grid must be indexed with an int or a slice for each of its coordinates."),
    Code("NKI-V152", "no one access pattern", "A selection may give .data only where one access pattern describes all of it."),
    Code("NKI-V153", "bad scalar operation", "A scalar may be computed with an int or a scalar of its own width."),
    Code("NKI-V154", "bad configuration", "A configuration must have the documented fields, each of its kind."),
    Code("NKI-V155", "preparation without its trigger", "One trigger must follow each preparation of a collective, with no other preparation between them."),
    # --- hazards while running
    Code("NKI-H001", "run-time index out of bounds", "A run-time index must stay inside the dimension it indexes."),
    Code("NKI-H002", "read of unwritten bytes", "What a result depends on must have been written to the tensor it is read from."),
    Code("NKI-H003", "tensor overwritten while needed", "Tensors that share bytes must not be needed at the same time."),
    Code("NKI-H004", "unordered accesses to shared bytes", "Accesses to shared bytes of two tensors must be ordered by dependencies."),
    Code("NKI-H005", "instruction reads its own output", "A destination may overlap a source only where it was read before."),
    Code("NKI-H006", "accumulation onto bytes no matmul wrote", "A matmul must accumulate onto bytes that a matmul wrote."),
    Code("NKI-H007", "accumulation goes on after a read", "A result in PSUM must be read only when its accumulation is complete."),
    Code("NKI-H008", "interleaved accumulations in one PSUM bank", "A PSUM bank may hold one accumulation at a time."),
    Code("NKI-H009", "output not wholly written", "Every element of a returned tensor must be written."),
    Code("NKI-H010", "result never used", "What an instruction writes should be read or returned."),
    Code("NKI-H011", "input overwritten", "A kernel that updates an argument in place should return it."),
    Code("NKI-H012", "row scattered to twice", "The indices of a scatter must name each row once."),
    Code("NKI-H013", "read of a register that was not set", "A register must be set, and an accumulator register reset, before it is read."),
    Code("NKI-H014", "device loop without end", "The loops on the device must end within a limit of turns."),
    # --- hazard: several cores
    Code("NKI-H020", "cores wait for each other", "Every core must reach the meetings that another core waits in."),
    Code("NKI-H021", "race between cores", "If one core writes bytes another accesses, a barrier must order them."),
    Code("NKI-H022", "shared tensors differ", "All cores of a launch must allocate the same shared tensors in the same order."),
    Code("NKI-H023", "cores do the same work", "Each core of a launch should write its own part of a result."),
    Code("NKI-H024", "received while still in use", "Ranks must have met since each has used what an all_to_all brought, before the next one into the same tensor."),
    # --- numerics
    Code("NKI-N001", "transpose with a non-permutation matrix", "The moving operand of a transpose must be a permutation of the identity."),
    Code("NKI-N002", "NaN or infinity appears", "Finite inputs should give finite results."),
    Code("NKI-N003", "argument out of range", "Arguments of an activation function must be in its valid range."),
    # --- not modelled
    Code("NKI-U010", "form of an instruction not modelled", "What is not modelled is refused, not guessed."),
    Code("NKI-U012", "ranks that the launch does not have", "Every rank of a launch must be in a group of each collective, and a group may name no other rank."),
    Code("NKI-U014", "logical cores do not match", "A launch must have the cores that NEURON_LOGICAL_NC_CONFIG says."),
    Code("NKI-U013", "not possible in high-precision mode", "With NKI_PRECISE_FP=0, bytes of a low-precision tensor cannot be reinterpreted."),
    Code("NKI-U011", "part of the API not modelled", "What is not modelled is refused, not guessed."),
    # --- mistakes of this project
    Code("NKI-I001", "inconsistent placement", "Every on-chip storage has a place inside its memory."),
    Code("NKI-I002", "unexpected failure of an instruction", "A checked instruction computes without a host error."),
    Code("NKI-I003", "value without a text form", "Every value an instruction holds can be printed as IR text."),
    Code("NKI-I004", "unexpected failure of nki-sim", "A kernel runs, or a diagnostic of its own refuses it."),
    # --- memory
    Code("NKI-M001", "SBUF over capacity", "What is live at once must fit the usable bytes of an SBUF partition."),
    Code("NKI-M002", "PSUM over capacity", "What is live at once must fit the banks of a PSUM partition."),
    Code("NKI-M003", "tensor larger than its memory", "One tensor must fit the bytes of a partition, all in HBM the HBM."),
    Code("NKI-M004", "address outside its memory", "An explicit address must be inside its memory, in PSUM at a bank."),
    Code("NKI-M006", "fits only after reordering", "What is live at once should fit in the order the kernel states."),
    Code("NKI-M007", "fits only with partition sharing", "Each tensor that is live at once should fit with bytes of its own."),
    Code("NKI-M005", "too many open accumulations", "Matmuls may accumulate into one tensor per PSUM bank at a time."),
    Code("NKI-M009", "fits only with spills", "What is live at once should fit SBUF without going to HBM and back."),
    Code("NKI-M008", "launch over the host's memory", "All tensors of a launch must fit the memory of the host."),
)

CODES: dict[str, Code] = {row.code: row for row in _ROWS}
if len(CODES) != len(_ROWS):
    raise RuntimeError("a diagnostic code stands in two rows of the table")
