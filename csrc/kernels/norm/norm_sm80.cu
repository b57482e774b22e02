#include <string>

#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"
#include "kernels/norm/norm_sm80.cuh"

namespace ivk {
namespace {

constexpr int64_t kMostColumns = int64_t{1} << 30;
constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;

bool whole_vectors(const NormParams& p) {
    const int64_t s = size_of(p.dtype), several = p.rows > 1 ? s : 0;  // one row has no use for strides
    return aligned_addresses(p.x, p.branch, p.scale, p.weight, p.second_weight, p.bias, p.h, p.y) &&
           aligned_bytes(p.cols * size_of(p.out), p.stride_x * several, p.stride_branch * several, p.stride_h * several,
                         p.rows > 1 ? p.stride_y * size_of(p.out) : 0);
}

template <typename T, typename Y, typename Group, bool kLong>
void run(const NormParams& p, int threads, Stream stream) {
    const int64_t blocks = Group::kBlock ? p.rows : (p.rows + device::kRowsOfBlock - 1) / device::kRowsOfBlock;
    const Launch how{"norm_sm80", dim3(static_cast<unsigned>(blocks)),
                     dim3(Group::kBlock ? threads : 32 * device::kRowsOfBlock), 0, stream};
    with_bool(whole_vectors(p),
              [&](auto aligned) { launch(how, device::norm_kernel<T, Y, Group, aligned, kLong>, p); });
}

template <typename T, typename Y>
void run_shape(const NormParams& p, Stream stream) {
    const device::RowShape shape = device::row_shape(p.cols, device::kLanes<T>);
    if (shape.plan == device::RowPlan::warp)
        run<T, Y, device::WarpGroup, false>(p, shape.threads, stream);
    else if (shape.plan == device::RowPlan::block)
        run<T, Y, device::BlockGroup, false>(p, shape.threads, stream);
    else
        run<T, Y, device::BlockGroup, true>(p, shape.threads, stream);
}

}  // namespace

bool supports_norm_sm80(const NormParams& p, const Device& on, std::string* why) {
    if (on.major < 8)
        *why = "needs compute capability 8.0, " + on.name + " has " + std::to_string(on.major) + "." +
               std::to_string(on.minor);
    else if (p.cols > kMostColumns)
        *why = std::to_string(p.cols) + " columns; allowed: at most " + std::to_string(kMostColumns);
    else if (p.rows > kMostBlocks)
        *why = std::to_string(p.rows) + " rows; allowed: at most " + std::to_string(kMostBlocks);
    else
        return true;
    return false;
}

void norm_sm80(const NormParams& p, Stream stream) {
    if (p.rows == 0) return;
    if (p.dtype == p.out)
        return with_float<device::bf16, device::f16>(p.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            run_shape<T, T>(p, stream);
        });
    p.out == DType::bf16 ? run_shape<float, device::bf16>(p, stream) : run_shape<float, device::f16>(p, stream);
}

}  // namespace ivk
