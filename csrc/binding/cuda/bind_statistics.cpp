#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "kernels/norm/statistics.h"

namespace ivk::binding {

void bind_statistics_cuda(py::module_& m) {
    m.def(
        "row_statistics",
        [](const Array* x, const Array* statistics, uintptr_t stream) {
            Arguments args("row_statistics");
            const TensorView rows = args.rows(x, "x");
            const StatisticsParams problem = row_statistics_problem(rows, args.view(statistics, "statistics"));
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            statistics_cuda(problem, device(args.device()), stream_of(stream));
        },
        py::arg("x").none(false), py::arg("statistics").none(false), py::arg("stream"),
        "See csrc/kernels/norm/statistics.h.");
    m.def(
        "row_factors",
        [](const Array* statistics, const Array* factors, float eps, uintptr_t stream) {
            Arguments args("row_factors");
            const TensorView parts = args.view(statistics, "statistics");
            const StatisticsParams problem = row_factors_problem(parts, args.view(factors, "factors"), eps);
            const py::gil_scoped_release release;
            const DeviceGuard guard(args.device());
            statistics_cuda(problem, device(args.device()), stream_of(stream));
        },
        py::arg("statistics").none(false), py::arg("factors").none(false), py::arg("eps"), py::arg("stream"),
        "See csrc/kernels/norm/statistics.h.");
}

}  // namespace ivk::binding
