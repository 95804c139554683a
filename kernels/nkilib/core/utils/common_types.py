"""The enumerations that several kernels take as options."""

from enum import Enum


class QKVOutputLayout(Enum):
    """Layout of the result of the QKV projection; I is all heads of q, k and v times d_head."""

    BSD = 0  # [B, S, I]
    NBSd = 1  # [heads, B, S, d_head]
    NBdS = 2  # [heads, B, d_head, S]


class NormType(Enum):
    """Normalization fused into a kernel."""

    NO_NORM = 0
    RMS_NORM = 1
    LAYER_NORM = 2
    RMS_NORM_SKIP_GAMMA = 3  # the weights are part of the next projection


class ActFnType(Enum):
    """Activation function of an MLP; :func:`.kernel_helpers.get_nl_act_fn_from_type` gives the engine's."""

    SiLU = 0
    GELU = 1
    GELU_Tanh_Approx = 2
    Swish = 3  # x * sigmoid(1.702 x)


class RouterActFnType(Enum):
    """Activation function of a router's logits."""

    SIGMOID = 0
    SOFTMAX = 1

    def __str__(self) -> str:
        return self.name.lower()


class ExpertAffinityScaleMode(Enum):
    """Where an expert's affinity multiplies: the expert's output, or its input."""

    NO_SCALE = 0
    POST_SCALE = 1
    PRE_SCALE = 2
    PRE_SCALE_DELAYED = 3


class QuantizationType(Enum):
    """How weights are quantized."""

    NONE = 0
    STATIC = 1  # one scale for a tensor
    ROW = 2  # one scale for each row of values, or output column of weights
    MX = 3  # microscaling: one e8m0 scale for each block of 32 elements


class GateUpDim(Enum):
    """Index of the gate and up projections in a tensor that holds both."""

    GATE = 0
    UP = 1
