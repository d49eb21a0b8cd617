/* GPM samples, whose metrics are averages between two samples, and event sets, whose wait really blocks. */
#include "call.h"

#include <stdlib.h>
#include <string.h>

#define STREAMING_MULTIPROCESSOR_UTILIZATION 2u
#define EVENT_POLL_MILLISECONDS 5
#define NOT_ATTRIBUTABLE 0xFFFFFFFFu

/* ---------------------------------------------------------------------------------------------------------- GPM */

typedef struct {
    unsigned int version, supported;
} GpmSupport;

typedef struct {
    Look look;
} GpmSample;

typedef struct {
    unsigned int id;
    int result;
    double value;
    const char *short_name, *long_name, *unit;
} GpmMetric;

typedef struct {
    unsigned int version, count;
    GpmSample *first, *second;
    GpmMetric metrics[]; /* the array's length changes between releases: only `count` entries are touched */
} GpmMetrics;

EXPORT int nvmlGpmQueryDeviceSupport(const Handle *handle, GpmSupport *support) {
    if (support->version != 1u)
        return VERSION_MISMATCH;
    Look look;
    int result = look_at(handle, TARGET_IDENTITY, &look);
    if (!result)
        support->supported = look.device.gpm_supported;
    return result;
}

EXPORT int nvmlGpmSampleAlloc(GpmSample **sample) {
    if (!initialized())
        return UNINITIALIZED;
    *sample = calloc(1, sizeof **sample);
    return *sample ? OK : UNKNOWN;
}

EXPORT int nvmlGpmSampleFree(GpmSample *sample) {
    free(sample);
    return OK;
}

EXPORT int nvmlGpmSampleGet(const Handle *handle, GpmSample *sample) {
    Look look;
    int result = look_at(handle, TARGET_GPM, &look);
    if (result || !look.device.gpm_supported)
        return result ? result : NOT_SUPPORTED;
    sample->look = look;
    return OK;
}

static int average_activity_percent(const GpmMetrics *metrics, double *percent) {
    const Look *first = &metrics->first->look, *second = &metrics->second->look;
    if (second->now_ns <= first->now_ns)
        return INVALID_ARGUMENT;
    uint64_t from = activity_integral_at(&first->device, first->now_ns);
    uint64_t to = activity_integral_at(&second->device, second->now_ns);
    double permille = (double)(to - from) / ((double)(second->now_ns - first->now_ns) / 1000.0);
    int frozen = second->device.injections[TARGET_GPM].mode == MODE_FROZEN;
    *percent = (frozen ? (double)second->device.injections[TARGET_GPM].frozen : permille) / 10.0;
    return OK;
}

EXPORT int nvmlGpmMetricsGet(GpmMetrics *metrics) {
    if (metrics->version != 1u)
        return VERSION_MISMATCH;
    if (!metrics->first || !metrics->second)
        return INVALID_ARGUMENT;
    for (unsigned int index = 0; index < metrics->count; index++) {
        GpmMetric *metric = &metrics->metrics[index];
        metric->short_name = metric->long_name = metric->unit = NULL;
        metric->result = metric->id == STREAMING_MULTIPROCESSOR_UTILIZATION
                             ? average_activity_percent(metrics, &metric->value)
                             : NOT_SUPPORTED;
    }
    return OK;
}

/* ------------------------------------------------------------------------------------------------------- events */

typedef struct {
    const Handle *handles[MAX_DEVICES];
    uint32_t seen[MAX_DEVICES];
    uint64_t types[MAX_DEVICES];
} EventSet;

typedef struct {
    const Handle *handle;
    unsigned long long type, data;
    unsigned int gpu_instance, compute_instance;
} EventData;

EXPORT int nvmlEventSetCreate(EventSet **set) {
    if (!initialized())
        return UNINITIALIZED;
    *set = calloc(1, sizeof **set);
    return *set ? OK : UNKNOWN;
}

EXPORT int nvmlEventSetFree(EventSet *set) {
    free(set);
    return OK;
}

EXPORT int nvmlDeviceGetSupportedEventTypes(const Handle *handle, unsigned long long *types) {
    Look look;
    int result = look_at(handle, TARGET_EVENTS, &look);
    if (!result)
        *types = 0x8 | 0x2 | 0x1; /* critical XID, double-bit and single-bit ECC errors */
    return result;
}

EXPORT int nvmlDeviceRegisterEvents(const Handle *handle, unsigned long long types, EventSet *set) {
    Look look;
    int result = look_at(handle, TARGET_EVENTS, &look);
    if (result)
        return result;
    set->handles[handle->index] = handle;
    set->seen[handle->index] = look.device.event_serial; /* earlier events are lost, as they are for real */
    set->types[handle->index] = types;
    return OK;
}

static int take_event(EventSet *set, uint32_t index, EventData *event) {
    Look look;
    int result = look_at(set->handles[index], TARGET_EVENTS, &look);
    if (result)
        return result;
    if (look.device.event_serial == set->seen[index] || !(look.device.event_type & set->types[index]))
        return TIMEOUT;
    set->seen[index] = look.device.event_serial;
    *event = (EventData){set->handles[index], look.device.event_type, look.device.event_data, NOT_ATTRIBUTABLE,
                         NOT_ATTRIBUTABLE};
    return OK;
}

static int take_any_event(EventSet *set, EventData *event) {
    for (uint32_t index = 0; index < MAX_DEVICES; index++) {
        int result = set->handles[index] ? take_event(set, index, event) : TIMEOUT;
        if (result != TIMEOUT)
            return result;
    }
    return TIMEOUT;
}

EXPORT int nvmlEventSetWait_v2(EventSet *set, EventData *event, unsigned int timeout_milliseconds) {
    if (!initialized())
        return UNINITIALIZED;
    for (unsigned int waited = 0;; waited += EVENT_POLL_MILLISECONDS) {
        int result = take_any_event(set, event);
        if (result != TIMEOUT || waited >= timeout_milliseconds)
            return result;
        pause_milliseconds(EVENT_POLL_MILLISECONDS);
    }
}
