#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "binding/cuda/array.h"
#include "binding/errors.h"
#include "core/cuda/about.h"
#include "core/cuda/device.h"
#include "core/cuda/memory.h"

namespace ivk::binding {
void bind_array(py::module_& m);
void bind_attention_cuda(py::module_& m);
void bind_attention_cached_cuda(py::module_& m);
void bind_embed_cuda(py::module_& m);
void bind_gemm_cuda(py::module_& m);
void bind_graph(py::module_& m);
void bind_image_cuda(py::module_& m);
void bind_norm_cuda(py::module_& m);
void bind_patch_embed_cuda(py::module_& m);
void bind_pixel_shuffle_cuda(py::module_& m);
void bind_rope_cuda(py::module_& m);
void bind_statistics_cuda(py::module_& m);
}  // namespace ivk::binding

PYBIND11_MODULE(_cuda, m) {
    using namespace ivk;
    namespace py = pybind11;
    m.doc() = "CUDA kernels of internvl-kernels. Use internvl_kernels.ops. Importing it touches no GPU.";
    binding::register_errors();
    m.attr("compiler") = built_with();
    m.attr("architectures") = built_architectures();
    m.def("device_count", &device_count);
    m.def(
        "device",
        [](int ordinal) {
            const Device& d = device(ordinal);
            return py::dict(py::arg("name") = d.name, py::arg("capability") = py::make_tuple(d.major, d.minor),
                            py::arg("multiprocessors") = d.multiprocessors, py::arg("memory") = d.memory);
        },
        py::arg("ordinal"));
    m.def(
        "synchronize",
        [](int ordinal, uintptr_t stream) {
            const py::gil_scoped_release release;
            const DeviceGuard guard(ordinal);
            synchronize(binding::stream_of(stream));
        },
        py::arg("device"), py::arg("stream"));
    binding::bind_array(m);
    binding::bind_attention_cuda(m);
    binding::bind_attention_cached_cuda(m);
    binding::bind_embed_cuda(m);
    binding::bind_gemm_cuda(m);
    binding::bind_graph(m);
    binding::bind_image_cuda(m);
    binding::bind_norm_cuda(m);
    binding::bind_patch_embed_cuda(m);
    binding::bind_pixel_shuffle_cuda(m);
    binding::bind_rope_cuda(m);
    binding::bind_statistics_cuda(m);
}
