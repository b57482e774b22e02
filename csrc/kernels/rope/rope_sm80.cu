#include <string>

#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"
#include "kernels/rope/rope_sm80.cuh"

namespace ivk {
namespace {

constexpr int64_t kMostRows = (int64_t{1} << 31) - 1;
constexpr int64_t kMostDim = 2 * 32 * 8;
constexpr int64_t kMostHeads = int64_t{1} << 20;

bool whole_vectors(const RopeParams& p) {
    const int64_t s = size_of(p.dtype);
    return aligned_addresses(p.qkv, p.cos, p.sin, p.q_weight, p.k_weight, p.q, p.k, p.v) &&
           aligned_bytes(p.head_dim / 2 * s, p.stride_qkv * s, p.stride_cos * 4, p.stride_sin * 4, p.stride_k * s,
                         p.stride_k_head * s, p.stride_v * s, p.stride_v_head * s);
}

int lanes_of(int64_t dim) {
    int lanes = 1;
    while (lanes * 16 < dim) lanes *= 2;
    return lanes;
}

template <typename T>
void run(const RopeParams& p, Stream stream) {
    const Launch how{"rope_sm80", dim3(static_cast<unsigned>(p.rows)), dim3(device::kRopeThreads), 0, stream};
    with_bool(p.q_weight != nullptr, [&](auto norm) {
        with_bool(whole_vectors(p), [&](auto aligned) {
            launch(how, device::rope_kernel<T, norm, aligned>, device::RopeArgs{p, lanes_of(p.head_dim)});
        });
    });
}

}  // namespace

bool supports_rope_sm80(const RopeParams& p, const Device& on, std::string* why) {
    if (on.major < 8)
        *why = "needs compute capability 8.0, " + on.name + " has " + std::to_string(on.major) + "." +
               std::to_string(on.minor);
    else if (p.dtype == DType::f32 || p.kv_dtype != p.dtype)
        *why = std::string("qkv ") + name_of(p.dtype) + ", k and v " + name_of(p.kv_dtype) +
               "; allowed: bfloat16 or float16, the same for all";
    else if (p.head_dim > kMostDim)
        *why = "heads of " + std::to_string(p.head_dim) + "; allowed: at most " + std::to_string(kMostDim);
    else if (p.rows > kMostRows || p.heads > kMostHeads || p.kv_heads > kMostHeads)
        *why = "allowed: at most " + std::to_string(kMostRows) + " rows and " + std::to_string(kMostHeads) + " heads";
    else
        return true;
    return false;
}

void rope_sm80(const RopeParams& p, Stream stream) {
    if (p.rows == 0) return;
    p.dtype == DType::bf16 ? run<device::bf16>(p, stream) : run<device::f16>(p, stream);
}

}  // namespace ivk
