#include "core/check.h"
#include "kernels/norm/statistics.h"

namespace ivk {

void statistics_cuda(const StatisticsParams& p, const Device& on, Stream stream) {
    std::string why;
    if (supports_statistics_sm80(p, on, &why)) return statistics_sm80(p, stream);
    require(false, "statistics: no CUDA kernel takes ", describe(p), "; statistics_sm80: ", why);
}

}  // namespace ivk
