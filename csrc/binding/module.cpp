#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/check.h"
#include "core/isa.h"
#include "core/parallel.h"

namespace py = pybind11;

namespace ivk::binding {
void bind_image(py::module_& m);
void bind_norm(py::module_& m);
}

PYBIND11_MODULE(_cpu, m) {
    using namespace ivk;
    m.doc() = "CPU kernels of internvl-kernels. Use internvl_kernels.ops.";
    py::register_local_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const UnsupportedError& refused) {
            const py::object type = py::module_::import("internvl_kernels.errors").attr("UnsupportedError");
            PyErr_SetString(type.ptr(), refused.what());
        }
    });
    m.def("current_isa", [] { return isa_name(current_isa()); });
    m.def("available_isas", &available_isas);
    m.def("set_isa", &set_isa, py::arg("name"));
    m.def("default_threads", &default_threads);
    m.def("set_default_threads", &set_default_threads, py::arg("threads"));
    m.attr("compiler") = __VERSION__;
    binding::bind_image(m);
    binding::bind_norm(m);
}
