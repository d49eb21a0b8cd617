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
} Field;

static uint64_t energy_mj(const Look *look) { return energy_uj_at(&look->device, look->now_ns) / 1000u; }
static uint64_t draw(const Look *look) { return draw_mw(&look->device); }
static uint64_t minimum(const Look *look) { return look->device.minimum_limit_mw; }
static uint64_t maximum(const Look *look) { return look->device.maximum_limit_mw; }
static uint64_t standard(const Look *look) { return look->device.default_limit_mw; }
static uint64_t enforced(const Look *look) { return enforced_limit_mw(&look->device); }
static uint64_t requested(const Look *look) { return look->device.requested_limit_mw; }
static uint64_t recovery(const Look *look) { return look->device.recovery_action; }

static const Field FIELDS[] = {
    {83, TARGET_ENERGY, UNSIGNED_LONG_LONG, energy_mj},
    {185, TARGET_POWER, UNSIGNED_INT, draw},
    {186, TARGET_POWER, UNSIGNED_INT, draw},
    {187, TARGET_LIMIT_CONSTRAINTS, UNSIGNED_INT, minimum},
    {188, TARGET_LIMIT_CONSTRAINTS, UNSIGNED_INT, maximum},
    {189, TARGET_LIMIT_CONSTRAINTS, UNSIGNED_INT, standard},
    {190, TARGET_ENFORCED_LIMIT, UNSIGNED_INT, enforced},
    {192, TARGET_LIMIT_CONSTRAINTS, UNSIGNED_INT, requested},
    {230, TARGET_RECOVERY_ACTION, UNSIGNED_INT, recovery},
};

static const Field *field_of(unsigned int id) {
    for (size_t index = 0; index < sizeof FIELDS / sizeof *FIELDS; index++)
        if (FIELDS[index].id == id)
            return &FIELDS[index];
    return NULL;
}

static void read_field(const Handle *handle, FieldValue *value) {
    memset(value->value.bytes, GARBAGE, sizeof value->value.bytes);
    const Field *field = field_of(value->field_id);
    Look look;
    value->result = field && !value->scope_id ? look_at(handle, field->target, &look) : NOT_SUPPORTED;
    if (value->result)
        return;
    value->timestamp_us = (long long)(look.now_ns / 1000u);
    value->latency_us = 0;
    value->value_type = field->type;
    uint64_t reading = figure(&look, field->target, field->of(&look));
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
