/* How every exported call begins: is the library up, is the handle of this driver load, is something injected? */
#ifndef PENSTOCK_NVML_CALL_H
#define PENSTOCK_NVML_CALL_H

#include "state.h"

#define EXPORT __attribute__((visibility("default")))

typedef struct Handle {
    uint32_t index;
    uint32_t generation;
} Handle;

/* One consistent look at a device. */
typedef struct {
    DeviceState device;
    uint64_t now_ns;
} Look;

/* Blocks while `target` hangs, then fills `look`; answers OK or the NVML code that the call must return. */
int look_at(const Handle *handle, enum target target, Look *look);

/* `value`, or where the figure was frozen. */
uint64_t figure(const Look *look, enum target target, uint64_t value);

int initialized(void);
void pause_milliseconds(long milliseconds);

#endif
