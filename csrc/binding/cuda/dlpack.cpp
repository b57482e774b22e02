#include "binding/cuda/dlpack.h"

#include "binding/cuda/array.h"
#include "core/check.h"
#include "core/cuda/memory.h"

namespace ivk::binding {
namespace {

constexpr const char* kFresh = "dltensor";
constexpr const char* kUsed = "used_dltensor";

dlpack::Type type_of(DType dtype) {
    const auto bits = static_cast<uint8_t>(8 * size_of(dtype));
    switch (dtype) {
        case DType::bf16:
            return {dlpack::kBfloat, bits, 1};
        case DType::u8:
            return {dlpack::kUint, bits, 1};
        case DType::i32:
        case DType::i64:
            return {dlpack::kInt, bits, 1};
        case DType::boolean:
            return {dlpack::kBool, bits, 1};
        default:
            return {dlpack::kFloat, bits, 1};
    }
}

DType dtype_of(const dlpack::Type& type, const char* name) {
    for (DType candidate :
         {DType::f32, DType::bf16, DType::f16, DType::f64, DType::u8, DType::i32, DType::i64, DType::boolean}) {
        const dlpack::Type known = type_of(candidate);
        if (known.code == type.code && known.bits == type.bits && type.lanes == 1) return candidate;
    }
    throw UnsupportedError(std::string(name) + ": DLPack type code " + std::to_string(type.code) + " of " +
                           std::to_string(type.bits) + " bits and " + std::to_string(type.lanes) +
                           " lanes; allowed: float32, bfloat16, float16, float64, uint8, int32, int64, bool");
}

struct Exported {
    dlpack::Managed managed;
    int64_t shape[kMaxDims], strides[kMaxDims];
    std::shared_ptr<void> owner;
};

void drop_unused(PyObject* capsule) {
    if (!PyCapsule_IsValid(capsule, kFresh)) return;  // the consumer has taken it over
    auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule, kFresh));
    managed->deleter(managed);
}

}  // namespace

py::capsule to_dlpack(const Array& array, py::object consumer) {
    // The standard's numbers: None and 1 mean the legacy default stream, 2 the per-thread one, -1 asks for no ordering.
    const int64_t number = consumer.is_none() ? 1 : consumer.cast<int64_t>();
    require(number == -1 || number > 0, "DeviceArray: stream ", number,
            " of __dlpack__; allowed: None, -1, 1, 2 or a handle");
    if (number != -1) order(array.stream, number == 1 ? nullptr : stream_of(static_cast<uintptr_t>(number)));
    auto* out = new Exported{{}, {}, {}, array.owner};
    const TensorView& v = array.view;
    for (int d = 0; d < v.ndim; ++d) out->shape[d] = v.shape[d], out->strides[d] = v.stride[d];
    out->managed.tensor = {v.data, {dlpack::kCuda, array.device}, v.ndim, type_of(v.dtype), out->shape, out->strides,
                           0};
    out->managed.context = out;
    out->managed.deleter = [](dlpack::Managed* managed) { delete static_cast<Exported*>(managed->context); };
    return py::reinterpret_steal<py::capsule>(PyCapsule_New(&out->managed, kFresh, drop_unused));
}

Array from_dlpack(const py::object& capsule, const char* name) {
    require(PyCapsule_IsValid(capsule.ptr(), kFresh), name, ": not a fresh DLPack capsule");
    auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), kFresh));
    const dlpack::Tensor& t = managed->tensor;
    require(t.device.kind == dlpack::kCuda || t.device.kind == dlpack::kCudaManaged, name, ": DLPack device kind ",
            t.device.kind, "; allowed: 2 (CUDA) and 13 (CUDA managed)");
    require(t.ndim <= kMaxDims, name, ": ", t.ndim, " dimensions; allowed: at most ", kMaxDims);
    Array array;
    array.view.dtype = dtype_of(t.dtype, name);
    array.view.data = static_cast<char*>(t.data) + t.byte_offset;
    array.view.ndim = t.ndim;
    int64_t dense = 1;
    for (int d = t.ndim - 1; d >= 0; --d) {
        array.view.shape[d] = t.shape[d];
        array.view.stride[d] = t.strides != nullptr ? t.strides[d] : dense;
        dense *= t.shape[d];
    }
    array.device = t.device.ordinal;
    array.owner = std::shared_ptr<void>(t.data, [managed](void*) {
        if (managed->deleter != nullptr) managed->deleter(managed);
    });
    PyCapsule_SetName(capsule.ptr(), kUsed);
    return array;
}

}  // namespace ivk::binding
