"""What a teacher would say about a network before it trains: one rule per mistake that students make."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn

from lab.judging.calls import Call, Trace, describe, is_layer_of_torch, kind_of
from models import CLASSES, Layer, LayerTable

BUDGET = 8_000  # a network has fewer parameters than this
DIGIT = 20  # side of the square that MNIST's digits fill, in pixels
POOL_AT = 5  # the receptive field, in pixels, that sees a pen stroke with both edges: step 2, section 3
SKELETON = 5  # convolutions of Model_1 before its readout; Model_2's capacity layer is one more
FAINT = 1e-3  # the share of their size by which logits differ at least; in the lesson's networks, it is several percent

DROPOUTS = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"}
ACTIVATIONS = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "glu"),
    *("sigmoid", "tanh", "hardtanh", "hardsigmoid", "hardswish", "softplus", "softsign", "logsigmoid"),
    *("tanhshrink", "softshrink", "hardshrink", "threshold"),
}
RESHAPES = {
    *("flatten", "view", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "contiguous", "getitem", "get"),
    *("movedim", "unflatten", "clone", "to", "float", "double"),
}
NORMS = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"}
SOFTMAX = {"softmax", "softmin", "gumbel_softmax"}
LOWEST_LOSS = math.log(1 + (CLASSES - 1) / math.e)  # cross-entropy of a 1 for the right class and 0 for the others
AVERAGES = {"mean", "sum", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"}
MAXIMA = {"max_pool2d", "adaptive_max_pool2d", "amax", "max"}
ARITHMETIC = {"add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "div", "truediv"}
# between two convolutions, these leave the pair one linear function
LINEAR = RESHAPES | AVERAGES | DROPOUTS | ARITHMETIC | {"batch_norm", "pad", "constant_pad_nd"}


# A mistake: the network does not do what its author wants, whatever that is. Advice: its size, or what it lacks, may cost
# accuracy or parameters, and its author may have decided so. A note: nothing needs to be changed.
Kind = Literal["mistake", "advice", "note"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order in which they are shown


class Finding(NamedTuple):
    """A mistake, advice, or something worth knowing.

    rule:    its short name, the same in every version: "budget", "field"
    what:    what is so, and what to do about it
    where:   the layer or line: "fc1 (Linear)"; "" where it is the whole network
    section: which section of the lesson explains it: "Step 1, section 3"; "" if none does
    kind:    see `Kind`
    """

    rule: str
    what: str
    where: str
    section: str
    kind: Kind = "mistake"


@dataclass(frozen=True)
class Seen:
    """A network, and what it did when it was tried out.

    network:     with the weights of seed 0
    parameters:  trainable ones
    table:       None if it cannot be computed
    trained:     a pass in training mode; evaluated: one in evaluation mode
    untrained:   parameters that get no gradient
    nan_gradients: parameters whose gradient is not finite
    repeated:    the logits of a second pass in evaluation mode
    few:         the logits of the first three images alone, as `repeated` should have them
    single:      the shape of the output for one image; None if the network raises
    changed:     parts of the state that a pass in evaluation mode changes
    seeds:       what is wrong with the weights of other seeds: a sentence; "" if nothing
    printed_at:  the place at which `forward` prints; None if it does not
    heard:       warnings of Python's, each with its place
    """

    network: nn.Module
    parameters: int
    table: LayerTable | None
    trained: Trace
    evaluated: Trace
    untrained: Sequence[str]
    nan_gradients: Sequence[str]
    repeated: Tensor
    few: Tensor
    single: tuple[int, ...] | None
    changed: Sequence[str]
    seeds: str
    printed_at: str | None
    heard: Sequence[tuple[str, str]]

    @cached_property
    def pooled_early(self) -> tuple[int, str] | None:
        """The receptive field that the first pooling pools at, and its place, if it is too small; else None."""
        return _pooled_early(self)


def findings(seen: Seen) -> list[Finding]:
    """What all rules find: mistakes, then advice, then notes. A network so unusual that a rule fails on it is spared that rule."""
    found: list[Finding] = []
    for rule in RULES:
        try:
            found += rule(seen)
        except Exception as error:  # noqa: BLE001 (no reason to refuse a network that can be trained)
            what = f"The rule {rule.__name__} cannot be applied to this network: {type(error).__name__}."
            found.append(Finding("not_applied", what, "", "", "note"))
    return sorted(found, key=lambda finding: KINDS.index(finding.kind))


# ---------------------------------------------------------------------------------------------------------------------
# Size and receptive field
# ---------------------------------------------------------------------------------------------------------------------


def over_budget(seen: Seen) -> Iterator[Finding]:
    """As many parameters as the budget, or more."""
    if seen.parameters >= BUDGET:
        what = f"The network has {seen.parameters:,} parameters. The budget is fewer than {BUDGET:,}."
        yield Finding("budget", what, "", "Step 1, section 3", "advice")


def heavy_layer(seen: Seen) -> Iterator[Finding]:
    """One layer with more than half of the parameters."""
    sizes: Counter[str] = Counter()
    for name, parameter in seen.network.named_parameters():
        owner = name.rpartition(".")[0].partition(".parametrizations")[0]
        sizes[owner] += parameter.numel() * parameter.requires_grad
    owner, size = max(sizes.items(), key=lambda pair: pair[1], default=("", 0))
    if 2 * size <= seen.parameters or len([1 for other in sizes.values() if other]) < 2:
        return
    what = f"{size:,} of {seen.parameters:,} parameters are in one layer."
    section = "Step 1, section 3"
    sources = [source for call in seen.trained.calls if call.layer == owner and (source := positions_of(call))]
    if sources and sources[0].name == "images":
        what += " It has its own weights for each pixel; a convolution uses the same few everywhere."
    elif sources:
        what += (
            " It weighs each position of the map; global average pooling would leave one number per channel to weigh."
        )
        section = "Step 1, exercise 1c"
    yield Finding("one_layer", what, name_of(seen.network, owner), section, "advice")


def name_of(network: nn.Module, owner: str) -> str:
    """A module by its qualified name and class: "fc1 (Linear)"; "" for the network itself."""
    return describe(owner, kind_of(dict(network.named_modules())[owner])) if owner else ""


def positions_of(call: Call) -> Call | None:
    """The maps (or images) of which a layer has a weight for each position, be they flattened or not; None for others."""
    if not call.has_weights or len(call.inputs) != 1:
        return None
    (source,) = call.inputs
    if call.name == "conv2d":
        return source if call.side == 1 < source.side else None
    if len(source.shape) == 4:
        return None  # a linear layer on rows of pixels
    while len(source.shape) != 4 and len(source.inputs) == 1 and not source.has_weights:
        (before,) = source.inputs
        if math.prod(before.shape) != math.prod(source.shape):
            return None
        source = before
    return source if source.side > 1 else None


def last_map(table: LayerTable | None) -> Layer | None:
    """The row of the last map before global pooling or the readout; None where there is none.

    Of several branches, it is in the one that sees most.
    """
    maps = [row for row in table or () if len(row.output_shape) == 3 and row.output_shape[-1] > 1]
    last = max(reversed(maps), key=lambda row: row.receptive_field, default=None)
    return last if last and last.receptive_field > 1 else None


def global_average(trace: Trace) -> Call | None:
    """The call that averages the last maps over all positions; None if there is none."""
    for call in reversed(trace.calls):
        if call.name in AVERAGES and _averages_all(call):
            return None if _leads_to_maps(call) else call
    return None


def _averages_all(call: Call) -> bool:
    source = call
    while len(source.inputs) == 1:
        (source,) = source.inputs
        if source.side > 1:
            return math.prod(call.shape) == math.prod(source.shape[:2])
        if source.name not in RESHAPES | AVERAGES:
            return False
    return False


def _leads_to_maps(call: Call) -> bool:
    """Whether later maps are computed from it, as in a squeeze-and-excitation block."""
    waiting, known = [*call.readers], set()
    while waiting:
        reader = waiting.pop()
        if reader.side > 1:
            return True
        if reader not in known:
            known.add(reader)
            waiting += reader.readers
    return False


def small_field(seen: Seen) -> Iterator[Finding]:
    """Features that never see a whole digit, and a readout that only adds them up."""
    row = last_map(seen.table)
    if row is None or row.receptive_field >= DIGIT:
        return
    field = row.receptive_field
    end = tail(seen.trained)
    readout = end[0].inputs[0] if end else seen.trained.last
    what = f"Each position of the maps sees at most {field} x {field} pixels, and a digit fills {DIGIT} x {DIGIT}."
    if global_average(seen.trained):
        what += " The average over positions adds up parts, and forgets where they were."
    elif readout and positions_of(readout):
        what += " The readout only adds up what these parts say."
    else:
        return  # hidden units see all positions
    or_pool = "" if seen.pooled_early else ", or pool earlier"
    yield Finding("field", f"{what} Add convolutions{or_pool}.", "", "Step 1, section 3", "advice")


def no_normalization(seen: Seen) -> Iterator[Finding]:
    """Several layers with weights, and nothing that keeps their outputs in range."""
    weighted = {call.layer for call in seen.trained.calls if call.has_weights and call.name not in NORMS}
    if len(weighted) > 2 and not seen.trained.named(*NORMS):
        what = (
            "Nothing normalizes what the layers compute. At Step 3's rate of 0.2, such a network may learn nothing: put"
            " batch norm after each convolution, or lower learning_rate to a tenth."
        )
        yield Finding("no_batch_norm", what, "", "Step 1, section 9", "advice")


def early_pooling(seen: Seen) -> Iterator[Finding]:
    """A first pooling of maps whose positions do not yet see a pen stroke."""
    if seen.pooled_early:
        field, where = seen.pooled_early
        sees = f"at a receptive field of {field} pixels" if field > 1 else "before any convolution"
        what = (
            f"The maps are pooled {sees}. A field of {POOL_AT} sees a pen stroke with both edges: find strokes first,"
            " then forget where they were. Step 3, section 10 measures what pooling earlier costs."
        )
        yield Finding("early_pooling", what, where, "Step 2, section 3", "advice")


def _pooled_early(seen: Seen) -> tuple[int, str] | None:
    pools = [row for row in seen.table or () if "pool" in row.name.lower() and row.kernel]
    calls = [call for call in seen.evaluated.calls if "pool" in call.name]
    for i, row in enumerate(pools):
        if (row.stride or 1) > 1 and len(row.output_shape) == 3 and row.output_shape[-1] > 1:  # the first that shrinks
            pixels = row.receptive_field - ((row.kernel or 1) - 1) * (row.jump // (row.stride or 1))  # of what it pools
            return (pixels, calls[i].where if len(calls) == len(pools) else "") if pixels < POOL_AT else None
    return None


def empty_kernel(seen: Seen) -> Iterator[Finding]:
    """A padded convolution on a map of one pixel: all but one of its weights see zeros."""
    for call in seen.trained.named("conv2d"):
        kernel = call.constants[0].shape[-1] if call.constants else 1
        if kernel > 1 and call.inputs[0].shape[2:] == (1, 1):
            what = f"The map is one pixel, so a {kernel}x{kernel} kernel sees it and zeros of the padding: pool less before."
            yield Finding("empty_kernel", what, call.where, "Step 1, section 3", "advice")


# ---------------------------------------------------------------------------------------------------------------------
# What comes after the last layer
# ---------------------------------------------------------------------------------------------------------------------


def tail(trace: Trace) -> list[Call]:
    """What the network does to its logits, in order: all calls after the last layer with weights."""
    calls: list[Call] = []
    call = trace.last
    passing = RESHAPES | AVERAGES | MAXIMA | DROPOUTS | ACTIVATIONS | SOFTMAX | {"batch_norm", "log", "log_softmax"}
    while call and len(call.inputs) == 1 and call.name in passing and not call.has_weights:
        calls.append(call)
        (call,) = call.inputs
    return calls[::-1]


def batch_norm_last(seen: Seen) -> Iterator[Finding]:
    """Batch norm on the logits."""
    for call in tail(seen.trained):
        if call.name == "batch_norm":
            what = (
                "Batch norm after the last layer gives the logit of each class the same mean in every batch, whatever digits"
                " are in it. Leave it out there."
            )
            yield Finding("batch_norm_last", what, call.where, "Step 1, section 9")


def activation_last(seen: Seen) -> Iterator[Finding]:
    """An activation or dropout on the logits."""
    for call in tail(seen.trained):
        if call.name in ACTIVATIONS:
            cuts = "cuts off negative ones, and their gradients"
            does = cuts if call.name == "relu" else "limits how far apart they get"
            what = f"{call.name} on the logits {does}. Return what the last layer gives."
            yield Finding("activation_last", what, call.where, "Step 1, section 4")
        if call.name in DROPOUTS and call.argument(1, "p", 0.5):
            what = (
                "Dropout on the logits sets classes to zero at random, the right one too. Put it before the last layer."
            )
            yield Finding("dropout_last", what, call.where, "Step 2, section 3")


def probabilities(seen: Seen) -> Iterator[Finding]:
    """Softmax inside the network, where the loss computes it once more; log-softmax changes nothing."""
    end = tail(seen.trained)
    outputs = seen.trained.output.detach().double()
    over_batch = _over_batch(seen.trained)
    if over_batch:
        what = (
            f"{over_batch[0].name} over dimension 0 runs over the images of a batch, so an answer depends on the other"
            " images. Classes are dimension 1; better, return the logits: the loss applies softmax."
        )
        yield Finding("softmax_over_batch", what, over_batch[0].where, "Step 1, section 4")
    elif _sum_to_one(outputs.exp()):
        log = next((call.where for call in reversed(end) if call.name in ("log_softmax", "log")), "")
        what = (
            "The network returns log-probabilities, not logits. That is accepted: cross-entropy of them is the same, since"
            " the softmax of log-probabilities is the probabilities themselves."
        )
        yield Finding("log_softmax", what, log, "Step 1, section 4", "note")
    names = [call.name for call in end] + [""]
    squashed = [call for call, after in zip(end, names[1:]) if call.name in SOFTMAX and after != "log"]
    if not over_batch and (squashed or ((outputs >= 0).all() and _sum_to_one(outputs))):
        what = (
            "Softmax inside the network: the loss, cross-entropy, applies softmax itself. The second one sees numbers from"
            f" 0 to 1, so the loss cannot fall below {LOWEST_LOSS:.2f} and gradients fade. Return the logits."
        )
        yield Finding("softmax", what, squashed[0].where if squashed else "", "Step 1, section 4")


def _over_batch(trace: Trace) -> list[Call]:
    softmaxes = [call for call in tail(trace) if call.name in SOFTMAX | {"log_softmax"}]
    return [call for call in softmaxes if call.argument(1, "dim") in (0, -2)]


def _sum_to_one(outputs: Tensor) -> bool:
    return bool(((outputs.sum(1) - 1).abs() < 1e-4).all())


# ---------------------------------------------------------------------------------------------------------------------
# Layers that do nothing
# ---------------------------------------------------------------------------------------------------------------------


def never_runs(seen: Seen) -> Iterator[Finding]:
    """Layers that the constructor makes and `forward` does not use."""
    for name in idle(seen):
        weights = dict(seen.network.named_modules())[name].parameters()
        size = sum(parameter.numel() for parameter in weights if parameter.requires_grad)
        trained = f" Its {size:,} parameters count, and are never trained." if size else ""
        what = f"forward never runs this layer.{trained} Use it, or delete it."
        yield Finding("never_runs", what, name_of(seen.network, name), "Step 1, section 3")


def idle(seen: Seen) -> list[str]:
    """The qualified names of modules that neither run nor lend their weights, the outermost of each."""
    used = {id(tensor) for trace in (seen.trained, seen.evaluated) for call in trace.calls for tensor in call.constants}
    used |= {id(p) for name, p in seen.network.named_parameters() if p.requires_grad and name not in seen.untrained}
    ran = seen.trained.ran | seen.evaluated.ran

    def is_idle(name: str, module: nn.Module) -> bool:
        if name in ran or any(id(p) in used for p in module.parameters()):
            return False
        if next(module.children(), None):
            return all(is_idle(f"{name}.{child}", inner) for child, inner in module.named_children())
        kind = type(module)
        no_layer = kind is nn.Identity or kind.__module__.endswith((".loss", ".container"))
        return is_layer_of_torch(module) and not no_layer

    idle_names: list[str] = []
    for name, module in seen.network.named_modules():
        if name and not any(name.startswith(f"{outer}.") for outer in idle_names) and is_idle(name, module):
            idle_names.append(name)
    return idle_names


def cut_off(seen: Seen) -> Iterator[Finding]:
    """Parameters that no gradient reaches, though their layer runs; parameters of no layer that are not used."""
    asleep = idle(seen)
    names = [name for name in seen.untrained if not any(name.startswith(f"{layer}.") for layer in asleep)]
    if names:
        what = (
            "No gradient reaches these parameters, so they are never trained: forward does not use them, or cuts them off"
            " with detach, no_grad, .data or .item."
        )
        yield Finding("no_gradient", what, listed(names), "Step 1, section 4")


def unregistered(seen: Seen) -> Iterator[Finding]:
    """Weights that the optimizer never sees."""
    known = {id(parameter) for parameter in seen.network.parameters()}
    used_again = {id(tensor) for call in seen.evaluated.calls for tensor in call.constants}
    strange: dict[bool, dict[int, tuple[Call, Tensor]]] = {True: {}, False: {}}
    for call in seen.trained.calls:
        for tensor in call.constants:
            if tensor.is_leaf and tensor.requires_grad and id(tensor) not in known:
                strange[id(tensor) in used_again][id(tensor)] = (call, tensor)
    for is_kept, found in strange.items():
        size = sum(tensor.numel() for _, tensor in found.values())
        what = (
            f"{size:,} weights are not registered, so they are neither counted nor trained. Keep layers as attributes or in"
            " nn.ModuleList, not in a list; a tensor is registered as nn.Parameter."
            if is_kept
            else f"forward creates a new layer for each batch, with {size:,} random weights that are never trained."
            " Create layers in __init__."
        )
        if found:
            yield Finding(
                "not_registered", what, listed(unique(c.where for c, _ in found.values())), "Step 1, section 4"
            )


def wasted_biases(seen: Seen) -> Iterator[Finding]:
    """Biases whose output goes into batch norm, which takes the mean away."""
    wasted = []
    for call in seen.trained.named("batch_norm"):
        source = call.inputs[0]
        while source.name == "max_pool2d" and len(source.readers) == 1:
            source = source.inputs[0]
        bias = source.argument(2, "bias") if source.name in ("conv2d", "linear") else None
        if isinstance(bias, Tensor) and bias.requires_grad and len(source.readers) == 1:
            wasted.append((source, bias.numel()))
    if wasted:
        what = (
            f"{sum(size for _, size in wasted):,} biases are wasted: batch norm subtracts the mean, and has a shift of its"
            " own. Pass bias=False to the layer before it."
        )
        yield Finding("bias", what, listed(unique(call.named for call, _ in wasted)), "Step 1, section 9", "advice")


def unbroken_line(seen: Seen) -> Iterator[Finding]:
    """Layers with weights, and no activation between them."""
    pairs = [(before, call) for call in seen.trained.calls if (before := _joined(call))]
    if pairs:
        what = (
            "Nothing nonlinear stands between two layers, so together they compute what one linear layer can. Put an"
            " activation between them."
        )
        named = unique(f"{before.named} -> {call.named}" for before, call in pairs)
        yield Finding("no_activation", what, listed(named), "Step 1, section 3")


def _joined(call: Call) -> Call | None:
    """The layer before this one, if the two are one linear function, and not split to save weights."""
    if not call.has_weights or len(call.inputs) != 1:
        return None
    (before,) = call.inputs
    while before.name in LINEAR and not before.has_weights and len(before.inputs) == len(before.readers) == 1:
        (before,) = before.inputs
    if not before.has_weights or len(before.inputs) != 1 or len(before.readers) != 1:
        return None
    kernels = [tuple(layer.argument(1, "weight").shape[2:]) for layer in (before, call) if layer.name == "conv2d"]
    per_channel = any(layer.argument(6, "groups", 1) > 1 for layer in (before, call) if layer.name == "conv2d")
    flat = any(len(set(kernel)) > 1 for kernel in kernels)  # 1x3 and 3x1 in place of 3x3
    narrow = before.shape[1] < min(before.inputs[0].shape[1], call.shape[1])
    bottleneck = len(kernels) == 2 and (1, 1) in kernels and narrow
    return None if per_channel or flat or bottleneck else before


# ---------------------------------------------------------------------------------------------------------------------
# Training and evaluation
# ---------------------------------------------------------------------------------------------------------------------


def shared_batch_norm(seen: Seen) -> Iterator[Finding]:
    """One batch norm at several places."""
    calls = [call for call in seen.trained.named("batch_norm") if isinstance(call.argument(1, "running_mean"), Tensor)]
    uses = Counter(id(call.argument(1, "running_mean")) for call in calls)
    for call in {id(call.argument(1, "running_mean")): call for call in calls}.values():
        times = uses[id(call.argument(1, "running_mean"))]
        if times > 1:
            what = (
                f"One batch norm runs {times} times in each pass. Its running averages mix the statistics of different maps,"
                " and evaluation uses these: give each place a batch norm of its own."
            )
            yield Finding("shared_batch_norm", what, call.where, "Step 1, section 4")


def dropout_in_evaluation(seen: Seen) -> Iterator[Finding]:
    """Dropout that does not follow `model.eval()`."""
    awake = _awake_dropouts(seen)
    if awake:
        what = (
            "Dropout stays on in evaluation, so answers are random. F.dropout needs training=self.training; an nn.Dropout"
            " made in __init__ follows model.eval() by itself."
        )
        yield Finding("dropout_in_evaluation", what, listed(unique(awake)), "Step 2, section 4")


def _awake_dropouts(seen: Seen) -> list[str]:
    # F.dropout's `training` is True unless it is given
    calls = seen.evaluated.named(*DROPOUTS)
    return [call.where for call in calls if call.argument(1, "p", 0.5) and call.argument(2, "training", True)]


def unsteady(seen: Seen) -> Iterator[Finding]:
    """Other logits for the same images, for another reason than dropout."""
    if not _awake_dropouts(seen) and not alike(seen.evaluated.output, seen.repeated):
        what = "In evaluation mode, the same images get other logits the second time: something random stays on."
        yield Finding("unsteady", what, "", "Step 1, section 4")


def batch_decides(seen: Seen) -> Iterator[Finding]:
    """An answer that depends on the other images of the batch."""
    steady = alike(seen.evaluated.output, seen.repeated)
    if steady and not _over_batch(seen.evaluated) and not alike(seen.few, seen.repeated[: len(seen.few)]):
        awake = [call.where for call in seen.evaluated.named("batch_norm") if call.argument(5, "training", False)]
        reason = (
            "batch norm uses the statistics of the batch" if awake else "something is computed over the whole batch"
        )
        what = f"In evaluation mode, the answer to an image depends on the other images of its batch: {reason}."
        yield Finding("batch_decides", what, listed(unique(awake)), "Step 1, section 4")


def one_image(seen: Seen) -> Iterator[Finding]:
    """A network that does not take a batch of one."""
    if seen.single == (1, CLASSES):
        return
    gives = "the network raises an error" if seen.single is None else f"the output has the shape {seen.single}"
    squeezes = [call.where for call in seen.trained.named("squeeze")]
    hint = " squeeze() takes the batch away too: use flatten(1)." if squeezes else ""
    what = f"For a batch of one image, {gives}, expected {(1, CLASSES)}.{hint}"
    yield Finding("one_image", what, listed(unique(squeezes)), "Step 1, section 4")


def remembers(seen: Seen) -> Iterator[Finding]:
    """A state that evaluation changes."""
    if seen.changed:
        what = "A pass in evaluation mode changes the network, so its answers depend on what it was asked before."
        yield Finding("remembers", what, listed(seen.changed), "Step 1, section 4")


def not_finite(seen: Seen) -> Iterator[Finding]:
    """NaN or infinity, in outputs or gradients."""
    outputs = [seen.trained.output, seen.evaluated.output]
    if not all(output.isfinite().all() for output in outputs):
        what = (
            "The network returns NaN or infinity before it is trained, and so its loss is none: look for a logarithm, a root"
            " or a division."
        )
        yield Finding("nan", what, "", "Step 1, section 4")
    elif seen.nan_gradients:
        what = "Gradients of the loss are NaN or infinite before the first step: look for the root of 0, or a division."
        yield Finding("nan", what, listed(seen.nan_gradients), "Step 1, section 4")


def same_for_all(seen: Seen) -> Iterator[Finding]:
    """Logits in which nothing of the image is left, or next to nothing."""
    output = seen.trained.output.detach().double()
    if not output.isfinite().all():
        return
    if bool((output == output[:1]).all()):
        what = "The network gives every image the same logits: somewhere the image is lost, or all units are dead."
        yield Finding("same_for_all", what, "", "Step 1, exercise 1a")
    elif (output - output.mean(0)).abs().max() < FAINT * output.abs().max():
        what = (
            f"Before training, the logits of different images differ by less than {FAINT:.1%} of their size: the signal fades"
            " from layer to layer. Batch norm after each convolution keeps it alive."
        )
        yield Finding("fading", what, "", "Step 1, section 9", "advice")


def alike(first: Tensor, second: Tensor) -> bool:
    """Whether two outputs agree, but for what rounding does."""
    if first.shape != second.shape:
        return False
    # GPUs round more, and choose other kernels for other batches
    tolerance = 1e-2 if first.is_cuda else 1e-4
    first, second = (output.detach().double().nan_to_num() for output in (first, second))
    return bool((first - second).abs().max() <= tolerance * first.abs().max())


def weights_and_seeds(seen: Seen) -> Iterator[Finding]:
    """Weights that do not follow from the seed, or are all the same."""
    if seen.seeds:
        yield Finding("seed", seen.seeds, "", "Step 1, section 7")
    matrices = [p for p in seen.network.parameters() if p.dim() >= 2 and p.requires_grad]
    if len(matrices) > 1 and all(bool((p == p.flatten()[0]).all()) for p in matrices):
        what = "All weights of a layer start with the same value, so its units compute the same, and go on doing so."
        yield Finding("twins", what, "", "Step 1, section 7")


def talks(seen: Seen) -> Iterator[Finding]:
    """What the network prints, and what Python warns of."""
    if seen.printed_at is not None:
        what = "forward prints, and training runs it for each batch. Here it is kept silent."
        yield Finding("prints", what, seen.printed_at, "Step 1, section 4", "note")
    for message, place in seen.heard:
        yield Finding("python_warns", f"Python warns: {message}", place, "", "advice")


def listed(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return "; ".join(names[:3]) + more


def unique(names: Iterable[str]) -> list[str]:
    """Each name once, in their order."""
    return list(dict.fromkeys(names))


# What breaks a network first, then what a bug took away from it, then what makes it weaker
RULES: tuple[Callable[[Seen], Iterator[Finding]], ...] = (
    over_budget,
    not_finite,
    same_for_all,
    probabilities,
    activation_last,
    unbroken_line,
    never_runs,
    cut_off,
    unregistered,
    dropout_in_evaluation,
    unsteady,
    batch_decides,
    remembers,
    one_image,
    weights_and_seeds,
    no_normalization,
    shared_batch_norm,
    batch_norm_last,
    small_field,
    early_pooling,
    empty_kernel,
    heavy_layer,
    wasted_biases,
    talks,
)


# ---------------------------------------------------------------------------------------------------------------------
# What is in it
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ingredients:
    """What the lesson adds to a skeleton, step by step.

    batch_norm:     how often batch norm runs in a pass
    global_average: whether the last maps are averaged over all positions
    dropout:        the probabilities of its dropouts, each once
    convolutions:   with kernels larger than 1x1, one after the other, before the readout
    """

    batch_norm: int
    global_average: bool
    dropout: tuple[float, ...]
    convolutions: int

    @property
    def capacity_layer(self) -> bool:
        """Whether there are more convolutions before the readout than in the skeleton, Model_1: step 2, section 3."""
        return self.convolutions > SKELETON


def ingredients(trace: Trace) -> Ingredients:
    """What is in a network, by the functions that it calls: layers and functional style look the same."""
    rates = {float(call.argument(1, "p", 0.5)) for call in trace.named(*DROPOUTS) if call.argument(2, "training", True)}
    return Ingredients(
        batch_norm=len(trace.named("batch_norm")),
        global_average=global_average(trace) is not None,
        dropout=tuple(sorted(rates - {0.0})),
        convolutions=_depth(trace),
    )


def _depth(trace: Trace) -> int:
    """Convolutions one after the other, on the longest way; a readout that makes the logits or has no map left is none."""
    end = tail(trace)
    readout = end[0].inputs[0] if end else trace.last
    depth: dict[Call, int] = {}
    for call in trace.calls:
        on_a_map = call.name == "conv2d" and call is not readout and call.side > 1
        counts = on_a_map and call.argument(1, "weight").shape[-1] > 1
        depth[call] = max((depth.get(source, 0) for source in call.inputs), default=0) + counts
    return max(depth.values(), default=0)
