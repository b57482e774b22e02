// The runtime's binary interface as this library sees it: constants and structures of CUDA 13.0, declared by us so that
// no CUDA header is needed. tests/abi_layout.cpp compares every offset with the real headers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "exec/engine.h"

#define VGPU_API extern "C" __attribute__((visibility("default")))

namespace vgpu::abi {

using Dim3 = vgpu::Dim3;  // three 32-bit words

// cudaMemcpyKind, cudaMemoryType
enum CopyKind : int { host_to_host, host_to_device, device_to_host, device_to_device, default_kind };
enum MemoryType : int { type_unregistered, type_host, type_device, type_managed };

struct PointerAttributes {
    int type, device;
    void* device_pointer;
    void* host_pointer;
    long reserved[8];
};

struct FuncAttributes {
    size_t shared_bytes, const_bytes, local_bytes;
    int max_threads_per_block, num_regs, ptx_version, binary_version, cache_mode_ca, max_dynamic_shared_bytes;
    int preferred_carveout, cluster_dim_must_be_set, required_cluster_width, required_cluster_height;
    int required_cluster_depth, cluster_policy, non_portable_cluster_allowed;
    int reserved[16];
};

enum FuncAttribute : int {
    max_dynamic_shared = 8,
    carveout = 9,
    cluster_must_be_set = 10,
    cluster_width = 11,
    cluster_height = 12,
    cluster_depth = 13,
    non_portable_cluster = 14,
    cluster_scheduling = 15,
};

enum LaunchAttributeId : int {
    attr_ignore = 0,
    attr_access_policy = 1,
    attr_cooperative = 2,
    attr_sync_policy = 3,
    attr_cluster_dim = 4,
    attr_cluster_policy = 5,
    attr_programmatic_serialization = 6,
    attr_programmatic_event = 7,
    attr_priority = 8,
    attr_sync_domain_map = 9,
    attr_sync_domain = 10,
    attr_preferred_cluster = 11,
    attr_completion_event = 12,
    attr_device_updatable = 13,
    attr_carveout = 14,
};
struct LaunchAttribute {
    int id;
    char pad[4];
    union {
        char bytes[64];
        int flag;
        uint32_t dim[3];
        struct {
            void* base;
            size_t num_bytes;
            float hit_ratio;
            int hit_property, miss_property;
        } window;
    } value;
};
struct LaunchConfig {
    Dim3 grid, block;
    size_t dynamic_shared;
    void* stream;
    LaunchAttribute* attributes;
    unsigned attribute_count;
};

struct Extent {
    size_t width, height, depth;
};
struct Position {
    size_t x, y, z;
};
struct PitchedPtr {
    void* ptr;
    size_t pitch, xsize, ysize;
};
struct Copy3D {
    void* src_array;
    Position src_pos;
    PitchedPtr src;
    void* dst_array;
    Position dst_pos;
    PitchedPtr dst;
    Extent extent;
    int kind;
};

struct MemLocation {
    int type, id;
};
struct MemAccess {
    MemLocation location;
    int flags;
};
struct PoolProps {
    int alloc_type, handle_types;
    MemLocation location;
    void* win32_security;
    size_t max_size;
    unsigned short usage;
    unsigned char reserved[54];
};
enum PoolAttribute : int {
    pool_follow_events = 1,
    pool_opportunistic = 2,
    pool_internal_dependencies = 3,
    pool_release_threshold = 4,
    pool_reserved_current = 5,
    pool_reserved_high = 6,
    pool_used_current = 7,
    pool_used_high = 8,
};

using HostFunction = void (*)(void*);
using StreamCallback = void (*)(void* stream, int error, void* data);

struct KernelNodeParams {
    void* function;
    Dim3 grid, block;
    unsigned shared_bytes;
    void** params;
    void** extra;
};
struct MemsetParams {
    void* dst;
    size_t pitch;
    unsigned value, element_size;
    size_t width, height;
};
struct HostNodeParams {
    HostFunction function;
    void* data;
};
struct EdgeData {
    unsigned char from_port, to_port, type, reserved[5];
};
struct UpdateResult {
    int result;
    void* error_node;
    void* error_from;
};
struct InstantiateParams {
    unsigned long long flags;
    void* upload_stream;
    void* error_node;
    int result;
};
enum NodeType : int {
    node_kernel = 0,
    node_memcpy = 1,
    node_memset = 2,
    node_host = 3,
    node_graph = 4,
    node_empty = 5,
    node_wait_event = 6,
    node_event_record = 7,
    node_mem_alloc = 10,
    node_mem_free = 11,
};
enum CaptureStatus : int { capture_none, capture_active, capture_invalidated };
enum CaptureMode : int { capture_global, capture_thread_local, capture_relaxed };

struct ChannelDesc {
    int x, y, z, w, kind;
};

struct DeviceProp {
    char name[256];
    char uuid[16];
    char luid[8];
    unsigned luid_node_mask;
    size_t total_global, shared_per_block;
    int regs_per_block, warp_size;
    size_t mem_pitch;
    int max_threads_per_block, max_threads_dim[3], max_grid[3];
    size_t total_const;
    int major, minor;
    size_t texture_alignment, texture_pitch_alignment;
    int sms, integrated, can_map_host;
    int texture_1d, texture_1d_mipmap, texture_2d[2], texture_2d_mipmap[2], texture_2d_linear[3], texture_2d_gather[2];
    int texture_3d[3], texture_3d_alt[3], texture_cubemap, texture_1d_layered[2], texture_2d_layered[3];
    int texture_cubemap_layered[2], surface_1d, surface_2d[2], surface_3d[3], surface_1d_layered[2];
    int surface_2d_layered[3], surface_cubemap, surface_cubemap_layered[2];
    size_t surface_alignment;
    int concurrent_kernels, ecc, pci_bus, pci_device, pci_domain, tcc, async_engines, unified_addressing;
    int memory_bus_width, l2_bytes, persisting_l2_max, max_threads_per_sm, stream_priorities, global_l1, local_l1;
    size_t shared_per_sm;
    int regs_per_sm, managed_memory, multi_gpu_board, board_group, host_native_atomic, pageable_access;
    int concurrent_managed, compute_preemption, host_pointer_for_registered, cooperative_launch;
    size_t shared_optin;
    int pageable_uses_host_tables, direct_managed_from_host, max_blocks_per_sm, access_policy_window;
    size_t reserved_shared_per_block;
    int host_register, sparse_arrays, host_register_read_only, timeline_semaphore, memory_pools, gpu_direct_rdma;
    unsigned gpu_direct_flush;
    int gpu_direct_ordering;
    unsigned pool_handle_types;
    int deferred_mapping_arrays, ipc_event, cluster_launch, unified_function_pointers;
    int numa_config, numa_id, mps, host_numa_id;
    unsigned gpu_pci_device, gpu_pci_subsystem;
    int host_numa_multinode_ipc;
    int reserved[56];
};

}  // namespace vgpu::abi
