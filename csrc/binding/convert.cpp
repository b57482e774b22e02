#include "binding/convert.h"

#include <unordered_map>

namespace ivk::binding {
namespace {

DType torch_dtype(const py::handle& dtype, const char* name) {
    // torch.dtype objects live as long as torch, so their addresses are keys.
    static std::unordered_map<PyObject*, DType> known;
    const auto found = known.find(dtype.ptr());
    if (found != known.end()) return found->second;
    const std::string text = py::str(dtype);
    for (DType candidate :
         {DType::f32, DType::bf16, DType::f16, DType::f64, DType::u8, DType::i32, DType::i64, DType::boolean}) {
        if (text == std::string("torch.") + name_of(candidate)) {
            known.emplace(dtype.inc_ref().ptr(), candidate);
            return candidate;
        }
    }
    throw UnsupportedError(std::string(name) + ": dtype " + text +
                           "; allowed: float32, bfloat16, float16, float64, uint8, int32, int64, bool");
}

void refuse_unless_plain(const py::handle& t, const char* name, bool writable) {
    const std::string kind = py::str(py::type::handle_of(t).attr("__name__"));
    require(kind == "Tensor" || kind == "Parameter", name, ": a ", kind, "; allowed: a plain torch.Tensor");
    require(!t.attr("is_sparse").cast<bool>() && py::str(t.attr("layout")).cast<std::string>() == "torch.strided", name,
            ": a sparse tensor (", py::str(t.attr("layout")).cast<std::string>(), "); allowed: dense, strided");
    require(t.attr("is_cpu").cast<bool>(), name, ": on device '", py::str(t.attr("device")).cast<std::string>(),
            "'; the cpu backend takes CPU tensors");
    require(!t.attr("is_neg")().cast<bool>(), name, ": a negative view (is_neg); call resolve_neg() first");
    require(!t.attr("is_conj")().cast<bool>(), name, ": a conjugate view (is_conj); call resolve_conj() first");
    require(!t.attr("is_quantized").cast<bool>(), name, ": a quantized tensor; allowed: plain dtypes");
    (void)writable;
}

void refuse_expanded(const TensorView& v, const char* name) {
    for (int d = 0; d < v.ndim; ++d)
        require(v.shape[d] <= 1 || v.stride[d] != 0, name, ": dimension ", d, " is expanded (stride 0) in ",
                v.describe(), "; call contiguous() first");
}

TensorView from_torch(const py::handle& t, const char* name, bool writable) {
    refuse_unless_plain(t, name, writable);
    TensorView v;
    v.dtype = torch_dtype(t.attr("dtype"), name);
    const py::tuple shape = t.attr("shape");
    const py::tuple stride = t.attr("stride")();
    require(shape.size() <= kMaxDims, name, ": ", shape.size(), " dimensions; allowed: at most ", kMaxDims);
    v.ndim = static_cast<int>(shape.size());
    for (int d = 0; d < v.ndim; ++d) {
        v.shape[d] = shape[d].cast<int64_t>();
        v.stride[d] = stride[d].cast<int64_t>();
    }
    v.data = reinterpret_cast<void*>(t.attr("data_ptr")().cast<uintptr_t>());
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

TensorView to_view(const py::handle& object, const char* name, bool writable) {
    if (object.is_none()) return {};
    TensorView v;
    if (py::isinstance<py::array>(object)) {
        v = from_numpy(py::reinterpret_borrow<py::array>(object), name, writable);
    } else if (py::hasattr(object, "data_ptr")) {
        v = from_torch(object, name, writable);
    } else {
        throw UnsupportedError(std::string(name) + ": a " +
                               std::string(py::str(py::type::handle_of(object).attr("__name__"))) +
                               "; allowed: a torch tensor or a numpy array (others: numpy.from_dlpack first)");
    }
    refuse_expanded(v, name);
    return v;
}

TensorView to_rows(const py::handle& object, const char* name, bool writable) {
    TensorView v = to_view(object, name, writable);
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
            require(v.stride[d] == step * rows.shape[0] || v.numel() == 0, name, ": leading dimensions of ",
                    v.describe(), " do not fold into rows; call contiguous() first");
        }
        rows.shape[0] *= v.shape[d];
    }
    return rows;
}

}  // namespace ivk::binding
