/* nvmlDeviceGetFieldValues: the call succeeds while single fields fail, and each value says which member holds it. */
#include "call.h"

#include <stddef.h>
#include <string.h>

#define UNSIGNED_INT 1u
#define UNSIGNED_LONG_LONG 3u
#define GARBAGE 0xA5

typedef struct {
    unsigned int field_id, scope_id;
    long long timestamp_us, latency_us;
    unsigned int value_type;
    int result;
    union {
        unsigned int u32;
        unsigned long long u64;
        unsigned char bytes[8];
    } value;
} FieldValue;

_Static_assert(sizeof(FieldValue) == 40, "nvmlFieldValue_t");

typedef struct {
    unsigned int id;
    enum target target;
    unsigned int type;
    uint64_t (*of)(const Look *look);
    int scoped; /* a power, which has a GPU and a module scope */
} Field;

static uint64_t energy_mj(const Look *look) { return look->device.energy_uj / 1000u; }
static uint64_t draw(const Look *look) { return draw_mw(&look->device); }
static uint64_t minimum(const Look *look) { return look->device.minimum_limit_mw; }
static uint64_t maximum(const Look *look) { return look->device.maximum_limit_mw; }
static uint64_t standard(const Look *look) { return look->device.default_limit_mw; }
static uint64_t enforced(const Look *look) { return enforced_limit_mw(&look->device); }
static uint64_t requested(const Look *look) { return look->device.requested_limit_mw; }
static uint64_t recovery(const Look *look) { return look->device.recovery_action; }
static uint64_t power_capped_ns(const Look *look) { return look->device.throttled_ns[SW_POWER_CAP]; }
static uint64_t sync_boost_ns(const Look *look) { return look->device.throttled_ns[SYNC_BOOST]; }
static uint64_t sw_thermal_ns(const Look *look) { return look->device.throttled_ns[SW_THERMAL_SLOWDOWN]; }
static uint64_t hw_thermal_ns(const Look *look) { return look->device.throttled_ns[HW_THERMAL_SLOWDOWN]; }
static uint64_t power_brake_ns(const Look *look) { return look->device.throttled_ns[HW_POWER_BRAKE]; }

static const Field FIELDS[] = {
    {74, TARGET_THROTTLE_COUNTERS, UNSIGNED_LONG_LONG, power_capped_ns, 0},
    {76, TARGET_THROTTLE_COUNTERS, UNSIGNED_LONG_LONG, sync_boost_ns, 0},
    {83, TARGET_ENERGY, UNSIGNED_LONG_LONG, energy_mj, 0},
    {185, TARGET_POWER, UNSIGNED_INT, draw, 1},
    {186, TARGET_POWER, UNSIGNED_INT, draw, 1},
    {187, TARGET_LIMIT_CONSTRAINTS, UNSIGNED_INT, minimum, 1},
    {188, TARGET_LIMIT_CONSTRAINTS, UNSIGNED_INT, maximum, 1},
    {189, TARGET_LIMIT_CONSTRAINTS, UNSIGNED_INT, standard, 1},
    {190, TARGET_ENFORCED_LIMIT, UNSIGNED_INT, enforced, 1},
    {192, TARGET_LIMIT_CONSTRAINTS, UNSIGNED_INT, requested, 1},
    {230, TARGET_RECOVERY_ACTION, UNSIGNED_INT, recovery, 0},
    {269, TARGET_THROTTLE_COUNTERS, UNSIGNED_LONG_LONG, sw_thermal_ns, 0},
    {270, TARGET_THROTTLE_COUNTERS, UNSIGNED_LONG_LONG, hw_thermal_ns, 0},
    {271, TARGET_THROTTLE_COUNTERS, UNSIGNED_LONG_LONG, power_brake_ns, 0},
};

static const Field *field_of(unsigned int id) {
    for (size_t index = 0; index < sizeof FIELDS / sizeof *FIELDS; index++)
        if (FIELDS[index].id == id)
            return &FIELDS[index];
    return NULL;
}

/* Figures without a scope ignore the scope that they are asked with. */
static int has_scope(const Field *field, unsigned int scope, const Look *look) {
    return !field->scoped || scope == (look->device.module_only ? 1u : 0u);
}

static uint64_t scoped(const Field *field, const Look *look) {
    return field->of(look) + (field->scoped && look->device.module_only ? look->device.module_extra_mw : 0);
}

static int look_at_field(const Handle *handle, const Field *field, unsigned int scope, Look *look) {
    if (!field)
        return NOT_SUPPORTED;
    int result = look_at_whole(handle, field->target, look);
    return result || has_scope(field, scope, look) ? result : NOT_SUPPORTED;
}

static void read_field(const Handle *handle, FieldValue *value) {
    memset(value->value.bytes, GARBAGE, sizeof value->value.bytes);
    const Field *field = field_of(value->field_id);
    Look look;
    value->result = look_at_field(handle, field, value->scope_id, &look);
    if (value->result)
        return;
    value->timestamp_us = (long long)(look.now_ns / 1000u);
    value->latency_us = 0;
    value->value_type = field->type;
    uint64_t reading = figure(&look, field->target, scoped(field, &look));
    if (field->type == UNSIGNED_INT)
        value->value.u32 = (unsigned int)reading;
    else
        value->value.u64 = reading;
}

EXPORT int nvmlDeviceGetFieldValues(const Handle *handle, int count, FieldValue *values) {
    Look look;
    int result = look_at(handle, TARGET_FIELDS, &look);
    for (int index = 0; !result && index < count; index++)
        read_field(handle, &values[index]);
    return result;
}
