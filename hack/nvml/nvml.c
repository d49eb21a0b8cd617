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
#define KEPT_GENERATIONS 64

static int users;
static uint32_t loaded; /* the driver's generation at the last nvmlInit */
/* A handle of an older generation stays what it was, whoever asks for a new one. */
static Handle handles[KEPT_GENERATIONS][MAX_DEVICES][1 + MAX_MIG_INSTANCES];

void pause_milliseconds(long milliseconds) {
    if (!milliseconds)
        return;
    struct timespec wait = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&wait, NULL);
}

int initialized(void) { return __atomic_load_n(&users, __ATOMIC_ACQUIRE) > 0; }

static int look_until_it_answers(const Handle *handle, enum target target, Look *look) {
    for (;;) {
        state_read_device(handle->index, &look->device, &look->now_ns);
        const Injection *injection = &look->device.injections[target];
        if (injection->mode != MODE_HANG) {
            pause_milliseconds(injection->delay_ms);
            return look->device.lost ? GPU_IS_LOST : injection->result;
        }
        pause_milliseconds(HANG_POLL_MILLISECONDS);
    }
}

static int of_this_driver_load(const Handle *handle) {
    StateHeader header;
    state_read_header(&header);
    return handle->generation == header.generation;
}

int look_at(const Handle *handle, enum target target, Look *look) {
    if (!initialized())
        return UNINITIALIZED;
    if (!handle)
        return INVALID_ARGUMENT;
    if (!of_this_driver_load(handle))
        return UNINITIALIZED;
    int result = look_until_it_answers(handle, target, look);
    return !result && handle->mig > look->device.mig_count ? NOT_FOUND : result;
}

int look_at_whole(const Handle *handle, enum target target, Look *look) {
    int result = look_at(handle, target, look);
    return !result && handle->mig ? NOT_SUPPORTED : result;
}

const MigInstance *mig_instance(const Handle *handle, const Look *look) {
    return handle->mig && handle->mig <= look->device.mig_count ? &look->device.mig_instances[handle->mig - 1] : NULL;
}

uint64_t figure(const Look *look, enum target target, uint64_t value) {
    const Injection *injection = &look->device.injections[target];
    return injection->mode == MODE_FROZEN ? injection->frozen : value;
}

