// Python tensor -> TensorView. The only file that looks at Python tensor objects: torch tensors by their attributes,
// numpy arrays by the buffer they own, anything else through DLPack (numpy.from_dlpack).
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "core/tensor.h"

namespace ivk::binding {

namespace py = pybind11;

enum class Memory { host, anywhere };  // anywhere: the caller finds out where the address lives

// `name` is the argument's name in errors. `None` gives an undefined view. The view is valid while `object` lives.
// Refuses, naming the reason: tensors that are not plain CPU memory (meta, fake, sparse, quantized, other devices),
// negative or conjugate views, expanded dimensions, tensors that need a gradient, read-only arrays when `writable`.
TensorView to_view(const py::handle& object, const char* name, bool writable = false, Memory memory = Memory::host);

// A view with every leading dimension folded into rows; throws when strides do not allow it.
TensorView to_rows(const py::handle& object, const char* name, bool writable = false);
TensorView fold_rows(const TensorView& v, const char* name);

}  // namespace ivk::binding
