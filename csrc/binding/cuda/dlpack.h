// The exchange structures of DLPack 0.x, by their published binary layout.
#pragma once

#include <cstdint>

namespace ivk::dlpack {

enum DeviceKind : int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };
enum TypeCode : uint8_t { kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4, kBool = 6 };

struct Device {
    int32_t kind;
    int32_t ordinal;
};

struct Type {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    int32_t ndim;
    Type dtype;
    int64_t* shape;
    int64_t* strides;  // elements; null for contiguous
    uint64_t byte_offset;
};

struct Managed {
    Tensor tensor;
    void* context;
    void (*deleter)(Managed*);
};

}  // namespace ivk::dlpack