int copy_text(char *into, unsigned int size, const char *text) {
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
    __atomic_store_n(&loaded, header.generation, __ATOMIC_RELEASE);
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
    case NO_PERMISSION:
        return "Insufficient Permissions";
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

/* Fills `header`; UNINITIALIZED also where the driver was reloaded since nvmlInit. */
static int look_at_driver(StateHeader *header) {
    if (!initialized())
        return UNINITIALIZED;
    state_read_header(header);
    return header->generation == __atomic_load_n(&loaded, __ATOMIC_ACQUIRE) ? OK : UNINITIALIZED;
}

static Handle *handle_of(uint32_t generation, uint32_t index, uint32_t mig) {
    Handle *handle = &handles[generation % KEPT_GENERATIONS][index][mig];
    *handle = (Handle){index, generation, mig};
    return handle;
}

EXPORT int nvmlDeviceGetCount_v2(unsigned int *count) {
    StateHeader header;
    if (look_at_driver(&header))
        return UNINITIALIZED;
    *count = header.device_count;
    return OK;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Handle **handle) {
    StateHeader header;
    if (look_at_driver(&header))
        return UNINITIALIZED;
    if (index >= header.device_count)
        return INVALID_ARGUMENT;
    *handle = handle_of(header.generation, index, 0);
    Look look;
    return look_at(*handle, TARGET_HANDLE, &look);
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(const Handle *parent, unsigned int index, Handle **handle) {
    Look look;
    int result = look_at_whole(parent, TARGET_MIG, &look);
    if (result)
        return result;
    if (!look.device.mig_enabled)
        return NOT_SUPPORTED;
    if (index >= look.device.mig_count)
        return NOT_FOUND;
    *handle = handle_of(parent->generation, parent->index, index + 1);
    return OK;
}

EXPORT int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(const Handle *handle, Handle **parent) {
    Look look;
    int result = look_at(handle, TARGET_MIG, &look);
    if (!result)
        *parent = handle_of(handle->generation, handle->index, 0);
    return result;
}

static int find_device(const char *text, size_t offset, Handle **handle) {
    StateHeader header;
    if (look_at_driver(&header))
        return UNINITIALIZED;
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
    const MigInstance *instance = result ? NULL : mig_instance(handle, &look);
    return result ? result : copy_text(name, length, instance ? instance->name : look.device.name);
}

EXPORT int nvmlDeviceGetUUID(const Handle *handle, char *uuid, unsigned int length) {
    Look look;
    int result = look_at(handle, TARGET_IDENTITY, &look);
    const MigInstance *instance = result ? NULL : mig_instance(handle, &look);
    return result ? result : copy_text(uuid, length, instance ? instance->uuid : look.device.uuid);
}

EXPORT int nvmlDeviceGetIndex(const Handle *handle, unsigned int *index) {
    Look look;
    int result = look_at(handle, TARGET_IDENTITY, &look);
    if (!result)
        *index = handle->index;
    return result;
}

EXPORT int nvmlDeviceGetMinorNumber(const Handle *handle, unsigned int *minor) {
    return nvmlDeviceGetIndex(handle, minor);
}

/* -------------------------------------------------------------------------------------------------------- power */

static int read_u32(const Handle *handle, enum target target, uint32_t (*of)(const DeviceState *), unsigned int *into) {
    Look look;
    int result = look_at_whole(handle, target, &look);
    if (!result)
        *into = (unsigned int)figure(&look, target, of(&look.device));
    return result;
}

/* The calls without a scope speak for the GPU alone, which some chips do not measure. */
static int look_at_power(const Handle *handle, enum target target, Look *look) {
    int result = look_at_whole(handle, target, look);
    return !result && look->device.module_only ? NOT_SUPPORTED : result;
}

static int read_power(const Handle *handle, enum target target, uint32_t (*of)(const DeviceState *),
                      unsigned int *milliwatts) {
    Look look;
    int result = look_at_power(handle, target, &look);
    if (!result)
        *milliwatts = (unsigned int)figure(&look, target, of(&look.device));
    return result;
}

static uint32_t requested_limit_mw(const DeviceState *device) { return device->requested_limit_mw; }
static uint32_t default_limit_mw(const DeviceState *device) { return device->default_limit_mw; }
static uint32_t temperature(const DeviceState *device) { return (uint32_t)device->temperature_celsius; }

EXPORT int nvmlDeviceGetPowerUsage(const Handle *handle, unsigned int *milliwatts) {
    return read_power(handle, TARGET_POWER, draw_mw, milliwatts);
}

EXPORT int nvmlDeviceGetEnforcedPowerLimit(const Handle *handle, unsigned int *milliwatts) {
    return read_power(handle, TARGET_ENFORCED_LIMIT, enforced_limit_mw, milliwatts);
}

EXPORT int nvmlDeviceGetPowerManagementLimit(const Handle *handle, unsigned int *milliwatts) {
    return read_power(handle, TARGET_LIMIT_CONSTRAINTS, requested_limit_mw, milliwatts);
}

EXPORT int nvmlDeviceGetPowerManagementDefaultLimit(const Handle *handle, unsigned int *milliwatts) {
    return read_power(handle, TARGET_LIMIT_CONSTRAINTS, default_limit_mw, milliwatts);
}

EXPORT int nvmlDeviceGetPowerManagementLimitConstraints(const Handle *handle, unsigned int *minimum,
                                                        unsigned int *maximum) {
    Look look;
    int result = look_at_power(handle, TARGET_LIMIT_CONSTRAINTS, &look);
    if (!result) {
        *minimum = look.device.minimum_limit_mw;
        *maximum = look.device.maximum_limit_mw;
    }
    return result;
}

EXPORT int nvmlDeviceGetTotalEnergyConsumption(const Handle *handle, unsigned long long *millijoules) {
    Look look;
    int result = look_at_whole(handle, TARGET_ENERGY, &look);
    if (!result)
        *millijoules = figure(&look, TARGET_ENERGY, look.device.energy_uj / 1000u);
    return result;
}

static void request_limit(DeviceState *device, const void *milliwatts) {
    device->requested_limit_mw = *(const uint32_t *)milliwatts;
}

static int set_limit(const Handle *handle, const Look *look, unsigned int milliwatts) {
    if (milliwatts < look->device.minimum_limit_mw || milliwatts > look->device.maximum_limit_mw)
        return INVALID_ARGUMENT;
    if (look->device.injections[TARGET_SET_LIMIT].mode != MODE_NOT_APPLIED)
        state_change_device(handle->index, request_limit, &milliwatts);
    return OK;
}

EXPORT int nvmlDeviceSetPowerManagementLimit(const Handle *handle, unsigned int milliwatts) {
    Look look;
    int result = look_at_power(handle, TARGET_SET_LIMIT, &look);
    return result ? result : set_limit(handle, &look, milliwatts);
}

typedef struct {
    unsigned int version, scope, milliwatts;
} PowerValue;

EXPORT int nvmlDeviceSetPowerManagementLimit_v2(const Handle *handle, const PowerValue *value) {
    if (value->version != 0x0200000Cu)
        return VERSION_MISMATCH;
    if (!value->scope)
        return nvmlDeviceSetPowerManagementLimit(handle, value->milliwatts);
    Look look;
    int result = look_at_whole(handle, TARGET_SET_LIMIT, &look);
    if (result || value->scope != 1u || !look.device.module_only)
        return result ? result : NOT_SUPPORTED;
    return value->milliwatts < look.device.module_extra_mw
               ? INVALID_ARGUMENT
               : set_limit(handle, &look, value->milliwatts - look.device.module_extra_mw);
}

static uint32_t persistence_mode(const DeviceState *device) { return device->persistence_mode; }

EXPORT int nvmlDeviceGetPersistenceMode(const Handle *handle, unsigned int *mode) {
    return read_u32(handle, TARGET_PERSISTENCE, persistence_mode, mode);
}

static void change_persistence(DeviceState *device, const void *mode) {
    device->persistence_mode = *(const uint32_t *)mode;
}

EXPORT int nvmlDeviceSetPersistenceMode(const Handle *handle, unsigned int mode) {
    Look look;
    int result = look_at_whole(handle, TARGET_SET_PERSISTENCE, &look);
    if (result || mode > 1u)
        return result ? result : INVALID_ARGUMENT;
    if (look.device.injections[TARGET_SET_PERSISTENCE].mode != MODE_NOT_APPLIED)
        state_change_device(handle->index, change_persistence, &mode);
    return OK;
}

/* -------------------------------------------------------------------------------------------------------- state */

typedef struct {
    unsigned int gpu, memory;
} Utilization;

EXPORT int nvmlDeviceGetUtilizationRates(const Handle *handle, Utilization *utilization) {
    Look look;
    int result = look_at_whole(handle, TARGET_UTILIZATION, &look);
    if (!result && look.device.mig_enabled)
        result = NOT_SUPPORTED;
    if (!result) {
        utilization->gpu = (unsigned int)figure(&look, TARGET_UTILIZATION, look.device.utilization_percent);
        utilization->memory = look.device.dram_permille / 10;
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
    const MigInstance *instance = mig_instance(handle, &look);
    memory->total = instance ? instance->memory_total_bytes : look.device.memory_total_bytes;
    memory->used = figure(&look, TARGET_MEMORY, instance ? instance->memory_used_bytes
                                                         : look.device.memory_used_bytes + look.device.memory_reserved_bytes);
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
    const MigInstance *instance = mig_instance(handle, &look);
    memory->total = instance ? instance->memory_total_bytes : look.device.memory_total_bytes;
    memory->reserved = instance ? 0 : look.device.memory_reserved_bytes;
    memory->used =
        figure(&look, TARGET_MEMORY, instance ? instance->memory_used_bytes : look.device.memory_used_bytes);
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

typedef struct {
    unsigned int version;
    int celsius;
} MarginTemperature;

EXPORT int nvmlDeviceGetMarginTemperature(const Handle *handle, MarginTemperature *margin) {
    if (margin->version != 0x01000008u)
        return VERSION_MISMATCH;
    Look look;
    int result = look_at_whole(handle, TARGET_MARGIN, &look);
    if (result || !look.device.slowdown_celsius)
        return result ? result : NOT_SUPPORTED;
    uint64_t celsius = (uint64_t)(int64_t)(look.device.slowdown_celsius - look.device.temperature_celsius);
    margin->celsius = (int)(int64_t)figure(&look, TARGET_MARGIN, celsius);
    return OK;
}

EXPORT int nvmlDeviceGetCurrentClocksEventReasons(const Handle *handle, unsigned long long *reasons) {
    Look look;
    int result = look_at_whole(handle, TARGET_EVENT_REASONS, &look);
    if (!result)
        *reasons = figure(&look, TARGET_EVENT_REASONS, event_reasons(&look.device));
    return result;
}
