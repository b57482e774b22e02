#include <algorithm>
#include <string>

#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"
#include "kernels/pixel_shuffle/pixel_shuffle_sm80.cuh"

namespace ivk {
namespace {

constexpr int64_t kMostColumns = int64_t{1} << 30;
constexpr int64_t kMostTokens = (int64_t{1} << 31) - 1;  // blocks of a grid, and what device::Divider divides

bool whole_vectors(const PixelShuffleParams& p) {
    const int64_t s = size_of(p.dtype);
    return aligned_addresses(p.x, p.weight, p.bias, p.y) &&
           aligned_bytes(p.width * std::min(s, size_of(p.out)), p.rows * p.cols > 1 ? p.stride_patch * s : 0,
                         p.tiles > 1 ? p.stride_tile * s : 0);
}

device::ShuffleArgs arguments_of(const PixelShuffleParams& p) {
    const int64_t down = p.rows / p.factor, across = p.cols / p.factor;
    const auto divider = [](int64_t by) { return device::Divider(static_cast<uint32_t>(by)); };
    return {p,
            p.tiles * down * across,
            static_cast<int>(p.factor * p.factor * p.width),
            divider(down * across),
            divider(p.column_major ? down : across),
            divider(p.width),
            divider(p.factor)};
}

template <typename T, typename Y, typename Group, bool kLong>
void run_norm(const device::ShuffleArgs& a, int threads, Stream stream) {
    const int64_t blocks = Group::kBlock ? a.tokens : (a.tokens + device::kRowsOfBlock - 1) / device::kRowsOfBlock;
    const Launch how{"pixel_shuffle_sm80", dim3(static_cast<unsigned>(blocks)),
                     dim3(Group::kBlock ? threads : 32 * device::kRowsOfBlock), 0, stream};
    with_bool(whole_vectors(a.p),
              [&](auto aligned) { launch(how, device::pixel_shuffle_norm_kernel<T, Y, Group, aligned, kLong>, a); });
}

template <typename T, typename Y>
void run_shape(const device::ShuffleArgs& a, Stream stream) {
    const device::RowShape shape = device::row_shape(a.columns, device::kLanes<T>);
    if (shape.plan == device::RowPlan::warp)
        run_norm<T, Y, device::WarpGroup, false>(a, shape.threads, stream);
    else if (shape.plan == device::RowPlan::block)
        run_norm<T, Y, device::BlockGroup, false>(a, shape.threads, stream);
    else
        run_norm<T, Y, device::BlockGroup, true>(a, shape.threads, stream);
}

template <typename T>
void run_copy(const device::ShuffleArgs& a, Stream stream) {
    const int vectors = (a.columns + device::kLanes<T> - 1) / device::kLanes<T>;
    const unsigned threads = std::clamp((vectors + 3) / 4 + 31, 32, 256) / 32 * 32;
    const Launch how{"pixel_shuffle_sm80 copy", dim3(static_cast<unsigned>(a.tokens)), dim3(threads), 0, stream};
    with_bool(whole_vectors(a.p), [&](auto aligned) { launch(how, device::pixel_shuffle_copy_kernel<T, aligned>, a); });
}

}  // namespace

bool supports_pixel_shuffle_sm80(const PixelShuffleParams& p, const Device& on, std::string* why) {
    const int64_t columns = p.factor * p.factor * p.width, tokens = token_count(p);
    if (on.major < 8)
        *why = "needs compute capability 8.0, " + on.name + " has " + std::to_string(on.major) + "." +
               std::to_string(on.minor);
    else if (columns > kMostColumns)
        *why = std::to_string(columns) + " columns of a token; allowed: at most " + std::to_string(kMostColumns);
    else if (tokens > kMostTokens)
        *why = std::to_string(tokens) + " tokens; allowed: at most " + std::to_string(kMostTokens);
    else
        return true;
    return false;
}

void pixel_shuffle_sm80(const PixelShuffleParams& p, Stream stream) {
    if (p.tiles == 0) return;
    const device::ShuffleArgs a = arguments_of(p);
    if (p.weight == nullptr)
        return size_of(p.dtype) == 4 ? run_copy<uint32_t>(a, stream) : run_copy<uint16_t>(a, stream);
    if (p.dtype == p.out)
        return with_float<device::bf16, device::f16>(p.dtype, [&](auto tag) {
            using T = typename decltype(tag)::type;
            run_shape<T, T>(a, stream);
        });
    p.out == DType::bf16 ? run_shape<float, device::bf16>(a, stream) : run_shape<float, device::f16>(a, stream);
}

}  // namespace ivk
