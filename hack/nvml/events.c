/* Event sets, whose wait really blocks. */
#include "call.h"

#include <stdlib.h>

#define EVENT_POLL_MILLISECONDS 100
#define NOT_ATTRIBUTABLE 0xFFFFFFFFu


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
        *types = 0x8 | 0x2 | 0x1 | 0x100; /* critical XID, double- and single-bit ECC errors, change of MIG */
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

/* The oldest event that was not seen yet and is still kept. */
static Event next_event(EventSet *set, uint32_t index, const DeviceState *device) {
    if (device->event_serial - set->seen[index] > MAX_EVENTS)
        set->seen[index] = device->event_serial - MAX_EVENTS;
    return device->events[set->seen[index]++ % MAX_EVENTS];
}

static int take_event(EventSet *set, uint32_t index, EventData *data) {
    Look look;
    int result = look_at(set->handles[index], TARGET_EVENTS, &look);
    while (!result && look.device.event_serial != set->seen[index]) {
        Event event = next_event(set, index, &look.device);
        *data = (EventData){set->handles[index], event.type, event.data, NOT_ATTRIBUTABLE, NOT_ATTRIBUTABLE};
        if (event.type & set->types[index])
            return OK;
    }
    return result ? result : TIMEOUT;
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
    for (unsigned int waited = 0;;) {
        int result = take_any_event(set, event);
        if (result != TIMEOUT || waited >= timeout_milliseconds)
            return result;
        /* Nothing can have come while nobody wrote: a process that waits costs next to nothing, as it does for real. */
        uint32_t seen = state_sequence();
        do {
            unsigned int left = timeout_milliseconds - waited;
            unsigned int pause = left < EVENT_POLL_MILLISECONDS ? left : EVENT_POLL_MILLISECONDS;
            pause_milliseconds(pause);
            waited += pause;
        } while (waited < timeout_milliseconds && state_sequence() == seen);
    }
}
