#include <string>

#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"
#include "kernels/image/image_sm80.cuh"

namespace ivk {
namespace {

constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
constexpr int64_t kMostRowBytes = int64_t{1} << 30;

int64_t over(int64_t n, int64_t by) { return (n + by - 1) / by; }
int64_t blocks_along(int64_t rows, int64_t outputs) {
    return over(rows, device::kPicRows) * over(outputs, device::kPicOutputs);
}
int64_t blocks_down(int64_t row_bytes, int64_t outputs) { return over(row_bytes, 16 * device::kDownThreads) * outputs; }

template <int kPixelBytes>
void along(const ImagePass& p, Stream stream) {
    constexpr int kShared =
        device::kPicRows * (device::kRawPitch<kPixelBytes> + 4 * (device::kPlanePitch + device::kOutPitch));
    const Launch how{"image_sm80, along rows", dim3(static_cast<unsigned>(blocks_along(p.height, p.outputs))),
                     dim3(32 * device::kPicWarps), kShared, stream};
    launch(how, device::along_kernel<kPixelBytes>, p, static_cast<int>(over(p.outputs, device::kPicOutputs)));
}

}  // namespace

bool supports_image_sm80(const ImageParams& p, const Device& on, std::string* why) {
    const int64_t wide = std::max(p.width * p.pixel_bytes, 3 * p.columns * p.size);
    const int64_t high = std::max(p.height, p.rows * p.size);
    if (on.major < 8)
        *why = "needs compute capability 8.0, " + on.name + " has " + std::to_string(on.major) + "." +
               std::to_string(on.minor);
    else if (wide > kMostRowBytes || blocks_down(wide, high) > kMostBlocks ||
             blocks_along(high, wide / 3) > kMostBlocks)
        *why = "allowed: sides that make at most " + std::to_string(kMostBlocks) + " blocks";
    else
        return true;
    return false;
}

void image_sm80(const ImagePass& p, Stream stream) {
    if (!p.vertical) return (p.pixel_bytes == 3 ? along<3> : along<4>)(p, stream);
    const int64_t blocks = blocks_down(p.row_bytes, p.outputs);
    const Launch how{"image_sm80, down columns", dim3(static_cast<unsigned>(blocks)), dim3(device::kDownThreads), 0,
                     stream};
    with_bool(aligned_addresses(p.from) && aligned_bytes(p.stride), [&](auto aligned) {
        launch(how, device::down_kernel<aligned>, p, static_cast<int>(over(p.row_bytes, 16 * device::kDownThreads)));
    });
}

}  // namespace ivk
