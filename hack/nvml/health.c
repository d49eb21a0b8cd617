/* What NVML knows of a GPU's health, its fabric and its place in the rack. */
#include "call.h"

#include <string.h>

#define UNCORRECTED 1u

EXPORT int nvmlDeviceGetTotalEccErrors(const Handle *handle, unsigned int kind, unsigned int counter,
                                       unsigned long long *count) {
    (void)counter; /* since the driver was loaded, or for ever: the same here */
    Look look;
    int result = look_at_whole(handle, TARGET_ECC, &look);
    if (!result)
        *count = kind == UNCORRECTED ? look.device.uncorrectable_ecc_errors : 0;
    return result;
}

EXPORT int nvmlDeviceGetRemappedRows(const Handle *handle, unsigned int *correctable, unsigned int *uncorrectable,
                                     unsigned int *pending, unsigned int *failed) {
    Look look;
    int result = look_at_whole(handle, TARGET_REMAPPED_ROWS, &look);
    if (!result && look.device.mig_enabled && look.device.mig_count)
        result = NOT_SUPPORTED;
    if (result)
        return result;
    *correctable = look.device.remapped_correctable;
    *uncorrectable = look.device.remapped_uncorrectable;
    *pending = look.device.remapping_pending;
    *failed = look.device.remapping_failed;
    return OK;
}

typedef struct {
    unsigned int version;
    uint8_t cluster[16];
    int status;
    uint32_t clique, state, health_mask;
    uint8_t health_summary;
} FabricInfo;

_Static_assert(sizeof(FabricInfo) == 40, "nvmlGpuFabricInfo_v3_t");

EXPORT int nvmlDeviceGetGpuFabricInfoV(const Handle *handle, FabricInfo *info) {
    if (info->version != 0x03000028u)
        return VERSION_MISMATCH;
    Look look;
    int result = look_at_whole(handle, TARGET_FABRIC, &look);
    if (result || !look.device.fabric_state)
        return result ? result : NOT_SUPPORTED;
    memcpy(info->cluster, look.device.fabric_cluster, sizeof info->cluster);
    info->status = look.device.fabric_status;
    info->clique = look.device.fabric_clique;
    info->state = look.device.fabric_state;
    info->health_mask = 0;
    info->health_summary = 0;
    return OK;
}

typedef struct {
    unsigned int version;
    char board_guid[16], chassis_serial[16];
    uint8_t slot, tray, host_id, peer_type, module_id;
} PlatformInfo;

_Static_assert(sizeof(PlatformInfo) == 44, "nvmlPlatformInfo_v2_t");

EXPORT int nvmlDeviceGetPlatformInfo(const Handle *handle, PlatformInfo *info) {
    if (info->version != 0x0200002Cu)
        return VERSION_MISMATCH;
    Look look;
    int result = look_at_whole(handle, TARGET_PLATFORM, &look);
    if (result || !look.device.chassis_serial[0])
        return result ? result : NOT_SUPPORTED;
    memcpy(info->chassis_serial, look.device.chassis_serial, sizeof info->chassis_serial);
    info->slot = look.device.slot;
    info->tray = look.device.tray;
    info->host_id = look.device.host_id;
    info->module_id = look.device.module_id;
    return OK;
}
