#include "binding/convert.h"

#include <algorithm>
#include <unordered_map>

namespace ivk::binding {
namespace {

// Attribute by interned name: several are read for every argument of every call.
struct Name {
    explicit Name(const char* text) : object(PyUnicode_InternFromString(text)) {}
    py::object of(const py::handle& t) const {
        PyObject* value = PyObject_GetAttr(t.ptr(), object);
        if (value == nullptr) throw py::error_already_set();
        return py::reinterpret_steal<py::object>(value);
    }
    py::object call(const py::handle& t) const {
        PyObject* value = PyObject_CallMethodObjArgs(t.ptr(), object, nullptr);
        if (value == nullptr) throw py::error_already_set();
        return py::reinterpret_steal<py::object>(value);
    }
    PyObject* object;
};

std::string text_of(const py::handle& object) { return py::str(object); }

// torch's types, layouts and dtypes live as long as torch, so their addresses are keys.
bool is_plain_type(const py::handle& t) {
    static PyObject* known[2] = {};
    PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(t.ptr()));
    if (type == known[0] || type == known[1]) return true;
    const std::string kind = text_of(py::handle(type).attr("__name__"));
    if (kind != "Tensor" && kind != "Parameter") return false;
    known[kind == "Parameter"] = py::handle(type).inc_ref().ptr();
    return true;
}

bool is_strided(const py::handle& t) {
    static const Name name("layout");
    static PyObject* strided = nullptr;
    const py::object layout = name.of(t);
    if (layout.ptr() == strided) return true;
    if (text_of(layout) != "torch.strided") return false;
    strided = py::handle(layout).inc_ref().ptr();
    return true;
}

DType torch_dtype(const py::handle& t, const char* name) {
    static const Name attribute("dtype");
    static std::unordered_map<PyObject*, DType> known;
    const py::object dtype = attribute.of(t);
    const auto found = known.find(dtype.ptr());
    if (found != known.end()) return found->second;
    require(!t.attr("is_conj")().cast<bool>(), name, ": a conjugate view (is_conj); call resolve_conj() first");
    require(!t.attr("is_quantized").cast<bool>(), name, ": a quantized tensor; allowed: plain dtypes");
    const std::string text = text_of(dtype);
    for (DType candidate :
         {DType::f32, DType::bf16, DType::f16, DType::f64, DType::u8, DType::i32, DType::i64, DType::boolean}) {
        if (text == std::string("torch.") + name_of(candidate)) {
            known.emplace(py::handle(dtype).inc_ref().ptr(), candidate);
            return candidate;
        }
    }
    throw UnsupportedError(std::string(name) + ": dtype " + text +
                           "; allowed: float32, bfloat16, float16, float64, uint8, int32, int64, bool");
}

void refuse_unless_plain(const py::handle& t, const char* name, Memory memory) {
    static const Name is_cpu("is_cpu"), is_cuda("is_cuda"), is_neg("is_neg");
    if (!is_plain_type(t))
        require(false, name, ": a ", text_of(py::type::handle_of(t).attr("__name__")),
                "; allowed: a plain torch.Tensor");
    if (!is_strided(t))
        require(false, name, ": a sparse tensor (", text_of(t.attr("layout")), "); allowed: dense, strided");
    if (is_cpu.of(t).ptr() != Py_True && (memory == Memory::host || is_cuda.of(t).ptr() != Py_True))
        require(false, name, ": on device '", text_of(t.attr("device")), "'; the ",
                memory == Memory::host ? "cpu backend takes CPU tensors" : "cuda backend takes CUDA and CPU tensors");
    if (is_neg.call(t).ptr() != Py_False) require(false, name, ": a negative view (is_neg); call resolve_neg() first");
}

void refuse_expanded(const TensorView& v, const char* name) {
    if (v.numel() == 0) return;
    for (int d = 0; d < v.ndim; ++d)
        if (v.shape[d] > 1 && v.stride[d] == 0)
            require(false, name, ": dimension ", d, " is expanded (stride 0) in ", v, "; call contiguous() first");
}

TensorView from_torch(const py::handle& t, const char* name, Memory memory) {
    static const Name shape_name("shape"), stride_name("stride"), data_ptr("data_ptr");
    refuse_unless_plain(t, name, memory);
    TensorView v;
    v.dtype = torch_dtype(t, name);
    const py::tuple shape = shape_name.of(t);
    const py::tuple stride = stride_name.call(t);
    require(shape.size() <= kMaxDims, name, ": ", shape.size(), " dimensions; allowed: at most ", kMaxDims);
    v.ndim = static_cast<int>(shape.size());
    for (int d = 0; d < v.ndim; ++d) {
        v.shape[d] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), d));
        v.stride[d] = PyLong_AsLongLong(PyTuple_GET_ITEM(stride.ptr(), d));
    }
    v.data = reinterpret_cast<void*>(data_ptr.call(t).cast<uintptr_t>());
    require(v.data != nullptr || v.numel() == 0, name, ": has no memory behind it (a meta or fake tensor)");
    return v;
}

