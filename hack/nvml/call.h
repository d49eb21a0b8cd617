/* How every exported call begins: is the library up, is the handle of this driver load, is something injected? */
#ifndef PENSTOCK_NVML_CALL_H
#define PENSTOCK_NVML_CALL_H

#include "state.h"

#define EXPORT __attribute__((visibility("default")))

typedef struct Handle {
    uint32_t index;
    uint32_t generation;
    uint32_t mig; /* 0: the whole GPU; else one of its MIG devices, from 1 */
} Handle;

/* One consistent look at a device. */
typedef struct {
    DeviceState device;
    uint64_t now_ns;
} Look;

/* Blocks while `target` hangs and for its delay, then fills `look`; answers OK or the NVML code that the call must
 * return. `look_at_whole` answers NOT_SUPPORTED for a MIG device. */
int look_at(const Handle *handle, enum target target, Look *look);
int look_at_whole(const Handle *handle, enum target target, Look *look);

/* `value`, or where the figure was frozen. */
uint64_t figure(const Look *look, enum target target, uint64_t value);

/* Copies with its end; INSUFFICIENT_SIZE where it does not fit. */
int copy_text(char *into, unsigned int size, const char *text);

/* NULL where the handle is no MIG device, or one that is gone. */
const MigInstance *mig_instance(const Handle *handle, const Look *look);

int initialized(void);
void pause_milliseconds(long milliseconds);

#endif
