// Device memory as Python sees it: a view, the device it lies on, and whoever keeps it alive.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "core/stream.h"
#include "core/tensor.h"

namespace ivk::binding {

namespace py = pybind11;

struct Array {
    TensorView view;
    int device = 0;
    std::shared_ptr<void> owner;
    Stream stream = nullptr;         // that last wrote it, as far as we know
    py::object origin = py::none();  // the caller's tensor on this very memory, or None
};

inline Stream stream_of(uintptr_t handle) { return reinterpret_cast<Stream>(handle); }

// An argument of a kernel; None gives an undefined view. Checks that all lie on one device.
class Arguments {
  public:
    explicit Arguments(const char* op) : op_(op) {}
    TensorView view(const Array* array, const char* name);
    TensorView rows(const Array* array, const char* name);  // leading dimensions folded
    int device() const { return device_ < 0 ? 0 : device_; }

  private:
    const char* op_;
    int device_ = -1;
};

py::capsule to_dlpack(const Array& array, py::object consumer_stream);
Array from_dlpack(const py::object& capsule, const char* name);

}  // namespace ivk::binding
