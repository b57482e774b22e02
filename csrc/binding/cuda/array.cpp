#include "binding/cuda/array.h"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "binding/convert.h"
#include "core/cuda/device.h"
#include "core/cuda/memory.h"

namespace ivk::binding {

void bind_array(py::module_& m);

TensorView Arguments::view(const Array* array, const char* name) {
    if (array == nullptr) return {};
    if (device_ < 0) device_ = array->device;
    require(array->device == device_, op_, ": ", name, " lies on device ", array->device,
            ", the arguments before it on ", device_, "; allowed: one device");
    return array->view;
}

TensorView Arguments::rows(const Array* array, const char* name) { return fold_rows(view(array, name), name); }

namespace {

DType dtype_named(const std::string& text) {
    for (DType candidate :
         {DType::f32, DType::bf16, DType::f16, DType::f64, DType::u8, DType::i32, DType::i64, DType::boolean})
        if (text == name_of(candidate)) return candidate;
    throw UnsupportedError("dtype: " + text +
                           "; allowed: float32, bfloat16, float16, float64, uint8, int32, int64, bool");
}

Array empty(const std::vector<int64_t>& shape, DType dtype, int ordinal, Stream stream) {
    require(shape.size() <= kMaxDims, "DeviceArray: ", shape.size(), " dimensions; allowed: at most ", kMaxDims);
    Array array;
    array.view.dtype = dtype;
    array.view.ndim = static_cast<int>(shape.size());
    int64_t dense = 1;
    for (int d = array.view.ndim - 1; d >= 0; --d) {
        require(shape[d] >= 0, "DeviceArray: dimension ", d, " is ", shape[d], "; allowed: 0 and more");
        array.view.shape[d] = shape[d];
        array.view.stride[d] = dense;
        dense *= shape[d];
    }
    const DeviceGuard guard(ordinal);
    const auto memory = std::make_shared<DeviceMemory>(dense * size_of(dtype));
    array.view.data = memory->data();
    array.owner = std::shared_ptr<void>(memory, memory->data());
    array.device = ordinal;
    array.stream = stream;
    return array;
}

// Any strides that are not negative: dense blocks in one go, rows by their pitch, the rest a slice of dimension 0 at a
// time.
void copy_strided(const TensorView& to, const TensorView& from, Stream stream) {
    const int64_t size = size_of(to.dtype);
    if (to.contiguous() && from.contiguous()) return copy_bytes(to.data, from.data, to.numel() * size, stream);
    const auto pitch = [&](const TensorView& v, int d) { return v.shape[d] > 1 ? v.stride[d] * size : 0; };
    if (to.ndim == 1) return copy_rows({to.data, pitch(to, 0)}, {from.data, pitch(from, 0)}, size, to.shape[0], stream);
    const int64_t width = to.shape[1] * size;
    if (to.ndim == 2 && to.contiguous(1) && from.contiguous(1) && pitch(to, 0) >= width && pitch(from, 0) >= width)
        return copy_rows({to.data, pitch(to, 0)}, {from.data, pitch(from, 0)}, width, to.shape[0], stream);
    const auto slice = [](const TensorView& v, int64_t i) {
        TensorView part = v;
        part.data = v.as<char>() + i * v.stride[0] * size_of(v.dtype);
        part.ndim = v.ndim - 1;
        for (int d = 0; d < part.ndim; ++d) part.shape[d] = v.shape[d + 1], part.stride[d] = v.stride[d + 1];
        return part;
    };
    for (int64_t i = 0; i < to.shape[0]; ++i) copy_strided(slice(to, i), slice(from, i), stream);
}

void copy(const TensorView& to, const TensorView& from, Stream stream) {
    bool same = to.ndim == from.ndim && to.dtype == from.dtype;
    for (int d = 0; same && d < to.ndim; ++d) same = to.shape[d] == from.shape[d];
    require(same, "copy: from ", from, " to ", to, "; allowed: equal shapes and dtypes");
    for (int d = 0; d < to.ndim; ++d)
        require(to.stride[d] >= 0 && from.stride[d] >= 0, "copy: from ", from, " to ", to,
                "; allowed: strides of 0 and more");
    if (to.numel() > 0) copy_strided(to, from, stream);
}

TensorView any_view(const py::handle& object, const char* name, bool writable) {
    if (py::isinstance<Array>(object)) return object.cast<const Array&>().view;
    return to_view(object, name, writable, Memory::anywhere);
}

// The caller's tensor where it lies when that is device memory, else a copy on `ordinal`.
Array take(const py::object& object, const char* name, int ordinal, Stream stream) {
    const TensorView v = to_view(object, name, false, Memory::anywhere);
    const int where = device_of(v.data);
    if (where < 0) {
        const Array array = empty({v.shape, v.shape + v.ndim}, v.dtype, ordinal, stream);
        const DeviceGuard guard(ordinal);
        copy(array.view, v, stream);
        synchronize(stream);  // the caller may change or free its memory once we return
        return array;
    }
    Array array;
    array.view = v;
    array.device = where;
    array.stream = stream;
    array.origin = object;
    PyObject* kept = py::object(object).release().ptr();
    array.owner = std::shared_ptr<void>(v.data, [kept](void*) {
        const py::gil_scoped_acquire gil;
        Py_DECREF(kept);
    });
    return array;
}

Array sub_view(const Array& array, int64_t offset, const std::vector<int64_t>& shape,
               const std::vector<int64_t>& strides) {
    Array part = array;
    part.origin = py::none();
    part.view.data = array.view.as<char>() + offset * size_of(array.view.dtype);
    part.view.ndim = static_cast<int>(shape.size());
    for (size_t d = 0; d < shape.size(); ++d) part.view.shape[d] = shape[d], part.view.stride[d] = strides[d];
    return part;
}

py::tuple tuple_of(const int64_t* values, int count) {
    py::tuple out(count);
    for (int d = 0; d < count; ++d) out[d] = values[d];
    return out;
}

}  // namespace

void bind_array(py::module_& m) {
    py::class_<Array>(m, "Array", "Device memory; internvl_kernels.DeviceArray is the public form.")
        .def_property_readonly("shape", [](const Array& a) { return tuple_of(a.view.shape, a.view.ndim); })
        .def_property_readonly("strides", [](const Array& a) { return tuple_of(a.view.stride, a.view.ndim); })
        .def_property_readonly("dtype", [](const Array& a) { return name_of(a.view.dtype); })
        .def_property_readonly("pointer", [](const Array& a) { return reinterpret_cast<uintptr_t>(a.view.data); })
        .def_property_readonly("contiguous", [](const Array& a) { return a.view.contiguous(); })
        .def_readonly("device", &Array::device)
        .def_readonly("origin", &Array::origin)
        .def_property_readonly("stream", [](const Array& a) { return reinterpret_cast<uintptr_t>(a.stream); })
        .def("view", &sub_view, py::arg("offset"), py::arg("shape"), py::arg("strides"))
        .def("dlpack", &to_dlpack, py::arg("stream"));
    m.def(
        "empty",
        [](const std::vector<int64_t>& shape, const std::string& dtype, int device, uintptr_t stream) {
            return empty(shape, dtype_named(dtype), device, stream_of(stream));
        },
        py::arg("shape"), py::arg("dtype"), py::arg("device"), py::arg("stream"));
    m.def(
        "take",
        [](const py::object& object, const char* name, int device, uintptr_t stream) {
            return take(object, name, device, stream_of(stream));
        },
        py::arg("object"), py::arg("name"), py::arg("device"), py::arg("stream"),
        "A tensor as an Array: in place where the CUDA runtime says that its address is device memory, else copied "
        "in.");
    m.def("from_dlpack", &from_dlpack, py::arg("capsule"), py::arg("name"));
    m.def(
        "copy",
        [](const py::object& to, const py::object& from, int device, uintptr_t stream, bool wait) {
            const TensorView target = any_view(to, "target", true), source = any_view(from, "source", false);
            const py::gil_scoped_release release;
            const DeviceGuard guard(device);
            copy(target, source, stream_of(stream));
            if (wait) synchronize(stream_of(stream));
        },
        py::arg("target"), py::arg("source"), py::arg("device"), py::arg("stream"), py::arg("wait"));
}

}  // namespace ivk::binding
