// The C interface: ivk.h of the installed package over the CUDA dispatch of each family.
#include <internvl_kernels/ivk.h>

#include <exception>
#include <string>

#include "core/check.h"
#include "core/cuda/device.h"
#include "kernels/gemm/gemm.h"
#include "kernels/norm/norm.h"
#include "kernels/pixel_shuffle/pixel_shuffle.h"

namespace {

using namespace ivk;

static_assert(int(Epilogue::gelu) == IVK_GELU && int(Epilogue::residual) == IVK_RESIDUAL, "numbers of the epilogues");
static_assert(sizeof(ivk_tensor::shape) == sizeof(TensorView::shape), "ivk_tensor holds what a view holds");

thread_local std::string last_error;

template <typename F>
ivk_status guarded(F&& f) {
    try {
        f();
        return IVK_OK;
    } catch (const UnsupportedError& refused) {
        last_error = refused.what();
        return IVK_UNSUPPORTED;
    } catch (const std::exception& failed) {
        last_error = failed.what();
        return IVK_FAILED;
    }
}

// Views of one call, all in device memory of one GPU.
class Tensors {
  public:
    explicit Tensors(const char* op) : op_(op) {}

    TensorView view(const ivk_tensor* t, const char* name) {
        if (t == nullptr) return {};
        require(t->ndim >= 1 && t->ndim <= kMaxDims, op_, ": ", name, " has ", t->ndim, " dimensions; allowed: 1 to ",
                kMaxDims);
        require(t->dtype >= IVK_FLOAT32 && t->dtype <= IVK_FLOAT16, op_, ": ", name, " has dtype ", t->dtype,
                "; allowed: 0 float32, 1 bfloat16, 2 float16");
        TensorView v;
        v.data = t->data;
        v.dtype = t->dtype == IVK_FLOAT32 ? DType::f32 : t->dtype == IVK_BFLOAT16 ? DType::bf16 : DType::f16;
        v.ndim = t->ndim;
        for (int d = 0; d < v.ndim; ++d) {
            require(t->shape[d] >= 0, op_, ": ", name, " has ", t->shape[d], " elements in dimension ", d,
                    "; allowed: 0 and more");
            v.shape[d] = t->shape[d];
            v.stride[d] = t->stride[d];
        }
        if (v.numel() > 0) place(t->data, name);
        return v;
    }
    int device() const { return device_ < 0 ? current_device() : device_; }

  private:
    void place(const void* address, const char* name) {
        const int where = device_of(address);
        require(where >= 0, op_, ": ", name, " at ", address, " is host memory or null; allowed: device memory");
        if (device_ < 0) device_ = where;
        require(where == device_, op_, ": ", name, " lies on device ", where, ", the arguments before it on ", device_,
                "; allowed: one device");
    }

    const char* op_;
    int device_ = -1;
};

}  // namespace

extern "C" {

int32_t ivk_c_version(void) { return IVK_C_VERSION; }

const char* ivk_last_error(void) { return last_error.c_str(); }

ivk_status ivk_norm(const ivk_tensor* x, const ivk_tensor* branch, const ivk_tensor* scale, const ivk_tensor* weight,
                    const ivk_tensor* bias, const ivk_tensor* h, const ivk_tensor* y, float eps, int32_t rms,
                    ivk_stream stream) {
    return guarded([&] {
        Tensors t("norm");
        const NormParams problem = norm_problem(t.view(x, "x"), t.view(branch, "branch"), t.view(scale, "scale"),
                                                t.view(weight, "weight"), t.view(bias, "bias"), t.view(h, "h"),
                                                t.view(y, "y"), eps, rms != 0 ? NormKind::rms : NormKind::layer);
        const DeviceGuard guard(t.device());
        norm_cuda(problem, device(t.device()), stream);
    });
}

ivk_status ivk_gemm(const ivk_tensor* x, const ivk_tensor* weight, const ivk_tensor* bias, const ivk_tensor* scale,
                    const ivk_tensor* residual, const ivk_tensor* y, int32_t epilogue, ivk_stream stream) {
    return guarded([&] {
        require(epilogue == IVK_LINEAR || epilogue == IVK_GELU || epilogue == IVK_RESIDUAL, "gemm: epilogue is ",
                epilogue, "; allowed: 0 linear, 1 gelu, 3 residual");
        Tensors t("gemm");
        const GemmParams problem =
            gemm_problem(t.view(x, "x"), plain_weight(t.view(weight, "weight")), t.view(bias, "bias"),
                         t.view(scale, "scale"), t.view(residual, "residual"), t.view(y, "y"), Epilogue(epilogue));
        const DeviceGuard guard(t.device());
        gemm_cuda(problem, device(t.device()), stream);
    });
}

ivk_status ivk_pixel_shuffle(const ivk_tensor* x, const ivk_tensor* weight, const ivk_tensor* bias, const ivk_tensor* y,
                             int64_t rows, int64_t cols, int64_t factor, int32_t column_major, int32_t drop_cls,
                             float eps, ivk_stream stream) {
    return guarded([&] {
        Tensors t("pixel_shuffle");
        const PixelShuffleParams problem =
            pixel_shuffle_problem(t.view(x, "x"), t.view(weight, "weight"), t.view(bias, "bias"), t.view(y, "y"), rows,
                                  cols, factor, column_major != 0, drop_cls != 0, eps);
        const DeviceGuard guard(t.device());
        pixel_shuffle_cuda(problem, device(t.device()), stream);
    });
}

}  // extern "C"
