#include "binding/errors.h"

#include <pybind11/pybind11.h>

#include "core/check.h"

namespace ivk::binding {
namespace {

void raise(const char* type, const char* text) {
    PyErr_SetString(pybind11::module_::import("internvl_kernels.errors").attr(type).ptr(), text);
}

}  // namespace

void register_errors() {
    pybind11::register_local_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const UnsupportedError& refused) {
            raise("UnsupportedError", refused.what());
        } catch (const BackendError& failed) {
            raise("BackendError", failed.what());
        }
    });
}

}  // namespace ivk::binding
