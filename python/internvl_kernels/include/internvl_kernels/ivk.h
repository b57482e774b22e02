/* The C interface of internvl-kernels' CUDA part, for runtimes without Python or torch.
 *
 * Link libivk_cuda.so, which lies in the package's folder, beside this header's `include`. Memory, streams and errors
 * are the CUDA runtime's: tensors lie in device memory of one GPU, calls put their work on `stream` and return. What
 * each op computes, and which shapes, strides and overlaps it takes, is written in the contract named at its
 * declaration.
 *
 * Every function returns a status. After IVK_UNSUPPORTED (the problem is refused, nothing ran) and IVK_FAILED (the CUDA
 * runtime reported an error), ivk_last_error() is the reason, in words, for the calling thread. Calls are thread-safe.
 */
#ifndef INTERNVL_KERNELS_IVK_H
#define INTERNVL_KERNELS_IVK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define IVK_C_VERSION 1 /* grows when a declaration below changes its meaning */

typedef enum ivk_status { IVK_OK = 0, IVK_UNSUPPORTED = 1, IVK_FAILED = 2 } ivk_status;
typedef enum ivk_dtype { IVK_FLOAT32 = 0, IVK_BFLOAT16 = 1, IVK_FLOAT16 = 2 } ivk_dtype;

typedef struct ivk_tensor {
    void* data;        /* device address of the first element */
    int32_t dtype;     /* ivk_dtype */
    int32_t ndim;      /* 1 to 6 */
    int64_t shape[6];  /* the first ndim count */
    int64_t stride[6]; /* in elements */
} ivk_tensor;

typedef struct CUstream_st* ivk_stream; /* cudaStream_t; null is the default stream */

int32_t ivk_c_version(void);
const char* ivk_last_error(void);

/* Contract: csrc/kernels/norm/norm.h. x, branch, h, y [rows, cols]; scale, weight, bias [cols]; null for what is
 * absent. norm        x, weight, y                 (bias) add_norm    x, branch, weight, h, y      (scale, bias)
 *   add_scaled  x, branch, h                 (scale)
 * rms: 0 LayerNorm, 1 RMSNorm (which takes no bias). */
ivk_status ivk_norm(const ivk_tensor* x, const ivk_tensor* branch, const ivk_tensor* scale, const ivk_tensor* weight,
                    const ivk_tensor* bias, const ivk_tensor* h, const ivk_tensor* y, float eps, int32_t rms,
                    ivk_stream stream);

/* Contract: csrc/kernels/gemm/gemm.h. y = epilogue(x weight^T + bias): x [M, K], weight [N, K], y [M, N] of bfloat16 or
 * float16; bias, scale [N] or null. IVK_RESIDUAL: residual + scale * (...), residual [M, N] may be y, and both may be
 * float32. */
typedef enum ivk_epilogue { IVK_LINEAR = 0, IVK_GELU = 1, IVK_RESIDUAL = 3 } ivk_epilogue;
ivk_status ivk_gemm(const ivk_tensor* x, const ivk_tensor* weight, const ivk_tensor* bias, const ivk_tensor* scale,
                    const ivk_tensor* residual, const ivk_tensor* y, int32_t epilogue, ivk_stream stream);

/* Contract: csrc/kernels/pixel_shuffle/pixel_shuffle.h. x [tiles, drop_cls + rows cols, D], y [tiles, rows cols / f^2,
 * f^2 D] contiguous; weight, bias [f^2 D] or null. column_major: 0 order v2, 1 order v1. */
ivk_status ivk_pixel_shuffle(const ivk_tensor* x, const ivk_tensor* weight, const ivk_tensor* bias, const ivk_tensor* y,
                             int64_t rows, int64_t cols, int64_t factor, int32_t column_major, int32_t drop_cls,
                             float eps, ivk_stream stream);

#ifdef __cplusplus
}
#endif

#endif
