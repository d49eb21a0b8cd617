/* The state of a node's GPUs in one mapped file, shared by the plant, the agents and whoever sets power limits.
 *
 * The same layout is written down once more in penstock/sim/nvml_state.py (ctypes); `version` and `size` in the header
 * are checked when a process maps the file, so the two cannot drift apart unseen.
 *
 * Writers take flock(LOCK_EX) on the file and keep `sequence` odd while they write; readers copy under the sequence and
 * fall back to flock(LOCK_SH) when a writer stays (or died) in the middle. */
#ifndef PENSTOCK_NVML_STATE_H
#define PENSTOCK_NVML_STATE_H

#include <stdint.h>

#define STATE_MAGIC 0x4d564e50u /* "PNVM" */
#define STATE_VERSION 2u
#define MAX_DEVICES 16
#define MAX_MIG_INSTANCES 7
#define MAX_PROCESSES 16
#define MAX_EVENTS 8
#define STATE_PATH_VARIABLE "PENSTOCK_NVML_STATE"

/* The NVML return codes in use. */
enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NO_PERMISSION = 4,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    RESET_REQUIRED = 16,
    NO_DATA = 21,
    VERSION_MISMATCH = 25,
    UNKNOWN = 999
};

/* What an injection aims at: a figure, by whichever call it is read, or an act. */
enum target {
    TARGET_HANDLE,
    TARGET_IDENTITY,
    TARGET_POWER,
    TARGET_ENERGY,
    TARGET_ENFORCED_LIMIT,
    TARGET_LIMIT_CONSTRAINTS,
    TARGET_SET_LIMIT,
    TARGET_MEMORY,
    TARGET_UTILIZATION,
    TARGET_GPM,
    TARGET_TEMPERATURE,
    TARGET_EVENT_REASONS,
    TARGET_RECOVERY_ACTION,
    TARGET_FIELDS,
    TARGET_EVENTS,
    TARGET_PERSISTENCE,
    TARGET_SET_PERSISTENCE,
    TARGET_MARGIN,
    TARGET_ECC,
    TARGET_REMAPPED_ROWS,
    TARGET_FABRIC,
    TARGET_PLATFORM,
    TARGET_MIG,
    TARGET_PROCESSES,
    TARGET_THROTTLE_COUNTERS,
    TARGET_COUNT
};

enum mode {
    MODE_NONE,
    MODE_HANG,        /* the call blocks until the mode changes */
    MODE_FROZEN,      /* the figure stands still at `frozen` */
    MODE_NOT_APPLIED, /* a setter answers `result` and changes nothing */
};

/* Reasons to slow down that are counted in time, each under its bit of the event reasons. */
enum { SW_POWER_CAP, SYNC_BOOST, SW_THERMAL_SLOWDOWN, HW_THERMAL_SLOWDOWN, HW_POWER_BRAKE, THROTTLE_COUNT };

typedef struct {
    int32_t result; /* not 0: the call answers this code */
    uint32_t mode;
    uint32_t delay_ms; /* the call takes so much longer */
    uint32_t reserved;
    uint64_t frozen; /* in the unit of the target's own figure below */
} Injection;

typedef struct {
    char uuid[48];
    char name[64];
    uint64_t memory_total_bytes;
    uint64_t memory_used_bytes;
    uint64_t activity_permille_us;
    uint32_t activity_permille; /* of its own streaming multiprocessors */
    uint32_t gpu_instance;
    uint32_t compute_instance;
    uint32_t slices; /* compute slices, of the seven that a GPU has */
} MigInstance;

typedef struct {
    uint64_t used_memory_bytes;
    uint32_t pid;
    uint32_t sm_percent;
    uint32_t memory_percent;
    uint32_t mig_instance; /* 0: the whole GPU; else its place among the MIG instances, from 1 */
} Process;

typedef struct {
    uint64_t type;
    uint64_t data;
} Event;

