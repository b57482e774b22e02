# The CUDA part: libivk_cuda.so (kernels, host side and C interface, no Python) and the extension module _cuda over it.
# nvcc and its headers come from the package registry (build_tools/ivk_cuda.py); the machine's own toolkit is used only
# when CMAKE_CUDA_COMPILER names it.
find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
if(NOT CMAKE_CUDA_COMPILER)
    execute_process(COMMAND ${Python_EXECUTABLE} -c "import nvidia.cu13; print(nvidia.cu13.__path__[0])"
                    OUTPUT_VARIABLE IVK_CUDA_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE missing ERROR_QUIET)
    if(missing)
        message(FATAL_ERROR "IVK_CUDA=ON, and ${Python_EXECUTABLE} has no nvidia.cu13: install the packages of BUILD_REQUIRES in "
                            "build_tools/ivk_cuda.py, or name a compiler of CUDA 13 with -DCMAKE_CUDA_COMPILER=")
    endif()
    set(CMAKE_CUDA_COMPILER ${IVK_CUDA_ROOT}/bin/nvcc)
else()
    get_filename_component(IVK_CUDA_ROOT ${CMAKE_CUDA_COMPILER} REALPATH)
    get_filename_component(IVK_CUDA_ROOT ${IVK_CUDA_ROOT}/../.. ABSOLUTE)
endif()
find_file(IVK_CUDART libcudart.so.13 PATHS ${IVK_CUDA_ROOT}/lib ${IVK_CUDA_ROOT}/lib64 REQUIRED NO_DEFAULT_PATH)
get_filename_component(IVK_CUDART_FOLDER ${IVK_CUDART} DIRECTORY)

# CUTLASS's headers, for CuTe's atoms.
execute_process(COMMAND ${Python_EXECUTABLE} -c "import importlib.util as u; print(u.find_spec('cutlass_library').submodule_search_locations[0])"
                OUTPUT_VARIABLE IVK_CUTLASS_PACKAGE OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
find_path(IVK_CUTLASS cute/arch/mma_sm80.hpp HINTS ${IVK_CUTLASS_PACKAGE}/source/include)
if(NOT IVK_CUTLASS)
    message(FATAL_ERROR "IVK_CUDA=ON, and ${Python_EXECUTABLE} has no nvidia-cutlass: install the packages of BUILD_REQUIRES in "
                        "build_tools/ivk_cuda.py, or name the headers of CUTLASS 4 with -DIVK_CUTLASS=")
endif()

# Before enable_language, or its trial link fails: the packages hold libcudart.so.13 and no libcudart.so.
set(CMAKE_CUDA_RUNTIME_LIBRARY None)
set(CMAKE_CUDA_FLAGS_INIT -L${IVK_CUDART_FOLDER})
set(CMAKE_CUDA_ARCHITECTURES 80)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
enable_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER_VERSION MATCHES "^13\\.")
    message(FATAL_ERROR "${CMAKE_CUDA_COMPILER} is CUDA ${CMAKE_CUDA_COMPILER_VERSION}; allowed: 13")
endif()

# One object library per architecture, <file>_sm80.cu and its parts <file>_sm80_<part>.cu -> kernels_sm80. 80 is machine code and PTX: newer parts, and the
# tests, take the PTX.
set(IVK_CUDA_ARCHS sm80)
set(IVK_CUDA_ARCH_sm80 80)
foreach(arch IN LISTS IVK_CUDA_ARCHS)
    file(GLOB sources CONFIGURE_DEPENDS csrc/kernels/*/*_${arch}.cu csrc/kernels/*/*_${arch}_*.cu)
    add_library(kernels_${arch} OBJECT ${sources})
    target_include_directories(kernels_${arch} PRIVATE csrc SYSTEM PRIVATE ${IVK_CUTLASS})
    # No contraction but where fmaf is written: a formula has one rounding in every kernel that fuses it. Asserts in device
    # code would change what ptxas makes of it, so NDEBUG holds in every configuration.
    target_compile_options(kernels_${arch} PRIVATE -O3 -DNDEBUG -lineinfo -fmad=false --compress-mode=speed -Xptxas=-v
                                                   -Xcompiler=-Wall)
    set_target_properties(
        kernels_${arch}
        PROPERTIES CUDA_ARCHITECTURES "${IVK_CUDA_ARCH_${arch}}"
                   CUDA_COMPILER_LAUNCHER "${Python_EXECUTABLE};${CMAKE_SOURCE_DIR}/build_tools/ptxas_gate.py")
endforeach()

file(GLOB IVK_CUDA_HOST CONFIGURE_DEPENDS csrc/core/cuda/*.cpp csrc/kernels/*/*_problem.cpp csrc/kernels/*/*_cuda.cpp
     csrc/binding/c/*.cpp)
add_library(ivk_cuda SHARED ${IVK_CUDA_HOST})
foreach(arch IN LISTS IVK_CUDA_ARCHS)
    target_link_libraries(ivk_cuda PRIVATE kernels_${arch})
endforeach()
target_include_directories(ivk_cuda PRIVATE csrc python/internvl_kernels/include SYSTEM PRIVATE ${IVK_CUDA_ROOT}/include)
target_compile_options(ivk_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O2 -Wall -Wextra -ffp-contract=off>)
target_compile_definitions(ivk_cuda PRIVATE IVK_CUDA_COMPILER="nvcc ${CMAKE_CUDA_COMPILER_VERSION}"
                                            IVK_CUDA_ARCHS="${IVK_CUDA_ARCHS}")
target_link_libraries(ivk_cuda PRIVATE ${IVK_CUDART} Threads::Threads)
set_target_properties(ivk_cuda PROPERTIES CXX_VISIBILITY_PRESET default LINKER_LANGUAGE CXX)

pybind11_add_module(_cuda MODULE NO_EXTRAS csrc/binding/convert.cpp csrc/binding/errors.cpp)
file(GLOB IVK_CUDA_BINDING CONFIGURE_DEPENDS csrc/binding/cuda/*.cpp)
target_sources(_cuda PRIVATE ${IVK_CUDA_BINDING})
target_include_directories(_cuda PRIVATE csrc)
target_compile_options(_cuda PRIVATE -O2 -Wall -Wextra)
target_link_libraries(_cuda PRIVATE ivk_cuda)
set_target_properties(_cuda PROPERTIES UNITY_BUILD ON)

# RUNPATH, not RPATH: LD_LIBRARY_PATH may put another libcudart.so.13 before it.
set_target_properties(
    ivk_cuda _cuda
    PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/../nvidia/cu13/lib" BUILD_RPATH "$ORIGIN;${IVK_CUDART_FOLDER}"
               LINK_OPTIONS "-Wl,--enable-new-dtags")
if(CMAKE_BUILD_TYPE STREQUAL "Release")
    pybind11_strip(_cuda)
endif()
if(IVK_DEV)
    set_target_properties(ivk_cuda _cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_SOURCE_DIR}/python/internvl_kernels)
endif()
install(TARGETS ivk_cuda _cuda LIBRARY DESTINATION internvl_kernels)
