// Compiled, never run: our declarations against the real headers, offset by offset.
#include <cuda_runtime_api.h>

#include <cstddef>

#include "cudart/abi.h"
#include "cudart/errors.h"

namespace abi = vgpu::abi;

#define SIZE(ours, real) static_assert(sizeof(abi::ours) == sizeof(real), #ours)
#define SAME(ours, field, real, member) static_assert(offsetof(abi::ours, field) == offsetof(real, member), #ours "." #field)

SIZE(Dim3, dim3);
SIZE(PointerAttributes, cudaPointerAttributes);
SAME(PointerAttributes, device, cudaPointerAttributes, device);
SAME(PointerAttributes, device_pointer, cudaPointerAttributes, devicePointer);
SAME(PointerAttributes, host_pointer, cudaPointerAttributes, hostPointer);

SIZE(FuncAttributes, cudaFuncAttributes);
SAME(FuncAttributes, local_bytes, cudaFuncAttributes, localSizeBytes);
SAME(FuncAttributes, max_threads_per_block, cudaFuncAttributes, maxThreadsPerBlock);
SAME(FuncAttributes, num_regs, cudaFuncAttributes, numRegs);
SAME(FuncAttributes, binary_version, cudaFuncAttributes, binaryVersion);
SAME(FuncAttributes, max_dynamic_shared_bytes, cudaFuncAttributes, maxDynamicSharedSizeBytes);
SAME(FuncAttributes, preferred_carveout, cudaFuncAttributes, preferredShmemCarveout);
SAME(FuncAttributes, non_portable_cluster_allowed, cudaFuncAttributes, nonPortableClusterSizeAllowed);

SIZE(LaunchAttribute, cudaLaunchAttribute);
SAME(LaunchAttribute, value, cudaLaunchAttribute, val);
SIZE(LaunchConfig, cudaLaunchConfig_t);
SAME(LaunchConfig, block, cudaLaunchConfig_t, blockDim);
SAME(LaunchConfig, dynamic_shared, cudaLaunchConfig_t, dynamicSmemBytes);
SAME(LaunchConfig, stream, cudaLaunchConfig_t, stream);
SAME(LaunchConfig, attributes, cudaLaunchConfig_t, attrs);
SAME(LaunchConfig, attribute_count, cudaLaunchConfig_t, numAttrs);

SIZE(Extent, cudaExtent);
SIZE(Position, cudaPos);
SIZE(PitchedPtr, cudaPitchedPtr);
SAME(PitchedPtr, ysize, cudaPitchedPtr, ysize);
SIZE(Copy3D, cudaMemcpy3DParms);
SAME(Copy3D, src, cudaMemcpy3DParms, srcPtr);
SAME(Copy3D, dst_pos, cudaMemcpy3DParms, dstPos);
SAME(Copy3D, extent, cudaMemcpy3DParms, extent);
SAME(Copy3D, kind, cudaMemcpy3DParms, kind);
SIZE(MemLocation, cudaMemLocation);
SIZE(MemAccess, cudaMemAccessDesc);
SIZE(PoolProps, cudaMemPoolProps);
SAME(PoolProps, location, cudaMemPoolProps, location);
SAME(PoolProps, max_size, cudaMemPoolProps, maxSize);
SIZE(KernelNodeParams, cudaKernelNodeParams);
SAME(KernelNodeParams, params, cudaKernelNodeParams, kernelParams);
SIZE(MemsetParams, cudaMemsetParams);
SAME(MemsetParams, element_size, cudaMemsetParams, elementSize);
SAME(MemsetParams, height, cudaMemsetParams, height);
SIZE(HostNodeParams, cudaHostNodeParams);
SIZE(EdgeData, cudaGraphEdgeData);
SIZE(InstantiateParams, cudaGraphInstantiateParams);
SAME(InstantiateParams, result, cudaGraphInstantiateParams, result_out);
SIZE(ChannelDesc, cudaChannelFormatDesc);

SIZE(DeviceProp, cudaDeviceProp);
SAME(DeviceProp, total_global, cudaDeviceProp, totalGlobalMem);
SAME(DeviceProp, shared_per_block, cudaDeviceProp, sharedMemPerBlock);
SAME(DeviceProp, max_grid, cudaDeviceProp, maxGridSize);
SAME(DeviceProp, major, cudaDeviceProp, major);
SAME(DeviceProp, sms, cudaDeviceProp, multiProcessorCount);
SAME(DeviceProp, can_map_host, cudaDeviceProp, canMapHostMemory);
SAME(DeviceProp, texture_1d, cudaDeviceProp, maxTexture1D);
SAME(DeviceProp, surface_alignment, cudaDeviceProp, surfaceAlignment);
SAME(DeviceProp, pci_bus, cudaDeviceProp, pciBusID);
SAME(DeviceProp, l2_bytes, cudaDeviceProp, l2CacheSize);
SAME(DeviceProp, shared_per_sm, cudaDeviceProp, sharedMemPerMultiprocessor);
SAME(DeviceProp, cooperative_launch, cudaDeviceProp, cooperativeLaunch);
SAME(DeviceProp, shared_optin, cudaDeviceProp, sharedMemPerBlockOptin);
SAME(DeviceProp, max_blocks_per_sm, cudaDeviceProp, maxBlocksPerMultiProcessor);
SAME(DeviceProp, reserved_shared_per_block, cudaDeviceProp, reservedSharedMemPerBlock);
SAME(DeviceProp, memory_pools, cudaDeviceProp, memoryPoolsSupported);
SAME(DeviceProp, cluster_launch, cudaDeviceProp, clusterLaunch);
SAME(DeviceProp, host_numa_id, cudaDeviceProp, hostNumaId);
SAME(DeviceProp, reserved, cudaDeviceProp, reserved);

#define VALUE(ours, real) static_assert(int(ours) == int(real), #real)
VALUE(abi::device_to_device, cudaMemcpyDeviceToDevice);
VALUE(abi::default_kind, cudaMemcpyDefault);
VALUE(abi::type_managed, cudaMemoryTypeManaged);
VALUE(abi::max_dynamic_shared, cudaFuncAttributeMaxDynamicSharedMemorySize);
VALUE(abi::cluster_scheduling, cudaFuncAttributeClusterSchedulingPolicyPreference);
VALUE(abi::attr_cluster_dim, cudaLaunchAttributeClusterDimension);
VALUE(abi::attr_programmatic_serialization, cudaLaunchAttributeProgrammaticStreamSerialization);
VALUE(abi::attr_carveout, cudaLaunchAttributePreferredSharedMemoryCarveout);
VALUE(abi::pool_used_high, cudaMemPoolAttrUsedMemHigh);
VALUE(abi::node_mem_free, cudaGraphNodeTypeMemFree);
VALUE(abi::node_graph, cudaGraphNodeTypeGraph);
VALUE(abi::capture_invalidated, cudaStreamCaptureStatusInvalidated);
VALUE(abi::capture_relaxed, cudaStreamCaptureModeRelaxed);
VALUE(vgpu::kLaunchOutOfResources, cudaErrorLaunchOutOfResources);
VALUE(vgpu::kStreamCaptureImplicit, cudaErrorStreamCaptureImplicit);
VALUE(vgpu::kCooperativeLaunchTooLarge, cudaErrorCooperativeLaunchTooLarge);
VALUE(vgpu::kInvalidClusterSize, cudaErrorInvalidClusterSize);
