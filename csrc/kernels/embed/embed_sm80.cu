#include <string>

#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"
#include "kernels/embed/embed_sm80.cuh"

namespace ivk {
namespace {

constexpr int64_t kMostRows = (int64_t{1} << 31) - 1;

template <typename T>
void run(const EmbedParams& p, Stream stream) {
    const Launch how{"embed_sm80", dim3(static_cast<unsigned>(p.rows)), dim3(device::kEmbedThreads), 0, stream};
    const bool whole =
        aligned_addresses(p.table, p.visual, p.y) && aligned_bytes(p.row_bytes, p.table_stride, p.visual_stride);
    with_bool(whole, [&](auto aligned) { launch(how, device::embed_kernel<T, aligned>, p); });
}

}  // namespace

bool supports_embed_sm80(const EmbedParams& p, const Device& on, std::string* why) {
    if (on.major < 8)
        *why = "needs compute capability 8.0, " + on.name + " has " + std::to_string(on.major) + "." +
               std::to_string(on.minor);
    else if (p.rows > kMostRows)
        *why = std::to_string(p.rows) + " rows; allowed: at most " + std::to_string(kMostRows);
    else
        return true;
    return false;
}

void embed_sm80(const EmbedParams& p, Stream stream) {
    if (p.rows == 0) return;
    size_of(p.dtype) == 4 ? run<uint32_t>(p, stream) : run<uint16_t>(p, stream);
}

}  // namespace ivk
