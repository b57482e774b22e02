#include <string>

#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"
#include "kernels/norm/norm_sm80_statistics.cuh"

namespace ivk {
namespace {

constexpr int64_t kMostColumns = int64_t{1} << 30;
constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;

int64_t over(int64_t n, int64_t by) { return (n + by - 1) / by; }
int64_t blocks_of_rows(const StatisticsParams& p) {
    return over(statistics_parts(p.cols), device::kStatisticsWarps * device::kStatisticsParts);
}
int64_t blocks(const StatisticsParams& p) {
    if (p.x == nullptr) return over(p.matrices * over(p.rows, device::kFactorRows), device::kStatisticsWarps);
    return over(p.rows, device::kStatisticsRows) * blocks_of_rows(p);
}

}  // namespace

bool supports_statistics_sm80(const StatisticsParams& p, const Device& on, std::string* why) {
    if (on.major < 8)
        *why = "needs compute capability 8.0, " + on.name + " has " + std::to_string(on.major) + "." +
               std::to_string(on.minor);
    else if (p.cols > kMostColumns)
        *why = std::to_string(p.cols) + " columns; allowed: at most " + std::to_string(kMostColumns);
    else if (p.rows > kMostBlocks || blocks(p) > kMostBlocks)
        *why = std::to_string(p.rows) + " rows; allowed: at most " + std::to_string(kMostBlocks) + " blocks of them";
    else
        return true;
    return false;
}

void statistics_sm80(const StatisticsParams& p, Stream stream) {
    if (p.rows == 0) return;
    const Launch how{"statistics_sm80", dim3(static_cast<unsigned>(blocks(p))), dim3(32 * device::kStatisticsWarps), 0,
                     stream};
    if (p.x == nullptr) return launch(how, device::row_factors_kernel, p);
    const int64_t s = size_of(p.dtype);
    const bool whole = aligned_addresses(p.x) && aligned_bytes(p.cols * s, p.rows > 1 ? p.stride_x * s : 0);
    const int shared = static_cast<int>(blocks_of_rows(p));
    with_bool(whole, [&](auto aligned) {
        if (p.dtype == DType::bf16)
            launch(how, device::row_statistics_kernel<device::bf16, aligned>, p, shared);
        else
            launch(how, device::row_statistics_kernel<device::f16, aligned>, p, shared);
    });
}

}  // namespace ivk
