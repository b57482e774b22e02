// Fused qkv rows -> rotated q, and k and v as tensors (qkv_rope) or appended to the KV cache, in one pass.
//
//   head      x = qkv[r, head * d : (head + 1) * d], q heads first, then k, then v
//   QK-norm   x = round(round(x * rsqrt(mean(x^2) + eps)) * weight), only when the weights are given
//   rotation  y[i]       = x[i] * cos[r, i] - x[i + d/2] * sin[r, i]         i in [0, d/2): half-split (NeoX) pairs
//             y[i + d/2] = x[i + d/2] * cos[r, i] + x[i] * sin[r, i]
//   v         is copied
//
// Rounding: the norm is norm.h's RMSNorm, bit for bit (statistics in fp32; the normalised value and its product with
// the weight each rounded to the dtype), the order of the published Qwen3 code. The rotation takes the rounded value
// and fp32 tables and rounds once, at the store, to q's or to k's dtype. Qwen3 code in a low precision also rounds cos,
// sin and both products, so there this is the closer of the two to the formula; in f32 the rotations are the same
// operations.
//
//   name                shape                    dtype              notes
//   qkv                 [rows, (Hq + 2 Hkv) d]   f32 | bf16 | f16   last dimension contiguous, any row stride; d even
//   cos, sin            [rows, d/2]              f32                last dimension contiguous
//   q_weight, k_weight  [d]                      as qkv             contiguous; both or neither
//   q                   [rows, Hq, d]            as qkv             contiguous
//   k, v                [rows | slots, Hkv, d]   f32 | bf16 | f16   one dtype; last dimension contiguous, apart
//   slots               [rows]                   i64                row r goes to k[slots[r]]; absent: to k[r]
//
// q, k and v share no memory with the inputs. A slot out of range or named twice is refused before anything is written.
// NaN and Inf stay in their head (with QK-norm) or in their pair. Deterministic; a row's bits depend on that row alone.
// Workspace: rows int64 when slots do not ascend. Bytes: rope_bytes: each head once in and once out, and the tables.
//
// CUDA (rope_sm80, compute capability 8.0 and newer): bf16 and f16, k and v of the same dtype, d up to 512. Slots in
// GPU memory cannot be refused: one out of range writes nothing, and of two rows with one slot either may win. A head
// is 2^n lanes of 16 elements, 8 of each half; sums of squares go lane by lane, then by halves of the lanes. Where
// addresses, strides and half a head are multiples of 16 bytes a thread moves 16 bytes at once; others go element by
// element and give the same bits.
#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"
#include "core/isa.h"
#include "core/stream.h"
#include "core/tensor.h"

namespace ivk {

struct RopeParams {
    const void* qkv;
    const float* cos;
    const float* sin;
    const void* q_weight;  // [head_dim] or null
    const void* k_weight;
    void* q;
    void* k;
    void* v;
    const int64_t* slots;  // [rows] or null
    int64_t heads, kv_heads, head_dim;
    int64_t stride_qkv, stride_cos, stride_sin, stride_slot;  // rows, in elements
    int64_t stride_k, stride_k_head, stride_v, stride_v_head;
    float eps;
    DType dtype, kv_dtype;
    int64_t rows, slot_count;
};

using RopeRows = void (*)(const RopeParams&, int64_t begin, int64_t end);
struct RopeTable {
    RopeRows rows[3][3];  // dtype of qkv, dtype of k and v: f32, bf16, f16
};
IVK_DECLARE_TABLE(RopeTable, rope_table)

// The checked problem; throws UnsupportedError. Shapes come from q and k.
RopeParams rope_problem(const TensorView& qkv, const TensorView& cos, const TensorView& sin, const TensorView& q_weight,
                        const TensorView& k_weight, const TensorView& q, const TensorView& k, const TensorView& v,
                        const TensorView& slots, float eps, bool slots_on_host);
std::string describe(const RopeParams&);
inline int64_t rope_bytes(const RopeParams& p) {
    const int64_t kv = 2 * p.kv_heads, in = p.heads + kv, s = size_of(p.dtype);
    return p.rows * (p.head_dim * (in * s + p.heads * s + kv * size_of(p.kv_dtype) + 4) + (p.slots ? 8 : 0)) +
           (p.q_weight ? 2 * p.head_dim * s : 0);
}

bool supports_rope_sm80(const RopeParams&, const Device&, std::string* why);
void rope_sm80(const RopeParams&, Stream);
void rope_cuda(const RopeParams&, const Device&, Stream);  // throws UnsupportedError with every variant's reason

// CPU: checks the contract, then runs on at most `threads` threads (0: the default cap).
void qkv_rope(const TensorView& qkv, const TensorView& cos, const TensorView& sin, const TensorView& q_weight,
              const TensorView& k_weight, const TensorView& q, const TensorView& k, const TensorView& v,
              const TensorView& slots, float eps, int threads);

}  // namespace ivk
