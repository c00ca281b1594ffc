"""Counting from HLO: single lines with counts by hand, and two stored programs as XLA compiled them for absent hardware.

`hlo_cuda.txt` (H100) and `hlo_tpu.txt` (v5e) are one step of gradient descent on two convolutions, ReLU between them, mean
square as loss; bfloat16, 64 images of 16x16x16 on four devices, kernels 3x3x16x32 and, with stride 2, 3x3x32x32.
"""

import collections

import pytest

from tests.weights import VECTORS
from wrn_jax.planning import hlo

FIRST = 2 * (16 * 16 * 16) * 32 * (9 * 16)  # operations of a device: outputs x channels x taps
SECOND = 2 * (16 * 8 * 8) * 32 * (9 * 32)


def count(text):
    """The work of all kernels of a module's text, by name."""
    return {work.name: work for work, _ in hlo.parse(text).kernels()}


def entry(*lines):
    """A module with one computation."""
    return "HloModule test\n\nENTRY %main (a: f32[]) -> f32[] {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("f32", 4), ("bf16", 2), ("f16", 2), ("u8", 1), ("pred", 1), ("s64", 8), ("f8e4m3fn", 1), ("s4", 0.5), ("token", 0)],
)
def test_width(dtype, expected):
    assert hlo.width(dtype) == expected


@pytest.mark.parametrize(("dims", "layout", "elements", "size", "is_remote"), [
    ((4, 3), "", 12, 48, False), ((4, 3), "1,0", 12, 48, False), ((4, 3), "1,0:T(8,128)", 12, 8 * 128 * 4, False),
    ((4, 3), "0,1:T(8,128)S(1)", 12, 8 * 128 * 4, True), ((100,), "0:T(128)S(0)", 100, 512, False),
    ((256, 32, 32, 160), "0,3,2,1:T(8,128)", 256 * 1024 * 160, 4 * 256 * 1024 * 160, False), ((), ":T(128)", 1, 4, False),
])  # fmt: skip
def test_arrays_count_with_the_padding_of_their_tiles(dims, layout, elements, size, is_remote):
    array = hlo.Array("f32", dims, layout)
    assert (array.elements, array.bytes, array.is_remote) == (elements, size, is_remote)


def test_tuples_operands_and_comments_are_read():
    module = hlo.parse(
        entry(
            "%a = f32[2]{0} parameter(0)",
            "%t = (f32[2]{0}, /*index=1*/(bf16[3]{0:T(8)(2,1)}, s32[])) custom-call(%a, /*index=1*/%a), target=x",
            "ROOT %b = s32[] get-tuple-element(%t), index=2",
        )
    )
    line = module.computations["main"]["t"]
    assert [array.dtype for array in line.results] == ["f32", "bf16", "s32"]
    assert line.operands == ("a", "a")
    root = module.computations["main"]["b"]
    assert (root.is_root, root.index) == (True, 2)
    with pytest.raises(ValueError, match="no entry computation"):
        hlo.parse("HloModule nothing\n")


STRIDE_1, STRIDE_2 = (2 * 8 * side * side * 6 * 9 * 4 for side in (16, 8))


@pytest.mark.parametrize(("lhs", "rhs", "out", "attributes", "operations"), [
    ("8,16,16,4", "3,3,4,6", "8,16,16,6", "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f", STRIDE_1),
    ("8,16,16,6", "3,3,4,6", "8,16,16,4",
     "window={size=3x3 pad=1_1x1_1 rhs_reversal=1x1}, dim_labels=b01f_01oi->b01f", STRIDE_1),
    ("8,16,16,4", "8,16,16,6", "3,3,4,6", "window={size=16x16 pad=1_1x1_1}, dim_labels=f01b_i01o->01bf", STRIDE_1),
    ("8,16,16,4", "3,3,4,6", "8,8,8,6", "window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_01io->b01f", STRIDE_2),
    ("8,8,8,6", "3,3,4,6", "8,16,16,4",
     "window={size=3x3 pad=1_2x1_2 lhs_dilate=2x2 rhs_reversal=1x1}, dim_labels=b01f_01oi->b01f", STRIDE_2),
    ("8,16,16,4", "8,8,8,6", "3,3,4,6",
     "window={size=8x8 pad=1_0x1_0 rhs_dilate=2x2}, dim_labels=f01b_i01o->01bf", STRIDE_2),
    ("1,1,16,160", "256,32,32,160", "256,32,32,16",
     "window={size=32x32 pad=31_31x31_31 rhs_reversal=1x1}, dim_labels=01bf_o01i->f01b", 2 * 256 * 1024 * 160 * 16),
])  # fmt: skip
def test_the_three_convolutions_of_a_layer_count_alike_whatever_their_form(lhs, rhs, out, attributes, operations):
    kernels = count(
        entry(
            f"%x = bf16[{lhs}]{{3,2,1,0}} parameter(0)",
            f"%w = bf16[{rhs}]{{3,2,1,0}} parameter(1)",
            f"ROOT %c = bf16[{out}]{{3,2,1,0}} convolution(%x, %w), {attributes}",
        )
    )
    assert (kernels["c"].kind, kernels["c"].matrix) == ("matrix", {"bf16": operations})


def test_matrix_products():
    kernels = count(
        entry(
            "%x = f32[8,4]{1,0} parameter(0)",
            "%w = f32[4,6]{1,0} parameter(1)",
            "%d = f32[8,6]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
            '%g = (f32[8,6]{1,0}, s8[0]{0}) custom-call(%x, %w), custom_call_target="__cublas$gemm", '
            'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}',
            'ROOT %o = f32[] custom-call(%d), custom_call_target="Other"',
        )
    )
    assert kernels["d"].matrix["f32"] == kernels["g"].matrix["f32"] == 2 * 8 * 6 * 4
    assert kernels["d"].bytes == 4 * (32 + 24 + 48)
    assert not kernels["o"].matrix


