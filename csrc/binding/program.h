// Kernel calls kept in the order in which they ran, to run again on the same memory with no Python between them.
#pragma once

#include <functional>
#include <initializer_list>
#include <utility>
#include <vector>

#include "binding/convert.h"
#include "kernels/attention/attention_cached.h"

namespace ivk::binding {

using Spans = std::vector<AttentionSpan>;

struct Program {
    std::vector<std::function<void(const Spans&)>> calls;
    std::vector<py::object> held;  // the tensors whose memory they name
};

// The program that this thread records, or null.
Program*& recorded();

// Runs a kernel with the GIL released and records it. The kernel owns copies of its views; `tensors` are their objects.
// Spans, where a kernel has them, are those of each run.
template <typename Kernel>
void perform(std::initializer_list<py::handle> tensors, const Spans& spans, Kernel&& kernel) {
    Program* const program = recorded();
    {
        py::gil_scoped_release release;
        kernel(spans);
    }
    if (program == nullptr) return;
    for (const py::handle& tensor : tensors)
        if (!tensor.is_none()) program->held.push_back(py::reinterpret_borrow<py::object>(tensor));
    program->calls.emplace_back(std::forward<Kernel>(kernel));
}
template <typename Kernel>
void perform(std::initializer_list<py::handle> tensors, Kernel&& kernel) {
    perform(tensors, {}, [kernel = std::forward<Kernel>(kernel)](const Spans&) { kernel(); });
}

// While it lives, a kernel that no program takes runs, with the GIL released. Refused while one is recorded.
class Alone {
  public:
    explicit Alone(const char* kernel);

  private:
    py::gil_scoped_release release_;
};

}  // namespace ivk::binding
