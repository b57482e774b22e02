// Error codes that this library returns, as the real runtime numbers them.
#pragma once

#include <stdexcept>
#include <string>

namespace vgpu {

using Error = int;
enum : Error {
    kSuccess = 0,
    kInvalidValue = 1,
    kMemoryAllocation = 2,
    kInitializationError = 3,
    kInvalidConfiguration = 9,
    kInvalidPitchValue = 12,
    kInvalidSymbol = 13,
    kInvalidMemcpyDirection = 21,
    kMissingConfiguration = 52,
    kInvalidDeviceFunction = 98,
    kInvalidDevice = 101,
    kInvalidKernelImage = 200,
    kNoKernelImageForDevice = 209,
    kUnsupportedLimit = 215,
    kInvalidPtx = 218,
    kFileNotFound = 301,
    kInvalidResourceHandle = 400,
    kIllegalState = 401,
    kSymbolNotFound = 500,
    kNotReady = 600,
    kIllegalAddress = 700,
    kLaunchOutOfResources = 701,
    kLaunchTimeout = 702,
    kPeerAccessNotEnabled = 705,
    kAssert = 710,
    kHostMemoryAlreadyRegistered = 712,
    kHostMemoryNotRegistered = 713,
    kHardwareStackError = 714,
    kIllegalInstruction = 715,
    kMisalignedAddress = 716,
    kLaunchFailure = 719,
    kCooperativeLaunchTooLarge = 720,
    kNotPermitted = 800,
    kNotSupported = 801,
    kStreamCaptureUnsupported = 900,
    kStreamCaptureInvalidated = 901,
    kStreamCaptureMerge = 902,
    kStreamCaptureUnmatched = 903,
    kStreamCaptureUnjoined = 904,
    kStreamCaptureIsolation = 905,
    kStreamCaptureImplicit = 906,
    kCapturedEvent = 907,
    kStreamCaptureWrongThread = 908,
    kGraphExecUpdateFailure = 910,
    kInvalidClusterSize = 912,
    kUnknown = 999,
};

const char* error_name(Error);
const char* error_text(Error);

// An API call's refusal: the code that the caller sees, and the reason in words (vgpu_last_message).
struct ApiError : std::runtime_error {
    ApiError(Error code, const std::string& why) : std::runtime_error(why), code(code) {}
    Error code;
};
[[noreturn]] inline void fail(Error code, const std::string& why) { throw ApiError(code, why); }

}  // namespace vgpu