def test_loops_branches_and_calls():
    text = """HloModule test

%body (p: (s32[], f32[100])) -> (s32[], f32[100]) {
  %p = (s32[], f32[100]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %v = f32[100]{0} get-tuple-element(%p), index=1
  %d = f32[100]{0} multiply(%v, %v)
  ROOT %t = (s32[], f32[100]{0}) tuple(%i, %d)
}

%condition (q: (s32[], f32[100])) -> pred[] {
  %q = (s32[], f32[100]{0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

%cheap (r: f32[100]) -> f32[100] {
  ROOT %r = f32[100]{0} parameter(0)
}

%dear (s: f32[100]) -> f32[100] {
  %s = f32[100]{0} parameter(0)
  ROOT %n = f32[100]{0} negate(%s)
}

ENTRY %main (a: (s32[], f32[100])) -> f32[100] {
  %a = (s32[], f32[100]{0}) parameter(0)
  %w = (s32[], f32[100]{0}) while(%a), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %f = f32[100]{0} get-tuple-element(%w), index=1
  %c = f32[100]{0} conditional(%f, %f, %f), branch_computations={%cheap, %dear}
  ROOT %e = f32[100]{0} call(%c), to_apply=%dear
}
"""
    seen = collections.Counter()
    for work, times in hlo.parse(text).kernels():
        seen[work.name] += times
    assert seen == {"d": 5, "n": 2}


def test_slices_gathers_and_updates_in_place_count_with_what_they_touch():
    text = """HloModule test

%rows (table: u8[1000,64], index: s32[10,1]) -> f32[10,64] {
  %table = u8[1000,64]{1,0} parameter(0)
  %index = s32[10,1]{1,0} parameter(1)
  %g = u8[10,64]{1,0} gather(%table, %index), offset_dims={1}
  ROOT %c = f32[10,64]{1,0} convert(%g)
}

%update (old: f32[1000,64], new: f32[1,64], at: s32[]) -> f32[1000,64] {
  %old = f32[1000,64]{1,0} parameter(0)
  %new = f32[1,64]{1,0} parameter(1)
  %at = s32[] parameter(2)
  ROOT %u = f32[1000,64]{1,0} dynamic-update-slice(%old, %new, %at, %at)
}

ENTRY %main (table: u8[1000,64], index: s32[10,1], old: f32[1000,64], new: f32[1,64], at: s32[]) -> f32[] {
  %table = u8[1000,64]{1,0} parameter(0)
  %index = s32[10,1]{1,0} parameter(1)
  %old = f32[1000,64]{1,0} parameter(2)
  %new = f32[1,64]{1,0} parameter(3)
  %at = s32[] parameter(4)
  %some = f32[10,64]{1,0} fusion(%table, %index), kind=kLoop, calls=%rows
  %changed = f32[1000,64]{1,0} fusion(%old, %new, %at), kind=kLoop, calls=%update
  %part = ((f32[1000,64]{1,0}), f32[8,64]{1,0:S(1)}, s32[]) slice-start(%changed), slice={[0:8], [0:64]}
  %done = f32[8,64]{1,0:S(1)} slice-done(%part)
  ROOT %moved = (f32[8,64]{1,0}, f32[8,64]{1,0:S(1)}, u32[]) copy-start(%done)
}
"""
    kernels = count(text)
    assert kernels["some"].bytes == 640 + 40 + 4 * 640
    assert kernels["changed"].bytes == 2 * 256 + 4
    assert (kernels["part"].read, kernels["part"].written) == (2048, 0)
    assert (kernels["moved"].read, kernels["moved"].written) == (0, 2048)
    assert kernels["moved"].kind == "layout"


@pytest.mark.parametrize("name", ["hlo_cuda.txt", "hlo_tpu.txt"])
def test_whole_programs(name):
    matrix, reductions = collections.Counter(), []
    for work, times in hlo.parse((VECTORS / name).read_text()).kernels():
        assert times == 1
        matrix.update(work.matrix)
        reductions += [work] if work.kind == "collective" else []
    # The first layer needs no gradient of its input.
    assert matrix == {"bf16": 2 * FIRST + 3 * SECOND}
    (reduction,) = reductions
    assert (reduction.opcode, reduction.sent) == ("all-reduce", 2 * 9 * (16 * 32 + 32 * 32))


def test_traffic_of_the_program_for_gpu():
    kernels = count((VECTORS / "hlo_cuda.txt").read_text())
    images, first, second = 2 * 16 * 16 * 16 * 16, 2 * 16 * 16 * 16 * 32, 2 * 16 * 8 * 8 * 32
    assert kernels["cudnn-conv.2"].bytes == images + 2 * 9 * 16 * 32 + first
    assert kernels["cudnn-conv-bw-input.1"].bytes == second + 2 * 9 * 32 * 32 + first
    assert kernels["loop_maximum_fusion"].bytes == 2 * first
    assert kernels["input_transpose_fusion"].kind == "layout"
    assert {work.kind for work in kernels.values()} == {"matrix", "elementwise", "layout", "collective"}


def test_traffic_of_the_program_for_tpu():
    kernels = count((VECTORS / "hlo_tpu.txt").read_text())
    # Small enough to live in vector memory: only copies in and out touch device memory. 16 channels fill lines of 128.
    assert kernels["copy.1"].bytes == 2 * 16 * 16 * 16 * 128
    assert sum(work.bytes for work in kernels.values() if work.kind == "matrix") == 0
    weights = [2 * 4 * 9 * rows * 128 for rows in (16, 32)]
    assert sum(work.bytes for work in kernels.values()) - kernels["copy.1"].bytes == sum(weights)
