/* libnvidia-ml.so.1 for machines without GPUs: system, identity, power and state.
 *
 * Written from NVML's public interface; it exports what Penstock calls and nothing else. Every figure is a function of
 * the state file (state.h), so that each process that loads it reads the same. */
#define _GNU_SOURCE
#include "call.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define HANG_POLL_MILLISECONDS 5

static int users;
static Handle handles[MAX_DEVICES];

void pause_milliseconds(long milliseconds) {
    struct timespec wait = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&wait, NULL);
}

int initialized(void) { return __atomic_load_n(&users, __ATOMIC_ACQUIRE) > 0; }

static int look_until_it_answers(const Handle *handle, enum target target, Look *look) {
    for (;;) {
        state_read_device(handle->index, &look->device, &look->now_ns);
        if (look->device.injections[target].mode != MODE_HANG)
            return look->device.lost ? GPU_IS_LOST : look->device.injections[target].result;
        pause_milliseconds(HANG_POLL_MILLISECONDS);
    }
}

int look_at(const Handle *handle, enum target target, Look *look) {
    if (!initialized())
        return UNINITIALIZED;
    if (!handle)
        return INVALID_ARGUMENT;
    StateHeader header;
    state_read_header(&header);
    if (handle->generation != header.generation)
        return UNINITIALIZED;
    return look_until_it_answers(handle, target, look);
}

uint64_t figure(const Look *look, enum target target, uint64_t value) {
    const Injection *injection = &look->device.injections[target];
    return injection->mode == MODE_FROZEN ? injection->frozen : value;
}

static int copy_text(char *into, unsigned int size, const char *text) {
    if (strlen(text) + 1 > size)
        return INSUFFICIENT_SIZE;
    strcpy(into, text);
    return OK;
}

/* ------------------------------------------------------------------------------------------------------- system */

EXPORT int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    int mapped = initialized() ? OK : state_map();
    if (mapped)
        return mapped;
    StateHeader header;
    state_read_header(&header);
    if (header.init_result)
        return header.init_result;
    __atomic_add_fetch(&users, 1, __ATOMIC_ACQ_REL);
    return OK;
}

EXPORT int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

EXPORT int nvmlShutdown(void) {
    if (!initialized())
        return UNINITIALIZED;
    __atomic_sub_fetch(&users, 1, __ATOMIC_ACQ_REL);
    return OK;
}

EXPORT const char *nvmlErrorString(int result) {
    switch (result) {
    case OK:
        return "Success";
    case UNINITIALIZED:
        return "Uninitialized";
    case NOT_SUPPORTED:
        return "Not Supported";
    case GPU_IS_LOST:
        return "GPU is lost";
    case NO_DATA:
        return "No data";
    case VERSION_MISMATCH:
        return "Argument version mismatch";
    default:
        return "Unknown Error";
    }
}

EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    StateHeader header;
    if (!initialized())
        return UNINITIALIZED;
    state_read_header(&header);
    return copy_text(version, length, header.driver_version);
}

EXPORT int nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
    StateHeader header;
    if (!initialized())
        return UNINITIALIZED;
    state_read_header(&header);
    return copy_text(version, length, header.nvml_version);
}

/* ----------------------------------------------------------------------------------------------------- identity */

EXPORT int nvmlDeviceGetCount_v2(unsigned int *count) {
    StateHeader header;
    if (!initialized())
        return UNINITIALIZED;
    state_read_header(&header);
    *count = header.device_count;
    return OK;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Handle **handle) {
    StateHeader header;
    if (!initialized())
        return UNINITIALIZED;
    state_read_header(&header);
    if (index >= header.device_count)
        return INVALID_ARGUMENT;
    handles[index] = (Handle){index, header.generation};
    *handle = &handles[index];
    Look look;
    return look_at(*handle, TARGET_HANDLE, &look);
}