TensorView from_numpy(const py::array& a, const char* name, bool writable) {
    TensorView v;
    const py::dtype dtype = a.dtype();
    const char kind = dtype.kind();
    const auto size = dtype.itemsize();
    const std::string text = py::str(dtype);
    bool known = true;
    if (kind == 'f' && size == 4)
        v.dtype = DType::f32;
    else if (kind == 'f' && size == 2)
        v.dtype = DType::f16;
    else if (kind == 'f' && size == 8)
        v.dtype = DType::f64;
    else if (text == "bfloat16")
        v.dtype = DType::bf16;
    else if (kind == 'u' && size == 1)
        v.dtype = DType::u8;
    else if (kind == 'i' && size == 4)
        v.dtype = DType::i32;
    else if (kind == 'i' && size == 8)
        v.dtype = DType::i64;
    else if (kind == 'b')
        v.dtype = DType::boolean;
    else
        known = false;
    require(known && dtype.byteorder() != '>', name, ": numpy dtype ", text,
            "; allowed: float32, bfloat16, float16, float64, uint8, int32, int64, bool in native byte order");
    require(a.ndim() <= kMaxDims, name, ": ", a.ndim(), " dimensions; allowed: at most ", kMaxDims);
    require(!writable || a.writeable(), name, ": a read-only array; allowed: writable memory");
    v.ndim = static_cast<int>(a.ndim());
    for (int d = 0; d < v.ndim; ++d) {
        v.shape[d] = a.shape(d);
        require(a.strides(d) % size == 0, name, ": byte stride ", a.strides(d), " is not a multiple of the item size ",
                size);
        v.stride[d] = a.strides(d) / size;
    }
    v.data = const_cast<void*>(a.data());
    return v;
}

}  // namespace

TensorView to_view(const py::handle& object, const char* name, bool writable, Memory memory) {
    if (object.is_none()) return {};
    TensorView v;
    if (py::isinstance<py::array>(object)) {
        v = from_numpy(py::reinterpret_borrow<py::array>(object), name, writable);
    } else if (py::hasattr(object, "data_ptr")) {
        v = from_torch(object, name, memory);
    } else {
        throw UnsupportedError(std::string(name) + ": a " +
                               std::string(py::str(py::type::handle_of(object).attr("__name__"))) +
                               "; allowed: a torch tensor or a numpy array (others: numpy.from_dlpack first)");
    }
    refuse_expanded(v, name);
    if (v.numel() == 0)  // of a tensor without elements any strides mean the same
        for (int64_t d = v.ndim - 1, step = 1; d >= 0; step *= std::max<int64_t>(v.shape[d--], 1)) v.stride[d] = step;
    return v;
}

TensorView to_rows(const py::handle& object, const char* name, bool writable) {
    return fold_rows(to_view(object, name, writable), name);
}

TensorView fold_rows(const TensorView& v, const char* name) {
    if (!v.defined() || v.ndim == 2) return v;
    require(v.ndim >= 1, name, ": a scalar; allowed: at least one dimension");
    TensorView rows = v;
    rows.ndim = 2;
    rows.shape[1] = v.shape[v.ndim - 1];
    rows.stride[1] = v.stride[v.ndim - 1];
    rows.shape[0] = 1;
    rows.stride[0] = rows.shape[1];
    int64_t step = 0;  // stride of the folded rows, from the innermost leading dimension longer than 1
    for (int d = v.ndim - 2; d >= 0; --d) {
        if (v.shape[d] == 1) continue;
        if (step == 0) {
            step = rows.stride[0] = v.stride[d];
        } else {
            require(v.stride[d] == step * rows.shape[0] || v.numel() == 0, name, ": leading dimensions of ", v,
                    " do not fold into rows; call contiguous() first");
        }
        rows.shape[0] *= v.shape[d];
    }
    return rows;
}

}  // namespace ivk::binding
