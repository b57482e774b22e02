#include <pybind11/stl.h>

#include <array>

#include "binding/program.h"
#include "core/check.h"

namespace ivk::binding {

Program*& recorded() {
    static thread_local Program* current = nullptr;
    return current;
}

Alone::Alone(const char* kernel) {
    require(recorded() == nullptr, kernel,
            ": called while a program is recorded; allowed: the kernels that it can run");
}

void bind_program(py::module_& m) {
    py::class_<Program>(m, "Program", "Kernel calls, recorded once and run again on the same memory.")
        .def(py::init<>())
        .def(
            "record",
            [](Program& program) {
                require(recorded() == nullptr, "program: another is recorded on this thread; allowed: one at a time");
                require(program.calls.empty(), "program: it holds calls already; allowed: a new one");
                recorded() = &program;
            },
            "From now on this thread's kernels are recorded as they run.")
        .def_static("stop", [] { recorded() = nullptr; })
        .def(
            "run",
            [](const Program& program, const std::vector<std::array<int64_t, 4>>& spans) {
                require(recorded() == nullptr, "program: run while one is recorded; allowed: after its end");
                Spans parts;
                for (const auto& s : spans) parts.push_back({s[0], s[1], s[2], s[3]});
                py::gil_scoped_release release;
                for (const auto& call : program.calls) call(parts);
            },
            py::arg("spans"), "All calls once more; attention over these spans.")
        .def("__len__", [](const Program& program) { return program.calls.size(); });
}

}  // namespace ivk::binding
