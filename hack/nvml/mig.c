/* MIG devices, and the processes on a GPU or on one of its MIG devices. */
#include "call.h"

#include <string.h>

#define NOT_ATTRIBUTABLE 0xFFFFFFFFu

EXPORT int nvmlDeviceGetMigMode(const Handle *handle, unsigned int *current, unsigned int *pending) {
    Look look;
    int result = look_at_whole(handle, TARGET_MIG, &look);
    if (!result)
        *current = *pending = look.device.mig_enabled;
    return result;
}

EXPORT int nvmlDeviceGetMaxMigDeviceCount(const Handle *handle, unsigned int *count) {
    Look look;
    int result = look_at_whole(handle, TARGET_MIG, &look);
    if (!result)
        *count = look.device.mig_enabled ? MAX_MIG_INSTANCES : 0;
    return result;
}

EXPORT int nvmlDeviceIsMigDeviceHandle(const Handle *handle, unsigned int *answer) {
    Look look;
    int result = look_at(handle, TARGET_MIG, &look);
    if (!result)
        *answer = handle->mig != 0;
    return result;
}

static int look_at_instance(const Handle *handle, Look *look, const MigInstance **instance) {
    int result = look_at(handle, TARGET_MIG, look);
    if (result)
        return result;
    *instance = mig_instance(handle, look);
    return *instance ? OK : INVALID_ARGUMENT;
}

EXPORT int nvmlDeviceGetGpuInstanceId(const Handle *handle, unsigned int *id) {
    Look look;
    const MigInstance *instance;
    int result = look_at_instance(handle, &look, &instance);
    if (!result)
        *id = instance->gpu_instance;
    return result;
}

EXPORT int nvmlDeviceGetComputeInstanceId(const Handle *handle, unsigned int *id) {
    Look look;
    const MigInstance *instance;
    int result = look_at_instance(handle, &look, &instance);
    if (!result)
        *id = instance->compute_instance;
    return result;
}

typedef struct {
    unsigned int multiprocessors, copy_engines, decoders, encoders, jpeg, optical_flow;
    unsigned int gpu_instance_slices, compute_instance_slices;
    unsigned long long memory_mib;
} Attributes;

EXPORT int nvmlDeviceGetAttributes_v2(const Handle *handle, Attributes *attributes) {
    Look look;
    const MigInstance *instance;
    int result = look_at_instance(handle, &look, &instance);
    if (result)
        return result;
    memset(attributes, 0, sizeof *attributes);
    attributes->gpu_instance_slices = attributes->compute_instance_slices = instance->slices;
    attributes->memory_mib = instance->memory_total_bytes >> 20;
    return OK;
}

/* ---------------------------------------------------------------------------------------------------- processes */

typedef struct {
    unsigned int pid;
    unsigned long long used_memory_bytes;
    unsigned int gpu_instance, compute_instance;
} ProcessInfo;

_Static_assert(sizeof(ProcessInfo) == 24, "nvmlProcessInfo_v3_t");

static int is_on(const Process *process, const Handle *handle) {
    return !handle->mig || process->mig_instance == handle->mig;
}

static unsigned int count_processes(const Handle *handle, const DeviceState *device) {
    unsigned int count = 0;
    for (uint32_t index = 0; index < device->process_count; index++)
        count += is_on(&device->processes[index], handle) ? 1u : 0u;
    return count;
}

static ProcessInfo process_info(const Process *process, const DeviceState *device) {
    const MigInstance *instance = process->mig_instance ? &device->mig_instances[process->mig_instance - 1] : NULL;
    return (ProcessInfo){process->pid, process->used_memory_bytes, instance ? instance->gpu_instance : NOT_ATTRIBUTABLE,
                         instance ? instance->compute_instance : NOT_ATTRIBUTABLE};
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(const Handle *handle, unsigned int *count, ProcessInfo *processes) {
    Look look;
    int result = look_at(handle, TARGET_PROCESSES, &look);
    if (result)
        return result;
    unsigned int room = *count;
    *count = count_processes(handle, &look.device);
    if (*count > room)
        return INSUFFICIENT_SIZE;
    for (uint32_t index = 0, into = 0; index < look.device.process_count; index++)
        if (is_on(&look.device.processes[index], handle))
            processes[into++] = process_info(&look.device.processes[index], &look.device);
    return OK;
}

typedef struct {
    unsigned int pid;
    unsigned long long timestamp_us;
    unsigned int sm_percent, memory_percent, encoder_percent, decoder_percent;
} ProcessUtilization;

_Static_assert(sizeof(ProcessUtilization) == 32, "nvmlProcessUtilizationSample_t");

/* The first call always asks for room: the binding takes any other answer for an error, success too. */
EXPORT int nvmlDeviceGetProcessUtilization(const Handle *handle, ProcessUtilization *samples, unsigned int *count,
                                           unsigned long long since_us) {
    Look look;
    int result = look_at_whole(handle, TARGET_PROCESSES, &look);
    if (result || look.device.mig_enabled)
        return result ? result : NOT_SUPPORTED;
    unsigned long long now_us = look.now_ns / 1000u;
    unsigned int found = now_us > since_us ? look.device.process_count : 0;
    if (!found)
        return NOT_FOUND;
    if (!samples || *count < found) {
        *count = found;
        return INSUFFICIENT_SIZE;
    }
    for (*count = 0; *count < found; ++*count) {
        const Process *process = &look.device.processes[*count];
        samples[*count] = (ProcessUtilization){process->pid, now_us, process->sm_percent, process->memory_percent, 0, 0};
    }
    return OK;
}
