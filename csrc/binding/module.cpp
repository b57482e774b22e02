#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "binding/convert.h"
#include "binding/errors.h"
#include "core/isa.h"
#include "core/parallel.h"

namespace py = pybind11;

namespace ivk::binding {
void bind_attention(py::module_& m);
void bind_embed(py::module_& m);
void bind_gemm(py::module_& m);
void bind_swiglu(py::module_& m);
void bind_gemm_few_rows(py::module_& m);
void bind_gemm_grouped(py::module_& m);
void bind_moe(py::module_& m);
void bind_image(py::module_& m);
void bind_norm(py::module_& m);
void bind_pack_weight(py::module_& m);
void bind_patch_embed(py::module_& m);
void bind_pixel_shuffle(py::module_& m);
void bind_program(py::module_& m);
void bind_rope(py::module_& m);
void bind_sample(py::module_& m);
}  // namespace ivk::binding

PYBIND11_MODULE(_cpu, m) {
    using namespace ivk;
    m.doc() = "CPU kernels of internvl-kernels. Use internvl_kernels.ops.";
    binding::register_errors();
    m.def("current_isa", [] { return isa_name(current_isa()); });
    m.def("has_bf16_products", &has_bf16_products);
    m.def("built_isas", &built_isas);
    m.def("available_isas", &available_isas);
    m.def("set_isa", &set_isa, py::arg("name"));
    m.def("default_threads", &default_threads);
    m.def("set_default_threads", &set_default_threads, py::arg("threads"));
    m.def(
        "check_tensor", [](py::handle x, const char* name) { binding::to_view(x, name); }, py::arg("x"),
        py::arg("name"),
        "Raises what any kernel would raise for this tensor: not dense CPU memory, negative or conjugate view, ...");
#if defined(__clang__)
    m.attr("compiler") = __VERSION__;  // begins with its name
#else
    m.attr("compiler") = "g++ " __VERSION__;
#endif
    binding::bind_attention(m);
    binding::bind_embed(m);
    binding::bind_gemm(m);
    binding::bind_swiglu(m);
    binding::bind_gemm_few_rows(m);
    binding::bind_gemm_grouped(m);
    binding::bind_moe(m);
    binding::bind_image(m);
    binding::bind_norm(m);
    binding::bind_pack_weight(m);
    binding::bind_patch_embed(m);
    binding::bind_pixel_shuffle(m);
    binding::bind_program(m);
    binding::bind_rope(m);
    binding::bind_sample(m);
}
