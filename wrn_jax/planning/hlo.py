"""Reads the text of an optimised HLO module and counts what running it once costs.

XLA counts operations and bytes itself for TPU and CPU, not for programs compiled for an absent GPU. Counting from the text
gives every target the same definition, and tells the kinds of work apart. The model is that of a machine that runs one
top-level instruction after the other, each reading its operands from device memory once and writing its results once:

- what is fused costs no traffic; parameters of a fusion of which only slices are read count with the slices, and a buffer
  that is updated in place counts with the update;
- arrays in other memories than the device's main one (TPU: vector memory, `S(1)`) cost no traffic;
- arrays count with the padding of their tiles;
- a multiplication with padding counts as one, a multiplication with a hole of a dilated convolution does not; so the three
  convolutions of a layer (forward and both gradients) count alike;
- a loop counts as often as it is known to run, and once where that is not known (the loop over the steps of one call is such
  a one, so what is counted is one step); a branch counts as the dearer side.

Format: HLO text as `jax.stages.Compiled.as_text()` prints it, or `jax.stages.Lowered.as_text("hlo")` of a program that is not
optimised yet; there operations are right, and traffic is not.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

WIDTHS = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "c64": 8, "c128": 16}
"""Bytes of an element of the types whose name does not say it."""

FREE = {
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id", "domain",
    "opt-barrier", "optimization-barrier", "add-dependency",
}  # fmt: skip
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
LAYOUT = {"copy", "transpose", "reshape"}
_MOVING = {"parameter", "constant", "bitcast", "convert", "tuple", "get-tuple-element", "broadcast"} | LAYOUT
_SLICING = ("dynamic-slice", "slice", "gather")
_ARITHMETIC = {
    "add", "subtract", "multiply", "divide", "remainder", "maximum", "minimum", "power", "negate", "abs", "sign", "exponential",
    "exponential-minus-one", "log", "log-plus-one", "logistic", "tanh", "sqrt", "rsqrt", "cbrt", "sine", "cosine", "tan",
    "erf", "atan2", "floor", "ceil", "round-nearest-even", "round-nearest-afz", "compare", "select", "clamp", "and", "or",
    "xor", "not", "shift-left", "shift-right-logical", "shift-right-arithmetic", "popcnt", "is-finite",
}  # fmt: skip

_ARRAY = re.compile(r"([a-z]+[0-9a-z]*)\[([^\]]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_BARE_NAME = re.compile(r"(?:^|[,\s])([A-Za-z_][\w.\-]*)(?=\s*(?:,|$))")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*->.*)?\{\s*$")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = ")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of an instruction's result: HLO's name of its type, such as "bf16", its logical sizes, and the text between the
    braces, or ""."""

    dtype: str
    dims: tuple[int, ...]
    layout: str = ""

    @property
    def elements(self) -> int:
        """Number of logical elements."""
        return math.prod(self.dims)

    @property
    def is_remote(self) -> bool:
        """Whether it lies in another memory than the device's main one."""
        space = re.search(r"S\((\d+)\)", self.layout)
        return space is not None and space[1] != "0"

    @property
    def bytes(self) -> int:
        """Size in memory, with the padding of its tiles."""
        dims = list(self.dims)
        order, _, tiling = self.layout.partition(":")
        tile = re.match(r"T\(([\d,]+)\)", tiling)
        if tile and order and dims:
            sizes = [int(size) for size in tile[1].split(",")]
            minor_to_major = [int(axis) for axis in order.split(",")]
            for axis, size in zip(minor_to_major, reversed(sizes), strict=False):
                dims[axis] = -(-dims[axis] // size) * size
        return int(math.prod(dims) * width(self.dtype))


def width(dtype: str) -> float:
    """Bytes of an element."""
    digits = re.search(r"\d+", dtype)
    return WIDTHS.get(dtype, int(digits[0]) / 8 if digits else 0)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of the module.

    Attributes:
      name, opcode, operands: without "%"; such as "fusion"; names.
      results: the arrays of its result, a tuple flattened.
      index: the number of a parameter, or of the element that is taken from a tuple.
      attributes: the rest of the line.
      is_root: whether it is the result of its computation.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    index: int
    attributes: str
    is_root: bool

    def called(self, key: str) -> str:
        """The computation that `key` names, or ""."""
        match = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        return match[1] if match else ""


Computation = dict[str, Instruction]


@dataclasses.dataclass
class Work:
    """What one top-level instruction does when it runs once.

    Attributes:
      name, opcode: of the instruction.
      kind: what it is: "matrix", "reduction", "elementwise", "integer", "layout" (only moves or converts) or "collective".
      matrix: operations of convolutions and matrix products by type of their operands; a multiplication and an addition each.
      vector, integer: other operations, on floating-point numbers, and on integers and booleans.
      read, written: bytes of device memory.
      sent, arrays: bytes that each device hands to a collective, and the arrays that it joins.
    """

    name: str
    opcode: str
    kind: str = ""
    matrix: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    vector: int = 0
    integer: int = 0
    read: int = 0
    written: int = 0
    sent: int = 0
    arrays: int = 0

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.read + self.written


@dataclasses.dataclass(frozen=True)
class Module:
    """A parsed module: computations by name, each a dictionary of instructions, and the name of the entry."""

    computations: dict[str, Computation]
    entry: str

    def kernels(self) -> list[tuple[Work, int]]:
        """The work of every top-level instruction and how often it runs."""
        return list(self._run(self.entry, 1))

    def _run(self, name: str, times: int) -> Iterator[tuple[Work, int]]:
        computation = self.computations[name]
        for instruction in computation.values():
            opcode = instruction.opcode
            if opcode in FREE or opcode.endswith(("-done", "-update")):
                continue
            if opcode == "while":
                trips = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', instruction.attributes)
                for key in ("condition", "body"):
                    yield from self._run(instruction.called(key), times * (int(trips[1]) if trips else 1))
            elif opcode in ("call", "async-start"):
                callee = instruction.called("to_apply") or instruction.called("calls")
                yield from self._run(callee, times)
            elif opcode == "conditional":
                listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
                two = [instruction.called(f"{side}_computation") for side in ("true", "false")]
                branches = [list(self._run(name, times)) for name in (_NAME.findall(listed[1]) if listed else two)]
                yield from max(branches, key=lambda branch: sum(work.bytes * count for work, count in branch))
            else:
                yield self._work(computation, instruction), times

    def _work(self, computation: Computation, instruction: Instruction) -> Work:
        opcode = instruction.opcode.removesuffix("-start")
        work = Work(instruction.name, opcode)
        operands = [computation[name] for name in instruction.operands if name in computation]
        self._operations(computation, instruction, work)
        if opcode in COLLECTIVES:
            arrays = [array for operand in operands for array in operand.results]
            work.kind, work.arrays = "collective", len(arrays)
            work.sent = sum(int(array.elements * width(array.dtype)) for array in arrays)
            work.read = work.written = _local(arrays)
            return work
        callee = self.computations.get(instruction.called("calls"), {}) if opcode == "fusion" else None
        results = instruction.results
        if instruction.opcode.endswith("-start"):
            # (result, operand, context) of a copy; (operands, result, context) of anything else that runs on its own.
            results = results[:1] if opcode == "copy" else results[len(operands) : len(operands) + 1]
        work.written = _local(results)
        if callee:
            for index, operand in enumerate(operands):
                work.read += int(min(self._read(callee, index), _local(operand.results)))
            work.written = self._written(callee, results)
        elif opcode in _SLICING:
            work.read = 0 if all(array.is_remote for array in operands[0].results) else sum(array.bytes for array in results)
        elif opcode == "dynamic-update-slice":
            work.read = work.written = _local(operands[1].results)
        elif opcode != "iota":
            work.read = sum(_local(operand.results) for operand in operands)
        work.kind = self._kind(instruction, callee, work)
        return work

    def _kind(self, instruction: Instruction, callee: Computation | None, work: Work) -> str:
        opcodes = set(self._opcodes(callee)) if callee else {instruction.opcode.removesuffix("-start")}
        if work.matrix:
            return "matrix"
        if opcodes <= _MOVING:
            return "layout"
        if opcodes & {"reduce", "reduce-window"}:
            return "reduction"
        return "integer" if work.integer > work.vector or opcodes & {"sort", "gather", "scatter"} else "elementwise"

    def _opcodes(self, computation: Computation) -> Iterator[str]:
        for instruction in computation.values():
            inner = self.computations.get(instruction.called("calls"), {})
            yield from self._opcodes(inner) if inner else [instruction.opcode]

    def _read(self, computation: Computation, index: int, name: str = "") -> float:
        """Bytes that a fused computation reads of its parameter `index`, or of the result `name`; infinite for all of it."""
        name = name or next(i.name for i in computation.values() if i.opcode == "parameter" and i.index == index)
        total = 0.0
        for user in computation.values():
            if name not in user.operands:
                continue
            positions = [position for position, operand in enumerate(user.operands) if operand == name]
            if user.opcode in _SLICING and positions == [0]:
                total += user.results[0].bytes
            elif user.opcode == "bitcast":
                total += math.inf if user.is_root else self._read(computation, index, user.name)
            elif user.opcode == "fusion":
                inner = self.computations[user.called("calls")]
                total += sum(self._read(inner, position) for position in positions)
            elif not (user.opcode == "dynamic-update-slice" and positions == [0]):
                return math.inf
        return total

    def _written(self, computation: Computation, results: tuple[Array, ...]) -> int:
        root = next(i for i in computation.values() if i.is_root)
        parts = [computation[name] for name in root.operands] if root.opcode == "tuple" else [root]
        if len(parts) != len(results):
            return _local(results)
        total = 0
        for part, result in zip(parts, results, strict=True):
            while part.opcode == "bitcast" and part.operands[0] in computation:
                part = computation[part.operands[0]]
            in_place = part.opcode == "dynamic-update-slice"
            total += _local(computation[part.operands[1]].results if in_place else [result])
        return total

    def _operations(self, computation: Computation, instruction: Instruction, work: Work) -> None:
        opcode = instruction.opcode
        if opcode == "fusion":
            inner = self.computations.get(instruction.called("calls"), {})
            for inner_instruction in inner.values():
                self._operations(inner, inner_instruction, work)
        elif opcode in ("convolution", "dot", "custom-call"):
            operands = [computation[name] for name in instruction.operands if name in computation]
            shapes = [operand.results[0] for operand in operands if operand.results]
            if count := _matrix_operations(instruction, shapes):
                work.matrix[shapes[0].dtype] += count
        elif opcode in _ARITHMETIC:
            last = computation.get(instruction.operands[-1]) if instruction.operands else None
            result = instruction.results[0]
            if any(array.dtype.startswith(("f", "bf")) for array in (result, *(last.results if last else ()))):
                work.vector += result.elements
            else:
                work.integer += result.elements
        elif opcode == "reduce":
            count = len(instruction.operands) // 2
            work.vector += sum(computation[name].results[0].elements for name in instruction.operands[:count])


def _local(arrays: tuple[Array, ...] | list[Array]) -> int:
    return sum(array.bytes for array in arrays if not array.is_remote)


def _matrix_operations(instruction: Instruction, operands: list[Array]) -> int:
    attributes, result = instruction.attributes, instruction.results[0]
    if instruction.opcode == "dot":
        contracted = _list(attributes, r"lhs_contracting_dims=\{([\d,]*)\}")
        return 2 * result.elements * math.prod(operands[0].dims[axis] for axis in contracted)
    if instruction.opcode == "convolution":
        return _convolution_operations(attributes, operands, result)
    (target,) = re.findall(r'custom_call_target="([^"]*)"', attributes) or [""]
    if target.startswith("__cudnn$conv"):
        # The attributes are those of the layer's forward convolution, whichever of the three this is.
        _, kernel_labels, _ = _dim_labels(attributes)
        outputs = operands[0] if "BackwardInput" in target else operands[1] if "BackwardFilter" in target else result
        kernel = result if "BackwardFilter" in target else operands[1]
        return 2 * outputs.elements * kernel.elements // kernel.dims[kernel_labels.index("o")]
    if target.startswith(("__cublas$", "__triton_gemm")):
        contracted = _list(attributes, r'"lhs_contracting_dimensions":\[([^\]]*)\]')
        return 2 * result.elements * math.prod(operands[0].dims[axis] for axis in contracted)
    return 0


def _convolution_operations(attributes: str, operands: list[Array], result: Array) -> int:
    lhs, rhs, out = _dim_labels(attributes)
    taps = 1
    for label in filter(str.isdigit, out):
        sides = (operands[0].dims[lhs.index(label)], operands[1].dims[rhs.index(label)], result.dims[out.index(label)])
        # Every pair of two of the three meets at most once. Forward, output and kernel are the smallest pair; with a dilated
        # input, whose holes nobody multiplies, input and kernel; and the compiler may swap the roles.
        taps *= math.prod(sides) // max(sides)
    outer = math.prod(size for size, label in zip(result.dims, out, strict=True) if not label.isdigit())
    return 2 * outer * operands[1].dims[rhs.index("i")] * taps


def _dim_labels(attributes: str) -> tuple[str, str, str]:
    """What the axes of a convolution's input, kernel and output are."""
    ((lhs, rhs, out),) = re.findall(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    return lhs, rhs, out


def _list(text: str, pattern: str) -> list[int]:
    match = re.search(pattern, text)
    return [int(number) for number in re.findall(r"\d+", match[1])] if match else []


def parse(text: str) -> Module:
    """Parses the text of a module. Raises ValueError if it has no entry computation."""
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if current is None or not line.startswith(" "):
            header = _HEADER.match(line)
            if header and not line.startswith("HloModule"):
                current = computations.setdefault(header[2], {})
                entry = header[2] if header[1] else entry
            continue
        instruction = _parse_instruction(line)
        if instruction is not None:
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("no entry computation: this is no HLO module")
    return Module(computations, entry)


def _parse_instruction(line: str) -> Instruction | None:
    start = _INSTRUCTION.match(line)
    if not start:
        return None
    rest = re.sub(r"/\*.*?\*/", "", line[start.end() :])
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    end = _closing(rest, len(opcode))
    inside, attributes = rest[len(opcode) + 1 : end], rest[end + 1 :]
    index = re.fullmatch(r"(\d+)", inside) if opcode == "parameter" else re.search(r"\bindex=(\d+)", attributes)
    results = tuple(Array(dtype, _dims(sizes), layout) for dtype, sizes, layout in _ARRAY.findall(shape))
    names = (_NAME if "%" in inside else _BARE_NAME).findall(inside)
    operands = () if opcode in ("parameter", "constant") else tuple(names)
    return Instruction(start[2], opcode, results, operands, int(index[1]) if index else 0, attributes, start[1] is not None)


def _closing(text: str, start: int) -> int:
    """The position of the parenthesis that closes the one at `start`."""
    depth = 0
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise ValueError(f"unbalanced parentheses: {text[:80]}")


def _dims(text: str) -> tuple[int, ...]:
    return tuple(int(size.strip("<= ")) for size in text.split(",") if size)