static int find_device(const char *text, size_t offset, Handle **handle) {
    StateHeader header;
    if (!initialized())
        return UNINITIALIZED;
    state_read_header(&header);
    for (uint32_t index = 0; index < header.device_count; index++) {
        Look look;
        state_read_device(index, &look.device, &look.now_ns);
        if (!strcmp((const char *)&look.device + offset, text))
            return nvmlDeviceGetHandleByIndex_v2(index, handle);
    }
    return NOT_FOUND;
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, Handle **handle) {
    return find_device(uuid, offsetof(DeviceState, uuid), handle);
}

EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, Handle **handle) {
    return find_device(bus_id, offsetof(DeviceState, bus_id), handle);
}

EXPORT int nvmlDeviceGetName(const Handle *handle, char *name, unsigned int length) {
    Look look;
    int result = look_at(handle, TARGET_IDENTITY, &look);
    return result ? result : copy_text(name, length, look.device.name);
}

EXPORT int nvmlDeviceGetUUID(const Handle *handle, char *uuid, unsigned int length) {
    Look look;
    int result = look_at(handle, TARGET_IDENTITY, &look);
    return result ? result : copy_text(uuid, length, look.device.uuid);
}

EXPORT int nvmlDeviceGetIndex(const Handle *handle, unsigned int *index) {
    Look look;
    int result = look_at(handle, TARGET_IDENTITY, &look);
    if (!result)
        *index = handle->index;
    return result;
}

/* -------------------------------------------------------------------------------------------------------- power */

static int read_u32(const Handle *handle, enum target target, uint32_t (*of)(const DeviceState *), unsigned int *into) {
    Look look;
    int result = look_at(handle, target, &look);
    if (!result)
        *into = (unsigned int)figure(&look, target, of(&look.device));
    return result;
}

static uint32_t requested_limit_mw(const DeviceState *device) { return device->requested_limit_mw; }
static uint32_t default_limit_mw(const DeviceState *device) { return device->default_limit_mw; }
static uint32_t temperature(const DeviceState *device) { return (uint32_t)device->temperature_celsius; }

EXPORT int nvmlDeviceGetPowerUsage(const Handle *handle, unsigned int *milliwatts) {
    return read_u32(handle, TARGET_POWER, draw_mw, milliwatts);
}

EXPORT int nvmlDeviceGetEnforcedPowerLimit(const Handle *handle, unsigned int *milliwatts) {
    return read_u32(handle, TARGET_ENFORCED_LIMIT, enforced_limit_mw, milliwatts);
}

EXPORT int nvmlDeviceGetPowerManagementLimit(const Handle *handle, unsigned int *milliwatts) {
    return read_u32(handle, TARGET_LIMIT_CONSTRAINTS, requested_limit_mw, milliwatts);
}

EXPORT int nvmlDeviceGetPowerManagementDefaultLimit(const Handle *handle, unsigned int *milliwatts) {
    return read_u32(handle, TARGET_LIMIT_CONSTRAINTS, default_limit_mw, milliwatts);
}

EXPORT int nvmlDeviceGetPowerManagementLimitConstraints(const Handle *handle, unsigned int *minimum,
                                                        unsigned int *maximum) {
    Look look;
    int result = look_at(handle, TARGET_LIMIT_CONSTRAINTS, &look);
    if (!result) {
        *minimum = look.device.minimum_limit_mw;
        *maximum = look.device.maximum_limit_mw;
    }
    return result;
}

EXPORT int nvmlDeviceGetTotalEnergyConsumption(const Handle *handle, unsigned long long *millijoules) {
    Look look;
    int result = look_at(handle, TARGET_ENERGY, &look);
    if (!result)
        *millijoules = figure(&look, TARGET_ENERGY, energy_uj_at(&look.device, look.now_ns) / 1000u);
    return result;
}

static void request_limit(DeviceState *device, const void *milliwatts) {
    device->requested_limit_mw = *(const uint32_t *)milliwatts;
}

