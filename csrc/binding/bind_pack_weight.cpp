#include "binding/program.h"
#include "kernels/gemm/gemm.h"

namespace ivk::binding {

void bind_pack_weight(py::module_& m) {
    m.attr("packed_layout") = kPackedLayout;
    m.def("packed_elements", &packed_elements, py::arg("n"), py::arg("k"), py::arg("swiglu"));
    m.def(
        "pack_weight",
        [](py::handle weight, py::handle packed, bool swiglu, int threads) {
            const TensorView from = to_view(weight, "weight"), to = to_view(packed, "packed", true);
            const Alone running("pack_weight");
            pack_weight(from, to, swiglu, threads);
        },
        py::arg("weight"), py::arg("packed"), py::arg("swiglu"), py::arg("threads") = 0,
        "See csrc/kernels/gemm/gemm.h.");
    m.def(
        "gemm_scratch",
        [](int64_t k, bool packed) {
            return int64_t(sizeof(float)) * gemm_scratch(packed ? kRowBlock : kStagedBlock, k, kGroup);
        },
        py::arg("k"), py::arg("packed"), "Bytes at most that a thread keeps for products with weights of K columns.");
}

}  // namespace ivk::binding
