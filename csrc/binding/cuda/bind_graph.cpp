#include "binding/cuda/array.h"
#include "core/cuda/device.h"
#include "core/cuda/graph.h"
#include "core/cuda/memory.h"

namespace ivk::binding {

void bind_graph(py::module_& m) {
    py::class_<OwnStream>(m, "Stream", "A stream of our own that does not wait for the default one.")
        .def(py::init([](int ordinal) {
                 const DeviceGuard guard(ordinal);
                 return std::make_unique<OwnStream>();
             }),
             py::arg("device"))
        .def_property_readonly("handle", [](const OwnStream& s) { return reinterpret_cast<uintptr_t>(s.handle()); });
    py::class_<Graph>(m, "Graph", "Launches recorded from a stream between begin and end, repeated by launch.")
        .def(py::init<>())
        .def(
            "begin",
            [](Graph& g, int ordinal, uintptr_t stream) {
                const DeviceGuard guard(ordinal);
                g.begin(stream_of(stream));
            },
            py::arg("device"), py::arg("stream"))
        .def("end", &Graph::end)
        .def("abandon", &Graph::abandon)
        .def(
            "launch",
            [](const Graph& g, int ordinal, uintptr_t stream) {
                const py::gil_scoped_release release;
                const DeviceGuard guard(ordinal);
                g.launch(stream_of(stream));
            },
            py::arg("device"), py::arg("stream"))
        .def_property_readonly("nodes", &Graph::nodes);
    m.def(
        "order",
        [](int ordinal, uintptr_t first, uintptr_t later) {
            const DeviceGuard guard(ordinal);
            order(stream_of(first), stream_of(later));
        },
        py::arg("device"), py::arg("first"), py::arg("later"),
        "Work put on `later` from now on waits for what `first` holds now.");
}

}  // namespace ivk::binding
