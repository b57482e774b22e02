#include "kernels/rope/rope.h"

#include "core/parallel.h"

namespace ivk {
namespace {

int index_of(DType dtype) { return dtype == DType::f32 ? 0 : dtype == DType::bf16 ? 1 : 2; }

}  // namespace

void qkv_rope(const TensorView& qkv, const TensorView& cos, const TensorView& sin, const TensorView& q_weight,
              const TensorView& k_weight, const TensorView& q, const TensorView& k, const TensorView& v,
              const TensorView& slots, float eps, int threads) {
    const RopeParams params = rope_problem(qkv, cos, sin, q_weight, k_weight, q, k, v, slots, eps, true);
    const RopeTable& table = IVK_SELECT(rope_table);
    const RopeRows run = table.rows[index_of(params.dtype)][index_of(params.kv_dtype)];
    const int64_t grain = 1 + (1 << 13) / qkv.shape[1];
    parallel_for(params.rows, grain, threads, [&](int64_t begin, int64_t end) { run(params, begin, end); });
}

}  // namespace ivk