EXPORT int nvmlDeviceSetPowerManagementLimit(const Handle *handle, unsigned int milliwatts) {
    Look look;
    int result = look_at(handle, TARGET_SET_LIMIT, &look);
    if (result || look.device.injections[TARGET_SET_LIMIT].mode == MODE_NOT_APPLIED)
        return result;
    if (milliwatts < look.device.minimum_limit_mw || milliwatts > look.device.maximum_limit_mw)
        return INVALID_ARGUMENT;
    state_change_device(handle->index, request_limit, &milliwatts);
    return OK;
}

typedef struct {
    unsigned int version, scope, milliwatts;
} PowerValue;

EXPORT int nvmlDeviceSetPowerManagementLimit_v2(const Handle *handle, const PowerValue *value) {
    if (value->version != 0x0200000Cu)
        return VERSION_MISMATCH;
    return value->scope ? NOT_SUPPORTED : nvmlDeviceSetPowerManagementLimit(handle, value->milliwatts);
}

/* -------------------------------------------------------------------------------------------------------- state */

typedef struct {
    unsigned int gpu, memory;
} Utilization;

EXPORT int nvmlDeviceGetUtilizationRates(const Handle *handle, Utilization *utilization) {
    Look look;
    int result = look_at(handle, TARGET_UTILIZATION, &look);
    if (!result) {
        utilization->gpu = (unsigned int)figure(&look, TARGET_UTILIZATION, look.device.utilization_percent);
        utilization->memory = look.device.activity_permille / 20;
    }
    return result;
}

typedef struct {
    unsigned long long total, free, used;
} Memory;

EXPORT int nvmlDeviceGetMemoryInfo(const Handle *handle, Memory *memory) {
    Look look;
    int result = look_at(handle, TARGET_MEMORY, &look);
    if (result)
        return result;
    memory->total = look.device.memory_total_bytes;
    memory->used = figure(&look, TARGET_MEMORY, look.device.memory_used_bytes) + look.device.memory_reserved_bytes;
    memory->free = memory->total - memory->used;
    return OK;
}

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} MemoryV2;

EXPORT int nvmlDeviceGetMemoryInfo_v2(const Handle *handle, MemoryV2 *memory) {
    if (memory->version != 0x02000028u)
        return VERSION_MISMATCH;
    Look look;
    int result = look_at(handle, TARGET_MEMORY, &look);
    if (result)
        return result;
    memory->total = look.device.memory_total_bytes;
    memory->reserved = look.device.memory_reserved_bytes;
    memory->used = figure(&look, TARGET_MEMORY, look.device.memory_used_bytes);
    memory->free = memory->total - memory->reserved - memory->used;
    return OK;
}

EXPORT int nvmlDeviceGetTemperature(const Handle *handle, unsigned int sensor, unsigned int *celsius) {
    return sensor ? INVALID_ARGUMENT : read_u32(handle, TARGET_TEMPERATURE, temperature, celsius);
}

typedef struct {
    unsigned int version, sensor;
    int celsius;
} Temperature;

EXPORT int nvmlDeviceGetTemperatureV(const Handle *handle, Temperature *reading) {
    if (reading->version != 0x0100000Cu)
        return VERSION_MISMATCH;
    return nvmlDeviceGetTemperature(handle, reading->sensor, (unsigned int *)&reading->celsius);
}

static uint64_t event_reasons(const DeviceState *device) {
    uint64_t idle = device->activity_permille ? 0 : 0x1;
    uint64_t power_capped = device->demand_mw > enforced_limit_mw(device) ? 0x4 : 0;
    return idle | power_capped | device->event_reasons;
}

EXPORT int nvmlDeviceGetCurrentClocksEventReasons(const Handle *handle, unsigned long long *reasons) {
    Look look;
    int result = look_at(handle, TARGET_EVENT_REASONS, &look);
    if (!result)
        *reasons = figure(&look, TARGET_EVENT_REASONS, event_reasons(&look.device));
    return result;
}
