#include "kernels/sample/sample.h"

#include <cmath>

#include "core/check.h"
#include "core/parallel.h"

namespace ivk {
namespace {

void check(const char* op, const TensorView& logits, const TensorView& tokens) {
    const bool floating = logits.dtype == DType::f32 || logits.dtype == DType::bf16 || logits.dtype == DType::f16;
    require(logits.ndim == 2 && floating && logits.shape[1] >= 1 && logits.shape[1] <= INT32_MAX &&
                (logits.shape[1] == 1 || logits.stride[1] == 1 || logits.shape[0] == 0),
            op, ": logits is ", logits,
            "; allowed: [B, V] float32, bfloat16 or float16, V from 1 to 2^31 - 1, last dimension contiguous");
    require(tokens.ndim == 1 && tokens.shape[0] == logits.shape[0] && tokens.dtype == DType::i64 && tokens.contiguous(),
            op, ": tokens is ", tokens, "; allowed: contiguous int64 [", logits.shape[0], "]");
}

void run(const char* op, const char* refused, SampleRows rows, const SampleParams& params, int64_t batch, int threads) {
    parallel_for(batch, 1, threads, [&](int64_t begin, int64_t end) { rows(params, begin, end); });
    for (int64_t r = 0; r < batch; ++r)
        require(params.tokens[r] >= 0, op, ": row ", r, " of logits [", batch, ", ", params.vocab, "] holds ", refused);
}

}  // namespace

void argmax(const TensorView& logits, const TensorView& tokens, int threads) {
    check("argmax", logits, tokens);
    const SampleTable& table = IVK_SELECT(sample_table);
    const SampleRows rows = logits.dtype == DType::f32    ? table.argmax_f32
                            : logits.dtype == DType::bf16 ? table.argmax_bf16
                                                          : table.argmax_f16;
    const SampleParams params{logits.data, nullptr, tokens.as<int64_t>(), logits.shape[1], logits.stride[0], 0,
                              1.0,         1.0};
    run("argmax", "NaN", rows, params, logits.shape[0], threads);
}

void sample(const TensorView& logits, const TensorView& uniform, const TensorView& tokens, double temperature,
            int64_t top_k, double top_p, int threads) {
    check("sample", logits, tokens);
    require(
        uniform.ndim == 1 && uniform.shape[0] == logits.shape[0] && uniform.dtype == DType::f64 && uniform.contiguous(),
        "sample: uniform is ", uniform, "; allowed: contiguous float64 [", logits.shape[0], "]");
    for (int64_t r = 0; r < uniform.shape[0]; ++r) {
        const double u = uniform.as<const double>()[r];
        require(u >= 0.0 && u < 1.0, "sample: uniform[", r, "] is ", u, "; allowed: from 0 to below 1");
    }
    require(temperature > 0.0 && std::isfinite(temperature), "sample: temperature is ", temperature,
            "; allowed: greater than 0");
    require(top_k >= 0, "sample: top_k is ", top_k, "; allowed: 0 (all) and more");
    require(top_p > 0.0 && top_p <= 1.0, "sample: top_p is ", top_p, "; allowed: greater than 0, at most 1");
    const SampleTable& table = IVK_SELECT(sample_table);
    const SampleRows rows = logits.dtype == DType::f32    ? table.sample_f32
                            : logits.dtype == DType::bf16 ? table.sample_bf16
                                                          : table.sample_f16;
    const SampleParams params{
        logits.data, uniform.as<double>(), tokens.as<int64_t>(), logits.shape[1], logits.stride[0], top_k, temperature,
        top_p};
    run("sample", "NaN, +inf or nothing but -inf", rows, params, logits.shape[0], threads);
}

}  // namespace ivk
