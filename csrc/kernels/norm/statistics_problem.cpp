#include <sstream>

#include "core/check.h"
#include "kernels/norm/statistics.h"

namespace ivk {

StatisticsParams row_statistics_problem(const TensorView& x, const TensorView& statistics) {
    require(x.ndim == 2 && x.shape[1] >= 1 && (x.dtype == DType::bf16 || x.dtype == DType::f16) &&
                (x.shape[1] == 1 || x.stride[1] == 1) && (x.shape[0] <= 1 || x.stride[0] >= x.shape[1]),
            "row_statistics: x is ", x,
            "; allowed: [rows, cols] of bfloat16 or float16 with cols >= 1, the last dimension contiguous, rows that "
            "do not overlap");
    check_statistics("row_statistics", "statistics", statistics, statistics_parts(x.shape[1]), x.shape[0]);
    require(!overlap(statistics, x), "row_statistics: statistics is ", statistics, "; allowed: apart from x");
    return {x.data,      statistics.as<float>(), nullptr, x.shape[0], x.shape[1], 1,
            x.stride[0], statistics.stride[0],   0.0f,    x.dtype};
}

StatisticsParams row_factors_problem(const TensorView& statistics, const TensorView& factors, float eps) {
    require(eps > 0.0f, "row_factors: eps is ", eps, "; allowed: greater than 0");
    require(factors.ndim == 2 && factors.dtype == DType::f32 && factors.contiguous() && factors.shape[0] >= 1,
            "row_factors: factors is ", factors, "; allowed: contiguous float32 [matrices, rows]");
    require(statistics.ndim == 3 && statistics.shape[0] >= 1 && statistics.shape[0] % factors.shape[0] == 0,
            "row_factors: statistics is ", statistics, ", factors ", factors,
            "; allowed: as many parts for each of the factors' matrices");
    check_statistics("row_factors", "statistics", statistics, statistics.shape[0], factors.shape[1]);
    require(!overlap(statistics, factors), "row_factors: factors is ", factors, "; allowed: apart from statistics");
    return {nullptr,
            statistics.as<float>(),
            factors.as<float>(),
            factors.shape[1],
            statistics.shape[0] / factors.shape[0] * kStatisticsPart,
            factors.shape[0],
            0,
            statistics.stride[0],
            eps,
            DType::f32};
}

std::string describe(const StatisticsParams& p) {
    std::ostringstream text;
    if (p.x != nullptr)
        text << "row statistics of " << name_of(p.dtype) << "[" << p.rows << ", " << p.cols << "] row stride "
             << p.stride_x << " at " << p.x;
    else
        text << "factors of " << p.matrices << " matrices [" << p.rows << ", " << p.cols << "], eps " << p.eps
             << ", at " << p.factors;
    text << ", statistics at " << p.statistics << ", parts " << p.apart << " elements apart";
    return text.str();
}

}  // namespace ivk