typedef struct {
    char uuid[48];
    char name[64];
    char bus_id[32];
    uint64_t memory_total_bytes;
    uint64_t memory_used_bytes; /* without what the driver reserves */
    uint64_t memory_reserved_bytes;
    uint64_t uncorrectable_ecc_errors;
    uint64_t changed_ns; /* boot time up to which the integrals below stand */
    uint64_t energy_uj;
    uint64_t activity_permille_us;
    uint64_t tensor_permille_us;
    uint64_t dram_permille_us;
    uint64_t throttled_ns[THROTTLE_COUNT];
    uint32_t minimum_limit_mw;
    uint32_t maximum_limit_mw;
    uint32_t default_limit_mw;
    uint32_t requested_limit_mw;
    uint32_t external_limit_mw; /* a cap set by somebody else (a BMC); 0: none */
    uint32_t demand_mw;         /* what the load would draw without any limit */
    uint32_t module_only;       /* no figure of power at GPU scope, as on Grace-Hopper */
    uint32_t module_extra_mw;   /* what processor and memory add at module scope */
    uint32_t persistence_mode;
    uint32_t activity_permille; /* streaming multiprocessors' activity */
    uint32_t tensor_permille;
    uint32_t dram_permille;
    uint32_t utilization_percent;
    int32_t temperature_celsius;
    int32_t slowdown_celsius; /* where thermal slowdown begins; 0: the chip tells no margin */
    uint32_t event_reasons;   /* beside those that follow from the figures */
    uint32_t recovery_action;
    uint32_t lost;
    uint32_t gpm_supported;
    uint32_t remapped_correctable;
    uint32_t remapped_uncorrectable;
    uint32_t remapping_pending;
    uint32_t remapping_failed;
    uint32_t fabric_state; /* 0: the GPU has none */
    int32_t fabric_status;
    uint32_t fabric_clique;
    uint8_t fabric_cluster[16];
    char chassis_serial[16]; /* not terminated where it is full; empty: no platform information */
    uint8_t slot;
    uint8_t tray;
    uint8_t host_id;
    uint8_t module_id;
    uint32_t mig_enabled;
    uint32_t mig_count;
    uint32_t process_count;
    uint32_t event_serial; /* rises with every event; the latest lies at (event_serial - 1) % MAX_EVENTS */
    uint32_t reserved;
    Event events[MAX_EVENTS];
    MigInstance mig_instances[MAX_MIG_INSTANCES];
    Process processes[MAX_PROCESSES];
    Injection injections[TARGET_COUNT];
} DeviceState;

typedef struct {
    uint32_t magic;
    uint32_t version;
    uint32_t size;
    uint32_t sequence;
    uint32_t device_count;
    uint32_t generation; /* rises when the driver is reloaded: older handles are void */
    int32_t init_result; /* what nvmlInit answers */
    uint32_t reserved;
    uint64_t manual_clock_ns; /* not 0: the time, instead of the boot clock */
    char driver_version[80];
    char nvml_version[80];
} StateHeader;

typedef struct {
    StateHeader header;
    DeviceState devices[MAX_DEVICES];
} State;

_Static_assert(sizeof(Injection) == 24, "Injection is mirrored in nvml_state.py");
_Static_assert(sizeof(MigInstance) == 152, "MigInstance is mirrored in nvml_state.py");
_Static_assert(sizeof(Process) == 24, "Process is mirrored in nvml_state.py");
_Static_assert(sizeof(DeviceState) == 2592, "DeviceState is mirrored in nvml_state.py");
_Static_assert(sizeof(StateHeader) == 200, "StateHeader is mirrored in nvml_state.py");

/* Maps the file that PENSTOCK_NVML_STATE names now, unless it is mapped already; returns an NVML code. */
int state_map(void);

/* Moves with every change of the file. */
uint32_t state_sequence(void);

/* Consistent copies; a device's integrals stand at `now_ns`. */
void state_read_header(StateHeader *header);
void state_read_device(uint32_t index, DeviceState *device, uint64_t *now_ns);

/* Changes one device under the writer's lock, its integrals brought up to now first. */
void state_change_device(uint32_t index, void (*change)(DeviceState *device, const void *argument),
                         const void *argument);

/* Figures that follow from the state. */
uint32_t enforced_limit_mw(const DeviceState *device);
uint32_t draw_mw(const DeviceState *device);
uint32_t module_draw_mw(const DeviceState *device);
uint64_t event_reasons(const DeviceState *device);

/* Bring every integral of `device` (a copy, or under the writer's lock) up to `now_ns`. */
void state_advance(DeviceState *device, uint64_t now_ns);

#endif
